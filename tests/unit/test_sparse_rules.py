"""Rules, schedules and rates beyond the paper: each against its paper's formula, worked out by hand."""

import math
from fractions import Fraction

import pytest
import torch
from torch import tensor

from east.errors import EastError
from east.seeding import generator
from east.sparse.distribution import er_counts
from east.sparse.kinds import density_schedule, drop_rule, growth_rule, initial_values, learning_rate
from east.sparse.layers import MaskedLinear
from east.sparse.masks import Allocation, Memory, update_masks
from east.sparse.moment import Moment
from east.sparse.schedule import Schedule
from east.sparse.timetable import MaskUpdate, Timetable
from east.sparse.topology import TOPOLOGIES, Rule, Topology, keep
from east.sparse.view import Layer
from tests.unit.cost_specs import make_spec

RIGL = TOPOLOGIES["rigl"]
RIGL_GROWTH = (RIGL.grow, RIGL.initial)


def on(mask):
    return mask.flatten().nonzero().squeeze(1).tolist()


def dropped(name, weight, gradient, count, **parameters):
    """Which of the active weights a rule drops."""
    mask = torch.ones_like(weight, dtype=torch.bool)
    rule = Rule.of(drop_rule, name, parameters)
    kept = keep(rule, Layer("layer", weight, gradient, mask), len(weight) - count, generator(0, "ties"))
    return on(~kept)


# Drop rules


def test_set_drops_the_same_share_of_positive_and_of_negative_weights():
    """Mocanu et al.: the smallest positive and the largest negative weights, a fraction of each."""
    weight = tensor([0.1, 0.4, -0.2, -0.3, 0.5, -0.9, 0.7, -0.05])
    assert dropped("signed_magnitude", weight, weight, 4) == [0, 1, 2, 7]
    lopsided = tensor([0.3, -9.0, 0.1, 0.2, 0.4, -0.01, 0.5, 0.6])  # two negative, six positive
    assert dropped("signed_magnitude", lopsided, lopsided, 4) == [0, 2, 3, 5]


