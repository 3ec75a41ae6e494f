"""How the reproduction stands to the paper, as tables: the comparison, the claims, and the audit of what is printed."""

from collections.abc import Sequence
from pathlib import Path

from east.analysis.claims import ClaimTest, Support
from east.analysis.compare import RowComparison, TableComparison
from east.analysis.evidence import Evidence
from east.analysis.inference import RankCorrelation, Sample
from east.analysis.words import p_text
from east.render.names import capital, table_label
from east.render.numbers import DASH, NOT_AVAILABLE, fixed, plus_minus, signed
from east.render.rendered import Rendered, Value, render_views
from east.render.templating import REPORT_FOLDER, caption
from east.render.view import Cell, Column, TableView, ViewRow

COMPARISON_CSV = (
    *("table", "published_table", "row", "settings"),
    *("accuracy_mean", "accuracy_std", "runs", "diverged", "missing"),
    *("published_accuracy_mean", "published_accuracy_std", "published_runs"),
    *("difference", "interval_low", "interval_high", "standard_errors"),
    *("p", "p_corrected", "p_equivalent", "p_equivalent_corrected", "margin", "level", "verdict", "reason"),
)
CLAIMS_CSV = (
    *("claim", "statement", "of", "verdict", "agree", "pairs", "ties", "beyond_noise", "sign_p"),
    *("mean_difference", "interval_low", "interval_high"),
)
AUDIT_CSV = ("table", "row", "rule", "numbers", "finding")


def render_comparison(evidence: Evidence, report_folder: Path = REPORT_FOLDER) -> Rendered:
    """Every table's verdict, then each table that can be compared row by row; the CSV file has all rows of all."""
    compared = [table for table in evidence.comparisons if any(row.difference is not None for row in table.rows)]
    views = [_verdicts(evidence, report_folder), *(_table(table, report_folder) for table in compared)]
    records = [_comparison_record(table, row) for table in evidence.comparisons for row in table.rows]
    return render_views(views, COMPARISON_CSV, records, report_folder)


def render_claims(evidence: Evidence, report_folder: Path = REPORT_FOLDER) -> Rendered:
    """The paper's claims, tested on its tables and on ours."""
    columns = [Column(label="Claim", align="text")]
    for group in ("Paper", "This run"):
        columns += [
            Column(label="Agree", group=group, align="right"),
            Column(label="Sign test", group=group, align="right"),
            Column(label="Mean difference", group=group, align="right"),
            Column(label="Verdict", group=group),
        ]
    view = TableView(
        id="claims",
        caption=caption("claims", report_folder, level=_percent(evidence.comparing.level)),
        columns=tuple(columns),
        rows=tuple(
            ViewRow(cells=(Cell(text=claim.statement), *_support_cells(claim.published), *_support_cells(claim.ours)))
            for claim in evidence.claims
        ),
    )
    records = [record for claim in evidence.claims for record in _claim_records(claim)]
    return render_views([view], CLAIMS_CSV, records, report_folder)


def render_audit(evidence: Evidence, report_folder: Path = REPORT_FOLDER) -> Rendered:
    """What does not fit together in the paper's own tables."""
    view = TableView(
        id="audit",
        caption=caption("audit", report_folder, findings=len(evidence.audit)),
        columns=(Column(label="Table"), Column(label="Rule"), Column(label="Finding", align="text")),
        rows=tuple(
            ViewRow(cells=(Cell(text=finding.table), Cell(text=capital(finding.rule)), Cell(text=finding.text)))
            for finding in evidence.audit
        ),
    )
    records: list[dict[str, Value]] = [
        {
            "table": finding.table,
            "row": finding.row,
            "rule": finding.rule,
            "numbers": " ".join(f"{name}={number:g}" for name, number in finding.numbers.items()),
            "finding": finding.text,
        }
        for finding in evidence.audit
    ]
    return render_views([view], AUDIT_CSV, records, report_folder)


def _verdicts(evidence: Evidence, report_folder: Path) -> TableView:
    return TableView(
        id="comparison",
        caption=caption("comparison", report_folder, part="tables", **_settings(evidence.comparisons)),
        columns=(
            Column(label="Table"),
            Column(label="Verdict"),
            Column(label="Equivalent", align="right"),
            Column(label="Different", align="right"),
            Column(label="Undecided", align="right"),
            Column(label="No verdict", align="right"),
            Column(label="Mean difference", align="right"),
            Column(label="Rank correlation", align="right"),
        ),
        rows=tuple(_verdict_row(table) for table in evidence.comparisons),
        remarks=tuple(
            dict.fromkeys(table.summary for table in evidence.comparisons if table.verdict == "not comparable")
        ),
    )


def _verdict_row(table: TableComparison) -> ViewRow:
    counts = table.counts
    without = counts.get("too few seeds", 0) + counts.get("not comparable", 0)
    numbers = (counts.get("equivalent", 0), counts.get("different", 0), counts.get("undecided", 0), without)
    shift = table.shift
    return ViewRow(
        cells=(
            Cell(text=table_label(table.table) or table.table),
            Cell(text=capital(table.verdict), tone="missing" if table.verdict == "not comparable" else "plain"),
            *(Cell(text=str(number) if number else DASH) for number in numbers),
            Cell(text=_with_interval(signed(shift.difference, 2), shift.low, shift.high) if shift else NOT_AVAILABLE),
            Cell(text=_rank(table.rank)),
        )
    )


