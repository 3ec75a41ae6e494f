import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from east.config.run import CycleSpec, PhasingSpec, RunSpec
from east.errors import EastError
from east.sparse.schedule import (
    CyclicDensity,
    Schedule,
    cycle_lengths,
    drop_fraction,
    fit_cycle_length,
    phasing_beta,
    phasing_bounds,
)
from east.sparse.timetable import MaskUpdate, Phase, Timetable
from tests.unit.cost_specs import make_spec

STEPS = 352
TARGET = 0.0005


def changed(part, **changes):
    return part.model_validate(part.model_dump() | changes)


def paper_cycle(**changes):
    plain = {"pattern": "cosine", "multiplier": 10, "cycles": 2, "cycle_length": 50, "update_period": 350}
    return CycleSpec(**plain | changes)


def paper_schedule(cycle=None, *, steps=STEPS, phasing=None, training=None, **sparsity):
    """The recipe of Table B.1: 250 epochs of 352 steps."""
    spec = make_spec(density=TARGET, update_period=4000, epochs=250)
    return Schedule(changed(spec.sparsity, **sparsity), changed(spec.training, **training or {}), steps, cycle, phasing)


def paper_timetable(cycle=None, **changes):
    return Timetable(paper_schedule(cycle, **changes))


@pytest.mark.parametrize(
    ("pattern", "step", "ratio"),
    [
        ("cosine", 350, 1.0349),
        ("cosine", 700, 1.1394),
        ("cosine", 1050, 1.3119),
        ("cosine", 8750, 9.9993),
        ("cosine", 34300, 1.2308),
        ("cosine", 34650, 1.0868),
        ("cosine", 35000, 1.0116),
        ("triangular", 350, 1.3569),
        ("triangular", 700, 1.7149),
        ("triangular", 1050, 2.0728),
        ("triangular", 8750, 9.9478),
        ("triangular", 35000, 1.2056),
    ],
)
def test_density_inside_the_cycles_is_that_of_the_authors_code(pattern, step, ratio):
    update = paper_timetable(paper_cycle(pattern=pattern)).at(step)
    assert update is not None
    assert update.kind == "cycle"
    assert update.density / TARGET == pytest.approx(ratio, abs=1e-4)


@pytest.mark.parametrize("pattern", ["cosine", "triangular"])
def test_a_cycle_starts_and_ends_at_the_target_and_peaks_in_the_middle(pattern):
    density = CyclicDensity(0.01, paper_cycle(pattern=pattern, multiplier=3, cycle_length=10, length_multiplier=2))
    assert density.end == 30
    assert density(0) == density(10) == density(30) == density(99) == 0.01
    assert density(5) == pytest.approx(0.03)
    assert density(20) == pytest.approx(0.03)


def test_the_masks_follow_the_cycles_then_return_exactly_then_exchange():
    updates = list(paper_timetable(paper_cycle()))
    inside = [update for update in updates if update.step <= 35_200]
    assert [update.step for update in inside[:-1]] == list(range(350, 35_200, 350))
    assert inside[-1] == MaskUpdate(35_200, "return", TARGET)
    outside = updates[len(inside) :]
    assert [update.step for update in outside] == list(range(36_000, 88_000, 4000))
    assert {update.kind for update in outside} == {"exchange"}


def test_as_coded_nothing_returns_and_one_more_exchange_follows_the_cycles():
    updates = list(paper_timetable(paper_cycle(end="as_coded"), update_on_last_step=True))
    assert [update.step for update in updates if update.kind == "exchange"] == [35_350, *range(36_000, 88_001, 4000)]
    assert not any(update.kind == "return" for update in updates)


@pytest.mark.parametrize(("on_last_step", "last"), [(False, 84_000), (True, 88_000)])
def test_the_last_step_of_training_exchanges_only_if_asked_to(on_last_step, last):
    assert list(paper_timetable(update_on_last_step=on_last_step))[-1].step == last


def test_cycles_that_fill_the_training_still_return_on_its_last_step():
    timetable = paper_timetable(paper_cycle(cycle_length=125, update_period=700))
    assert list(timetable)[-1] == MaskUpdate(88_000, "return", TARGET)


def as_coded(period=350):
    """The longest cycle of the paper's Table 2, left as the authors' code does."""
    return paper_timetable(paper_cycle(multiplier=30, cycles=1, update_period=period, end="as_coded"))


