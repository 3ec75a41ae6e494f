import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from east.analysis import inference
from east.analysis.compare import compare_with_published as compare
from east.analysis.inference import (
    Sample,
    equivalence_p,
    exceeds,
    holm,
    mean_difference,
    mean_interval,
    our_sample,
    printed_sample,
    rank_correlation,
    sign_test,
    welch,
)
from east.config.tables import Comparing, Summarising
from tests.unit.fake_runs import DIVERGED
from tests.unit.fake_tables import MISSING, around, paper, result, summarised

samples = st.builds(
    Sample,
    mean=st.floats(0, 100),
    std=st.floats(0.01, 50),
    runs=st.integers(2, 20),
)
# Welch's test and equivalence


def test_welch_by_hand():
    # Ours 80, 82, 84: mean 82, variance 4. Theirs 80 ± 1 over three. Variance of the difference 4/3 + 1/3 = 5/3;
    # degrees of freedom (5/3)² / ((4/3)²/2 + (1/3)²/2) = 50/17.
    test = welch(Sample(mean=82, std=2, runs=3), Sample(mean=80, std=1, runs=3), level=0.9)
    assert test.difference == 2
    assert test.standard_error == pytest.approx((5 / 3) ** 0.5)
    assert test.degrees_of_freedom == pytest.approx(50 / 17)
    assert test.standard_errors == pytest.approx(2 / (5 / 3) ** 0.5)
    half = (5 / 3) ** 0.5 * stats.t.ppf(0.95, 50 / 17)
    assert (test.low, test.high) == pytest.approx((2 - half, 2 + half))


@given(samples, samples)
def test_welch_is_scipys(first, second):
    test = welch(first, second, level=0.95)
    reference = stats.ttest_ind_from_stats(
        first.mean, first.std, first.runs, second.mean, second.std, second.runs, equal_var=False
    )
    assert test.standard_errors == pytest.approx(reference.statistic)
    assert test.p == pytest.approx(reference.pvalue)


@given(samples, samples, st.floats(0.01, 20))
def test_equivalence_is_the_worse_of_two_one_sided_tests(first, second, margin):
    def one_sided(shift, alternative):
        return stats.ttest_ind_from_stats(
            first.mean + shift,
            first.std,
            first.runs,
            second.mean,
            second.std,
            second.runs,
            equal_var=False,
            alternative=alternative,
        ).pvalue

    expected = max(one_sided(margin, "greater"), one_sided(-margin, "less"))
    assert equivalence_p(first, second, margin) == pytest.approx(expected)


def test_without_any_spread_there_is_no_test():
    single, constant = Sample(mean=80, std=None, runs=1), Sample(mean=80, std=0, runs=3)
    spread = Sample(mean=81, std=1, runs=3)
    assert welch(single, spread, 0.95) is None
    assert welch(spread, single, 0.95) is None
    assert welch(constant, constant, 0.95) is None
    assert equivalence_p(constant, constant, 2) is None
    tiny = Sample(mean=80, std=1e-6, runs=3)
    assert welch(tiny, constant, 0.95).degrees_of_freedom == 2
    assert welch(tiny.model_copy(update={"std": 1e-9}), constant, 0.95) is None
    limit = welch(Sample(mean=80, std=2e-9, runs=4), constant, 0.95)
    assert limit.standard_error == inference.NO_SPREAD
    # With a spread on one side alone the degrees of freedom are that side's.
    assert welch(constant, spread, 0.95).degrees_of_freedom == 2


def test_a_shift_of_all_rows_is_found_where_no_row_shows_it():
    # Four times 3 ± 2: the mean has a standard error of 2 · √4 / 4 = 1.
    one = welch(Sample(mean=3, std=2, runs=2), Sample(mean=0, std=2, runs=2), 0.95)
    assert one.standard_error == pytest.approx(2)
    shift = mean_difference([one] * 4, 0.95)
    assert (shift.difference, shift.standard_error) == pytest.approx((3, 1))
    assert shift.degrees_of_freedom == pytest.approx(4 * one.degrees_of_freedom)
    assert one.low < 0 < shift.low
    assert exceeds(shift, 0.5)
    assert not exceeds(one, 0.5)
    assert mean_difference([], 0.95) is None


@pytest.mark.parametrize(
    ("low", "high", "beyond"),
    [(2.1, 3, True), (2, 3, False), (-3, -2.1, True), (-3, -2, False), (-3, 3, False), (0, 1, False)],
)
def test_a_difference_exceeds_the_margin_with_its_whole_interval(low, high, beyond):
    fields = {"difference": 0, "standard_error": 1, "degrees_of_freedom": 1, "standard_errors": 0, "p": 1}
    assert exceeds(inference.Welch(**fields, low=low, high=high), 2) == beyond


