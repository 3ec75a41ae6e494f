"""How tables stand to published ones, as tables: comparison, claims, and an audit of the paper's own tables.

Each table is described once, by its quantities: what a row shows in print, and the unrounded values behind it.
Markdown, LaTeX, HTML and CSV follow from that, and the report and the appendix embed the same tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from east.analysis.audit import AuditFinding
from east.analysis.claims import ClaimTest, Pair, Support
from east.analysis.compare import RowComparison, TableComparison, sources_text, whose
from east.analysis.evidence import Evidence
from east.analysis.inference import MeanInterval, RankCorrelation, Sample, Welch
from east.analysis.words import capital, listed, p_text
from east.render.names import table_label
from east.render.numbers import DASH, NOT_AVAILABLE, fixed, plus_minus, signed_or_dash
from east.render.rendered import Quantity, Rendered, Value, data_of, numeric, render_views, view_of
from east.render.templating import caption
from east.render.view import Cell, Column, Interval, TableView, Tone

CLAIMED_BY_PAPER = "Section C of the paper"
"""The source of the claims in config.yaml."""
FARTHEST = 10.0
"""Points at which the drawing of an interval ends at the latest; wide margins extend it."""


@dataclass(frozen=True)
class EvidenceTable:
    """One kind of evidence.

    Attributes:
        name: Of its files, and of its place in the report.
        heading: In the report and in the appendix.
        views: What is printed, by heading; the heading is empty where there is only one view.
        columns: Of the CSV file.
        records: Rows of the CSV file.
        details: What the report alone shows, folded up, by heading.
    """

    name: str
    heading: str
    views: Mapping[str, TableView]
    columns: Sequence[str]
    records: Sequence[Mapping[str, Value]]
    details: Mapping[str, TableView] = field(default_factory=dict)

    def render(self) -> Rendered:
        """The table in every format."""
        return render_views(list(self.views.values()), self.columns, self.records)


def evidence_tables(evidence: Evidence) -> tuple[EvidenceTable, ...]:
    """Comparison, claims and audit, in the order in which they are read."""
    return _comparison(evidence), _claims(evidence), _audit(evidence)


_VERDICTS: tuple[Quantity[TableComparison], ...] = (
    Quantity(Column(label="Table"), lambda table: _label(table.table)),
    Quantity(Column(label="Verdict"), lambda table: _verdict(table.verdict, missing=table.verdict == "not comparable")),
    Quantity(numeric("Equivalent"), lambda table: _count(table, "equivalent")),
    Quantity(numeric("Different"), lambda table: _count(table, "different")),
    Quantity(numeric("Undecided"), lambda table: _count(table, "undecided")),
    Quantity(numeric("No verdict"), lambda table: _count(table, "too few seeds", "not comparable")),
    Quantity(numeric("Mean difference"), lambda table: _mean(table.shift)),
    Quantity(numeric("Rank correlation"), lambda table: _rank(table.rank)),
)


@dataclass(frozen=True)
class _Compared:
    """A row beside a published one, and the table that it stands in."""

    table: TableComparison
    row: RowComparison


def _compared(source: str) -> tuple[Quantity[_Compared], ...]:
    """What is said of a row beside a published one, by whom that is published."""
    return (
        Quantity(None, data={"table": "table.table", "published_table": "table.published_table", "row": "row.row"}),
        Quantity(Column(label="Row"), lambda of: capital(of.row.settings), {"settings": "row.settings"}),
        Quantity(Column(label="Verdict"), lambda of: _verdict(of.row.verdict, row=of.row.row)),
        Quantity(
            numeric("This run (%)"),
            lambda of: Cell(text=_sample(of.row.ours, lost=of.row.diverged + of.row.missing), row=of.row.row),
            {
                "accuracy_mean": "row.ours.mean",
                "accuracy_std": "row.ours.std",
                "runs": lambda of: of.row.ours.runs if of.row.ours else 0,
                "diverged": "row.diverged",
                "missing": "row.missing",
            },
        ),
        Quantity(
            numeric(f"{_heading(source)} (%)"),
            lambda of: _sample(of.row.published),
            {
                "published_accuracy_mean": "row.published.mean",
                "published_accuracy_std": "row.published.std",
                "published_runs": "row.published.runs",
            },
        ),
        Quantity(
            numeric("Difference"), lambda of: signed_or_dash(of.row.difference, 2), {"difference": "row.difference"}
        ),
        Quantity(
            numeric("Interval"),
            lambda of: _interval_cell(of.table, of.row.test),
            {
                "interval_low": "row.test.low",
                "interval_high": "row.test.high",
                "standard_errors": "row.test.standard_errors",
            },
        ),
        Quantity(
            numeric("no difference", "Corrected p"),
            lambda of: _p(of.row.p_corrected),
            {"p": "row.test.p", "p_corrected": "row.p_corrected"},
        ),
        Quantity(
            numeric("beyond margin", "Corrected p"),
            lambda of: _p(of.row.p_equivalent_corrected),
            {
                "p_equivalent": "row.p_equivalent",
                "p_equivalent_corrected": "row.p_equivalent_corrected",
                "margin": "table.comparing.margin",
                "level": "table.comparing.level",
            },
        ),
        Quantity(None, data={"verdict": "row.verdict", "reason": "row.reason"}),
    )


@dataclass(frozen=True)
class _Side:
    """What the tables of one side say to a claim."""

    claim: ClaimTest
    name: str
    support: Support
    is_first: bool


_CLAIMS: tuple[Quantity[_Side], ...] = (
    Quantity(
        Column(label="Claim", align="text"),
        # Ours stands under the published ones, and the statement goes for both.
        lambda side: side.claim.statement if side.is_first else "",
        {"claim": "claim.id", "statement": "claim.statement"},
    ),
    Quantity(Column(label="Tables"), lambda side: capital(side.name), {"of": "name"}),
    Quantity(
        Column(label="Verdict"),
        lambda side: _verdict(side.support.verdict, missing=not side.support.pairs),
        {"verdict": "support.verdict"},
    ),
    Quantity(
        numeric("agree", "Pairs"),
        lambda side: f"{side.support.agree} of {len(side.support.pairs)}" if side.support.pairs else DASH,
        {"agree": "support.agree", "pairs": lambda side: len(side.support.pairs), "ties": "support.ties"},
    ),
    Quantity(
        numeric("beyond noise", "Pairs"),
        lambda side: str(side.support.beyond_noise) if side.support.pairs else DASH,
        {"beyond_noise": "support.beyond_noise"},
    ),
    Quantity(numeric("Sign test p"), lambda side: _p(side.support.sign_p), {"sign_p": "support.sign_p"}),
    Quantity(
        numeric("Mean difference"),
        lambda side: _mean(side.support.effect),
        {
            "mean_difference": "support.effect.mean",
            "interval_low": "support.effect.low",
            "interval_high": "support.effect.high",
        },
    ),
)


@dataclass(frozen=True)
class _Matched:
    """A pair of rows that a claim compares, on either side."""

    table: str
    higher: str
    lower: str
    published: Pair | None
    ours: Pair | None


def _pair_quantities(claim: ClaimTest) -> list[Quantity[_Matched]]:
    """What is said of a pair; only ours where nothing is published."""
    published = numeric(_heading(claim.published_by), "Difference") if claim.published else None
    return [
        Quantity(Column(label="Table"), lambda pair: _label(pair.table).removeprefix("Table ")),
        Quantity(Column(label="Expected higher"), lambda pair: pair.higher),
        Quantity(Column(label="Expected lower"), lambda pair: pair.lower),
        Quantity(published, lambda pair: _pair_difference(pair.published)),
        Quantity(numeric("This run", "Difference"), lambda pair: _pair_difference(pair.ours)),
    ]


_FINDINGS: tuple[Quantity[AuditFinding], ...] = (
    Quantity(Column(label="Table"), lambda finding: finding.table, {"table": "table", "row": "row"}),
    Quantity(Column(label="Rule"), lambda finding: capital(finding.rule), {"rule": "rule"}),
    Quantity(
        None,
        data={"numbers": lambda finding: " ".join(f"{name}={value:g}" for name, value in finding.numbers.items())},
    ),
    Quantity(Column(label="Finding", align="text"), lambda finding: finding.text, {"finding": "text"}),
)


def _comparison(evidence: Evidence) -> EvidenceTable:
    """Every table's verdict, then each table that can be compared row by row; the data has all rows of all tables."""
    tables = evidence.comparisons
    views = {
        "": view_of(
            _VERDICTS,
            tables,
            id="comparison",
            caption=caption(
                "comparison", part="tables", whose=whose(sources_text(tables)), **_margin_and_level(tables)
            ),
            remarks=tuple(dict.fromkeys(table.summary for table in tables if table.verdict == "not comparable")),
        )
    }
    for table in tables:
        if any(row.difference is not None for row in table.rows):
            views[_label(table.table)] = view_of(
                _compared(table.source),
                [_Compared(table, row) for row in table.rows],
                id=f"comparison-{table.table}",
                caption=caption(
                    "comparison",
                    part=_label(table.table),
                    summary=table.summary,
                    source=table.source,
                    whose=whose(table.source),
                    **_margin_and_level([table]),
                ),
                remarks=_remarks(table),
            )
    rows = [_Compared(table, row) for table in tables for row in table.rows]
    source = sources_text(tables)
    return EvidenceTable("comparison", f"Comparison with {source}", views, *data_of(_compared(source), rows))


