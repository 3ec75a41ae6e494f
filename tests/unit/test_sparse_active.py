import pytest
import torch

from east.sparse.active import ActiveWeights, JointWeights, active_weights, take_gradients
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


@pytest.mark.parametrize("room", [None, 100])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_values_are_written_back_to_active_weights_only(memory_format, room):
    layer = masked_conv(memory_format)
    weights = ActiveWeights(layer, room)
    expected = torch.where(layer.mask, layer.weight.detach() * 3, 0)
    weights.values.mul_(3)
    weights.write_back()
    assert torch.equal(layer.weight, expected)


@pytest.mark.parametrize("in_channels", [5, 2])
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("gradient_format", FORMATS)
def test_the_gradient_is_that_of_active_weights_in_the_order_of_the_values(weight_format, gradient_format, in_channels):
    layer = masked_conv(weight_format, in_channels=in_channels)
    weights = ActiveWeights(layer)
    layer.weight.grad = (2 * layer.weight.detach()).to(memory_format=gradient_format)
    weights.take_gradient()
    assert torch.equal(weights.gradient, 2 * weights.values)
    weights.read()
    assert weights.gradient is None


def test_what_has_the_weights_layout_is_seen_and_other_tensors_are_copied_as_they_are():
    layer = masked_conv(torch.channels_last, density=1.1, in_channels=1)
    weights, numbers = ActiveWeights(layer), torch.arange(63).view(7, 1, 3, 3)
    assert numbers.stride() != layer.weight.stride()
    assert weights.gather(numbers).data_ptr() == numbers.data_ptr()
    wider = ActiveWeights(masked_conv(torch.channels_last, density=1.1, in_channels=2))
    assert wider.gather(torch.arange(126).view(7, 2, 3, 3)).tolist()[:4] == [0, 9, 1, 10]
    assert wider.gather(torch.arange(126).view(7, 2, 3, 3)).dtype == torch.int64


@pytest.mark.parametrize("memory_format", FORMATS)
def test_where_all_are_active_values_and_gradient_are_views(memory_format):
    layer = masked_conv(memory_format, density=1.1)
    weights = ActiveWeights(layer)
    assert not weights.is_static
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
    version = weights.version
    old = weights.read()
    assert (version, weights.version) == (1, 2)
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


@pytest.mark.parametrize(("density", "room"), [(0.2, None), (0.2, 100), (1.1, None)])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_row_major_order_is_that_of_a_contiguous_weight(memory_format, density, room):
    weights = ActiveWeights(masked_conv(memory_format, density), room)
    values, expected = weights.values[: weights.count], ActiveWeights(masked_conv(density=density)).values
    assert torch.equal(weights.to_row_major(values), expected)
    assert torch.equal(weights.from_row_major(expected), values)


@pytest.mark.parametrize(("density", "room"), [(0.2, None), (0.2, 100), (1.1, None)])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_numbers_of_active_weights_are_seen_in_the_shape_of_the_weight(memory_format, density, room):
    layer = masked_conv(memory_format, density)
    weights = ActiveWeights(layer, room)
    numbers = 3 * weights.values
    numbers[weights.count :] = torch.nan
    assert torch.equal(weights.scatter(numbers), torch.where(layer.mask, 3 * layer.weight.detach(), 0))


def pointers(weights):
    return [part.data_ptr() for part in (weights.positions, weights.values, weights.padding)]


def set_mask(layer, active):
    layer.mask.copy_((torch.arange(layer.weight.numel()) < active).view_as(layer.mask))
    apply_masks({"": layer})


@pytest.mark.parametrize("memory_format", FORMATS)
def test_room_that_is_left_over_points_at_an_off_weight_and_holds_zeros(memory_format):
    layer = masked_conv(memory_format)
    weights, fitting = ActiveWeights(layer, capacity=100), ActiveWeights(layer)
    assert weights.count == fitting.count == int(layer.mask.sum())
    assert len(weights.positions) == len(weights.values) == len(weights.padding) == 112  # whole blocks
    assert torch.equal(weights.positions[: weights.count], fitting.positions)
    assert torch.equal(weights.values[: weights.count], fitting.values)
    (place,) = weights.positions[weights.count :].unique()
    assert place not in fitting.positions
    assert not weights.values[weights.count :].any()
    assert torch.equal(weights.padding, torch.arange(112) >= weights.count)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_gradient_of_room_that_is_left_over_is_zero_whatever_the_off_weights_gradient(memory_format):
    layer = masked_conv(memory_format)
    weights, fitting = ActiveWeights(layer, capacity=100), ActiveWeights(layer)
    layer.weight.grad = torch.where(layer.mask, 3 * layer.weight.detach(), torch.nan)
    for each in (weights, fitting):
        each.take_gradient()
    assert torch.equal(weights.gradient[: weights.count], fitting.gradient)
    assert weights.gradient[weights.count :].tolist() == [0.0] * (112 - weights.count)


