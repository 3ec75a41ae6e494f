"""The first screen: how much of the plan has run, the verdict on each table, and what to know before reading on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods
from east.analysis.compare import TableComparison, TableVerdict
from east.analysis.provenance import Coverage, Provenance, table_coverage
from east.analysis.words import listed
from east.render.names import DATASETS, NETWORKS, capital, table_label
from east.render.numbers import duration
from east.render.report.drawing import bar_drawing


@dataclass(frozen=True)
class Verdict:
    """What became of one of Tables 2-5."""

    anchor: str
    label: str
    setting: str
    coverage: str
    verdict: TableVerdict
    sentence: str


@dataclass(frozen=True)
class Overview:
    """What the first screen says."""

    coverage: Coverage | None
    lost: str
    bar: Markup
    facts: tuple[tuple[str, str], ...]
    headline: str | None
    verdicts: tuple[Verdict, ...]
    cautions: tuple[str, ...]


def overview(
    tables: Sequence[AggregatedGrid | AggregatedMethods],
    comparisons: Sequence[TableComparison],
    provenance: Provenance,
) -> Overview:
    """Sum a plan up.

    Args:
        tables: Its summarised tables.
        comparisons: Those of them that have been compared with the paper's.
        provenance: What trained its runs.
    """
    coverage = table_coverage(tables)
    by_id = {table.id: table for table in tables}
    verdicts = tuple(
        _verdict(table, comparison)
        for comparison in comparisons
        if isinstance(table := by_id.get(comparison.table), AggregatedGrid)
    )
    return Overview(
        coverage=coverage if coverage.planned else None,
        lost=_lost(coverage),
        bar=bar_drawing(_shares(coverage)),
        facts=tuple(_facts(provenance)),
        headline=_headline(verdicts) if verdicts else None,
        verdicts=verdicts,
        cautions=tuple(_cautions(tables, coverage, provenance)),
    )


def counted_runs(count: int) -> str:
    """A number of runs in words: `1 run`, `3 runs`."""
    return "1 run" if count == 1 else f"{count:,} runs"


def finding(comparison: TableComparison) -> str:
    """What there is to say of a table beside its verdict, with which the summary begins."""
    rest = comparison.summary.removeprefix(comparison.verdict.capitalize()).lstrip(":. ")
    return capital(rest)


def _verdict(table: AggregatedGrid, comparison: TableComparison) -> Verdict:
    coverage = table_coverage([table])
    whole = coverage.finished == coverage.planned
    return Verdict(
        anchor=table.id,
        label=table_label(table.id) or table.title,
        setting=f"{NETWORKS[table.model]} on {DATASETS[table.dataset]}",
        coverage="" if whole else f"{coverage.finished} of {counted_runs(coverage.planned)}",
        verdict=comparison.verdict,
        sentence=finding(comparison) if comparison.verdict != "not comparable" else "",
    )


_ALL: dict[TableVerdict, str] = {
    "reproduced": "All tables came back",
    "not comparable": "No table tests the paper’s numbers",
    "too few seeds": "Too few seeds for a verdict on any table",
    "undecided": "No table is decided yet",
    "not reproduced": "No table came back",
    "mixed": "Every table came back in part",
}
_SOME: dict[TableVerdict, str] = {
    "reproduced": "reproduced",
    "mixed": "mixed",
    "not reproduced": "not reproduced",
    "undecided": "undecided",
    "too few seeds": "without a verdict for want of seeds",
    "not comparable": "not comparable",
}


def _headline(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.verdict for verdict in verdicts)
    if len(counts) == 1:
        (only,) = counts
        return f"{_ALL[only]}."
    parts = [
        f"{counts[key]} {'is' if counts[key] == 1 else 'are'} {words}" for key, words in _SOME.items() if counts[key]
    ]
    return f"Of {len(verdicts)} tables, {listed(parts)}."


def _lost(coverage: Coverage) -> str:
    parts = [f"{coverage.diverged} diverged"] if coverage.diverged else []
    parts += [f"{coverage.missing} not finished"] if coverage.missing else []
    return ", ".join(parts)


def _shares(coverage: Coverage) -> list[tuple[str, float]]:
    counts = {"finished": coverage.finished, "diverged": coverage.diverged, "missing": coverage.missing}
    return [(kind, count / coverage.planned) for kind, count in counts.items() if count]


def _facts(provenance: Provenance) -> list[tuple[str, str]]:
    facts = []
    if provenance.seconds:
        shared = f", {counted_runs(provenance.shared)} on a shared GPU" if provenance.shared else ""
        facts.append(("Training time", f"{duration(provenance.seconds)} over all runs{shared}"))
    if provenance.seeds:
        facts.append(("Seeds", ", ".join(map(str, provenance.seeds))))
    if provenance.devices:
        facts.append(("Trained on", listed(list(provenance.devices))))
    return facts


def _cautions(
    tables: Sequence[AggregatedGrid | AggregatedMethods], coverage: Coverage, provenance: Provenance
) -> list[str]:
    cautions = []
    other = [table for table in tables if isinstance(table, AggregatedGrid) and not table.comparable]
    if other:
        names = listed([table_label(table.id) or table.title for table in other])
        cautions.append(
            f"{names} ran with another network, width, density or other images than the paper’s: they show that the "
            "pipeline works, and test none of the paper’s numbers."
        )
    if coverage.missing:
        cautions.append(
            f"{counted_runs(coverage.missing)} of the plan {'has' if coverage.missing == 1 else 'have'} not finished "
            "yet; rows that lack seeds say so, and their means are over the seeds that are there."
        )
    if coverage.diverged:
        cautions.append(
            f"{counted_runs(coverage.diverged)} diverged; no mean includes them, and every row that lost a seed "
            "says so."
        )
    if len(provenance.code_digests) > 1:
        versions = listed([f"{counted_runs(count)} by {digest}" for digest, count in provenance.code_digests.items()])
        cautions.append(
            f"The runs were trained by {len(provenance.code_digests)} different versions of the code: {versions}. "
            "If a change between them can alter numbers, raise REVISION and train again."
        )
    return cautions