def _remarks(table: TableComparison) -> tuple[str, ...]:
    order = absent = ""
    if rank := table.rank:
        interval = ""
        if rank.low is not None and rank.high is not None:
            interval = f", {_percent(table.comparing.level)} interval {fixed(rank.low)} to {fixed(rank.high)}"
        order = (
            f"Kendall's τ of our {rank.rows} means with {table.source}'s: "
            f"{fixed(rank.tau)} ({p_text(rank.p)}{interval})."
        )
    if table.absent:
        absent = f"In {table.source} but not run here: {'; '.join(table.absent)}."
    return tuple(filter(None, (order, absent, table.reading)))


def _claims(evidence: Evidence) -> EvidenceTable:
    """The claims, tested on published tables and on ours, and every pair of rows behind that."""
    sides = [side for claim in evidence.claims for side in _sides(claim)]
    claimants = list(dict.fromkeys(claim.source or "this configuration" for claim in evidence.claims))
    view = view_of(
        _CLAIMS,
        sides,
        begins=lambda before, side: before.claim != side.claim,
        id="claims",
        caption=caption(
            "claims",
            level=_percent(evidence.comparing.level),
            claimants=listed(claimants),
            of_paper=set(claimants) <= {CLAIMED_BY_PAPER},
            hedged=any(claim.possibility for claim in evidence.claims),
        ),
        sortable=False,
    )
    heading = "The paper's claims" if set(claimants) <= {CLAIMED_BY_PAPER} else "Claims"
    pairs = {claim.statement: _pairs(claim) for claim in evidence.claims if claim.published or claim.ours.pairs}
    return EvidenceTable("claims", heading, {"": view}, *data_of(_CLAIMS, sides), details=pairs)