def test_as_coded_every_later_update_tells_the_density_that_the_cycles_left():
    timetable = as_coded()
    updates = list(timetable)
    inside = [update for update in updates if update.kind == "cycle"]
    after = [update for update in updates if update.kind == "exchange"]
    assert inside[-1].step == 17_500
    assert inside[-1].density > 1.009 * 0.0005
    assert len(after) > 15
    assert {update.density for update in after} == {inside[-1].density} == {timetable.schedule.settled_density}


def test_as_coded_a_last_update_at_the_very_end_settles_there():
    timetable = as_coded(352)
    updates = list(timetable)
    assert updates[-1].density == next(update for update in updates if update.step == 17_600).density
    assert updates[-1].density > 0.0005


def test_as_coded_cycles_without_an_update_leave_the_density_they_began_with():
    assert {update.density for update in as_coded(20_000)} == {0.0005}


def test_with_a_return_the_density_settles_at_the_target():
    assert paper_schedule(paper_cycle()).settled_density == paper_schedule().settled_density == TARGET


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 0.5), (4000, 0.4975), (20000, 0.4395), (44000, 0.2525), (60000, 0.1187), (80000, 0.0150), (88000, 0.0050)],
)
def test_drop_fraction_is_the_paper_codes_cosine(step, value):
    assert drop_fraction(step, 88_000, 0.5, 0.005) == paper_schedule().drop_fraction(step)
    assert paper_schedule().drop_fraction(step) == pytest.approx(value, abs=5e-5)


def test_cycles_that_do_not_fit_are_refused_with_the_numbers():
    with pytest.raises(EastError, match=r"50 \+ 100 \+ 200 = 350 epochs do not fit a training of 250 epochs"):
        fit_cycle_length(250, 3, 50, 2, rescale=False)


@pytest.mark.parametrize(
    ("cycles", "sum_"), [(4, r"50 \+ 100 \+ 200 \+ 400 = 750"), (6, r"50 \+ 100 \+ 200 \+ \.\.\. \+ 1600 = 3150")]
)
def test_of_many_cycles_that_do_not_fit_the_first_and_the_last_are_named(cycles, sum_):
    with pytest.raises(EastError, match=f"{cycles} cycles of {sum_} epochs"):
        fit_cycle_length(250, cycles, 50, 2, rescale=False)


def test_cycles_that_fill_the_training_fit():
    assert fit_cycle_length(250, 5, 50, 1, rescale=False) == 50


def test_rescaled_cycles_end_with_the_training():
    length = fit_cycle_length(250, 3, 50, 2, rescale=True)
    assert math.fsum(cycle_lengths(3, length, 2)) == pytest.approx(250)
    assert fit_cycle_length(250, 2, 50, 2, rescale=True) == 50
    assert fit_cycle_length(2, 3, 50, 2, rescale=True) == pytest.approx(2 / 7)


def test_cycles_beyond_the_end_of_floats_are_refused_though_they_may_be_rescaled():
    assert cycle_lengths(2, 1e308, 10) == (1e308, math.inf)
    with pytest.raises(EastError, match="= inf epochs"):
        fit_cycle_length(250, 2, 1e308, 10, rescale=True)


def test_a_peak_density_over_one_is_refused():
    with pytest.raises(EastError, match="peak density of 2"):
        CyclicDensity(0.2, paper_cycle(multiplier=10))
    assert CyclicDensity(0.1, paper_cycle(multiplier=10, cycles=1))(25) == 1


@pytest.mark.parametrize(("epochs", "bounds"), [(250, (62.5, 124)), (200, (50, 99)), (100, (25, 49))])
def test_phasing_bounds_are_those_of_the_authors_code(epochs, bounds):
    assert phasing_bounds(epochs) == bounds


def test_beta_fades_linearly_from_the_first_epoch_after_the_start():
    start, end = phasing_bounds(250)
    assert phasing_beta(62, start, end) == 1
    assert phasing_beta(63, start, end) == pytest.approx(0.99187, abs=1e-5)
    assert phasing_beta(123, start, end) == pytest.approx(1 / 61.5)
    assert phasing_beta(124, start, end) == phasing_beta(250, start, end) == 0
    assert phasing_beta(50, 50, 99) == 1
    assert phasing_beta(2, 2, 2) == 0


def test_scheduled_density_is_the_target_outside_the_cycles():
    schedule = paper_schedule(paper_cycle(pattern="triangular"))
    assert schedule.density(0) == schedule.density(1) == TARGET
    assert schedule.density(35_200) == schedule.density(88_000) == TARGET
    assert math.isclose(schedule.density(8801), 10 * TARGET)
    assert math.isclose(schedule.peak_density, 10 * TARGET)


