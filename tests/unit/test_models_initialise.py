"""The weights a training starts from."""

import hashlib
import math

import pytest
import torch
from torch import nn

from east.data.images import digest_tensors
from east.errors import EastError
from east.models import build_model
from east.models.initialise import initialise
from east.seeding import generator
from east.sparse.layers import masked_layers
from tests.unit.sparse_engines import draw_masks

NAMES = "eaf0f1dbc0d3c6dd1ee194d56eedf6576386b59dd7b80a025ca9773eb2d91273"
STATE = "7d6ecd1a0c5939feabe96fc60d5a1913f51559a2d44f9bf44d6212b90ffdb39b"


def initialised(seed=17, **settings):
    model = build_model("resnet34", 10, width=8, **settings)
    initialise(model, seed)
    return model


def test_names_weights_and_masks_of_a_network_never_change():
    """All three seed or are drawn from the random bits of a run: another digest is another REVISION."""
    model = initialised(activation="dyrelu", sharing_ratio=2)
    draw_masks(model, 0.01, seed=17)
    names = [name for name, _ in model.named_parameters()]
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == NAMES
    assert digest_tensors(model.state_dict()) == STATE


def test_a_weight_is_drawn_by_its_name_alone():
    plain, other = initialised(), initialised(activation="dyrelu", sharing_ratio=2)
    shared = {name for name, _ in other.named_parameters()} & {name for name, _ in plain.named_parameters()}
    assert len(shared) > 20
    for name in shared:
        assert torch.equal(plain.get_parameter(name), other.get_parameter(name))
    numbers = torch.cat([layer.weight.flatten() for layer in masked_layers(plain).values()])
    assert len(numbers.unique()) > 0.99 * len(numbers)


def test_other_seeds_give_other_weights_and_what_was_there_does_not_matter():
    model = initialised(1, activation="dyrelu")
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    initialise(model, 1)
    assert all(torch.equal(first[name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.equal(first["conv1.weight"], initialised(2).conv1.weight)


def test_weights_are_uniform_by_fan_in_and_rounded_once():
    layer = nn.Linear(50, 30)
    initialise(layer, 3)
    bound = 1 / math.sqrt(50)
    drawn = generator(3, "initialise", "weight").uniform(1500)
    assert torch.equal(layer.weight.detach().flatten(), ((2 * drawn - 1) * bound).float())
    assert layer.bias.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_dct_layers_start_at_their_fixed_matrix():
    model = initialised(dct=True, sharing_ratio=2)
    assert all(layer.weight.eq(0).all() for layer in masked_layers(model).values())
    assert all(alpha == 1 for name, alpha in model.named_parameters() if "alpha" in name)
    assert model.classifier.sparse.bias.abs().min() > 0


def test_a_parameter_without_a_law_is_refused():
    with pytest.raises(EastError, match=r"\b0\.weight\b"):
        initialise(nn.Sequential(nn.PReLU()), 1)
