"""The first screen: how much of the plan has run, the verdict on each table, and what to know before reading on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods
from east.analysis.compare import TableComparison, TableVerdict
from east.analysis.provenance import Coverage, Provenance, table_coverage
from east.analysis.words import listed
from east.render.drawing import bar_drawing
from east.render.names import DATASETS, NETWORKS, capital, table_label
from east.render.numbers import duration, fixed


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


def _counted_runs(count: int) -> str:
    """A number of runs in words: `1 run`, `3 runs`."""
    return "1 run" if count == 1 else f"{count:,} runs"


def provenance_rows(facts: Mapping[str, str], provenance: Provenance) -> list[tuple[str, list[str]]]:
    """Names and values in the order in which they are shown; a value that all runs share is not counted.

    Args:
        facts: What the plan knows of itself, in words; it comes first.
        provenance: What the runs recorded.
    """
    rows: list[tuple[str, list[str]]] = [(name, [value]) for name, value in facts.items()]
    rows += [
        ("Seeds", [", ".join(str(seed) for seed in provenance.seeds)] if provenance.seeds else []),
        ("Commit", _counted(provenance.commits)),
        ("Code digest", _counted(provenance.code_digests)),
        ("Device", _counted(provenance.devices)),
        ("Engine", _counted(provenance.engines)),
        ("Reproducibility", _counted(provenance.classes)),
    ]
    rows += [(program.capitalize(), _counted(versions)) for program, versions in provenance.versions.items()]
    if provenance.commits:
        resumed = f", {_counted_runs(provenance.resumed)} in more than one attempt" if provenance.resumed else ""
        rows.append(("Training time", [f"{_training_time(provenance)}{resumed}"]))
    if provenance.peak_memory_mb is not None:
        rows.append(("Peak memory", [f"{fixed(provenance.peak_memory_mb, 0)} MB, the largest of any run"]))
    return [(name, values) for name, values in rows if values]


def _training_time(provenance: Provenance) -> str:
    shared = f", {_counted_runs(provenance.shared)} on a shared GPU" if provenance.shared else ""
    return f"{duration(provenance.seconds)} over all runs{shared}"


def _finding(comparison: TableComparison) -> str:
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
        coverage="" if whole else f"{coverage.finished} of {_counted_runs(coverage.planned)}",
        verdict=comparison.verdict,
        sentence=_finding(comparison) if comparison.verdict != "not comparable" else "",
    )


_ALL: dict[TableVerdict, str] = {
    "reproduced": "All tables were reproduced",
    "not comparable": "No table tests the paper's numbers",
    "too few seeds": "Too few seeds for a verdict on any table",
    "undecided": "No table is decided yet",
    "not reproduced": "No table was reproduced",
    "mixed": "Every table was reproduced in part",
}
_SOME: dict[TableVerdict, str] = {
    "reproduced": "reproduced",
    "mixed": "mixed",
    "not reproduced": "not reproduced",
    "undecided": "undecided",
    "too few seeds": "short of seeds",
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
        facts.append(("Training time", _training_time(provenance)))
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
            f"{names} ran with a network, width, density or images that differ from the paper's: this shows that the "
            "pipeline works, but does not test the paper's numbers."
        )
    if coverage.missing:
        cautions.append(
            f"{_counted_runs(coverage.missing)} of the plan {'has' if coverage.missing == 1 else 'have'} not finished. "
            "Rows with missing seeds say so; their means are over the seeds that are there."
        )
    if coverage.diverged:
        cautions.append(
            f"{_counted_runs(coverage.diverged)} diverged. No mean includes a diverged run, and each row that lost a "
            "seed says so."
        )
    if len(provenance.code_digests) > 1:
        versions = listed([f"{_counted_runs(count)} by {digest}" for digest, count in provenance.code_digests.items()])
        cautions.append(
            f"The runs were trained by {len(provenance.code_digests)} versions of the code: {versions}. "
            "If a change between them can alter numbers, raise REVISION and train again."
        )
    return cautions


def _counted(counts: Mapping[str, int]) -> list[str]:
    if len(counts) == 1:
        return list(counts)
    return [f"{value} ({_counted_runs(count)})" for value, count in counts.items()]
