import pytest
import torch
from cost_specs import make_spec

from east.config.run import CycleSpec
from east.training.loop import initial_model
from east.training.sparsity import SparseTraining

STEPS_PER_EPOCH = 10


def sparsity_of(spec):
    torch.manual_seed(0)
    sparsity = SparseTraining.of(initial_model(spec, 10), spec, STEPS_PER_EPOCH)
    sparsity.initialise()
    return sparsity


def exchanging(**changes):
    spec = make_spec(width=4, density=0.05, update_period=10)
    return spec.model_copy(update={"sparsity": spec.sparsity.model_copy(update=changes)})


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
    sparsity = sparsity_of(exchanging(**changes))
    assert [step for step in range(1, 41) if sparsity.needs_gradient(step)] == steps


def cycling():
    cycle = CycleSpec(
        pattern="triangular",
        multiplier=4,
        cycles=1,
        cycle_length=2,
        length_multiplier=1,
        update_period=2,
        end="target",
    )
    return make_spec(width=4, density=0.05, update_period=10).model_copy(update={"cycle": cycle})


def test_a_cycle_needs_the_gradient_while_the_density_rises_and_not_while_it_falls():
    sparsity = sparsity_of(cycling())
    needed = []
    for step in range(1, 21):
        asked = sparsity.needs_gradient(step)
        before = {name: layer.mask.clone() for name, layer in sparsity.layers.items()}
        sparsity.update(step)
        grown = any((layer.mask & ~before[name]).any() for name, layer in sparsity.layers.items())
        assert asked == grown
        needed += [step] * asked
    assert needed == [2, 4, 6, 8, 10]


def test_random_growth_does_not_depend_on_the_gradient_that_is_there():
    masks = []
    for fill in (None, 1.0):
        sparsity = sparsity_of(exchanging(topology="set"))
        for layer in sparsity.layers.values():
            layer.weight.grad = None if fill is None else torch.full_like(layer.weight, fill)
        _, change = sparsity.update(10)
        masks.append((change, [layer.mask for layer in sparsity.layers.values()]))
    assert masks[0][0] == masks[1][0]
    assert all(torch.equal(a, b) for a, b in zip(masks[0][1], masks[1][1], strict=True))


@pytest.mark.parametrize("spec", [exchanging(), cycling()], ids=["exchange", "cycle"])
def test_no_tensor_ever_has_more_active_weights_than_at_the_peak(spec):
    sparsity = sparsity_of(spec)
    most = {name: int(layer.mask.sum()) for name, layer in sparsity.layers.items()}
    for step in range(1, 41):
        for layer in sparsity.layers.values():
            layer.weight.grad = torch.ones_like(layer.weight)
        sparsity.update(step)
        most = {name: max(most[name], int(layer.mask.sum())) for name, layer in sparsity.layers.items()}
    peak = sparsity.peak_counts()
    assert all(0.9 * peak[name] <= count <= peak[name] for name, count in most.items())
