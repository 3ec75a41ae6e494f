import pytest
from fake_tables import DIVERGED, around, paper, papers, papers_claims, result, summarised
from hypothesis import given
from hypothesis import strategies as st

from east.analysis.claims import check_claims, claim_rows, pairs_of
from east.analysis.claims import support as support_of_pairs
from east.analysis.inference import holm
from east.config.tables import Comparing

CLAIMS = papers_claims()


def support(claim, rows, level):
    return support_of_pairs(pairs_of(claim, rows), level, possibility=claim.possibility)


@pytest.fixture(scope="module")
def printed():
    return {test.id: test.published for test in check_claims(CLAIMS.values(), papers(), [], Comparing())}


def sides(pairs):
    return [(pair.higher, pair.lower) for pair in pairs]


def shares(support):
    return {share.table: (share.agree, share.pairs) for share in support.by_table}


@pytest.mark.parametrize(("claim", "agree", "pairs"), [("multiplier", 24, 24), ("cycles", 28, 32), ("length", 20, 24)])
def test_the_trends_on_the_papers_own_numbers(printed, claim, agree, pairs):
    assert (printed[claim].agree, len(printed[claim].pairs), printed[claim].ties) == (agree, pairs, 0)
    assert printed[claim].share == agree / pairs
    assert printed[claim].verdict == "holds"


def test_two_cycles_do_no_better_than_one_on_resnet50_and_cifar10(printed):
    assert shares(printed["cycles"]) == {"table2": (8, 8), "table3": (8, 8), "table4": (4, 8), "table5": (8, 8)}


def test_every_cyclic_row_is_set_against_the_static_one(printed):
    assert shares(printed["cyclic"]) == {"table2": (16, 16), "table3": (11, 16), "table4": (16, 16), "table5": (16, 16)}


def test_low_cosine_loses_on_cifar100_alone_and_once_beyond_noise(printed):
    may_lose = printed["may-lose"]
    assert shares(may_lose) == {"table2": (0, 3), "table3": (3, 3)}
    # 38.44 - 34.37, 37.17 and 38.36
    assert [pair.difference for pair in may_lose.pairs[3:]] == pytest.approx([4.07, 1.27, 0.08])
    assert (may_lose.beyond_noise, may_lose.verdict) == (1, "holds")


def test_a_sign_test_and_an_effect_by_hand(printed):
    # 24 of 24: 2 / 2^24. The mean over Table 2's six pairs: 0.70, 1.23, 1.26, 1.34, 1.94, 0.91.
    assert printed["multiplier"].sign_p == pytest.approx(2 / 2**24)
    assert printed["multiplier"].by_table[0].mean_difference == pytest.approx(7.38 / 6)
    effect = printed["multiplier"].effect
    assert effect.low < effect.mean < effect.high
    assert printed["multiplier"].summary == (
        "24 of 24 pairs agree (sign test p < 0.001), 4 beyond the noise of the seeds; mean difference +3.84 points "
        "(95 % interval +2.84 to +4.85)."
    )


def test_pairs_differ_in_nothing_but_what_the_claim_is_about(printed):
    pair = printed["multiplier"].pairs[1]
    assert (pair.higher, pair.lower) == ("cosine, 10×, 2 cycles, 1×", "cosine, 3×, 2 cycles, 1×")
    assert {(pair.higher, pair.lower) for pair in printed["length"].pairs if "3 cycles" in pair.higher} == {
        ("cosine, 30×, 3 cycles, 2×", "cosine, 30×, 3 cycles, 1×")
    }


def test_three_cycles_are_neither_two_nor_one_and_compare_with_three():
    grid = paper("2")
    cosine = [row for row in grid.rows if row.pattern == "cosine" and row.multiplier == 10]
    rows = [result(row, [80.0, 81.0], grid.static) for row in cosine]
    rows += [result(row, [80.0, 81.0], grid.static, cycles=3) for row in cosine if row.cycles == 2]
    ours = claim_rows([summarised(grid, around(), rows=tuple(rows))], Comparing())
    one, two, three = "cosine, 10×, 1 cycle", "cosine, 10×, 2 cycles", "cosine, 10×, 3 cycles"
    assert sides(pairs_of(CLAIMS["cycles"], ours)) == [(f"{two}, 1×", one), (f"{two}, 2×", one)]
    assert sides(pairs_of(CLAIMS["length"], ours)) == [
        (f"{two}, 2×", f"{two}, 1×"),
        (f"{three}, 2×", f"{three}, 1×"),
    ]


def test_noise_is_judged_over_all_pairs_at_once(printed):
    ps = [pair.p for pair in printed["multiplier"].pairs]
    assert printed["multiplier"].beyond_noise == sum(p < 0.05 for p in holm(ps)) < sum(p < 0.05 for p in ps)


def test_the_same_numbers_of_ours_give_the_same_answers(printed):
    tables = [summarised(grid, around()) for grid in papers()]
    for test in check_claims(CLAIMS.values(), papers(), tables, Comparing()):
        assert shares(test.ours) == shares(test.published) == shares(printed[test.id])