def _sides(claim: ClaimTest) -> list[_Side]:
    """Published tables, where there are any to a claim, and ours."""
    named = [(claim.published_by.removeprefix("the "), claim.published), ("this run", claim.ours)]
    there = [(name, support) for name, support in named if support is not None]
    return [_Side(claim, name, support, is_first=place == 0) for place, (name, support) in enumerate(there)]


def _pairs(claim: ClaimTest) -> TableView:
    """The pairs of both sides, the published ones first."""
    published = claim.published.pairs if claim.published else ()
    theirs, ours = (
        {(pair.table, pair.higher, pair.lower): pair for pair in pairs} for pairs in (published, claim.ours.pairs)
    )
    matched = [_Matched(*place, theirs.get(place), ours.get(place)) for place in theirs | ours]
    begin = f"Pairs that agree in {claim.published_by}"
    shares = [
        f"{name}: {', '.join(f'{share.agree} of {share.pairs} in {_label(share.table)}' for share in side.by_table)}."
        for name, side in ((begin, claim.published), ("In this run", claim.ours))
        if side is not None and side.by_table
    ]
    return view_of(_pair_quantities(claim), matched, id=f"pairs-{claim.id}", caption=" ".join(shares))


def _audit(evidence: Evidence) -> EvidenceTable:
    """What does not fit together in the paper's own tables."""
    view = view_of(_FINDINGS, evidence.audit, id="audit", caption=caption("audit", findings=len(evidence.audit)))
    return EvidenceTable("audit", "Audit of the published tables", {"": view}, *data_of(_FINDINGS, evidence.audit))