def test_equal_weights_of_a_sign_are_tied():
    weight = torch.tensor([0.5] * 50 + [1.0])
    drawn = [set(dropped("signed_magnitude", weight, weight, 10)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != set(range(10))
    assert 50 not in drawn[0]


def test_mest_drops_the_smallest_sum_of_magnitude_and_weighted_gradient():
    """|w| + λ |g|, with λ = 0.5: 0.5, 0.4 and 0.35."""
    weight, gradient = tensor([0.5, -0.1, 0.3]), tensor([0.0, -0.6, 0.1])
    assert dropped("magnitude_and_gradient", weight, gradient, 1, gradient_weight=0.5) == [2]
    assert dropped("magnitude_and_gradient", weight, gradient, 1, gradient_weight=0.0) == [1]


def layers_of(*weights, gradients=None):
    """Linear layers with these weights, all of them that are not zero active."""
    layers = {}
    for number, rows in enumerate(weights):
        weight = tensor(rows)
        layer = layers[f"layer{number}"] = MaskedLinear(weight.shape[1], weight.shape[0])
        layer.mask.copy_(weight != 0)
        with torch.no_grad():
            layer.weight.copy_(weight)
        layer.weight.grad = None if gradients is None else tensor(gradients[number])
    return layers


def allocation_of(layers, distribution="uniform"):
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    return Allocation(shapes, distribution, sum(layer.weight.numel() for layer in layers.values()))


def exchange(layers, rule, fraction=0.5, *, step=1, **more):
    update = MaskUpdate(step, "exchange", 0.5)
    allocation = allocation_of(layers)
    return update_masks(layers, update, allocation=allocation, drop_fraction=fraction, rule=rule, seed=0, **more)


def counts(layers):
    return [int(layer.mask.sum()) for layer in layers.values()]


def test_a_threshold_drops_as_many_as_are_below_it_and_as_many_grow():
    weights = [[0.001, 0.5, 0.0, 0.0], [0.002, -0.003, 0.7, 0.0]]
    layers = layers_of(weights, gradients=[[[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0]]])
    rule = Topology(Rule.of(drop_rule, "threshold", {"below": 0.01}), RIGL.grow, RIGL.initial)
    change = exchange(layers, rule)
    assert change.nonzeros == 5
    mask = layers["layer0"].mask
    assert {1, 2, 6, 7} < set(on(mask)), "0.5 and 0.7 stay; the two gradients grow, and one of no gradient"


def test_global_magnitude_compares_all_layers_and_leaves_each_a_weight():
    layers = layers_of([[0.1, 0.2], [0.3, 0.0]], [[5.0, 6.0], [7.0, 8.0]])
    rule = Topology(Rule.of(drop_rule, "global_magnitude"), RIGL.grow, RIGL.initial)
    update = MaskUpdate(1, "schedule", 0.5)
    change = update_masks(layers, update, allocation=allocation_of(layers), drop_fraction=0.5, rule=rule, seed=0)
    assert change.nonzeros == 4
    assert (on(layers["layer0"].mask), counts(layers)) == ([2], [1, 3])
    assert 0 not in on(layers["layer1"].mask)


# Growth rules


def momentum_of(layers, steps, **parameters):
    """The rule of SNFS after it has seen some gradients, and its memory."""
    rule, memory = Rule.of(growth_rule, "momentum", parameters), Memory()
    for step, gradients in enumerate(steps, start=1):
        for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
            seen = tensor(gradient)
            rule.observe(
                Layer(name, layer.weight.detach(), seen, layer.mask, step=step, memory=memory.of("grow", name))
            )
    return Topology(RIGL.drop, rule, RIGL.initial), memory


STEPS = (([[4.0, 0.0, -2.0, 0.0]], [[0.5, 0.5, 0.5, 0.5]]), ([[0.0, 2.0, -2.0, 0.0]], [[0.5, 0.5, 0.5, 0.5]]))


def test_snfs_follows_the_mean_gradient():
    """m = d m + (1 - d) g with d = 0.5: [2, 0, -1, 0], then [1, 1, -1.5, 0]."""
    layers = layers_of([[1.0, 2.0, 0.0, 0.0]], [[3.0, 4.0, 0.0, 0.0]])
    _, memory = momentum_of(layers, STEPS, decay=0.5)
    assert memory.of("grow", "layer0")["mean"].tolist() == [[1.0, 1.0, -1.5, 0.0]]
    assert memory.of("grow", "layer1")["mean"].tolist() == [[0.375] * 4]


def test_snfs_gives_layers_shares_of_all_growth_by_the_mean_momentum_of_their_active_weights():
    """Means over active weights are 1 and 0.375, so of two weights the first layer gets round(2 * 8 / 11) = 1."""
    layers = layers_of([[1.0, 2.0, 0.0, 0.0]], [[3.0, 4.0, 0.0, 0.0]])
    rule, memory = momentum_of(layers, STEPS, decay=0.5)
    seen = [Layer(n, each.weight, each.weight, each.mask, memory=memory.of("grow", n)) for n, each in layers.items()]
    assert rule.grow.shares(seen) == {"layer0": 1.0, "layer1": 0.375}
    exchange(layers, rule, memory=memory)
    assert (counts(layers), on(layers["layer0"].mask)) == ([2, 2], [1, 2]), "the largest mean grows"

    steep = ([[[9.0, 9.0, 1.0, 1.0]], [[0.1, 0.1, 0.1, 0.1]]],)
    layers = layers_of([[1.0, 2.0, 0.0, 0.0]], [[3.0, 4.0, 0.0, 0.0]])
    rule, memory = momentum_of(layers, steep)
    exchange(layers, rule, memory=memory)
    assert counts(layers) == [3, 1], "one weight went from the second layer to the first"
    layers = layers_of([[1.0, 2.0, 0.0, 0.0]], [[3.0, 4.0, 0.0, 0.0]])
    rule, memory = momentum_of(layers, steep, redistribute=False)
    exchange(layers, rule, memory=memory)
    assert counts(layers) == [2, 2]


def test_shares_without_a_claim_are_equal_and_a_layer_is_never_emptied():
    layers = layers_of([[1.0, 2.0, 0.0, 0.0]], [[3.0, 0.0, 0.0, 0.0]])
    rule, memory = momentum_of(layers, (([[1.0, 1.0, 1.0, 1.0]], [[0.0] * 4]),))
    exchange(layers, rule, fraction=1.0, memory=memory)
    assert sum(counts(layers)) == 3
    assert min(counts(layers)) >= 1


# What the frame keeps whatever a rule gives


def rule_of(function, kind=growth_rule, **facts):
    return Rule.bound(kind.describe(function, name="rule", **facts))


@pytest.mark.parametrize(
    "scores",
    [math.nan, math.inf, -math.inf, 0.0, -1.0],
)
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("exchanges", [False, True])
def test_counts_are_kept_whatever_the_scores(scores, across, exchanges):
    def constant(layer):
        return torch.full_like(layer.weight, scores)

    draw = torch.Generator().manual_seed(1)
    layers = layers_of(*[(torch.rand(6, 5, generator=draw) < 0.4).float().tolist() for _ in range(3)])
    rule = Topology(
        rule_of(constant, drop_rule, across_layers=across), rule_of(constant, across_layers=across), RIGL.initial
    )
    before = sum(counts(layers))
    exchange(layers, rule)
    assert sum(counts(layers)) == before
    assert min(counts(layers)) >= 1
    for step, density in enumerate((0.2, 0.7), start=2):
        update, allocation = MaskUpdate(step, "schedule", density), allocation_of(layers)
        change = update_masks(
            layers, update, allocation=allocation, drop_fraction=0.3, rule=rule, seed=0, exchanges=exchanges
        )
        assert change.nonzeros == sum(counts(layers)) == round(density * 90)


def test_an_update_may_drop_and_grow_unequal_numbers():
    """From 12 to 8 weights while a half are exchanged: 6 are dropped and 2 grown."""
    layers = layers_of([[float(i) for i in range(1, 13)] + [0.0] * 4], gradients=[[[0.0] * 14 + [1.0, 2.0]]])
    update = MaskUpdate(1, "schedule", 0.5)
    change = update_masks(
        layers, update, allocation=allocation_of(layers), drop_fraction=0.5, rule=RIGL, seed=0, exchanges=True
    )
    assert (change.dropped, change.grown, change.nonzeros) == (6, 2, 8)
    assert on(layers["layer0"].mask) == [6, 7, 8, 9, 10, 11, 14, 15]


@pytest.mark.parametrize(
    ("answer", "said"), [([1.0], "2 numbers"), ([1.0, -1.0], "at least 0"), ([1.0, math.nan], "finite")]
)
def test_shares_that_are_none_are_refused(answer, said):
    class Sharing:
        def __call__(self, layer):
            return layer.gradient

        def shares(self, layers):
            return answer

    layers = layers_of([[1.0, 2.0, 0.0]], [[1.0, 2.0, 0.0]])
    with pytest.raises(EastError, match=said):
        exchange(layers, Topology(RIGL.drop, rule_of(Sharing), RIGL.initial))


def dropping(answer):
    class Dropping:
        def __call__(self, layer):
            return layer.weight

        def dropped(self, layer):
            return answer

    return Topology(rule_of(Dropping, drop_rule), RIGL.grow, RIGL.initial)


@pytest.mark.parametrize("answer", [-1, 4, 1.0])
def test_a_number_of_weights_that_cannot_be_dropped_is_refused(answer):
    with pytest.raises(EastError, match=rf"from 0 to 3.* {answer} at step 1, layer layer0"):
        exchange(layers_of([[1.0, 2.0, 3.0, 0.0]]), dropping(answer))


@pytest.mark.parametrize(("answer", "grown"), [(0, 0), (3, 3)])
def test_a_drop_rule_may_drop_none_or_all(answer, grown):
    gradient = [[0.0, 0.0, 0.0, 1.0, 2.0, 3.0]]
    layers = layers_of([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]], gradients=[gradient])
    assert exchange(layers, dropping(answer)).grown == grown
    assert on(layers["layer0"].mask) == ([3, 4, 5] if grown else [0, 1, 2])


def test_what_layers_have_lost_to_each_other_grows_where_weights_are_missing():
    """Of six and six weights three each are dropped, all but two of the first layer's; it grows both that are left."""
    layers = layers_of([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0, 0.0]], [[5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 0.0, 0.0]])
    update, rule = MaskUpdate(1, "schedule", 0.5), Topology(Rule.of(drop_rule, "global_magnitude"), *RIGL_GROWTH)
    change = update_masks(
        layers, update, allocation=allocation_of(layers), drop_fraction=0.5, rule=rule, seed=0, exchanges=True
    )
    assert (change.nonzeros, counts(layers)) == (8, [3, 5])