def test_gradients_taken_together_are_those_taken_one_by_one():
    rooms = {"one": 100, "two": 64, "full": 315, "without room": None, "without gradient": 64}
    layers = {name: masked_conv(density=1.1 if name == "full" else 0.1) for name in rooms}
    active = {name: ActiveWeights(layer, rooms[name]) for name, layer in layers.items()}
    for name, layer in layers.items():
        if name != "without gradient":
            layer.weight.grad = torch.full_like(layer.weight, torch.inf).masked_scatter_(
                layer.mask, torch.arange(315.0)
            )
    take_gradients(active.values())
    together = {name: weights.gradient for name, weights in active.items()}
    for name, weights in active.items():
        weights.take_gradient()
        assert together[name] is weights.gradient is None or torch.equal(together[name], weights.gradient)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_weights_in_joint_memory_are_written_back_together(memory_format):
    densities = {"sparse": 0.2, "sparser": 0.05, "full": 1.1}
    layers = {name: masked_conv(memory_format, density) for name, density in densities.items()}
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    active = active_weights(layers, {"sparse": 100, "sparser": 64, "full": 315})
    joint = JointWeights(active.values())
    first, *others = (layer.weight.data_ptr() for layer in layers.values())
    assert [(other - first) // 4 for other in others] == [320, 640]  # numbers, from one multiple of 64 to the next
    assert all(torch.equal(layer.weight, before[name]) for name, layer in layers.items())
    assert {layer.weight.stride() for layer in layers.values()} == {masked_conv(memory_format).weight.stride()}
    for number in range(3):
        for name, weights in active.items():
            weights.values.mul_(3)
            before[name] = 3 * before[name]
        joint.write_back()
        assert all(torch.equal(layer.weight, before[name]) for name, layer in layers.items())
        for name, layer in layers.items():
            layer.mask.copy_(
                torch.rand(layer.mask.shape, generator=torch.Generator().manual_seed(number)) < 0.1 + number
            )
            before[name] = torch.where(layer.mask, before[name], 0)
        apply_masks(layers)
        for weights in active.values():
            weights.read()
        joint.masks_changed()


def test_joint_positions_keep_their_memory_as_long_as_the_weights_do():
    layers = {"one": masked_conv(), "other": masked_conv()}
    joint = JointWeights(active := active_weights(layers, {"one": 100, "other": 64}).values())
    place = joint._positions.data_ptr()
    for layer, weights in zip(layers.values(), active, strict=True):
        set_mask(layer, 7)
        weights.read()
    joint.masks_changed()
    assert joint._positions.data_ptr() == place


def test_full_layers_in_joint_memory_need_no_writing_back():
    active = active_weights({"full": masked_conv(density=1.1)}, {"full": 315})
    joint = JointWeights(active.values())
    active["full"].values.fill_(2)
    joint.write_back()
    joint.masks_changed()
    assert (active["full"].layer.weight == 2).all()


def test_everything_is_made_where_the_weights_are():
    layers = {"one": masked_conv(), "other": masked_conv()}
    with torch.device("meta"):
        active = active_weights(layers, {"one": 100, "other": 64})
        joint = JointWeights(active.values())
        for layer, weights in zip(layers.values(), active.values(), strict=True):
            layer.mask[:2].fill_(True)
            old = weights.read()
            weights.carry_over(weights.values[: len(old)], old)
            weights.from_row_major(weights.to_row_major(weights.values[: weights.count]))
            layer.weight.grad = layer.weight.detach()
        take_gradients(active.values())
        joint.masks_changed()
        joint.write_back()
    assert {weights.gradient.device.type for weights in active.values()} == {"cpu"}


def test_memory_stays_when_the_mask_changes_within_the_room():
    layer = masked_conv()
    weights = ActiveWeights(layer, capacity=100)
    assert weights.is_static
    before, version = pointers(weights), weights.version
    for active in (3, 112, 0, 50):
        set_mask(layer, active)
        weights.read()
        assert weights.count == active
        assert torch.equal(weights.values[:active], layer.weight.detach().flatten()[:active])
        assert not weights.values[active:].any()
        assert (weights.positions[active:] == active).all()
    assert (pointers(weights), weights.version) == (before, version)


def test_more_active_weights_than_room_get_memory_of_at_least_twice_the_size():
    layer = masked_conv()
    weights = ActiveWeights(layer, capacity=64)
    version = weights.version
    set_mask(layer, 65)
    weights.read()
    assert (weights.count, len(weights.values)) == (65, 128)
    assert weights.version > version
    set_mask(layer, 129)
    weights.read()
    assert (weights.count, len(weights.values)) == (129, 256)


@pytest.mark.parametrize("room", [16, 315])
def test_a_full_mask_is_the_weight_itself_until_it_is_pruned_for_the_first_time(room):
    layer = masked_conv(density=1.1)
    weights = ActiveWeights(layer, capacity=room)
    version, numel = weights.version, layer.weight.numel()
    assert numel == 315
    assert weights.positions is None
    assert weights.is_full
    assert weights.values.data_ptr() == layer.weight.data_ptr()
    set_mask(layer, 300)
    momentum = torch.arange(315.0)
    carried = weights.carry_over(momentum, weights.read())
    assert torch.equal(carried, momentum[:300])
    assert weights.version > version
    assert not weights.is_full
    version, before = weights.version, len(weights.values)
    set_mask(layer, 315)
    old = weights.read()
    assert weights.is_full
    assert torch.equal(weights.carry_over(carried, old), torch.where(momentum < 300, momentum, 0))
    assert torch.equal(weights.positions, torch.arange(315))
    assert (weights.version > version) == (before < 315)
