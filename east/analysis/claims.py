"""Claims as tests: matched pairs of rows, the share that agree, a sign test and an effect.

A claim's form (`east.analysis.claim_forms`) pairs the rows of a frame (`claim_rows`); published tables and ours go
through the same one. What follows from the pairs is decided here, for all forms: frames in, verdict out.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from east.analysis.aggregate import THE_PAPER, AggregatedGrid
from east.analysis.inference import (
    MeanInterval,
    holm,
    mean_interval,
    our_sample,
    printed_sample,
    sign_test,
    welch,
)
from east.analysis.published import PublishedGrid, ScheduleColumns
from east.analysis.words import counted, listed, p_text, signed
from east.config.choices import bound
from east.config.run import Frozen
from east.config.tables import ClaimSpec, Comparing
from east.errors import EastError
from east.plugins import blamed
from east.sparse.kinds import claim_form

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
    margin: float = Field(default=0.0, ge=0, description="points by which the claim expects it to be higher")
    p: float | None = Field(description="of a difference of the margin, by Welch's test of these two rows alone")
    complete: bool = Field(description="whether every planned run is behind both means")

    @property
    def agrees(self) -> bool:
        """Whether the difference is above the margin."""
        return self.difference > self.margin


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
    agree: int = Field(
        ge=0, description="pairs with a difference above the margin, which is zero unless a claim has one"
    )
    ties: int = Field(
        ge=0, description="pairs with just that; they agree with nothing and are left out of the sign test"
    )
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
    """A claim with what published tables and ours say to it."""

    id: str
    statement: str
    source: str | None = Field(default=None, description="who claims it; None: the configuration")
    possibility: bool = Field(description="whether the claim is that something may happen, and not that it tends to")
    published_by: str = Field(default=THE_PAPER, description="whose tables are published, as sentences call them")
    published: Support | None = Field(description="None where no published rows can be paired")
    ours: Support


def claim_rows(
    tables: Sequence[PublishedGrid | AggregatedGrid], comparing: Comparing, *, printed: bool = False
) -> "pd.DataFrame":
    """The rows that have a mean, of published tables or of ours; not those that differ in more than the columns say.

    Args:
        tables: Ours stand under the id of the paper's table that they are beside.
        comparing: How the paper's ± are read.
        printed: Of ours take what their source prints, in place of what was trained.

    Returns:
        A row a row, with `table`, `model`, `label`, its `settings` in words, a column for each axis of any table (the
        four columns of `SCHEDULE`; in a table with axes of its own these and `method`), the `sample`, and whether it
        is `complete`: every planned run is behind the mean.
    """
    import pandas as pd

    records: list[dict[str, Any]] = []
    for table in tables:
        if isinstance(table, PublishedGrid):
            records += [
                {
                    **_described(f"table{table.number}", row.model.lower(), row.method, row),
                    "sample": printed_sample(row.accuracy_mean, row.accuracy_std, comparing),
                    "complete": True,
                }
                for row in table.rows
            ]
            continue
        name = f"table{table.published_table}" if table.published_table else table.id
        for row in table.rows:
            axes = {"method": row.method, **row.values} if table.axes else {}
            of_row = _described(name, str(table.model), row.method, row, axes)
            if printed:
                if row.published is not None:
                    sample = printed_sample(row.published.mean, row.published.std, table.comparing)
                    records.append({**of_row, "sample": sample, "complete": True})
            elif row.printed and (own := our_sample(row.accuracy)):
                records.append({**of_row, "sample": own, "complete": row.accuracy.complete})
    columns = dict.fromkeys(["table", "model", "label", "settings", *SCHEDULE])
    columns |= dict.fromkeys(name for record in records for name in record)
    columns |= dict.fromkeys(["sample", "complete"])
    return pd.DataFrame(records, columns=list(columns))


def _described(
    table: str, model: str, label: str, row: ScheduleColumns, axes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What a row is; those of Tables 2-5 are told apart by their schedules, others by their own axes."""
    values = axes or dict(zip(SCHEDULE, row.key, strict=True))
    if "pattern" in values:
        values = {**values, "pattern": values["pattern"] or STATIC}
    return {"table": table, "model": model, "label": label, "settings": row.settings, **values}


def check_claims(
    claims: Sequence[ClaimSpec],
    published: Sequence[PublishedGrid],
    ours: Sequence[AggregatedGrid],
    comparing: Comparing,
) -> tuple[ClaimTest, ...]:
    """Put every claim to published tables and to ours, the pairs of all tables together.

    Args:
        claims: The claims; whatever plugins their forms need are loaded.
        published: The paper's tables.
        ours: Those of the plan; some may stand beside another source.
        comparing: How the paper's ± are read, and the level of the tests.

    Raises:
        EastError: A plugin's form fails, or gives no pairs of rows.
    """
    return tuple(_check(claim, published, ours, comparing) for claim in claims)