# Holm, signs, means and ranks


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04: times 3, 2, 1 gives 0.03, 0.06, 0.04, and no value may be below the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_the_sign_test_by_hand():
    # 4 of 4 heads or tails: 2 / 16.
    assert sign_test(4, 0) == sign_test(0, 4) == pytest.approx(0.125)
    assert sign_test(3, 3) == 1
    assert sign_test(0, 0) is None


def test_the_interval_of_a_mean_is_students():
    values = [1.0, 2.0, 6.0]
    interval = mean_interval(values, 0.9)
    low, high = stats.t.interval(0.9, 2, loc=3, scale=stats.sem(values))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((3, low, high))
    assert mean_interval([4.0], 0.9).model_dump() == {"mean": 4, "low": None, "high": None}
    assert mean_interval([], 0.9) is None


def test_tau_counts_pairs_in_the_same_order():
    # Of the six pairs of (1, 2, 3, 4) against (1, 3, 2, 4) five agree: (5 - 1) / 6. Of the 24 orders, 8 are as far
    # from no association: those with at most one pair turned round (1 + 3), and their mirror images.
    rank = rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], 0.95)
    assert rank.tau == pytest.approx(4 / 6)
    assert rank.p == pytest.approx(8 / 24)
    assert (rank.low, rank.high, rank.rows) == (None, None, 4)
    assert rank_correlation([1, 2, 3], [1, 2, 3], 0.95).tau == pytest.approx(1)
    assert rank_correlation([1, 2], [1, 2], 0.95) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3], 0.95) is None
    assert rank_correlation([1, 2, 3], [1, 1, 1], 0.95) is None


def test_the_interval_of_tau_needs_eight_rows_and_is_the_same_every_time():
    first, second = [1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 4, 3, 6, 5, 8, 7]
    # Of 2,000 resamples, of which none has a row only once.
    interval = rank_correlation(first, second, 0.9)
    assert (interval.low, interval.high) == pytest.approx((0.4782608695652174, 0.92))
    assert rank_correlation(first[:7], second[:7], 0.9).low is None


@pytest.mark.filterwarnings("error")
def test_a_resample_that_is_constant_has_no_tau():
    assert np.isnan(inference._tau_b(np.ones((1, 3)), np.arange(3.0)[None])).all()


def test_the_interval_of_tau_is_as_precise_as_its_resamples_make_it():
    """Its ends have a standard error of about 0.01: 2,000 resamples, and a density of tau of about 0.35 there."""
    printed = np.array([row.accuracy_mean for row in paper("4").rows])
    shuffled = np.concatenate((printed[5:], printed[:5]))
    found = rank_correlation(printed, shuffled, 0.95)
    assert found == rank_correlation(printed, shuffled, 0.95)
    draws = np.random.default_rng(1).integers(17, size=(20_000, 17))
    taus = [stats.kendalltau(printed[rows], shuffled[rows]).statistic for rows in draws[:200]]
    assert inference._tau_b(printed[draws[:200]], shuffled[draws[:200]]) == pytest.approx(taus)
    ends = np.quantile(inference._tau_b(printed[draws], shuffled[draws]), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=0.03)


# How spreads are read


def test_the_papers_spread_is_read_as_the_configuration_says():
    # √(3/2) from n to n - 1, √3 from the standard error of three runs.
    stds = {
        reading: printed_sample(80, 2, Comparing(published_spread=reading)).std
        for reading in ("sample", "population", "standard_error")
    }
    assert stds == pytest.approx({"sample": 2, "population": 2 * 1.5**0.5, "standard_error": 2 * 3**0.5})
    assert printed_sample(80, 2, Comparing(published_seeds=1)).std is None
    two = Comparing(published_seeds=2, published_spread="standard_error")
    assert printed_sample(80, 2, two).model_dump() == pytest.approx({"mean": 80, "std": 2 * 2**0.5, "runs": 2})


def test_a_population_spread_never_gets_into_the_test():
    grid = paper("2")
    tables = [summarised(grid, around(), summarising=Summarising(spread=spread)) for spread in ("sample", "population")]
    sample, population = (compare(table, grid) for table in tables)
    assert sample.rows == population.rows
    assert our_sample(tables[1].rows[0].accuracy).std == pytest.approx(0.1)
    assert "though tables print the population standard deviation" in population.reading


# Verdicts


TWENTY = Comparing(published_seeds=20)


def one_row(outcomes, *, comparing=None, **keys):
    """The comparison of Table 2's static row, 81.47 ± 0.47, as the only one of its table."""
    grid = paper("2")
    row = result(grid.static, outcomes, grid.static, **keys)
    return compare(summarised(grid, around(), rows=(row,), comparing=comparing or Comparing()), grid).rows[0]


