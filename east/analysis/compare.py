"""Whether a table came back: each row against the paper's, or another source's, and the table as a whole.

Nothing is called the same because two bars overlap. A row is the same where two one-sided tests say so (TOST), and
different where Welch's test says so, both corrected by Holm's method across the table; where neither does, it is open.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from east.analysis.aggregate import THE_PAPER, AggregatedGrid, GridResult
from east.analysis.inference import (
    RankCorrelation,
    Sample,
    Welch,
    equivalence_p,
    exceeds,
    holm,
    mean_difference,
    our_sample,
    printed_sample,
    rank_correlation,
    welch,
)
from east.analysis.published import PublishedGrid
from east.analysis.words import capital, counted, listed, p_text, signed
from east.config.run import Frozen
from east.config.tables import Comparing

Verdict = Literal["equivalent", "different", "undecided", "too few seeds", "not comparable"]
TableVerdict = Literal["reproduced", "mixed", "not reproduced", "undecided", "too few seeds", "not comparable"]


PUBLISHED = "published numbers"
"""Those of several sources."""


class RowComparison(Frozen):
    """A row beside a published one; means, spreads and differences in percentage points."""

    row: str = Field(description="id of the row in its table")
    settings: str = Field(description="the row in words, such as `cosine, 10×, 2 cycles, 2×`")
    ours: Sample | None = Field(description="finished seeds; None without any")
    published: Sample | None
    diverged: int = Field(ge=0, description="seeds that diverged, and are in no mean")
    missing: int = Field(ge=0, description="planned seeds that have not run")
    difference: float | None = Field(description="our mean minus the published one")
    test: Welch | None = Field(description="None where there are too few seeds, or no spread on either side")
    p_corrected: float | None = Field(description="of no difference, by Holm's method across the table")
    p_equivalent: float | None = Field(description="of a difference of the margin or more (TOST)")
    p_equivalent_corrected: float | None = Field(description="the same by Holm's method across the table")
    verdict: Verdict
    reason: str = Field(description="why, in sentences")


class TableComparison(Frozen):
    """A table beside published numbers."""

    table: str
    title: str
    source: str = Field(default=THE_PAPER, description="whose numbers they are, as sentences call it")
    is_beside: bool = Field(default=True, description="whether published numbers stand beside its rows")
    published_table: str | None
    comparing: Comparing
    rows: tuple[RowComparison, ...]
    absent: tuple[str, ...] = Field(description="rows that are printed and the table does not have")
    counts: dict[Verdict, int] = Field(description="rows by verdict; only verdicts that occur")
    shift: Welch | None = Field(description="mean difference of the rows that have a test; None without any")
    rank: RankCorrelation | None = Field(description="our means against the published ones; None with too few rows")
    verdict: TableVerdict
    summary: str = Field(description="the verdict in sentences")
    reading: str = Field(description="what the two ± are taken for, in sentences")


def sources_text(tables: Sequence[TableComparison]) -> str:
    """Whose numbers some tables are beside, as sentences call it; `PUBLISHED` where that is no single source."""
    named = {table.source for table in tables if table.is_beside}
    return named.pop() if len(named) == 1 else PUBLISHED if tables else THE_PAPER


def whose(source: str) -> str:
    """What a source prints for a row, as sentences call it: `the paper's`."""
    return "the published one" if source == PUBLISHED else f"{source}'s"


def compare_with_published(table: AggregatedGrid, published: PublishedGrid | None) -> TableComparison:
    """Set a table beside the paper's, or beside the source that its rows have numbers of.

    Verdict of a row, with α = 1 - `level` and p-values corrected across the table:

    - `not comparable`: the source has no such row, or the table was run on another scale;
    - `too few seeds`: one side has fewer than two runs, hence no spread;
    - `equivalent`: p of a difference of the margin or more is below α, and no seed diverged;
    - `different`: p of no difference is below α (the difference may still be smaller than the margin);
    - `undecided`: all else, also where no side has any spread.

    Verdict of the table, over the rows that can be compared:

    - `reproduced`: every row that is printed is there and equivalent;
    - `not reproduced`: some row is different, or the mean shift surely exceeds the margin; and no row is equivalent;
    - `mixed`: the same, but some row is equivalent;
    - `too few seeds`, `not comparable`: no row is better than that;
    - `undecided`: all else.

    Args:
        table: The summarised runs; it says margin and level (`comparing`).
        published: The paper's table, whose rows must all be there; None where there is none. Of another source the
            plan has made sure that all rows are there.
    """
    drafts = [_weigh(row, table) for row in table.rows]
    corrected = _corrected([draft.test.p if draft.test else None for draft in drafts])
    corrected_equivalent = _corrected([draft.p_equivalent for draft in drafts])
    rows = tuple(
        _judge(row, draft.model_copy(update={"p_corrected": p, "p_equivalent_corrected": p_equivalent}), table)
        for row, draft, p, p_equivalent in zip(table.rows, drafts, corrected, corrected_equivalent, strict=True)
    )
    absent: tuple[str, ...] = ()
    if published is not None and table.comparable:
        shown = {row.key for row in table.rows if row.published}
        absent = tuple(row.settings for row in published.rows if row.key not in shown)
    counts = Counter(row.verdict for row in rows)
    shift = mean_difference([row.test for row in rows if row.test], table.comparing.level)
    shifted = shift is not None and exceeds(shift, table.comparing.margin)
    verdict = _table_verdict(counts, complete=not absent, shifted=shifted)
    pairs = [(row.ours.mean, row.published.mean) for row in rows if row.ours and row.published]
    return TableComparison(
        table=table.id,
        title=table.title,
        source=table.source_name,
        is_beside=table.is_beside,
        published_table=table.published_table,
        comparing=table.comparing,
        rows=rows,
        absent=absent,
        counts=dict(counts),
        shift=shift,
        rank=rank_correlation([ours for ours, _ in pairs], [theirs for _, theirs in pairs], table.comparing.level),
        verdict=verdict,
        summary=_summary(verdict, rows, absent, shift, table.comparing),
        reading=_reading(table),
    )


def _weigh(row: GridResult, table: AggregatedGrid) -> RowComparison:
    """What there is to say of a row before the table is corrected as a whole."""
    comparing = table.comparing
    ours = our_sample(row.accuracy)
    theirs = row.published if table.comparable else None
    published = printed_sample(theirs.mean, theirs.std, comparing) if theirs else None
    return RowComparison(
        row=row.id,
        settings=row.settings,
        ours=ours,
        published=published,
        diverged=len(row.accuracy.with_status("diverged")),
        missing=len(row.accuracy.with_status("missing")),
        difference=ours.mean - published.mean if ours and published else None,
        test=welch(ours, published, comparing.level) if ours and published else None,
        p_corrected=None,
        p_equivalent=equivalence_p(ours, published, comparing.margin) if ours and published else None,
        p_equivalent_corrected=None,
        verdict="undecided",
        reason="",
    )


def _judge(row: GridResult, found: RowComparison, table: AggregatedGrid) -> RowComparison:
    verdict, reason = _verdict(row, found, table)
    sentences = [reason]
    if found.published:
        counts = ((found.diverged, "diverged"), (found.missing, "did not run"))
        lost = [f"{number} {words}" for number, words in counts if number]
        used = row.accuracy.used
        if lost:
            behind = f"{used} {'is' if used == 1 else 'are'} behind the mean"
            sentences.append(f"Of {counted(row.accuracy.planned, 'planned run')} {listed(lost)}; {behind}.")
        if row.footnote:
            sentences.append(f"Note: {row.footnote.rstrip('.')}.")
    return found.model_copy(update={"verdict": verdict, "reason": " ".join(sentences)})


def _verdict(row: GridResult, found: RowComparison, table: AggregatedGrid) -> tuple[Verdict, str]:
    comparing = table.comparing
    if found.published is None:
        return "not comparable", _why_not_comparable(row, table)
    if found.ours is None or found.ours.std is None or found.published.std is None:
        if row.published and row.published.std is None:
            return "too few seeds", f"No spread is printed by {table.source_name}, so nothing can be tested."
        ours = counted(found.ours.runs if found.ours else 0, "finished run")
        theirs = counted(found.published.runs, "run")
        return "too few seeds", f"A spread needs two runs on each side; we have {ours}, {table.source_name} {theirs}."
    difference = f"The difference of {signed(found.ours.mean - found.published.mean)} points"
    test, p, p_equivalent = found.test, found.p_corrected, found.p_equivalent_corrected
    if test is None or p is None or p_equivalent is None:
        return "undecided", f"{difference} cannot be tested, because neither side has any spread."
    alpha = 1 - comparing.level
    errors = f"{signed(test.standard_errors, 1)} standard errors"
    if p_equivalent < alpha:
        if found.diverged:
            return "undecided", f"{difference} is within ±{comparing.margin:g} points, but only without what diverged."
        real = f", though not zero (corrected {p_text(p)})" if p < alpha else ""
        within = f"{difference} is within ±{comparing.margin:g} points (corrected {p_text(p_equivalent)}){real}."
        return "equivalent", within
    if p < alpha:
        size = "" if exceeds(test, comparing.margin) else f"; whether it exceeds {comparing.margin:g} points is open"
        return "different", f"{difference} is {errors} (corrected {p_text(p)}){size}."
    return "undecided", (
        f"{difference}, {errors}, is shown neither to be within ±{comparing.margin:g} points nor to be other than "
        f"zero, corrected across the table ({_interval(test, comparing)} for the row alone)."
        f"{_source_sentence(found.published, table)}"
    )


def _source_sentence(published: Sample, table: AggregatedGrid) -> str:
    """What to say where the printed spread alone rules equivalence out: runs of ours without any would not show it."""
    comparing = table.comparing
    p = equivalence_p(published.model_copy(update={"std": 0.0}), published, comparing.margin)
    if p is None or published.std is None or p < 1 - comparing.level:
        return ""
    error = published.std / math.sqrt(published.runs)
    return (
        f" {capital(table.source_name)}'s mean alone has a standard error of {error:.2f} points, which more seeds of "
        "ours cannot lessen."
    )


def _interval(test: Welch, comparing: Comparing) -> str:
    return f"{100 * comparing.level:g} % interval {signed(test.low)} to {signed(test.high)}"


def _why_not_comparable(row: GridResult, table: AggregatedGrid) -> str:
    if not table.is_beside:
        return "The table is not set beside published numbers."
    if not table.comparable:
        return "The table was not run on the network, width, data set and density of the paper's."
    if not row.printed:
        return f"The row differs from {table.source_name}'s in more than its columns say."
    return "The paper prints no such row." if table.source is None else f"Not in {table.source.name.rstrip('.')}."


def _table_verdict(counts: Counter[Verdict], *, complete: bool, shifted: bool) -> TableVerdict:
    compared = Counter({verdict: number for verdict, number in counts.items() if verdict != "not comparable"})
    if not compared:
        return "not comparable"
    if compared.keys() == {"too few seeds"}:
        return "too few seeds"
    if compared["different"] or shifted:
        return "mixed" if compared["equivalent"] else "not reproduced"
    return "reproduced" if complete and compared.keys() == {"equivalent"} else "undecided"


_IN_WORDS: dict[Verdict, str] = {
    "equivalent": "the same within ±{margin:g} points",
    "different": "different",
    "undecided": "undecided",
    "too few seeds": "without a verdict for want of seeds",
    "not comparable": "not comparable",
}


def _summary(
    verdict: TableVerdict,
    rows: Sequence[RowComparison],
    absent: Sequence[str],
    shift: Welch | None,
    comparing: Comparing,
) -> str:
    if verdict == "not comparable":
        return f"Not comparable. {rows[0].reason if rows else 'The table has no rows.'}"
    counts = Counter(row.verdict for row in rows)
    parts = [
        f"{number} {'is' if number == 1 else 'are'} {words.format(margin=comparing.margin)}"
        for key, words in _IN_WORDS.items()
        if (number := counts[key])
    ]
    sentences = [f"{verdict.capitalize()}: of {counted(len(rows), 'row')}, {listed(parts)}."]
    if shift:
        sentences.append(f"The mean difference is {signed(shift.difference)} points ({_interval(shift, comparing)}).")
    if absent:
        # Only the paper's tables are printed with rows that a plan may leave out.
        lacking = f"{counted(len(absent), 'row')} of the paper's {'is' if len(absent) == 1 else 'are'}"
        sentences.append(f"{lacking} not in the table.")
    return " ".join(sentences)


_SPREADS = {
    "sample": "the sample standard deviation (n − 1)",
    "population": "the population standard deviation (n)",
    "standard_error": "the standard error of the mean",
}


def _reading(table: AggregatedGrid) -> str:
    comparing = table.comparing
    runs = counted(comparing.published_seeds, "run")
    theirs = f"{capital(table.source_name)}'s ± is taken for {_SPREADS[comparing.published_spread]} of {runs}."
    if table.summarising.spread == "sample":
        return f"{theirs} Ours is {_SPREADS['sample']}."
    return f"{theirs} Ours is tested as {_SPREADS['sample']}, though tables print {_SPREADS['population']}."


def _corrected(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over the rows that have a p-value."""
    corrected = iter(holm([p for p in ps if p is not None]))
    return [None if p is None else next(corrected) for p in ps]
