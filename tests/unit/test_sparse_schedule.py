import math

import pytest

from east.errors import EastError
from east.sparse.phasing import phasing_beta, phasing_bounds
from east.sparse.schedule import CyclicDensity, drop_fraction, fit_cycle_length
from east.sparse.timetable import MaskUpdate, Timetable

STEPS = 352
TARGET = 0.0005


def paper_cycle(pattern="cosine", cycles=2, length_multiplier=1.0):
    return CyclicDensity(TARGET, 10, pattern, cycles, 50, length_multiplier)


def paper_timetable(cycle=None, **changes):
    settings = {
        "density": TARGET,
        "total_steps": 250 * STEPS,
        "steps_per_epoch": STEPS,
        "update_period": 4000,
        "cycle": cycle,
        "cycle_period": 350,
    }
    return Timetable(**(settings | changes))


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
    update = paper_timetable(paper_cycle(pattern)).update_at(step)
    assert update is not None
    assert update.kind == "cycle"
    assert update.density / TARGET == pytest.approx(ratio, abs=1e-4)


@pytest.mark.parametrize("pattern", ["cosine", "triangular"])
def test_a_cycle_starts_and_ends_at_the_target_and_peaks_in_the_middle(pattern):
    density = CyclicDensity(0.01, 3, pattern, 2, 10, 2)
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
    updates = list(paper_timetable(paper_cycle(), return_to_target=False, update_on_last_step=True))
    assert [update.step for update in updates if update.kind == "exchange"] == [35_350, *range(36_000, 88_001, 4000)]
    assert not any(update.kind == "return" for update in updates)


@pytest.mark.parametrize(("on_last_step", "last"), [(False, 84_000), (True, 88_000)])
def test_the_last_step_of_training_exchanges_only_if_asked_to(on_last_step, last):
    assert list(paper_timetable(update_on_last_step=on_last_step))[-1].step == last


def test_cycles_that_fill_the_training_still_return_on_its_last_step():
    timetable = Timetable(0.01, 40, 10, 5, cycle=CyclicDensity(0.01, 3, "cosine", 2, 2), cycle_period=7)
    assert list(timetable)[-1] == MaskUpdate(40, "return", 0.01)


def as_coded(density=0.0005, cycle_period=350, **cycle):
    """The longest cycle of the paper's Table 2, left as the authors' code does."""
    cyclic = CyclicDensity(density, **{"multiplier": 30, "pattern": "cosine", "cycles": 1, "cycle_length": 50} | cycle)
    return Timetable(density, 88_000, 352, 4000, cycle=cyclic, cycle_period=cycle_period, return_to_target=False)


def test_as_coded_every_later_update_tells_the_density_that_the_cycles_left():
    timetable = as_coded()
    updates = list(timetable)
    inside = [update for update in updates if update.kind == "cycle"]
    after = [update for update in updates if update.kind == "exchange"]
    assert inside[-1].step == 17_500
    assert inside[-1].density > 1.009 * 0.0005
    assert len(after) > 15
    assert {update.density for update in after} == {inside[-1].density} == {timetable.settled_density}


def test_as_coded_a_last_update_at_the_very_end_settles_there():
    timetable = as_coded(cycle_period=352)
    updates = list(timetable)
    assert updates[-1].density == next(update for update in updates if update.step == 17_600).density
    assert updates[-1].density > 0.0005


def test_as_coded_cycles_without_an_update_leave_the_density_they_began_with():
    assert {update.density for update in as_coded(cycle_period=20_000)} == {0.0005}


def test_with_a_return_the_density_settles_at_the_target():
    assert paper_timetable(paper_cycle()).settled_density == paper_timetable().settled_density == TARGET


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 0.5), (4000, 0.4975), (20000, 0.4395), (44000, 0.2525), (60000, 0.1187), (80000, 0.0150), (88000, 0.0050)],
)
def test_drop_fraction_is_the_paper_codes_cosine(step, value):
    assert drop_fraction(step, 88_000, 0.5, 0.005) == pytest.approx(value, abs=5e-5)


def test_cycles_that_do_not_fit_are_refused_with_the_numbers():
    with pytest.raises(EastError, match=r"50 \+ 100 \+ 200 = 350 epochs do not fit a training of 250 epochs"):
        fit_cycle_length(250, 3, 50, 2, rescale=False)


def test_rescaled_cycles_end_with_the_training():
    length = fit_cycle_length(250, 3, 50, 2, rescale=True)
    assert CyclicDensity(TARGET, 30, "cosine", 3, length, 2).end == pytest.approx(250)
    assert fit_cycle_length(250, 2, 50, 2, rescale=True) == 50


@pytest.mark.parametrize(
    "settings",
    [
        {"target": 0.2, "multiplier": 10},
        {"multiplier": 1},
        {"pattern": "square"},
        {"cycles": 0},
        {"cycle_length": 0},
        {"length_multiplier": -1},
    ],
)
def test_an_impossible_cycle_is_refused(settings):
    good = {"target": 0.01, "multiplier": 3, "pattern": "cosine", "cycles": 2, "cycle_length": 5}
    with pytest.raises(EastError):
        CyclicDensity(**(good | settings))


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


def test_scheduled_density_is_the_target_outside_the_cycles():
    timetable = paper_timetable(paper_cycle())
    assert timetable.scheduled_density(0) == TARGET
    assert timetable.scheduled_density(35_200) == timetable.scheduled_density(88_000) == TARGET
    assert math.isclose(timetable.scheduled_density(8801), 10 * TARGET)