def test_a_layer_with_a_single_weight_keeps_it_however_small_it_is():
    layers = layers_of([[0.1, 0.0, 0.0, 0.0]], [[5.0, 6.0, 7.0, 8.0]])
    exchange(layers, Topology(Rule.of(drop_rule, "global_magnitude"), RIGL.grow, RIGL.initial), fraction=0.4)
    assert on(layers["layer0"].mask) == [0]


def test_a_mask_of_as_many_as_are_asked_for_is_taken_as_it_is():
    layers = layers_of([[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]])
    last = rule_of(lambda layer: torch.arange(8).view(1, 8) >= 8 - layer.count)
    exchange(layers, Topology(RIGL.drop, last, RIGL.initial))
    assert on(layers["layer0"].mask) == [2, 3, 6, 7]


def test_a_rule_that_compares_all_layers_gives_scores():
    rule = rule_of(lambda layer: layer.mask, drop_rule, across_layers=True)
    with pytest.raises(EastError, match="gave a mask at step 1, layer layer0"):
        exchange(layers_of([[1.0, 2.0, 0.0]]), Topology(rule, RIGL.grow, RIGL.initial))


def test_a_parameter_that_a_rule_does_not_take_is_refused_with_its_place():
    with pytest.raises(EastError, match=r"drop\.py:\d+: .*'below'"):
        Rule.of(drop_rule, "threshold", {"below": -1.0})