def _table(table: TableComparison, report_folder: Path) -> TableView:
    return TableView(
        id=f"comparison-{table.table}",
        caption=caption(
            "comparison", report_folder, part=table_label(table.table) or table.table, **_settings([table])
        ),
        columns=(
            Column(label="Row"),
            Column(label="This run (%)", align="right"),
            Column(label="Paper (%)", align="right"),
            Column(label="Difference", align="right"),
            Column(label="Interval", align="right"),
            Column(label="Std. errors", align="right"),
            Column(label="different", group="Corrected p", align="right"),
            Column(label="equivalent", group="Corrected p", align="right"),
            Column(label="Verdict"),
        ),
        rows=tuple(_comparison_row(row) for row in table.rows),
        remarks=(table.summary, table.reading),
    )


def _comparison_row(row: RowComparison) -> ViewRow:
    test = row.test
    return ViewRow(
        cells=(
            Cell(text=capital(row.settings)),
            Cell(text=_sample(row.ours)),
            Cell(text=_sample(row.published)),
            Cell(text=signed(row.difference, 2)),
            Cell(text=_interval(test.low, test.high) if test else DASH),
            Cell(text=signed(test.standard_errors, 1) if test else DASH),
            Cell(text=_p(row.p_corrected)),
            Cell(text=_p(row.p_equivalent_corrected)),
            Cell(text=capital(row.verdict), tone="differs" if row.verdict == "different" else "plain"),
        )
    )


def _support_cells(support: Support) -> tuple[Cell, ...]:
    effect = support.effect
    pairs = len(support.pairs)
    return (
        Cell(text=f"{support.agree}/{pairs}" if pairs else DASH),
        Cell(text=_p(support.sign_p)),
        Cell(text=_with_interval(signed(effect.mean, 2), effect.low, effect.high) if effect else DASH),
        Cell(text=capital(support.verdict), tone="plain" if pairs else "missing"),
    )


def _comparison_record(table: TableComparison, row: RowComparison) -> dict[str, Value]:
    ours, published, test = row.ours, row.published, row.test
    return {
        "table": table.table,
        "published_table": table.published_table,
        "row": row.row,
        "settings": row.settings,
        "accuracy_mean": ours.mean if ours else None,
        "accuracy_std": ours.std if ours else None,
        "runs": ours.runs if ours else 0,
        "diverged": row.diverged,
        "missing": row.missing,
        "published_accuracy_mean": published.mean if published else None,
        "published_accuracy_std": published.std if published else None,
        "published_runs": published.runs if published else None,
        "difference": row.difference,
        "interval_low": test.low if test else None,
        "interval_high": test.high if test else None,
        "standard_errors": test.standard_errors if test else None,
        "p": test.p if test else None,
        "p_corrected": row.p_corrected,
        "p_equivalent": row.p_equivalent,
        "p_equivalent_corrected": row.p_equivalent_corrected,
        "margin": table.comparing.margin,
        "level": table.comparing.level,
        "verdict": row.verdict,
        "reason": row.reason,
    }


def _claim_records(claim: ClaimTest) -> list[dict[str, Value]]:
    return [
        {
            "claim": claim.id,
            "statement": claim.statement,
            "of": whose,
            "verdict": support.verdict,
            "agree": support.agree,
            "pairs": len(support.pairs),
            "ties": support.ties,
            "beyond_noise": support.beyond_noise,
            "sign_p": support.sign_p,
            "mean_difference": support.effect.mean if support.effect else None,
            "interval_low": support.effect.low if support.effect else None,
            "interval_high": support.effect.high if support.effect else None,
        }
        for whose, support in (("paper", claim.published), ("this run", claim.ours))
    ]


def _settings(tables: Sequence[TableComparison]) -> dict[str, str]:
    """Margin and level of some tables in words."""
    return {
        "margin": " or ".join(dict.fromkeys(f"±{table.comparing.margin:g}" for table in tables)),
        "level": " or ".join(dict.fromkeys(_percent(table.comparing.level) for table in tables)),
    }


def _percent(level: float) -> str:
    return f"{100 * level:g} %"


def _sample(sample: Sample | None) -> str:
    return NOT_AVAILABLE if sample is None else plus_minus(sample.mean, sample.std)


def _p(p: float | None) -> str:
    return DASH if p is None else p_text(p).removeprefix("p = ").removeprefix("p ")


def _rank(rank: RankCorrelation | None) -> str:
    if rank is None:
        return NOT_AVAILABLE
    if rank.low is None or rank.high is None:
        return fixed(rank.tau)
    return f"{fixed(rank.tau)} ({fixed(rank.low)} to {fixed(rank.high)})"


def _interval(low: float, high: float) -> str:
    return f"{signed(low, 2)} to {signed(high, 2)}"


def _with_interval(text: str, low: float | None, high: float | None) -> str:
    return text if low is None or high is None else f"{text} ({_interval(low, high)})"