def test_a_row_within_the_margin_is_equivalent():
    # 81.4, 81.5, 81.6 against 81.47 ± 0.47: standard error √((0.01 + 0.2209) / 3) = 0.2774, so (2 - 0.03) / 0.2774
    # = 7.10 of them are left to the margin; Welch's degrees of freedom are 2.18.
    row = one_row([81.4, 81.5, 81.6])
    assert row.difference == pytest.approx(0.03)
    assert row.test.standard_error == pytest.approx(0.2774, abs=1e-4)
    assert row.test.degrees_of_freedom == pytest.approx(2.18, abs=0.005)
    assert row.p_equivalent == row.p_equivalent_corrected == pytest.approx(stats.t.sf(7.10, 2.18), rel=0.01)
    assert row.verdict == "equivalent"


@pytest.mark.parametrize(
    ("outcomes", "keys", "verdict", "reason"),
    [
        ([81.4, 81.5, 81.6], {}, "equivalent", r"\+0.03 points is within ±2 points \(corrected p = 0.00"),
        ([82.3, 82.4, 82.5], {"comparing": TWENTY}, "equivalent", "though not zero"),
        ([81.4, 81.5, 81.6, MISSING], {}, "equivalent", ""),
        ([81.4, 81.5, 81.6], {"footnote": "run with 2 cycles"}, "equivalent", "Note: run with 2 cycles.$"),
        ([81.4, 81.5, 81.6, DIVERGED], {}, "undecided", "only without what diverged"),
        ([81.4, DIVERGED, MISSING, 81.5], {}, "undecided", "Of 4 .* 1 diverged and 1 did not run; 2 are behind"),
        ([70.0, 82.0, 93.0], {}, "undecided", "neither to be within ±2 points nor to be other than zero"),
        ([60.0, 60.5, 61.0], {}, "different", "^The difference of −20.97 points is −(?!.*open)"),
        ([79.4, 79.5, 79.6], {"comparing": TWENTY}, "different", "whether it exceeds 2 points is open.$"),
        ([81.4, 81.5, 81.6], {"comparing": Comparing(published_seeds=1)}, "too few seeds", "the paper 1 run."),
    ],
)
def test_the_verdict_on_a_row_comes_with_its_reason(outcomes, keys, verdict, reason):
    row = one_row(outcomes, **keys)
    assert row.verdict == verdict
    assert re.search(reason, row.reason)


def at_the_level(found, **keys):
    """The comparison of a row with a level of which one of its p-values is the exact complement.

    `found` gives the p-value of the comparison of a row, which is tried a little higher each time.
    """
    for step in range(200):
        outcomes = [81.47 + keys["above"] + step / 100 + spread for spread in (-0.5, 0, 0.5)]
        row = one_row(outcomes)
        if 1 - (1 - (p := found(row))) == p and 0 < p < 0.5:
            return one_row(outcomes, comparing=Comparing(level=1 - p))
    raise AssertionError("No p-value has an exact complement.")


def test_a_p_value_at_the_level_is_not_below_it():
    assert at_the_level(lambda row: row.p_equivalent, above=1.0).verdict != "equivalent"
    assert at_the_level(lambda row: row.test.p, above=1.3).verdict == "undecided"
    equal = at_the_level(lambda row: row.test.p, above=0.3)
    assert (equal.verdict, "not zero" in equal.reason) == ("equivalent", False)


@pytest.mark.parametrize("outcomes", [[81.5], [81.5, DIVERGED, MISSING], [DIVERGED], [MISSING, MISSING], []])
def test_fewer_than_two_runs_give_no_verdict(outcomes):
    row = one_row(outcomes)
    assert (row.verdict, row.test) == ("too few seeds", None)
    assert f"we have {outcomes.count(81.5)} finished run" in row.reason
    assert (row.diverged, row.missing) == (outcomes.count(DIVERGED), outcomes.count(MISSING))


def test_no_spread_on_either_side_is_undecided():
    grid = paper("2")
    still = grid.static.model_copy(update={"accuracy_std": 0.0})
    row = result(still, [81.47, 81.47], still)
    compared = compare(summarised(grid, around(), rows=(row,)), grid).rows[0]
    assert (compared.verdict, compared.difference) == ("undecided", 0)
    assert "neither side has any spread" in compared.reason