def _check(
    claim: ClaimSpec, published: Sequence[PublishedGrid], ours: Sequence[AggregatedGrid], comparing: Comparing
) -> ClaimTest:
    about = [table for table in ours if not claim.tables or table.id in claim.tables]
    numbers = {table.published_table for table in about}
    papers = [grid for grid in published if not claim.tables or grid.number in numbers]
    sourced = {table.id: table.source.name for table in about if table.source is not None}
    theirs = claim_rows([*papers], comparing)
    if sourced:
        import pandas as pd

        others = claim_rows([table for table in about if table.source is not None], comparing, printed=True)
        theirs = pd.concat([theirs, others], ignore_index=True)
    found = support(pairs_of(claim, theirs), comparing.level, possibility=claim.possibility)
    names = dict.fromkeys(sourced.get(pair.table, THE_PAPER) for pair in found.pairs)
    return ClaimTest(
        id=claim.id,
        statement=claim.statement,
        source=claim.source,
        possibility=claim.possibility,
        published_by=listed(list(names)) or THE_PAPER,
        published=found if found.pairs else None,
        ours=support(pairs_of(claim, claim_rows(about, comparing)), comparing.level, possibility=claim.possibility),
    )


def pairs_of(claim: ClaimSpec, rows: "pd.DataFrame") -> tuple[Pair, ...]:
    """The pairs of some `claim_rows` that a claim's form makes, table by table.

    Raises:
        EastError: A plugin's form fails, or gives no pairs of rows; with its file and line.
    """
    if rows.empty:
        return ()
    entry, form = bound(claim_form, claim.form)
    with blamed(entry, f"on the claim '{claim.id}'"):
        found = form(rows)
        if not {"higher", "lower"} <= set(getattr(found, "columns", ())):
            raise EastError(f"{entry.place}: {entry.title} must give {entry.kind.gives}.")
        strange = [label for side in ("higher", "lower") for label in found[side] if label not in rows.index]
        if strange:
            raise EastError(f"{entry.place}: {entry.title} gave {strange[0]!r}, which is no label of its rows' index.")
    pairs = []
    for record in found.to_dict("records"):
        higher, lower = rows.loc[record["higher"]], rows.loc[record["lower"]]
        pairs.append(_pair(higher, lower, float(record.get("margin", 0.0))))
    return tuple(pairs)


def _pair(higher: "pd.Series[Any]", lower: "pd.Series[Any]", margin: float) -> Pair:
    first, second = higher["sample"], lower["sample"]
    # The p-value does not depend on the level of the interval, which is not used here.
    test = welch(first.model_copy(update={"mean": first.mean - margin}), second, level=0.95)
    return Pair(
        table=higher["table"],
        higher=higher["settings"],
        lower=lower["settings"],
        difference=first.mean - second.mean,
        margin=margin,
        p=test.p if test else None,
        complete=bool(higher["complete"] and lower["complete"]),
    )


def support(pairs: tuple[Pair, ...], level: float, *, possibility: bool = False) -> Support:
    """What pairs of rows say to a claim.

    A pair agrees where the row that should be higher is so by more than the pair's margin.

    Verdict, with α = 1 - `level`: a trend `holds` where the sign test is below α and more pairs agree than disagree,
    and is `reversed` where more disagree; a possibility `holds` where some pair agrees beyond noise, and is `not seen`
    where no pair agrees at all; `undecided` is the rest.
    """
    agree = sum(pair.agrees for pair in pairs)
    ties = sum(pair.difference == pair.margin for pair in pairs)
    disagree = len(pairs) - ties - agree
    tested = [(pair.agrees, pair.p) for pair in pairs if pair.p is not None]
    corrected = zip(tested, holm([p for _, p in tested]), strict=True)
    beyond_noise = sum(agrees and p < 1 - level for (agrees, _), p in corrected)
    sign_p = sign_test(agree, disagree)
    effect = mean_interval([pair.difference for pair in pairs], level)
    verdict: ClaimVerdict = "undecided"
    if not pairs:
        verdict = "no pairs"
    elif possibility:
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
        by_table=tuple(_table_share(table, list(of)) for table, of in groupby(pairs, key=lambda pair: pair.table)),
        verdict=verdict,
        summary=_summary(pairs, agree, beyond_noise, sign_p, effect, level),
    )


def _table_share(table: str, pairs: Sequence[Pair]) -> TableShare:
    return TableShare(
        table=table,
        agree=sum(pair.agrees for pair in pairs),
        pairs=len(pairs),
        mean_difference=sum(pair.difference for pair in pairs) / len(pairs),
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