def test_rules_see_the_epoch_and_what_the_optimizer_keeps():
    layers, seen = layers_of([[1.0, 2.0, 0.0, 0.0]]), []

    def by_momentum(layer):
        seen.append((layer.name, layer.epoch))
        return layer.optimizer_state("momentum")

    rule = Topology(RIGL.drop, rule_of(by_momentum), RIGL.initial)
    state = {("layer0", "momentum"): tensor([[0.0, 0.0, 2.0, 3.0]])}
    exchange(layers, rule, step=11, schedule=scheduled(), state_of=lambda *asked: state[asked])
    assert (on(layers["layer0"].mask), seen) == ([1, 3], [("layer0", 2)])
    outside = Layer("layer", tensor([1.0]), tensor([1.0]), tensor([True]), step=11)
    assert outside.epoch == 0
    with pytest.raises(KeyError, match="momentum"):
        outside.optimizer_state("momentum")


def test_rules_draw_from_generators_of_their_own():
    drawn = {}

    def noting(name):
        def rule(layer):
            drawn[name, layer.name, layer.step] = layer.random.words(1)[0]
            return layer.weight

        return rule

    for step in (1, 2, 1):
        layers = layers_of([[1.0, 2.0, 0.0]], [[1.0, 2.0, 0.0]])
        exchange(layers, Topology(rule_of(noting("drop"), drop_rule), rule_of(noting("grow")), RIGL.initial), step=step)
        seen = dict(drawn)
    assert len(set(seen.values())) == len(seen) == 8
    assert all(drawn[key] == value for key, value in seen.items())


# Initial values


def test_a_grown_weight_begins_with_what_the_rule_says_and_one_that_stays_keeps_its_value():
    layers = layers_of([[1.0, 2.0, 0.0, 0.0]], gradients=[[[0.0, 0.0, 3.0, 4.0]]])
    against = Rule.of(initial_values, "gradient", {"rate": 0.5})
    exchange(layers, Topology(RIGL.drop, RIGL.grow, against))
    weight = layers["layer0"].weight.detach()[0]
    assert (weight[3], weight[1]) == (-2.0, 2.0)


def test_uniform_initial_values_have_hes_range_and_the_same_bits_everywhere():
    rule = Rule.of(initial_values, "uniform", {"scale": 2.0})
    layer = Layer("conv", torch.zeros(50, 6), torch.zeros(50, 6), torch.zeros(50, 6, dtype=torch.bool), seed=3, step=7)
    values = rule.answer(layer)
    assert values.dtype == torch.float32
    assert 1.9 < values.abs().max() <= 2.0
    drawn = generator(3, "rule", "conv", 7).uniform(300) * 2 - 1
    assert torch.equal(values, (drawn * 2.0 * math.sqrt(6 / 6)).view(50, 6).float())


# Distributions, densities, rates


def test_er_leaves_the_size_of_the_kernel_out():
    """Sums of channels are 20 and 30, so 50 weights are 20 and 30."""
    assert er_counts({"conv": (10, 10, 3, 3), "linear": (10, 20)}, 50) == {"conv": 20, "linear": 30}


def at(step, total=100, per_epoch=10, skipped=0):
    return Moment(step, total, per_epoch, skipped)


def test_a_moment_is_a_share_of_the_training_without_its_warm_up_and_of_epochs():
    assert [at(step, skipped=20).share for step in (0, 20, 60, 100)] == [0, 0, Fraction(1, 2), 1]
    assert at(7, total=5, skipped=5).share == 2
    assert (at(15).epoch, at(15).epoch_number, at(9).epoch_number) == (Fraction(3, 2), 2, 1)


