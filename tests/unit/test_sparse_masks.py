import pytest
import torch
from torch import nn

from east.config.run import CycleSpec, TopologySpec
from east.engine.arithmetic import PyTorchArithmetic
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import MaskedConv2d, MaskedLinear, apply_masks, masked_layers
from east.sparse.masks import Allocation, initialise_masks, nonzeros, update_masks
from east.sparse.timetable import MaskUpdate
from east.sparse.topology import TOPOLOGIES
from east.training.assembly import initial_model
from east.training.describe import mask_updater
from tests.unit.cost_specs import make_spec
from tests.unit.optimizers import Adam, Sgd

RIGL = TOPOLOGIES["rigl"]


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        MaskedConv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        MaskedConv2d(8, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        MaskedLinear(8, 4),
    )


def allocation_of(layers):
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    return Allocation(shapes, "erk", sum(layer.weight.numel() for layer in layers.values()))


def sgd(model, active):
    return Sgd(
        model.parameters(), active, arithmetic=PyTorchArithmetic(), momentum=0.9, nesterov=True, weight_decay=1e-2
    )


def adam(model, active):
    return Adam(model.parameters(), active, arithmetic=PyTorchArithmetic(), weight_decay=1e-2)


def train_step(model, active, optimizer, step):
    draw = generator(1, "batch", step)
    optimizer.zero_grad()
    logits = model(torch.randn(6, 3, 6, 6, generator=draw))
    nn.functional.cross_entropy(logits, torch.randint(0, 4, (6,), generator=draw)).backward()
    for weights in active.values():
        weights.take_gradient()
    optimizer.step(0.01)


def assert_off_weights_are_clean(layers):
    for layer in layers.values():
        assert (layer.weight[~layer.mask] == 0).all()
        assert not torch.signbit(layer.weight[~layer.mask]).any()


def test_random_masks_have_exact_counts_and_depend_on_the_seed_only():
    layers = masked_layers(small_network())
    counts = allocation_of(layers).counts(0.2)
    initialise_masks(layers, counts, seed=3)
    assert {name: int(layer.mask.sum()) for name, layer in layers.items()} == counts
    first = {name: layer.mask.clone() for name, layer in layers.items()}
    initialise_masks(layers, counts, seed=3)
    assert all(torch.equal(first[name], layer.mask) for name, layer in layers.items())
    initialise_masks(layers, counts, seed=4)
    assert not all(torch.equal(first[name], layer.mask) for name, layer in layers.items())


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
@pytest.mark.parametrize("rule", [TOPOLOGIES["rigl"], TOPOLOGIES["set"]], ids=["rigl", "set"])
def test_invariants_hold_through_hundreds_of_steps_of_cycles_and_exchanges(make_optimizer, rule):
    model = small_network()
    layers = masked_layers(model)
    allocation = allocation_of(layers)
    initialise_masks(layers, allocation.counts(0.1), seed=1)
    active = active_weights(layers)
    optimizer = make_optimizer(model, active)
    for step in range(1, 241):
        train_step(model, active, optimizer, step)
        assert_off_weights_are_clean(layers)
        if step % 6:
            continue
        before = {name: int(layer.mask.sum()) for name, layer in layers.items()}
        cyclic = step <= 120
        density = 0.1 + 0.004 * min(step, 120 - step) if cyclic else 0.1
        update = MaskUpdate(step, "cycle" if cyclic else "exchange", density)
        change = update_masks(layers, update, allocation=allocation, drop_fraction=0.4, rule=rule, seed=1)
        apply_masks(layers)
        optimizer.masks_changed()
        after = {name: int(layer.mask.sum()) for name, layer in layers.items()}
        assert after == (allocation.counts(density) if cyclic else before)
        assert change.nonzeros == nonzeros(layers) == round(density * allocation.dense_weights)
        assert change.nonzeros == sum(before.values()) + change.grown - change.dropped
        assert 0 <= change.blind_growth <= change.grown
        assert_off_weights_are_clean(layers)


