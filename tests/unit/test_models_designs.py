"""What is known of a network without building it equals the network that is built."""

import itertools

import pytest
import torch

from east.config.vocabulary import ModelName, names_of
from east.models import build_model
from east.models.designs import last_positions, network_size
from east.models.sharing import owned_weights, virtual_weights
from east.sparse.layers import masked_layers

NETWORKS = names_of(ModelName)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("width", "sharing", "dct"), list(itertools.product((4, 6), (None, 2, 4), (False, True))))
def test_shapes_and_weights_are_those_of_the_network(name, width, sharing, dct):
    with torch.device("meta"):
        model = build_model(name, 7, width=width, sharing_ratio=sharing, dct=dct)
    size = network_size(name, 7, width=width, sharing_ratio=sharing, dct=dct)
    layers = masked_layers(model)
    assert list(size.shapes.items()) == [(layer, tuple(layers[layer].weight.shape)) for layer in layers]
    assert size.stored_weights == owned_weights(model)
    assert size.dense_weights == owned_weights(model) + virtual_weights(model)


def test_nothing_is_shared_and_nothing_has_a_dct_unless_asked_for():
    assert network_size("resnet34", 7, width=4) == network_size("resnet34", 7, width=4, sharing_ratio=None, dct=False)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sides", [(12, 12), (8, 16), (5, 7), (1, 33)])
def test_the_positions_of_the_last_stage_are_those_that_are_averaged(name, sides):
    seen = []
    with torch.device("meta"):
        model = build_model(name, 2, width=2)
        list(model.blocks())[-1][0].register_forward_hook(lambda block, given, output: seen.append(output.shape[2:]))
        model(torch.empty(2, 3, *sides))
    assert last_positions(name, *sides) == seen[0].numel()