@pytest.mark.parametrize(("step", "density"), [(0, 1.0), (25, 1.0), (50, 0.2125), (75, 0.1), (100, 0.1)])
def test_gradual_pruning_is_cubic(step, density):
    """s = s_f (1 - (1 - p)^3): half way between 0 and 0.9 it is 0.7875."""
    cubic = density_schedule["cubic"].bind({"begin": 0.25, "end": 0.75})
    assert cubic(at(step), 0.1) == density


@pytest.mark.parametrize(("step", "density"), [(0, 0.5), (20, 0.4), (80, 0.1)])
def test_a_straight_line_of_density(step, density):
    assert density_schedule["linear"].bind({"initial": 0.5, "end": 0.8})(at(step), 0.1) == density


@pytest.mark.parametrize(
    ("name", "parameters", "values"),
    [
        ("cosine", {}, {0: 0.2, 25: 0.2 * (2 + math.sqrt(2)) / 4, 50: 0.1, 100: 0.0}),
        ("cosine", {"end": 0.5}, {0: 0.2, 50: 0.15, 100: 0.1}),
        ("linear", {"end": 0.1}, {0: 0.2, 50: 0.11, 100: 0.02}),
        ("one_cycle", {"rise": 0.4, "start": 0.5, "end": 0.0}, {0: 0.1, 20: 0.15, 40: 0.2, 70: 0.1, 100: 0.0}),
    ],
)
def test_learning_rates(name, parameters, values):
    rate = learning_rate[name].bind(parameters)
    assert [rate(at(step), 0.2) for step in values] == pytest.approx(list(values.values()), abs=1e-15)


def scheduled(*, steps=10, training=None, schedule=None, **sparsity):
    spec = make_spec(density=0.1, update_period=10, epochs=10)
    spec = spec.model_validate(
        spec.model_dump()
        | {"sparsity": spec.sparsity.model_dump() | sparsity, "density_schedule": schedule}
        | {"training": spec.training.model_dump() | (training or {})}
    )
    return Schedule.of(spec, steps)


@pytest.mark.parametrize("rate", [{}, {"lr_schedule": "cosine"}, {"lr_schedule": {"name": "one_cycle", "start": 0.5}}])
def test_a_warm_up_rises_to_what_its_schedule_begins_with(rate):
    schedule = scheduled(training={"lr": 0.2, "warmup_epochs": 2, **rate})
    first = 0.1 if "one_cycle" in str(rate) else 0.2
    assert [schedule.learning_rate(step) for step in (1, 10, 20, 21)] == pytest.approx(
        [first / 20, first / 2, first, first]
    )
    assert schedule.learning_rate(100) == 0.2 if not rate else schedule.learning_rate(100) < 0.01


def test_gradual_pruning_ends_at_the_target_and_then_weights_are_exchanged():
    schedule = scheduled(schedule={"name": "cubic", "end": 0.55})
    updates = list(Timetable(schedule))
    assert [update.kind for update in updates] == ["schedule"] * 5 + ["return"] + ["exchange"] * 3
    assert [update.step for update in updates] == list(range(10, 100, 10))
    assert updates[5].density == schedule.density(100) == 0.1
    assert schedule.density(0) == schedule.peak_density == 1.0
    assert [schedule.is_settled(epoch) for epoch in (5, 6)] == [False, True]


def test_a_density_that_never_moves_is_reached_from_the_start():
    schedule = scheduled(schedule={"name": "linear", "initial": 0.1})
    assert (schedule.resizing_end_step, schedule.peak_density) == (0, 0.1)
    assert {update.kind for update in Timetable(schedule)} == {"exchange"}


def test_exchanges_end_where_they_are_told_and_the_drop_fraction_with_them():
    schedule = scheduled(update_until=0.75)
    assert [update.step for update in Timetable(schedule)] == list(range(10, 80, 10))
    assert schedule.drop_fraction(75) == schedule.drop_fraction(100) == 0.005
    assert Timetable(schedule).last_step == 70


@pytest.mark.parametrize(("topology", "needed"), [("rigl", 9), ({"grow": "momentum"}, 90), ({"grow": "random"}, 0)])
def test_the_steps_that_need_dense_gradients_are_counted(topology, needed):
    phases = Timetable(scheduled(topology=topology)).phases()
    assert sum(phase.dense_gradients for phase in phases) == needed