def test_a_grown_weight_starts_at_zero_with_a_clean_state_and_one_that_stays_keeps_its_value():
    model = small_network()
    layers = masked_layers(model)
    allocation = allocation_of(layers)
    initialise_masks(layers, allocation.counts(0.2), seed=1)
    active = active_weights(layers)
    optimizer = sgd(model, active)
    for step in range(5):
        train_step(model, active, optimizer, step)
    old = {name: (layer.mask.clone(), layer.weight.detach().clone()) for name, layer in layers.items()}
    update_masks(layers, MaskUpdate(5, "exchange", 0.2), allocation=allocation, drop_fraction=0.5, rule=RIGL, seed=1)
    apply_masks(layers)
    optimizer.masks_changed()
    grown = 0
    for name, layer in layers.items():
        mask, weight = old[name]
        new = layer.mask & ~mask
        grown += int(new.sum())
        assert (layer.weight[new] == 0).all()
        momentum = optimizer.state[layer.weight]["momentum"][: len(active[name].values)]
        assert (momentum[new[layer.mask]] == 0).all()
        assert momentum[~new[layer.mask]].all()
        assert torch.equal(layer.weight[layer.mask & mask], weight[layer.mask & mask])
    assert grown > 0


def linear(gradient=None, size=10, active=20):
    """A layer with random masks, by name, and how a density is spread over it."""
    layers = {"layer": MaskedLinear(size, size)}
    initialise_masks(layers, {"layer": active}, seed=0)
    layers["layer"].weight.grad = None if gradient is None else torch.full((size, size), gradient)
    return layers, Allocation({"layer": (size, size)}, "uniform", size**2)


EXCHANGE = MaskUpdate(1, "exchange", 0.2)


@pytest.mark.parametrize(
    ("rule", "gradient", "blind"),
    [("rigl", 0.0, True), ("rigl", None, True), ("rigl", 1.0, False), ("set", 1.0, True)],
    ids=["no gradient flows", "no gradient", "a gradient", "not looked at"],
)
def test_growth_without_a_gradient_is_counted_as_blind(rule, gradient, blind):
    layers, allocation = linear(gradient)
    change = update_masks(layers, EXCHANGE, allocation=allocation, drop_fraction=0.5, rule=TOPOLOGIES[rule], seed=0)
    # Of the ten that are dropped some may grow again at once.
    assert (change.nonzeros, change.frozen_layers) == (20, 0)
    assert change.grown == change.dropped > 0
    assert change.blind_growth == change.grown * blind


def test_active_zeros_are_those_before_the_update():
    layers, allocation = linear(1.0)
    with torch.no_grad():
        layers["layer"].weight[layers["layer"].mask] = torch.tensor([0.0] * 3 + [1.0] * 17)
    # Twenty weights more, all of them zero: they are off before it.
    change = update_masks(
        layers, MaskUpdate(1, "cycle", 0.4), allocation=allocation, drop_fraction=0.5, rule=RIGL, seed=0
    )
    assert (change.active_zeros, change.grown) == (3, 20)


def test_ties_are_drawn_for_every_tensor_and_step_anew():
    """Without a gradient everything is a tie, so masks differ by nothing but what they are drawn from."""

    def masks_after(step, seed=0):
        layers = {name: MaskedLinear(20, 20) for name in ("one", "other")}
        for layer in layers.values():
            torch.nn.init.ones_(layer.weight)
            layer.mask.copy_(torch.arange(400).view(20, 20) < 40)
        allocation = Allocation(dict.fromkeys(layers, (20, 20)), "uniform", 800)
        update_masks(
            layers, MaskUpdate(step, "exchange", 0.1), allocation=allocation, drop_fraction=0.5, rule=RIGL, seed=seed
        )
        return [layer.mask for layer in layers.values()]

    one, other = masks_after(1)
    assert not torch.equal(one, other)
    assert not torch.equal(one, masks_after(2)[0])
    assert not torch.equal(one, masks_after(1, seed=1)[0])
    assert torch.equal(one, masks_after(1)[0])


# The masks of a run


def updater_of(spec, steps_per_epoch=10):
    masks = mask_updater(initial_model(spec, 10), spec, steps_per_epoch)
    masks.initialise()
    return masks


def exchanging(**changes):
    spec = make_spec(width=4, density=0.05, update_period=10)
    return spec.model_copy(update={"sparsity": spec.sparsity.model_copy(update=changes)})


