"""The trends that Section C states, as tests: matched pairs of rows, the share that agree, a sign test and an effect.

Each claim is a function from a table to the pairs it speaks of; the paper's tables and ours go through the same one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from east.analysis.aggregate import AggregatedGrid
from east.analysis.inference import (
    MeanInterval,
    Sample,
    holm,
    mean_interval,
    our_sample,
    printed_sample,
    sign_test,
    welch,
)
from east.analysis.published import PublishedGrid, ScheduleColumns
from east.analysis.words import counted, p_text, signed
from east.config.run import Frozen
from east.config.tables import Comparing

LOWER_MULTIPLIER = 3.0
HIGHER_MULTIPLIER = 10.0
"""The multipliers that Section C sets against each other."""

_COLUMNS = set(ScheduleColumns.model_fields)


class ScheduleRow(ScheduleColumns):
    """A row of Tables 2-5, the paper's or ours, that has a mean."""

    sample: Sample
    complete: bool = Field(description="whether every planned run is behind the mean")


class ScheduleTable(Frozen):
    """One of Tables 2-5, the paper's or ours."""

    id: str = Field(description="`table2` for the paper's Table 2 and for ours beside it")
    model: str = Field(description="network, such as `resnet34`")
    rows: tuple[ScheduleRow, ...]


class Pair(Frozen):
    """Two rows of a table that differ in what a claim is about, and in nothing else."""

    table: str
    higher: str = Field(description="the row that the claim expects to be higher")
    lower: str
    difference: float = Field(description="mean of `higher` minus mean of `lower`, percentage points")
    p: float | None = Field(description="of no difference, by Welch's test of these two rows alone")
    complete: bool = Field(description="whether every planned run is behind both means")


class TableShare(Frozen):
    """How the pairs of one table stand to a claim."""

    table: str
    agree: int
    pairs: int
    mean_difference: float


ClaimVerdict = Literal["holds", "reversed", "undecided", "not seen", "no pairs"]


class Support(Frozen):
    """How some tables stand to a claim.

    Pairs share rows (every cyclic row is set against the same static one). The sign test and the interval take them as
    independent, and so claim more certainty than there is; `by_table` shows what a total hides.
    """

    pairs: tuple[Pair, ...]
    agree: int = Field(ge=0, description="pairs with a difference above zero")
    ties: int = Field(ge=0, description="pairs with none; they agree with nothing and are left out of the sign test")
    share: float | None = Field(description="of the pairs that agree; None without pairs")
    beyond_noise: int = Field(
        ge=0,
        description="pairs that agree by more than their seeds explain (Welch's p by Holm's method over all pairs)",
    )
    sign_p: float | None = Field(description="two-sided, of agreeing by chance")
    effect: MeanInterval | None = Field(description="mean difference of the pairs, percentage points")
    by_table: tuple[TableShare, ...]
    verdict: ClaimVerdict
    summary: str


class ClaimTest(Frozen):
    """A claim with what the paper's tables and ours say to it."""

    id: str
    statement: str
    possibility: bool = Field(description="whether the claim is that something may happen, and not that it tends to")
    published: Support
    ours: Support


@dataclass(frozen=True)
class Claim:
    """A trend of Section C.

    Args:
        id: Stable name.
        statement: What is claimed, as a sentence.
        pairs: The matched pairs of a table, with the row that should be higher first.
        possibility: Whether it says that something may happen: one pair beyond noise shows it, and no majority need.
    """

    id: str
    statement: str
    pairs: Callable[[ScheduleTable], tuple[Pair, ...]]
    possibility: bool = False


def published_schedules(grid: PublishedGrid, comparing: Comparing) -> ScheduleTable:
    """The rows of a table as printed."""
    return ScheduleTable(
        id=f"table{grid.number}",
        model=grid.rows[0].model.lower(),
        rows=tuple(
            ScheduleRow(
                **row.model_dump(include=_COLUMNS),
                sample=printed_sample(row.accuracy_mean, row.accuracy_std, comparing),
                complete=True,
            )
            for row in grid.rows
        ),
    )


