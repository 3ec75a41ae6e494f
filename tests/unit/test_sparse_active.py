import pytest
import torch

from east.sparse.active import ActiveWeights, active_weights
from east.sparse.layers import MaskedConv2d, MaskedLinear, apply_masks

FORMATS = [torch.contiguous_format, torch.channels_last]


def masked_conv(memory_format=torch.contiguous_format, density=0.2, in_channels=5, kernel_size=3):
    """A convolution with weights that are no multiple of eight in number, laid out as asked."""
    draw = torch.Generator().manual_seed(1)
    layer = MaskedConv2d(in_channels, 7, kernel_size)
    layer.weight.data.normal_(generator=draw)
    layer.mask.copy_(torch.rand(layer.mask.shape, generator=draw) < density)
    apply_masks({"": layer})
    return layer.to(memory_format=memory_format)


def coordinates(layer, positions):
    """The indices into the weight that lie at these positions in its memory."""
    numbers = torch.arange(layer.weight.numel()).as_strided(layer.weight.shape, layer.weight.stride())
    return torch.isin(numbers, positions)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("in_channels", "kernel_size"), [(5, 3), (1, 3), (5, 1)])
def test_positions_are_those_of_the_mask_in_the_weights_memory(memory_format, in_channels, kernel_size):
    layer = masked_conv(memory_format, in_channels=in_channels, kernel_size=kernel_size)
    weights = ActiveWeights(layer)
    assert torch.equal(weights.positions, weights.positions.unique())
    assert torch.equal(coordinates(layer, weights.positions), layer.mask)
    assert sorted(weights.values.tolist()) == sorted(layer.weight[layer.mask].tolist())


def test_a_mask_may_be_laid_out_in_another_way_than_the_weight():
    layer = masked_conv(torch.channels_last)
    layer.mask = layer.mask.contiguous()
    assert torch.equal(coordinates(layer, ActiveWeights(layer).positions), layer.mask)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_values_are_written_back_to_active_weights_only(memory_format):
    layer = masked_conv(memory_format)
    weights = ActiveWeights(layer)
    expected = torch.where(layer.mask, layer.weight.detach() * 3, 0)
    weights.values.mul_(3)
    weights.write_back()
    assert torch.equal(layer.weight, expected)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("gradient_format", FORMATS)
def test_the_gradient_is_that_of_active_weights_in_the_order_of_the_values(weight_format, gradient_format):
    layer = masked_conv(weight_format)
    weights = ActiveWeights(layer)
    layer.weight.grad = (2 * layer.weight.detach()).to(memory_format=gradient_format)
    weights.take_gradient()
    assert torch.equal(weights.gradient, 2 * weights.values)


def test_no_gradient_stays_no_gradient():
    weights = ActiveWeights(masked_conv())
    weights.take_gradient()
    assert weights.gradient is None


@pytest.mark.parametrize("memory_format", FORMATS)
def test_where_all_are_active_values_and_gradient_are_views(memory_format):
    layer = masked_conv(memory_format, density=1.1)
    weights = ActiveWeights(layer)
    layer.weight.grad = torch.zeros_like(layer.weight)
    weights.take_gradient()
    weights.values.fill_(2)
    weights.gradient.fill_(3)
    assert weights.positions is None
    assert (layer.weight == 2).all()
    assert (layer.weight.grad == 3).all()


def test_weights_that_stay_keep_what_belongs_to_them_and_grown_ones_get_zeros():
    layer = MaskedLinear(6, 1)
    layer.mask.copy_(torch.tensor([[1, 0, 1, 1, 0, 0]]))
    weights = ActiveWeights(layer)
    layer.mask.copy_(torch.tensor([[0, 1, 1, 0, 1, 0]]))
    old = weights.read()
    assert old.tolist() == [0, 2, 3]
    assert weights.carry_over(torch.tensor([10.0, 20.0, 30.0]), old).tolist() == [0, 20, 0]


@pytest.mark.parametrize(
    ("before", "after", "carried"),
    [
        ([1, 1, 1], [1, 1, 1], [1, 2, 3]),
        ([1, 1, 1], [0, 1, 1], [2, 3]),
        ([0, 1, 1], [1, 1, 1], [0, 1, 2]),
        ([0, 0, 0], [0, 1, 0], [0]),
        ([0, 1, 0], [0, 0, 0], []),
    ],
    ids=["full", "first pruning", "full again", "from nothing", "to nothing"],
)
def test_what_belongs_to_weights_is_carried_to_and_from_full_and_empty_masks(before, after, carried):
    layer = MaskedLinear(3, 1)
    layer.mask.copy_(torch.tensor([before]))
    weights = ActiveWeights(layer)
    layer.mask.copy_(torch.tensor([after]))
    old = weights.read()
    assert weights.carry_over(torch.arange(1.0, sum(before) + 1), old).tolist() == carried


@pytest.mark.parametrize("density", [0.2, 1.1])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_row_major_order_is_that_of_a_contiguous_weight(memory_format, density):
    weights = ActiveWeights(masked_conv(memory_format, density))
    expected = ActiveWeights(masked_conv(torch.contiguous_format, density)).values
    assert torch.equal(weights.to_row_major(weights.values), expected)
    assert torch.equal(weights.from_row_major(expected), weights.values)


def test_layers_keep_their_names():
    layer = masked_conv()
    assert active_weights({"conv": layer})["conv"].layer is layer