def cycling(update_period=2, **changes):
    cycle = CycleSpec(pattern="triangular", multiplier=4, cycles=1, cycle_length=2, update_period=update_period)
    return exchanging(**changes).model_copy(update={"cycle": cycle})


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, [10, 20, 30]),
        ({"topology": "set"}, []),
        ({"topology": "fixed"}, []),
        ({"drop_fraction": 0.0, "drop_fraction_end": 0.0}, []),
        ({"update_on_last_step": True}, [10, 20, 30, 40]),
    ],
    ids=["rigl", "set", "fixed", "nothing dropped", "last step"],
)
def test_exchanges_need_the_gradient_where_weights_grow_by_it(changes, steps):
    masks = updater_of(exchanging(**changes))
    assert [step for step in range(1, 41) if masks.needs_gradient(step)] == steps


def test_a_cycle_needs_the_gradient_while_the_density_rises_and_not_while_it_falls():
    masks = updater_of(cycling())
    needed = []
    for step in range(1, 21):
        asked = masks.needs_gradient(step)
        before = {name: layer.mask.clone() for name, layer in masks.layers.items()}
        masks.update(step)
        grown = any((layer.mask & ~before[name]).any() for name, layer in masks.layers.items())
        assert asked == grown
        needed += [step] * asked
    assert needed == [2, 4, 6, 8, 10]
    assert sum(phase.dense_gradients for phase in masks.timetable.phases()) == len(needed) + 1  # and one exchange


def test_a_rule_that_drops_by_gradient_gets_it_and_needs_it_where_weights_are_dropped():
    topology = TopologySpec(drop="magnitude_and_gradient", grow="random", initial="zero")
    masks, needed = updater_of(cycling(topology=topology)), []
    for step in range(1, 31):
        asked = masks.needs_gradient(step)
        before = {name: layer.mask.clone() for name, layer in masks.layers.items()}
        for layer in masks.layers.values():
            torch.nn.init.ones_(layer.weight)
            layer.weight.grad = torch.arange(1.0, layer.weight.numel() + 1).view(layer.weight.shape)
        if masks.update(step) is None:
            continue
        dropped = {name: before[name] & ~layer.mask for name, layer in masks.layers.items()}
        if step < 30:  # in an exchange, what is dropped may grow again
            assert asked == any(mask.any() for mask in dropped.values())
            for name, layer in masks.layers.items():
                kept = layer.weight.grad[before[name] & layer.mask]
                assert not dropped[name].any() or layer.weight.grad[dropped[name]].max() < kept.min()
        needed += [step] * asked
    assert needed == [14, 16, 18, 20, 30]  # the peak lies between 10 and 12
    phases = updater_of(cycling(update_period=3, topology=topology)).timetable.phases()
    assert sum(phase.dense_gradients for phase in phases) == 4  # after steps 15, 18, 20 and 30


def test_tensors_that_stay_as_they_are_are_counted_as_frozen():
    layers = {"moves": MaskedLinear(2, 1), "full": MaskedLinear(2, 2), "stays": MaskedLinear(3, 1)}
    initialise_masks(layers, {"moves": 1, "full": 4, "stays": 1}, seed=0)
    layers["stays"].weight.grad = torch.where(layers["stays"].mask, 9.0, 0.0)
    layers["moves"].weight.grad = torch.where(layers["moves"].mask, 0.0, 9.0)
    allocation = Allocation({name: tuple(layer.weight.shape) for name, layer in layers.items()}, "uniform", 9)
    change = update_masks(
        layers, MaskUpdate(1, "exchange", 0.5), allocation=allocation, drop_fraction=1.0, rule=RIGL, seed=0
    )
    assert (change.nonzeros, change.dropped, change.grown, change.frozen_layers) == (6, 1, 1, 2)


@pytest.mark.parametrize("spec", [exchanging(), cycling()], ids=["exchange", "cycle"])
def test_no_tensor_ever_has_more_active_weights_than_at_the_peak(spec):
    masks = updater_of(spec)
    most = {name: int(layer.mask.sum()) for name, layer in masks.layers.items()}
    for step in range(1, 41):
        for layer in masks.layers.values():
            layer.weight.grad = torch.ones_like(layer.weight)
        masks.update(step)
        most = {name: max(most[name], int(layer.mask.sum())) for name, layer in masks.layers.items()}
    peak = masks.peak_counts()
    assert all(0.9 * peak[name] <= count <= peak[name] for name, count in most.items())