def our_schedules(table: AggregatedGrid) -> ScheduleTable:
    """The rows of ours that have a mean, without those that differ in more than the columns say."""
    return ScheduleTable(
        id=f"table{table.published_table}" if table.published_table else table.id,
        model=table.model,
        rows=tuple(
            ScheduleRow(
                **row.model_dump(include=_COLUMNS),
                sample=sample,
                complete=row.accuracy.complete,
            )
            for row in table.rows
            if row.printed and (sample := our_sample(row.accuracy))
        ),
    )


def ten_times_beats_three(table: ScheduleTable) -> tuple[Pair, ...]:
    """10× against 3×, with the same pattern, cycles and lengths."""
    return _matched(
        table,
        higher=lambda row: row.multiplier == HIGHER_MULTIPLIER,
        lower=lambda row: row.multiplier == LOWER_MULTIPLIER,
        same=lambda row: (row.pattern, row.cycles, row.length_multiplier),
    )


def two_cycles_beat_one(table: ScheduleTable) -> tuple[Pair, ...]:
    """Two cycles, equal or not, against one, with the same pattern and multiplier."""
    return _matched(
        table,
        higher=lambda row: row.cycles == 2,
        lower=lambda row: row.cycles == 1,
        same=lambda row: (row.pattern, row.multiplier),
    )


def longer_cycles_beat_equal(table: ScheduleTable) -> tuple[Pair, ...]:
    """Cycles of growing length against as many of equal length, with the same pattern and multiplier."""
    return _matched(
        table,
        higher=lambda row: row.length_multiplier is not None and row.length_multiplier > 1,
        lower=lambda row: row.length_multiplier == 1,
        same=lambda row: (row.pattern, row.multiplier, row.cycles),
    )


def cyclic_beats_static(table: ScheduleTable) -> tuple[Pair, ...]:
    """Every cyclic row against the static one."""
    return _matched(
        table,
        higher=lambda row: row.pattern is not None,
        lower=lambda row: row.pattern is None,
        same=lambda row: None,
    )


def static_beats_low_cosine_on_resnet34(table: ScheduleTable) -> tuple[Pair, ...]:
    """The static row against cosine cycles with the lower multiplier, on ResNet-34."""
    if table.model != "resnet34":
        return ()
    return _matched(
        table,
        higher=lambda row: row.pattern is None,
        lower=lambda row: row.pattern == "cosine" and row.multiplier == LOWER_MULTIPLIER,
        same=lambda row: None,
    )


CLAIMS = (
    Claim("multiplier", "A density multiplier of 10× beats one of 3×.", ten_times_beats_three),
    Claim("cycles", "Two cycles beat one.", two_cycles_beat_one),
    Claim("length", "A longer second cycle beats two of equal length.", longer_cycles_beat_equal),
    Claim("cyclic", "Cyclic sparsity beats static sparsity.", cyclic_beats_static),
    Claim(
        "may-lose",
        "On ResNet-34, cosine cycles with a low multiplier may lose to static sparsity.",
        static_beats_low_cosine_on_resnet34,
        possibility=True,
    ),
)


def check_claims(
    published: Sequence[PublishedGrid], ours: Sequence[AggregatedGrid], comparing: Comparing
) -> tuple[ClaimTest, ...]:
    """Put every claim to the paper's tables and to ours, the pairs of all tables together.

    Args:
        published: Tables 2-5 as printed.
        ours: The summarised grids.
        comparing: Level of tests and intervals, and how the printed ± are read.
    """
    theirs = [published_schedules(grid, comparing) for grid in published]
    here = [our_schedules(table) for table in ours]
    return tuple(
        ClaimTest(
            id=claim.id,
            statement=claim.statement,
            possibility=claim.possibility,
            published=support(claim, theirs, comparing.level),
            ours=support(claim, here, comparing.level),
        )
        for claim in CLAIMS
    )