def _heading(source: str) -> str:
    """A source as the heading of a column."""
    return capital(source.removeprefix("the "))


def _label(table: str) -> str:
    return table_label(table) or table


def _margin_and_level(tables: Sequence[TableComparison]) -> dict[str, str]:
    """Margin and level of some tables in words."""
    return {
        "margin": " or ".join(dict.fromkeys(f"±{table.comparing.margin:g}" for table in tables)),
        "level": " or ".join(dict.fromkeys(_percent(table.comparing.level) for table in tables)),
    }


def _percent(level: float) -> str:
    return f"{100 * level:g} %"


def _verdict(verdict: str, *, missing: bool = False, row: str | None = None) -> Cell:
    tone: Tone = "differs" if verdict == "different" else "missing" if missing else "plain"
    return Cell(text=capital(verdict), verdict=True, tone=tone, row=row)


def _count(table: TableComparison, *verdicts: str) -> str:
    number = sum(count for verdict, count in table.counts.items() if verdict in verdicts)
    return str(number) if number else DASH


def _sample(sample: Sample | None, lost: int = 0) -> str:
    if sample is None:
        return NOT_AVAILABLE
    text = plus_minus(sample.mean, sample.std)
    return f"{text} ({sample.runs} of {sample.runs + lost} seeds)" if lost else text


def _p(p: float | None) -> str:
    return DASH if p is None else p_text(p).removeprefix("p = ").removeprefix("p ")


def _pair_difference(pair: Pair | None) -> str:
    return (
        DASH if pair is None else f"{signed_or_dash(pair.difference, 2)}{'' if pair.complete else ' (seeds missing)'}"
    )


def _rank(rank: RankCorrelation | None) -> str:
    if rank is None:
        return NOT_AVAILABLE
    if rank.low is None or rank.high is None:
        return fixed(rank.tau)
    return f"{fixed(rank.tau)} ({fixed(rank.low)} to {fixed(rank.high)})"


def _mean(found: Welch | MeanInterval | None) -> str:
    """A mean difference with its interval, where it has one."""
    if found is None:
        return DASH
    mean = signed_or_dash(found.difference if isinstance(found, Welch) else found.mean, 2)
    return mean if found.low is None or found.high is None else f"{mean} ({_interval(found.low, found.high)})"


def _interval_cell(table: TableComparison, test: Welch | None) -> Cell:
    if test is None:
        return Cell(text=DASH)
    margin, reach = table.comparing.margin, _reach(table)
    drawn = Interval(difference=test.difference, low=test.low, high=test.high, margin=margin, reach=reach)
    return Cell(text=_interval(test.low, test.high), interval=drawn)


def _interval(low: float, high: float) -> str:
    return f"{signed_or_dash(low, 2)} to {signed_or_dash(high, 2)}"


def _reach(table: TableComparison) -> float:
    """Half the width of the drawings of a table: room for its intervals, and for twice the margin at least."""
    ends = [abs(end) for row in table.rows if row.test for end in (row.test.low, row.test.high)]
    margin = table.comparing.margin
    return max(2 * margin, min(max(ends, default=0.0) * 1.05, max(FARTHEST, 4 * margin)))