@pytest.mark.parametrize(("epoch", "lr"), [(1, 0.1), (75, 0.1), (76, 0.01), (150, 0.01), (151, 0.001), (250, 0.001)])
def test_the_learning_rate_drops_after_the_drop_epochs(epoch, lr):
    schedule = paper_schedule(training={"lr_drop_epochs": (75, 150)})
    for step in ((epoch - 1) * STEPS + 1, epoch * STEPS):
        assert schedule.learning_rate(step) == lr
        assert paper_schedule().learning_rate(step) == 0.1


def test_the_epoch_of_a_step_ends_with_its_last_step():
    assert [paper_schedule().epoch_of(step) for step in (1, 352, 353, 88_000)] == [1, 1, 2, 250]


@pytest.mark.parametrize(
    ("start", "freeze", "frozen"), [(3.0, True, [3, 4, 5]), (3.0, False, []), (2.5, True, [])], ids=str
)
def test_dyrelu_freezes_from_the_start_of_its_fade_if_that_is_an_epoch(start, freeze, frozen):
    schedule = paper_schedule(phasing=PhasingSpec(start=start, end=9.0, freeze=freeze))
    assert [epoch for epoch in range(1, 6) if schedule.freezes_dyrelu(epoch)] == frozen


@pytest.mark.parametrize(
    ("cycle", "phasing", "first"),
    [
        (None, None, 1),
        (paper_cycle(cycles=1), None, 50),
        (None, PhasingSpec(start=62.5, end=124), 124),
        (paper_cycle(cycles=4), PhasingSpec(start=62.5, end=124), 200),
    ],
)
def test_a_network_is_settled_once_cycles_are_over_and_dyrelu_has_faded(cycle, phasing, first):
    schedule = paper_schedule(cycle, phasing=phasing)
    assert [schedule.is_settled(epoch) for epoch in (first - 1, first)] == [first == 1, True]


# The timetable as a whole


CYCLES = [
    None,
    paper_cycle(update_period=7),
    paper_cycle(update_period=7, end="as_coded"),
    paper_cycle(cycle_length=125, update_period=18),
]


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("topology", ["rigl", "set", "fixed"])
def test_iterating_finds_every_update_that_any_step_has(cycle, topology):
    timetable = paper_timetable(cycle, steps=8, update_period=70, topology=topology)
    asked = [timetable.at(step) for step in range(1, 2_001)]
    assert list(timetable) == [update for update in asked if update is not None]
    assert (list(timetable) == []) == (topology == "fixed")


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("topology", ["rigl", "set", "fixed"])
@pytest.mark.parametrize("done", [0, 1, 40, 249])
def test_phases_are_the_steps_of_the_training_counted_one_by_one(cycle, topology, done):
    fade = PhasingSpec(start=20, end=41)
    timetable = paper_timetable(cycle, steps=8, update_period=20, topology=topology, phasing=fade)
    counts = {name: Counter() for name in ("steps", "updates", "dense_gradients", "epochs")}
    density = timetable.schedule.density(0)
    for step in range(1, 2_001):
        update, epoch = timetable.at(step), (step - 1) // 8 + 1
        moment, counted = (density, epoch < 41), epoch > done
        counts["steps"][moment] += counted
        if update is not None:
            counts["updates"][moment] += counted
            grows = update.kind == "exchange" or update.density > density
            counts["dense_gradients"][moment] += counted and grows and topology == "rigl"
            density = update.density
        counts["epochs"][density, epoch < 41] += counted and step % 8 == 0
    phases = list(timetable.phases(done))
    for name, expected in counts.items():
        found = Counter()
        for phase in phases:
            found[phase.density, phase.dynamic] += getattr(phase, name)
        assert found == expected, name
    neighbours = pairwise(phases)
    assert all((one.density, one.dynamic) != (other.density, other.dynamic) for one, other in neighbours)


def test_nothing_dropped_needs_no_gradient():
    (phase,) = paper_timetable(drop_fraction=0, drop_fraction_end=0).phases()
    assert (phase.updates, phase.dense_gradients) == (21, 0)


def test_a_run_without_cycles_is_one_phase():
    assert list(paper_timetable().phases()) == [
        Phase(TARGET, dynamic=False, steps=88_000, updates=21, dense_gradients=21, epochs=250)
    ]


def test_the_schedule_of_a_run_is_that_of_every_seed_and_needs_no_pytorch():
    spec = make_spec(cyclic=True)
    assert Schedule.of(spec, 20) == Schedule.of(RunSpec.model_validate(spec.model_dump() | {"seed": 9}), 20)
    code = "import sys; from east.sparse.timetable import Timetable; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