def support(claim: Claim, tables: Sequence[ScheduleTable], level: float) -> Support:
    """How some tables stand to a claim.

    Verdict, with α = 1 - `level`: a trend `holds` where the sign test is below α and more pairs agree than disagree,
    and is `reversed` where more disagree; a possibility `holds` where some pair agrees beyond noise, and is `not seen`
    where no pair agrees at all; `undecided` is the rest.
    """
    pairs = tuple(pair for table in tables for pair in claim.pairs(table))
    differences = [pair.difference for pair in pairs]
    agree = sum(difference > 0 for difference in differences)
    ties = differences.count(0.0)
    tested = [pair for pair in pairs if pair.p is not None]
    corrected = holm([pair.p for pair in tested if pair.p is not None])
    beyond_noise = sum(pair.difference > 0 and p < 1 - level for pair, p in zip(tested, corrected, strict=True))
    sign_p = sign_test(agree, len(pairs) - ties - agree)
    effect = mean_interval(differences, level)
    if claim.possibility:
        verdict = _possibility_verdict(len(pairs), agree, beyond_noise)
    else:
        verdict = _trend_verdict(len(pairs), agree, ties, sign_p, 1 - level)
    return Support(
        pairs=pairs,
        agree=agree,
        ties=ties,
        share=agree / len(pairs) if pairs else None,
        beyond_noise=beyond_noise,
        sign_p=sign_p,
        effect=effect,
        by_table=tuple(_table_share(table, pairs) for table in dict.fromkeys(pair.table for pair in pairs)),
        verdict=verdict,
        summary=_summary(pairs, agree, beyond_noise, sign_p, effect, level),
    )


def _matched(
    table: ScheduleTable,
    *,
    higher: Callable[[ScheduleRow], bool],
    lower: Callable[[ScheduleRow], bool],
    same: Callable[[ScheduleRow], object],
) -> tuple[Pair, ...]:
    return tuple(
        _pair(table, first, second)
        for first in table.rows
        if higher(first)
        for second in table.rows
        if lower(second) and same(first) == same(second)
    )


def _pair(table: ScheduleTable, higher: ScheduleRow, lower: ScheduleRow) -> Pair:
    # The p-value does not depend on the level, which is that of an interval nobody reads here.
    test = welch(higher.sample, lower.sample, level=0.95)
    return Pair(
        table=table.id,
        higher=higher.settings,
        lower=lower.settings,
        difference=higher.sample.mean - lower.sample.mean,
        p=test.p if test else None,
        complete=higher.complete and lower.complete,
    )


def _table_share(table: str, pairs: Sequence[Pair]) -> TableShare:
    differences = [pair.difference for pair in pairs if pair.table == table]
    return TableShare(
        table=table,
        agree=sum(difference > 0 for difference in differences),
        pairs=len(differences),
        mean_difference=sum(differences) / len(differences),
    )


def _trend_verdict(pairs: int, agree: int, ties: int, sign_p: float | None, alpha: float) -> ClaimVerdict:
    if not pairs:
        return "no pairs"
    if sign_p is None or sign_p >= alpha:
        return "undecided"
    return "holds" if agree > pairs - ties - agree else "reversed"


def _possibility_verdict(pairs: int, agree: int, beyond_noise: int) -> ClaimVerdict:
    if not pairs:
        return "no pairs"
    if beyond_noise:
        return "holds"
    return "undecided" if agree else "not seen"


def _summary(
    pairs: Sequence[Pair],
    agree: int,
    beyond_noise: int,
    sign_p: float | None,
    effect: MeanInterval | None,
    level: float,
) -> str:
    if effect is None:
        return "No two rows can be paired."
    sign = f"sign test {p_text(sign_p)}" if sign_p is not None else "all tie"
    interval = ""
    if effect.low is not None and effect.high is not None:
        interval = f" ({100 * level:g} % interval {signed(effect.low)} to {signed(effect.high)})"
    incomplete = sum(not pair.complete for pair in pairs)
    lacking = f" Runs that diverged or have not ended are missing from {counted(incomplete, 'pair')}."
    return (
        f"{agree} of {counted(len(pairs), 'pair')} agree ({sign}), {beyond_noise} beyond the noise of the seeds; "
        f"mean difference {signed(effect.mean)} points{interval}.{lacking if incomplete else ''}"
    )
