"""Comparison, claims and audit as the page shows them: numbers become text, and intervals become drawings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from east.analysis.aggregate import AggregatedGrid
from east.analysis.audit import Finding
from east.analysis.claims import ClaimTest, Pair, Support
from east.analysis.compare import RowComparison, TableComparison
from east.config.tables import Comparing
from east.render.names import DATASETS, NETWORKS, capital, table_label
from east.render.numbers import DASH, fixed, signed
from east.render.report.drawing import interval_drawing
from east.render.report.overview import finding

FARTHEST = 10.0
"""Points at which the drawing of a difference ends at the latest."""


@dataclass(frozen=True)
class ComparedRow:
    """A row beside the paper's; the id is that of the row in its table, whose runs the verdict opens."""

    id: str
    settings: str
    our_seeds: str
    published_seeds: str
    difference: str
    drawing: Markup | None
    interval: str
    standard_errors: str
    p: str
    p_equivalent: str
    verdict: str


@dataclass(frozen=True)
class ComparedTable:
    """One of Tables 2-5 beside the paper's; `table` is its id there, and `id` that of its place here."""

    id: str
    table: str
    heading: str
    verdict: str
    summary: str
    margin: str
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ClaimSide:
    """What one side's tables say to a claim."""

    name: str
    agree: str
    beyond_noise: str
    sign_p: str
    effect: str
    interval: str
    verdict: str
    shares: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PairRow:
    """Two rows that a claim sets against each other, with their difference on both sides."""

    table: str
    higher: str
    lower: str
    published: str
    ours: str


@dataclass(frozen=True)
class ClaimView:
    """A claim with both sides."""

    id: str
    statement: str
    possibility: bool
    sides: tuple[ClaimSide, ...]
    pairs: tuple[PairRow, ...]


@dataclass(frozen=True)
class AuditedTable:
    """What was found in one of the paper's tables."""

    label: str
    findings: tuple[Finding, ...]


def how_rows_are_compared(comparing: Comparing) -> str:
    """The method of the comparison in sentences."""
    margin, level = f"{comparing.margin:g} points", f"{100 * comparing.level:g} %"
    return (
        f"Difference is our mean minus the paper’s, with the {level} interval of Welch’s test, from both standard "
        "deviations and numbers of seeds. The two p-values are those of no difference, and of a difference of "
        f"{margin} or more (TOST), each corrected across its table by Holm’s method. A row is equivalent or "
        "different only where one of them says so; that two bars overlap says nothing."
    )


def compared_table(comparison: TableComparison, table: AggregatedGrid) -> ComparedTable:
    """One of Tables 2-5 beside the paper's; without rows where not one of them can be compared."""
    reach = _reach(comparison)
    rows = [_compared_row(row, comparison.comparing, reach) for row in comparison.rows]
    setting = f"{NETWORKS[table.model]} on {DATASETS[table.dataset]}"
    shown = comparison.verdict != "not comparable"
    return ComparedTable(
        id=f"comparison-{comparison.table}",
        table=comparison.table,
        heading=f"{table_label(comparison.table) or comparison.title}: {setting}",
        verdict=comparison.verdict,
        summary=finding(comparison),
        margin=f"±{comparison.comparing.margin:g}",
        rows=tuple(rows) if shown else (),
        notes=tuple(_notes(comparison)) if shown else (),
    )


def claim_view(claim: ClaimTest) -> ClaimView:
    """A claim with both sides."""
    return ClaimView(
        id=f"claim-{claim.id}",
        statement=claim.statement,
        possibility=claim.possibility,
        sides=(_side("Paper", claim.published), _side("Here", claim.ours)),
        pairs=tuple(_pairs(claim)),
    )


def audited_tables(findings: Sequence[Finding]) -> tuple[AuditedTable, ...]:
    """The findings by table, in the order in which they came."""
    ordered = sorted(findings, key=lambda finding: finding.table)
    return tuple(
        AuditedTable(label=f"Table {table}", findings=tuple(found))
        for table, found in groupby(ordered, key=lambda finding: finding.table)
    )


