"""The first screen: how much of the plan has run, the verdict on each table, and what to know before reading on."""

from collections import Counter
from collections.abc import Mapping, Sequence

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, SeedStatus
from east.analysis.compare import TableComparison, TableVerdict
from east.analysis.provenance import Provenance, table_coverage
from east.analysis.words import capital, listed
from east.render.drawing import bar_drawing
from east.render.names import DATASETS, network_label, table_label
from east.render.numbers import duration, fixed

_KINDS: tuple[SeedStatus, ...] = ("finished", "diverged", "missing")


def overview(
    tables: Sequence[AggregatedGrid | AggregatedMethods],
    comparisons: Sequence[TableComparison],
    provenance: Provenance,
) -> dict[str, object]:
    """What the first screen says, by the names that the templates use."""
    coverage = table_coverage(tables)
    planned = coverage.total()
    lost = {"diverged": coverage["diverged"], "not finished": coverage["missing"]}
    by_id = {table.id: table for table in tables}
    compared = [
        (table, comparison)
        for comparison in comparisons
        if isinstance(table := by_id.get(comparison.table), AggregatedGrid)
    ]
    return {
        "finished": coverage["finished"],
        "planned": planned,
        "lost": ", ".join(f"{number} {what}" for what, number in lost.items() if number),
        "bar": bar_drawing([(kind, coverage[kind] / planned) for kind in _KINDS if coverage[kind]]),
        "facts": _facts(provenance),
        "headline": _headline([comparison.verdict for _, comparison in compared]) if compared else None,
        "verdicts": [_verdict(table, comparison) for table, comparison in compared],
        "cautions": _cautions(tables, coverage, provenance),
    }


def _counted_runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def provenance_rows(facts: Mapping[str, str], provenance: Provenance) -> list[tuple[str, list[str]]]:
    """Names and values in the order in which they are shown; a value that all runs share is not counted.

    Args:
        facts: What the plan knows of itself, in words; it comes first.
        provenance: What the runs recorded.
    """
    rows = {name: [value] for name, value in facts.items()}
    rows["Seeds"] = [", ".join(map(str, provenance.seeds))] if provenance.seeds else []
    counts = {
        "Commit": provenance.commits,
        "Code digest": provenance.code_digests,
        "Device": provenance.devices,
        "Engine": provenance.engines,
        "Reproducibility": provenance.classes,
        **{program.capitalize(): versions for program, versions in provenance.versions.items()},
    }
    for name, values in counts.items():
        counted = [f"{value} ({_counted_runs(count)})" for value, count in values.items()]
        rows[name] = list(values) if len(values) == 1 else counted
    if provenance.commits:
        resumed = f", {_counted_runs(provenance.resumed)} in more than one attempt" if provenance.resumed else ""
        rows["Training time"] = [f"{_training_time(provenance)}{resumed}"]
    if provenance.peak_memory_mb is not None:
        rows["Peak memory"] = [f"{fixed(provenance.peak_memory_mb, 0)} MB, the largest of any run"]
    return [(name, values) for name, values in rows.items() if values]


def _training_time(provenance: Provenance) -> str:
    shared = f", {_counted_runs(provenance.shared)} on a shared GPU" if provenance.shared else ""
    return f"{duration(provenance.seconds)} over all runs{shared}"


def _verdict(table: AggregatedGrid, comparison: TableComparison) -> dict[str, str]:
    """What became of one of Tables 2-5; its summary begins with the verdict, which stands beside it."""
    coverage = table_coverage([table])
    finished, planned = coverage["finished"], coverage.total()
    rest = comparison.summary.removeprefix(comparison.verdict.capitalize()).lstrip(":. ")
    return {
        "anchor": table.id,
        "label": table_label(table.id) or table.title,
        "setting": f"{network_label(table.model)} on {DATASETS[table.dataset]}",
        "coverage": "" if finished == planned else f"{finished} of {_counted_runs(planned)}",
        "verdict": comparison.verdict,
        "sentence": capital(rest) if comparison.verdict != "not comparable" else "",
    }


_ALL: dict[TableVerdict, str] = {
    "reproduced": "All tables were reproduced",
    "not comparable": "No table tests published numbers",
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


def _headline(verdicts: Sequence[TableVerdict]) -> str:
    counts = Counter(verdicts)
    if len(counts) == 1:
        return f"{_ALL[verdicts[0]]}."
    parts = [
        f"{counts[key]} {'is' if counts[key] == 1 else 'are'} {words}" for key, words in _SOME.items() if counts[key]
    ]
    return f"Of {len(verdicts)} tables, {listed(parts)}."


def _facts(provenance: Provenance) -> list[tuple[str, str]]:
    facts = {
        "Training time": _training_time(provenance) if provenance.seconds else "",
        "Seeds": ", ".join(map(str, provenance.seeds)),
        "Trained on": listed(list(provenance.devices)),
    }
    return [(name, value) for name, value in facts.items() if value]


def _cautions(
    tables: Sequence[AggregatedGrid | AggregatedMethods], coverage: Counter[SeedStatus], provenance: Provenance
) -> list[str]:
    cautions = []
    diverged, missing = coverage["diverged"], coverage["missing"]
    other = [
        table for table in tables if isinstance(table, AggregatedGrid) and table.is_beside and not table.comparable
    ]
    if other:
        names = listed([table_label(table.id) or table.title for table in other])
        cautions.append(
            f"{names} ran with a network, width, density or images that differ from the paper's: this shows that the "
            "pipeline works, but does not test the paper's numbers."
        )
    if coverage["missing"]:
        cautions.append(
            f"{_counted_runs(missing)} of the plan {'has' if missing == 1 else 'have'} not finished. "
            "Rows with missing seeds say so; their means are over the seeds that are there."
        )
    if coverage["diverged"]:
        cautions.append(
            f"{_counted_runs(diverged)} diverged. No mean includes a diverged run, and each row that lost a "
            "seed says so."
        )
    if len(provenance.code_digests) > 1:
        versions = listed([f"{_counted_runs(count)} by {digest}" for digest, count in provenance.code_digests.items()])
        cautions.append(
            f"The runs were trained by {len(provenance.code_digests)} versions of the code: {versions}. "
            "If a change between them can alter numbers, raise REVISION and train again."
        )
    return cautions
