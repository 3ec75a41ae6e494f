import pytest
import torch
from torch import nn

from east.engine.arithmetic import PyTorchArithmetic
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import MaskedConv2d, MaskedLinear, apply_masks, masked_layers
from east.sparse.masks import Allocation, initialise_masks, nonzeros, update_masks
from east.sparse.timetable import MaskUpdate
from east.sparse.topology import TOPOLOGIES, grow_by_gradient
from east.training.optimizer import Adam, Sgd


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


def test_masks_are_saved_and_loaded_with_the_module():
    model = small_network()
    initialise_masks(masked_layers(model), allocation_of(masked_layers(model)).counts(0.2), seed=3)
    other = small_network()
    other.load_state_dict(model.state_dict())
    for a, b in zip(masked_layers(model).values(), masked_layers(other).values(), strict=True):
        assert torch.equal(a.mask, b.mask)


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
@pytest.mark.parametrize("rule", [TOPOLOGIES["rigl"], TOPOLOGIES["set"]], ids=["rigl", "set"])
def test_invariants_hold_through_hundreds_of_steps_of_cycles_and_exchanges(make_optimizer, rule):
    model = small_network()
    layers = masked_layers(model)
    allocation = allocation_of(layers)
    initialise_masks(layers, allocation.counts(0.1), seed=1)
    active = active_weights(layers)
    optimizer = make_optimizer(model, active)
    settings = {"allocation": allocation, "drop_fraction": 0.4, "seed": 1}
    settings |= {"grow": rule.grow, "needs_gradient": rule.needs_gradient}
    for step in range(1, 241):
        train_step(model, active, optimizer, step)
        assert_off_weights_are_clean(layers)
        if step % 6:
            continue
        before = {name: int(layer.mask.sum()) for name, layer in layers.items()}
        cyclic = step <= 120
        density = 0.1 + 0.004 * min(step, 120 - step) if cyclic else 0.1
        update = MaskUpdate(step, "cycle" if cyclic else "exchange", density)
        change = update_masks(layers, update, **settings)
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
    update_masks(
        layers,
        MaskUpdate(5, "exchange", 0.2),
        allocation=allocation,
        drop_fraction=0.5,
        grow=grow_by_gradient,
        needs_gradient=True,
        seed=1,
    )
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


def test_growth_where_no_gradient_flows_is_counted_as_blind():
    layer = MaskedLinear(10, 10)
    layers = {"layer": layer}
    initialise_masks(layers, {"layer": 20}, seed=0)
    layer.weight.grad = torch.zeros(10, 10)
    allocation = Allocation({"layer": (10, 10)}, "uniform", 100)
    settings = {"allocation": allocation, "drop_fraction": 0.5, "grow": grow_by_gradient, "seed": 0}
    change = update_masks(layers, MaskUpdate(1, "exchange", 0.2), needs_gradient=True, **settings)
    assert change.grown == change.dropped == change.blind_growth > 0
    assert change.frozen_layers == 0


def test_a_weight_without_a_gradient_counts_as_having_a_zero_one():
    layers = {"layer": MaskedLinear(4, 4)}
    initialise_masks(layers, {"layer": 4}, seed=0)
    allocation = Allocation({"layer": (4, 4)}, "uniform", 16)
    change = update_masks(
        layers,
        MaskUpdate(1, "cycle", 0.5),
        allocation=allocation,
        drop_fraction=0.5,
        grow=grow_by_gradient,
        needs_gradient=True,
        seed=0,
    )
    assert (change.nonzeros, change.grown, change.blind_growth) == (8, 4, 4)


def test_random_growth_is_blind_whatever_gradient_an_engine_has_left():
    layers = {"layer": MaskedLinear(10, 10)}
    initialise_masks(layers, {"layer": 20}, seed=0)
    layers["layer"].weight.grad = torch.ones(10, 10)
    rule = TOPOLOGIES["set"]
    change = update_masks(
        layers,
        MaskUpdate(1, "exchange", 0.2),
        allocation=Allocation({"layer": (10, 10)}, "uniform", 100),
        drop_fraction=0.5,
        grow=rule.grow,
        needs_gradient=rule.needs_gradient,
        seed=0,
    )
    assert change.blind_growth == change.grown > 0
