"""The trends that Section C states, as tests: matched pairs of rows, the share that agree, a sign test and an effect.

Each claim pairs the rows of a frame (`schedule_rows`); the paper's tables and ours go through the same one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

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

if TYPE_CHECKING:
    import pandas as pd

SCHEDULE = ("pattern", "multiplier", "cycles", "length_multiplier")
STATIC = "static"
"""Stands in a frame of rows for the pattern of those without cycles."""


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
        higher: The rows that should be higher, as a pandas query.
        lower: The rows that each of them is compared with.
        same: What both rows of a pair have in common, beside their table.
        possibility: Whether it says that something may happen: one pair beyond noise shows it, and no majority need.
    """

    id: str
    statement: str
    higher: str
    lower: str
    same: tuple[str, ...] = ()
    possibility: bool = False

    def pairs(self, rows: "pd.DataFrame") -> tuple[Pair, ...]:
        """The matched pairs of some `schedule_rows`, table by table."""
        matched = rows.query(self.higher).merge(
            rows.query(self.lower), on=["table", *self.same], suffixes=("_higher", "_lower")
        )
        # The p-value does not depend on the level of the interval, which is not used here.
        return tuple(
            Pair(
                table=pair["table"],
                higher=pair["settings_higher"],
                lower=pair["settings_lower"],
                difference=pair["sample_higher"].mean - pair["sample_lower"].mean,
                p=test.p if (test := welch(pair["sample_higher"], pair["sample_lower"], level=0.95)) else None,
                complete=pair["complete_higher"] and pair["complete_lower"],
            )
            for pair in matched.to_dict("records")
        )


CLAIMS = (
    Claim(
        "multiplier",
        "A density multiplier of 10× beats one of 3×.",
        "multiplier == 10",
        "multiplier == 3",
        ("pattern", "cycles", "length_multiplier"),
    ),
    Claim("cycles", "Two cycles beat one.", "cycles == 2", "cycles == 1", ("pattern", "multiplier")),
    Claim(
        "length",
        "A longer second cycle beats two of equal length.",
        "length_multiplier > 1",
        "length_multiplier == 1",
        ("pattern", "multiplier", "cycles"),
    ),
    Claim("cyclic", "Cyclic sparsity beats static sparsity.", "pattern != @STATIC", "pattern == @STATIC"),
    Claim(
        "may-lose",
        "On ResNet-34, cosine cycles with a low multiplier may lose to static sparsity.",
        "model == 'resnet34' and pattern == @STATIC",
        "pattern == 'cosine' and multiplier == 3",
        possibility=True,
    ),
)


def schedule_rows(tables: Sequence[PublishedGrid | AggregatedGrid], comparing: Comparing) -> "pd.DataFrame":
    """The rows that have a mean, of the paper's tables or of ours; not those that differ in more than the columns say.

    Args:
        tables: Ours stand under the id of the paper's table that they are beside.
        comparing: How the printed ± are read.

    Returns:
        A row a row, with `table`, `model`, the four columns of `SCHEDULE`, their `settings` in words, the `sample`, and
        whether it is `complete`: every planned run is behind the mean.
    """
    import pandas as pd

    found: list[tuple[object, ...]] = []
    samples: list[tuple[ScheduleColumns, Sample, bool]]
    for table in tables:
        if isinstance(table, PublishedGrid):
            name, model = f"table{table.number}", table.rows[0].model.lower()
            samples = [
                (row, printed_sample(row.accuracy_mean, row.accuracy_std, comparing), True) for row in table.rows
            ]
        else:
            name, model = f"table{table.published_table}" if table.published_table else table.id, str(table.model)
            samples = [
                (row, sample, row.accuracy.complete)
                for row in table.rows
                if row.printed and (sample := our_sample(row.accuracy))
            ]
        found += [(name, model, *row.key, row.settings, sample, complete) for row, sample, complete in samples]
    rows = pd.DataFrame(found, columns=["table", "model", *SCHEDULE, "settings", "sample", "complete"])
    return rows.fillna({"pattern": STATIC})


def check_claims(
    published: Sequence[PublishedGrid], ours: Sequence[AggregatedGrid], comparing: Comparing
) -> tuple[ClaimTest, ...]:
    """Put every claim to the paper's tables and to ours, the pairs of all tables together."""
    theirs, here = schedule_rows(published, comparing), schedule_rows(ours, comparing)
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


def support(claim: Claim, rows: "pd.DataFrame", level: float) -> Support:
    """How some `schedule_rows` stand to a claim.

    Verdict, with α = 1 - `level`: a trend `holds` where the sign test is below α and more pairs agree than disagree,
    and is `reversed` where more disagree; a possibility `holds` where some pair agrees beyond noise, and is `not seen`
    where no pair agrees at all; `undecided` is the rest.
    """
    pairs = claim.pairs(rows)
    differences = [pair.difference for pair in pairs]
    agree = sum(difference > 0 for difference in differences)
    ties = differences.count(0.0)
    disagree = len(pairs) - ties - agree
    tested = [(pair.difference, pair.p) for pair in pairs if pair.p is not None]
    corrected = zip(tested, holm([p for _, p in tested]), strict=True)
    beyond_noise = sum(difference > 0 and p < 1 - level for (difference, _), p in corrected)
    sign_p = sign_test(agree, disagree)
    effect = mean_interval(differences, level)
    verdict: ClaimVerdict = "undecided"
    if not pairs:
        verdict = "no pairs"
    elif claim.possibility:
        verdict = "holds" if beyond_noise else "undecided" if agree else "not seen"
    elif sign_p is not None and sign_p < 1 - level:
        verdict = "holds" if agree > disagree else "reversed"
    return Support(
        pairs=pairs,
        agree=agree,
        ties=ties,
        share=agree / len(pairs) if pairs else None,
        beyond_noise=beyond_noise,
        sign_p=sign_p,
        effect=effect,
        by_table=tuple(
            _table_share(table, [pair.difference for pair in of])
            for table, of in groupby(pairs, key=lambda pair: pair.table)
        ),
        verdict=verdict,
        summary=_summary(pairs, agree, beyond_noise, sign_p, effect, level),
    )


def _table_share(table: str, differences: Sequence[float]) -> TableShare:
    return TableShare(
        table=table,
        agree=sum(difference > 0 for difference in differences),
        pairs=len(differences),
        mean_difference=sum(differences) / len(differences),
    )


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
