import math

import pytest
import torch
from torch import nn

from east.config.run import ClipSpec, OptimizerSpec, TrainingSpec
from east.sparse.layers import MaskedLinear, masked_layers
from east.training.recipe import clip_gradients, learning_rate


def recipe(**changes):
    settings = {
        "epochs": 250,
        "batch_size": 128,
        "lr": 0.1,
        "lr_drop_epochs": (75, 150),
        "lr_drop_factor": 0.1,
        "optimizer": OptimizerSpec(name="sgd"),
        "weight_decay": 1e-4,
        "gradient_clip": None,
        "numerics": "tf32",
    }
    return TrainingSpec(**(settings | changes))


@pytest.mark.parametrize(("epoch", "lr"), [(1, 0.1), (75, 0.1), (76, 0.01), (150, 0.01), (151, 0.001), (250, 0.001)])
def test_the_learning_rate_drops_after_the_drop_epochs(epoch, lr):
    assert learning_rate(epoch, recipe()) == lr


def test_without_drops_the_learning_rate_stays():
    assert learning_rate(200, recipe(lr_drop_epochs=())) == 0.1


@pytest.fixture
def network():
    """A masked weight with gradient (3, 4), of which 3 is active, and a bias with gradient (12, 0)."""
    layer = MaskedLinear(2, 1, bias=False)
    layer.mask.copy_(torch.tensor([[True, False]]))
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    other = nn.Linear(2, 1)
    other.weight.grad = torch.tensor([[12.0, 0.0]])
    return nn.ModuleList([layer, other])


@pytest.mark.parametrize(
    ("clip", "norm"),
    [
        (ClipSpec(norm=1.0, scope="dense"), 13.0),
        (ClipSpec(norm=1.0, scope="active"), math.sqrt(153)),
        (ClipSpec(norm=100.0, scope="dense"), 100.0),
        (None, 1.0),
    ],
    ids=["dense", "active", "loose", "none"],
)
def test_gradients_are_scaled_by_the_norm_of_the_chosen_scope(network, clip, norm):
    scale = 1.0 if clip is None or clip.norm == 100.0 else clip.norm / norm
    clip_gradients(network.parameters(), masked_layers(network), clip)
    # The gradient of the off weight is scaled as well: growth compares it with the others.
    assert network[0].weight.grad.tolist()[0] == pytest.approx([3 * scale, 4 * scale], rel=1e-5)
    assert network[1].weight.grad.tolist()[0] == pytest.approx([12 * scale, 0.0], rel=1e-5)
