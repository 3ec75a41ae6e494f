import copy

import pytest
import torch
from torch import nn

from east.config.run import ClipSpec
from east.engine import Gradients
from east.engine.dense import DenseEngine
from east.engine.formats import network_format
from east.models import build_model
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import apply_masks, masked_layers
from east.training.clip import GradientClip
from east.training.step import TrainingStep
from tests.unit.optimizers import Sgd
from tests.unit.sparse_engines import CPU, draw_masks

SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}


def network():
    torch.manual_seed(0)
    model = build_model("resnet34", 10, width=4)
    draw_masks(model, 0.1)
    return model


def step_of(model, clip, make_engine=DenseEngine):
    active = active_weights(masked_layers(model))
    engine = make_engine(model, active, numerics="fp32", device=CPU)
    found = None if clip is None else GradientClip(clip, active, 1, engine.arithmetic)
    optimizer = Sgd(model.parameters(), active, arithmetic=engine.arithmetic, **SGD)
    return TrainingStep(engine, optimizer, active, found)


def batch(number):
    draw = generator(0, "batch", number)
    return torch.randn(8, 3, 8, 8, generator=draw), torch.randint(10, (8,), generator=draw)


@pytest.mark.parametrize("norm", [0.01, 1.0, None], ids=["tight", "of the paper", "none"])
def test_steps_are_those_of_a_masked_dense_training_with_torch(norm):
    """Three steps of the authors' procedure, written out with PyTorch's own optimizer and clip."""
    model = network()
    memory_format = network_format(model, CPU)
    reference = copy.deepcopy(model).to(memory_format=memory_format)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, fused=True, **SGD)
    step = step_of(model, None if norm is None else ClipSpec(norm=norm, scope="dense", estimator="exact"))
    for number in range(1, 4):
        images, labels = batch(number)
        loss, correct = step(images, labels, 0.1, number, dense_gradients=False)
        optimizer.zero_grad()
        logits = reference(images.contiguous(memory_format=memory_format))
        expected = nn.functional.cross_entropy(logits, labels)
        expected.backward()
        if norm is not None:
            nn.utils.clip_grad_norm_(reference.parameters(), norm)
        optimizer.step()
        apply_masks(masked_layers(reference))
        torch.testing.assert_close(loss, 8 * expected.detach(), rtol=1e-4, atol=0)
        assert int(correct) == int((logits.argmax(1) == labels).sum())
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


class Frugal(DenseEngine):
    """Leaves nothing but what it is asked for."""

    def gradients(self, images, criterion, request):
        found = super().gradients(images, criterion, request)
        for weights in self.active.values():
            if request.dense:
                weights.gradient = weights.gradient.clone()
            else:
                weights.layer.weight.grad = None
        return Gradients(found.loss, found.logits, found.squared_norms)


@pytest.mark.parametrize(
    "clip",
    [
        None,
        ClipSpec(norm=0.1, scope="dense"),
        ClipSpec(norm=0.1, scope="dense", estimator="exact"),
        ClipSpec(norm=0.1, scope="active"),
    ],
    ids=["none", "sketch", "exact", "active"],
)
def test_a_step_needs_no_dense_gradient_that_it_has_not_asked_for(clip):
    one, other = network(), network()
    steps = step_of(one, clip), step_of(other, clip, Frugal)
    for number in range(1, 4):
        for step in steps:
            step(*batch(number), 0.1, number, dense_gradients=number == 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
