"""Where the numbers come from: how many runs there are, and which code, machines and seeds trained them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, SeedStatus
from east.analysis.sources import Sources
from east.config.run import Frozen
from east.training.records import RunSummary


class Provenance(Frozen):
    """Code, machines and seeds behind a set of runs.

    Each mapping counts runs; one whose attempts differ counts for each of them.
    """

    seeds: dict[int, int]
    commits: dict[str, int]
    code_digests: dict[str, int]
    devices: dict[str, int]
    engines: dict[str, int]
    classes: dict[str, int] = Field(description="of reproducibility")
    versions: dict[str, dict[str, int]] = Field(description="by program: version, number of runs")
    seconds: float = Field(description="training time of all runs together, all attempts")
    shared: int = Field(description="runs whose device other runs may have shared")
    resumed: int = Field(description="runs that took more than one attempt")
    peak_memory_mb: float | None = Field(description="the largest of any run")


def table_coverage(tables: Iterable[AggregatedGrid | AggregatedMethods]) -> Counter[SeedStatus]:
    """How many runs of some tables came to what; a run that several rows show counts once."""
    return Counter(
        {seed.run: seed.status for table in tables for row in table.rows for seed in row.accuracy.seeds}.values()
    )


def collect_provenance(run_ids: Iterable[str], sources: Sources) -> Provenance:
    """Read the summaries of these runs, as far as they are there, and say what trained them.

    Raises:
        EastError: A summary cannot be read.
    """
    return provenance_of(filter(None, map(sources.summary, dict.fromkeys(run_ids))))


def provenance_of(summaries: Iterable[RunSummary]) -> Provenance:
    """Say what trained these runs."""
    found = list(summaries)
    programs = sorted({program for summary in found for row in _contributions(summary) for program in row["versions"]})
    peaks = [summary.peak_memory_mb for summary in found if summary.peak_memory_mb is not None]
    seeds = Counter(seed for summary in found if isinstance(seed := summary.run.get("seed"), int))
    return Provenance(
        seeds=dict(sorted(seeds.items())),
        commits=_counted(value for summary in found for value in _of_attempts(summary, "commit")),
        code_digests=_counted(value for summary in found for value in _of_attempts(summary, "code_digest")),
        devices=_counted(value for summary in found for value in _of_attempts(summary, "device")),
        engines=_counted(value for summary in found for value in _of_attempts(summary, "engine")),
        classes=_counted(summary.reproducibility for summary in found),
        versions={
            program: _counted(value for summary in found for value in _of_attempts(summary, "versions", program))
            for program in programs
        },
        seconds=sum(summary.seconds or 0.0 for summary in found),
        shared=sum(summary.is_shared for summary in found),
        resumed=sum((summary.attempts or 1) > 1 for summary in found),
        peak_memory_mb=max(peaks, default=None),
    )


def _contributions(summary: RunSummary) -> list[Mapping[str, Any]]:
    """What the summary says of itself, which is its last attempt, and the earlier ones that left something in it."""
    # An attempt of which nothing was kept has no steps, and no part in any number.
    earlier = [vars(summary) | row for row in summary.attempt_records if row.get("last_step") is not None]
    return [vars(summary), *(row for row in earlier if isinstance(row["versions"], dict))]


def _of_attempts(summary: RunSummary, key: str, program: str | None = None) -> list[str | None]:
    """The different values of a key among the attempts at a run, each once; of `versions`, those of a program."""
    values = (row[key] if program is None else row[key].get(program) for row in _contributions(summary))
    return list(dict.fromkeys(value if isinstance(value, str) else None for value in values))


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(value or "not recorded" for value in values).most_common())