def test_rows_without_a_mean_make_no_pairs_and_lost_seeds_are_counted():
    grid = paper("2")

    def outcomes(row):
        if row.multiplier == 30:
            return [DIVERGED, DIVERGED]
        return [row.accuracy_mean, DIVERGED] if row.multiplier == 10 else [row.accuracy_mean]

    cyclic = support(CLAIMS["cyclic"], claim_rows([summarised(grid, outcomes)], Comparing()), 0.95)
    assert (len(cyclic.pairs), cyclic.beyond_noise) == (12, 0)
    assert cyclic.summary.endswith("Runs that diverged or have not ended are missing from 6 pairs.")


def test_rows_of_ones_own_and_other_networks_stay_out():
    grid = paper("4")
    table = summarised(grid, around())
    own = result(grid.rows[1], [99.0, 99.0], grid.static, id="own", printed=False)
    ours = claim_rows([summarised(grid, around(), rows=(*table.rows, own))], Comparing())
    assert len(ours) == 17
    assert pairs_of(CLAIMS["may-lose"], ours) == ()


def test_no_table_gives_no_pairs_and_no_numbers():
    for claim in CLAIMS.values():
        nothing = support(claim, claim_rows([], Comparing()), 0.95)
        assert (nothing.verdict, nothing.share, nothing.sign_p, nothing.effect) == ("no pairs", None, None, None)
        assert nothing.summary == "No two rows can be paired."


def turned_round(claim, rows):
    """The pairs of a claim, each the other way round."""
    pairs = pairs_of(claim, rows)
    return tuple(
        pair.model_copy(update={"higher": pair.lower, "lower": pair.higher, "difference": -pair.difference})
        for pair in pairs
    )


def test_a_trend_the_other_way_is_reversed():
    rows = claim_rows(papers(), Comparing())
    assert support_of_pairs(turned_round(CLAIMS["multiplier"], rows), 0.95).verdict == "reversed"


def test_few_pairs_decide_nothing_however_they_fall():
    # Six of six: 2 / 64 is below 0.05 but not below 0.01.
    table = claim_rows([paper("2")], Comparing())
    assert support(CLAIMS["multiplier"], table, 0.95).verdict == "holds"
    assert support(CLAIMS["multiplier"], table, 0.99).verdict == "undecided"


def test_what_may_happen_is_undecided_within_noise_and_not_seen_without_a_case():
    table2, tables = claim_rows([paper("2")], Comparing()), claim_rows([paper("2"), paper("3")], Comparing())
    assert support(CLAIMS["may-lose"], table2, 0.95).verdict == "not seen"
    single = claim_rows([paper("3")], Comparing(published_seeds=1))
    assert support(CLAIMS["may-lose"], single, 0.95).verdict == "undecided"
    assert support(CLAIMS["may-lose"], tables, 0.95).verdict == "holds"


@given(st.lists(st.floats(0, 100), min_size=17, max_size=17))
def test_turning_a_claim_round_swaps_agreement_and_keeps_the_p_value(means):
    grid = paper("2")
    rows = tuple(result(row, [mean, mean], grid.static) for row, mean in zip(grid.rows, means, strict=True))
    tables = claim_rows([summarised(grid, around(), rows=rows)], Comparing())
    claim = CLAIMS["cycles"]
    forth, back = support(claim, tables, 0.95), support_of_pairs(turned_round(claim, tables), 0.95)
    assert forth.agree + forth.ties + back.agree == len(forth.pairs) == 8
    assert forth.sign_p == back.sign_p
    assert forth.effect.mean == pytest.approx(-back.effect.mean)


def test_pairs_that_tie_agree_with_nothing():
    rows = claim_rows([summarised(paper("2"), lambda row: [80.0, 81.0])], Comparing())
    tied = support(CLAIMS["cycles"], rows, 0.95)
    assert (tied.agree, tied.ties, tied.share, tied.sign_p, tied.verdict) == (0, 8, 0, None, "undecided")
    assert shares(tied) == {"table2": (0, 8)}
    assert tied.summary.startswith("0 of 8 pairs agree (all tie), 0 beyond the noise")


def test_a_p_value_at_the_level_decides_nothing():
    # Six of six: 2 / 64, whose complement is exact.
    rows = claim_rows([paper("2")], Comparing())
    assert support(CLAIMS["multiplier"], rows, 1 - 2 / 64).verdict == "undecided"
    grid = paper("2")
    ours = [result(grid.static, [80.0, 81.0], grid.static), result(grid.rows[1], [80.2, 80.4], grid.static)]
    rows = claim_rows([summarised(grid, around(), rows=tuple(ours))], Comparing())
    (pair,) = pairs_of(CLAIMS["may-lose"], rows)
    assert pair.p > 0.5
    assert support(CLAIMS["may-lose"], rows, 1 - pair.p).beyond_noise == 0
    assert support(CLAIMS["may-lose"], rows, 0.99 - pair.p).beyond_noise == 1