def rows_by_table(comparisons: Sequence[TableComparison]) -> dict[str, Mapping[str, RowComparison]]:
    """Table id: row id: the row beside the paper's."""
    return {comparison.table: {row.row: row for row in comparison.rows} for comparison in comparisons}


def _compared_row(row: RowComparison, comparing: Comparing, reach: float) -> ComparedRow:
    test = row.test
    return ComparedRow(
        id=row.row,
        settings=capital(row.settings),
        our_seeds=str(row.ours.runs if row.ours else 0),
        published_seeds=str(row.published.runs) if row.published else DASH,
        difference=signed(row.difference, 2),
        drawing=interval_drawing(test.difference, test.low, test.high, margin=comparing.margin, reach=reach)
        if test
        else None,
        interval=_interval(test.low, test.high) if test else DASH,
        standard_errors=signed(test.standard_errors, 1) if test else DASH,
        p=_p(row.p_corrected),
        p_equivalent=_p(row.p_equivalent_corrected),
        verdict=row.verdict,
    )


def _reach(comparison: TableComparison) -> float:
    """Half the width of the drawings of a table: room for its intervals, and for twice the margin at least."""
    ends = [abs(end) for row in comparison.rows if row.test for end in (row.test.low, row.test.high)]
    margin = comparison.comparing.margin
    return max(2 * margin, min(max(ends, default=0.0) * 1.05, max(FARTHEST, 4 * margin)))


def _notes(comparison: TableComparison) -> list[str]:
    notes = []
    if rank := comparison.rank:
        interval = ""
        if rank.low is not None and rank.high is not None:
            interval = f", {100 * comparison.comparing.level:g} % interval {fixed(rank.low)} to {fixed(rank.high)}"
        notes.append(
            f"Kendall’s τ between our order of {rank.rows} rows and the paper’s: {fixed(rank.tau)} "
            f"(p {_p_relation(rank.p)}{interval})."
        )
    if comparison.absent:
        notes.append(f"Printed by the paper and not run here: {'; '.join(comparison.absent)}.")
    notes.append(comparison.reading)
    return notes


def _side(name: str, support: Support) -> ClaimSide:
    effect = support.effect
    ends = (effect.low, effect.high) if effect else (None, None)
    return ClaimSide(
        name=name,
        agree=f"{support.agree} of {len(support.pairs)}" if support.pairs else DASH,
        beyond_noise=str(support.beyond_noise) if support.pairs else DASH,
        sign_p=_p(support.sign_p),
        effect=signed(effect.mean, 2) if effect else DASH,
        interval=_interval(ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else DASH,
        verdict=support.verdict,
        shares=tuple(
            (table_label(share.table) or share.table, f"{share.agree} of {share.pairs}") for share in support.by_table
        ),
    )


def _pairs(claim: ClaimTest) -> list[PairRow]:
    """The pairs of both sides, those of the paper first."""

    def key(pair: Pair) -> tuple[str, str, str]:
        return pair.table, pair.higher, pair.lower

    theirs, ours = ({key(pair): pair for pair in side.pairs} for side in (claim.published, claim.ours))
    return [
        PairRow(
            table=(table_label(place[0]) or place[0]).removeprefix("Table "),
            higher=place[1],
            lower=place[2],
            published=_pair_text(theirs.get(place)),
            ours=_pair_text(ours.get(place)),
        )
        for place in theirs | ours
    ]


def _pair_text(pair: Pair | None) -> str:
    if pair is None:
        return DASH
    return f"{signed(pair.difference, 2)}{'' if pair.complete else ' (seeds lacking)'}"


def _interval(low: float, high: float) -> str:
    return f"{signed(low, 2)} to {signed(high, 2)}"


def _p(p: float | None) -> str:
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else fixed(p, 3)


def _p_relation(p: float) -> str:
    return _p(p) if p < 0.001 else f"= {_p(p)}"