def test_a_spread_of_the_papers_that_no_seeds_of_ours_make_up_for_is_named():
    grid = paper("4")
    row = compare(summarised(grid, around()), grid).rows[1]
    # 2.87 / √3
    assert row.reason.endswith(
        "The paper's mean alone has a standard error of 1.66 points, which more seeds of ours cannot lessen."
    )


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        ({"comparable": False}, {}, "not run on the network"),
        ({"published_table": None}, {"published": None}, "not set beside"),
        ({}, {"published": None}, "prints no such row"),
        ({}, {"published": None, "printed": False}, "more than its columns say"),
    ],
)
def test_what_cannot_be_compared_says_why(table, row, reason):
    grid = paper("2")
    rows = (result(grid.static, [81.4, 81.5, 81.6], grid.static, **row),)
    compared = compare(summarised(grid, around(), rows=rows, **table), grid)
    assert compared.rows[0].verdict == compared.verdict == "not comparable"
    assert reason in compared.rows[0].reason
    assert compared.summary == f"Not comparable. {compared.rows[0].reason}"
    assert (compared.rows[0].test, compared.rank, compared.shift) == (None, None, None)


# Whole tables


def test_p_values_are_corrected_across_the_table():
    grid = paper("3")
    compared = compare(summarised(grid, around(1.0)), grid)
    assert [row.p_corrected for row in compared.rows] == list(holm([row.test.p for row in compared.rows]))
    assert [row.p_equivalent_corrected for row in compared.rows] == list(
        holm([row.p_equivalent for row in compared.rows])
    )


def alone(table, row_id):
    """The comparison of one row of a table as if it were the only one."""
    (row,) = (row for row in table.rows if row.id == row_id)
    return compare(table.model_copy(update={"rows": (row,)}), None).rows[0]


@pytest.mark.parametrize(
    ("shift", "verdict", "ps"),
    [
        (0.0, "equivalent", lambda row: (row.p_equivalent, row.p_equivalent_corrected)),
        (2.5, "different", lambda row: (row.test.p, row.p_corrected)),
    ],
)
def test_a_row_that_is_sure_alone_may_be_undecided_in_its_table(shift, verdict, ps):
    table = summarised(paper("3"), around(shift, spread=0.7))
    unsure = [row for row in compare(table, None).rows if ps(row)[0] < 0.05 <= ps(row)[1]]
    assert {row.verdict for row in unsure} == {"undecided"}
    assert {alone(table, row.row).verdict for row in unsure} == {verdict}


def test_a_table_with_every_row_equivalent_is_reproduced():
    grid = paper("2")
    compared = compare(summarised(grid, around(0.1)), grid)
    assert (compared.verdict, compared.counts, compared.absent) == ("reproduced", {"equivalent": 17}, ())
    assert compared.summary.startswith("Reproduced: of 17 rows, 17 are the same within ±2 points. The mean difference")
    assert (compared.rank.tau, compared.rank.rows) == (pytest.approx(1), 17)
    assert compared.shift.difference == pytest.approx(0.1)


def test_a_table_that_lacks_a_row_is_not_reproduced():
    grid = paper("2")
    rows = summarised(grid, around()).rows[:-1]
    compared = compare(summarised(grid, around(), rows=rows), grid)
    assert (compared.verdict, compared.absent) == ("undecided", ("triangular, 30×, 2 cycles, 2×",))
    assert compared.summary.endswith("1 row of the paper's is not in the table.")


def test_rows_of_ones_own_do_not_count():
    grid = paper("2")
    table = summarised(grid, around())
    own = table.rows[0].model_copy(update={"id": "own", "published": None, "printed": False})
    compared = compare(summarised(grid, around(), rows=(*table.rows, own)), grid)
    assert compared.verdict == "reproduced"
    assert compared.counts == {"equivalent": 17, "not comparable": 1}
    assert compare(summarised(grid, around(), rows=()), None).verdict == "not comparable"


@pytest.mark.parametrize(
    ("number", "outcomes", "verdict", "counts"),
    [
        (
            "2",
            lambda row: around(20.0 if row.pattern is None else 0.0)(row),
            "mixed",
            {"different": 1, "equivalent": 16},
        ),
        ("4", around(0.0, spread=3.0), "undecided", {"undecided": 17}),
        # Together they are sure, though no row is.
        ("4", around(6.0, spread=1.0), "not reproduced", {"undecided": 17}),
        ("2", lambda row: [row.accuracy_mean], "too few seeds", {"too few seeds": 17}),
    ],
)
def test_the_verdict_on_a_table_follows_from_its_rows_and_their_shift(number, outcomes, verdict, counts):
    compared = compare(summarised(paper(number), outcomes), paper(number))
    assert (compared.verdict, compared.counts) == (verdict, counts)
    assert (compared.shift is None) == (verdict == "too few seeds")
    assert compared.rank is not None
