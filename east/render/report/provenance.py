"""Which code, machines and seeds are behind the page, as names with their values."""

from collections.abc import Mapping

from east.analysis.provenance import Provenance
from east.render.numbers import duration, fixed
from east.render.report.overview import counted_runs


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
        resumed = f", {counted_runs(provenance.resumed)} in more than one attempt" if provenance.resumed else ""
        shared = f", {counted_runs(provenance.shared)} on a shared GPU" if provenance.shared else ""
        rows.append(("Training time", [f"{duration(provenance.seconds)} over all runs{resumed}{shared}"]))
    if provenance.peak_memory_mb is not None:
        rows.append(("Peak memory", [f"{fixed(provenance.peak_memory_mb, 0)} MB, the largest of any run"]))
    return [(name, values) for name, values in rows if values]


def _counted(counts: Mapping[str, int]) -> list[str]:
    if len(counts) == 1:
        return list(counts)
    return [f"{value} ({counted_runs(count)})" for value, count in counts.items()]
