"""From the runs of a table to its numbers: mean and spread over seeds, change, and the paper's value beside them."""

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from east.analysis.published import PublishedGrid, PublishedRow, ScheduleColumns, read_published_grid
from east.analysis.sources import AGAIN, Sources
from east.analysis.words import axes_text
from east.config.conditions import Value
from east.config.run import Frozen, of_another_revision
from east.config.tables import (
    Comparing,
    GridHead,
    GridRow,
    GridTable,
    MethodColumns,
    MethodsHead,
    MethodsTable,
    PublishedValue,
    RunReference,
    Summarising,
    Table,
)
from east.errors import EastError
from east.training.records import describe
from east.version import REVISION

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

THE_PAPER = "the paper"
"""The source of published numbers that are no other's."""

SeedStatus = Literal["finished", "diverged", "missing"]


class SeedValue(Frozen):
    """What one planned run came to; `accuracy` (percent) is there if, and only if, it finished."""

    run: str
    seed: int
    status: SeedStatus
    accuracy: float | None = None
    diverged_at_epoch: int | None = None


class Accuracy(Frozen):
    """Test accuracy over the seeds of a row, in percent; the mean and the spread are over finished seeds only."""

    seeds: tuple[SeedValue, ...]
    mean: float | None
    std: float | None = Field(description="None with fewer than two finished seeds")

    @property
    def planned(self) -> int:
        """Number of runs in the plan."""
        return len(self.seeds)

    @property
    def used(self) -> int:
        """Number of runs behind the mean."""
        return len(self.with_status("finished"))

    @property
    def complete(self) -> bool:
        """Whether every planned run is behind the mean."""
        return self.used == self.planned

    def with_status(self, status: SeedStatus) -> tuple[SeedValue, ...]:
        """The runs that came to this."""
        return tuple(seed for seed in self.seeds if seed.status == status)


class GridResult(ScheduleColumns):
    """A row of Tables 2-5, or of a table of one's own, with its numbers."""

    id: str
    method: str
    values: dict[str, Value] = Field(default_factory=dict, description="what it has on the table's own axes")
    footnote: str | None
    printed: bool = Field(default=True, description="whether it is a row of the paper's, with nothing else changed")
    accuracy: Accuracy
    change: float | None = Field(
        description="mean minus that of the row it is measured against, by default the static one; None for that itself"
    )
    published: PublishedValue | None
    difference: float | None = Field(description="mean minus the published mean")

    @property
    def settings(self) -> str:
        """The row in words, such as `cosine, 10×, 2 cycles, 2×`, or `RigL, density 0.001`."""
        if not self.values:
            return super().settings
        return ", ".join(filter(None, [self.method, axes_text(self.values)]))


class MethodResult(MethodColumns):
    """A row of the methods table with its numbers."""

    accuracy: Accuracy


class AggregatedGrid(GridHead):
    """One of Tables 2-5, or of one's own, with its numbers."""

    comparable: bool
    summarising: Summarising
    comparing: Comparing = Comparing()
    published_table: str | None = Field(description="number of the paper's table, where it is set beside")
    rows: tuple[GridResult, ...]

    @property
    def static(self) -> GridResult | None:
        """The row without cycles; every change is measured against it, unless the table names another reference."""
        return next((row for row in self.rows if row.pattern is None), None)

    @property
    def is_beside(self) -> bool:
        """Whether published numbers stand beside its rows."""
        return self.published_table is not None or self.source is not None

    @property
    def source_name(self) -> str:
        """Whose numbers stand beside its rows, if any do, as sentences call them."""
        return THE_PAPER if self.source is None else self.source.name


class AggregatedMethods(MethodsHead):
    """The methods table with its numbers."""

    rows: tuple[MethodResult, ...]


_ADAPTER: TypeAdapter[AggregatedGrid | AggregatedMethods] = TypeAdapter(
    Annotated[AggregatedGrid | AggregatedMethods, Field(discriminator="kind")]
)


def aggregate(
    table: Table, sources: Sources, *, published_dir: Path, partial: bool = False
) -> AggregatedGrid | AggregatedMethods:
    """Summarise the runs of a table.

    Args:
        table: The plan of the table.
        sources: What reads the runs.
        published_dir: The folder with the paper's numbers, `report/published`.
        partial: Show runs that have no summary yet as missing, instead of refusing.

    Raises:
        EastError: Summaries belong to other settings than the plan's (every such run is named, whatever
            `partial` says), are missing, or cannot be read; or the published numbers cannot be.
    """
    references = list(dict.fromkeys(run for row in table.rows for run in row.runs))
    runs = _read_runs(references, sources, partial=partial)
    # What is missing is None from here on, as in the file that is written.
    found = runs.astype(object).where(runs.notna(), None).to_dict("index")
    seeds = {run.id: _seed_value(run, found[run.id], table.summarising) for run in references}
    accuracies = []
    for row in table.rows:
        of_row = tuple(seeds[run.id] for run in row.runs)
        values = [seed.accuracy for seed in of_row if seed.accuracy is not None]
        mean, std = mean_and_std(values, table.summarising.spread)
        accuracies.append(Accuracy(seeds=of_row, mean=mean, std=std))
    if isinstance(table, MethodsTable):
        rows = zip(table.rows, accuracies, strict=True)
        return AggregatedMethods(
            **table.model_dump(exclude={"rows"}),
            rows=tuple(MethodResult(**row.model_dump(exclude={"runs"}), accuracy=accuracy) for row, accuracy in rows),
        )
    published = None
    if table.published:
        published = read_published_grid(published_dir / table.published, sources.published)
    means = {row.id: accuracy.mean for row, accuracy in zip(table.rows, accuracies, strict=True)}
    against = _references(table)
    return AggregatedGrid(
        **table.model_dump(exclude={"published", "rows"}),
        published_table=published.number if published else None,
        rows=tuple(
            _grid_result(row, accuracy, means.get(against[row.id]), published)
            for row, accuracy in zip(table.rows, accuracies, strict=True)
        ),
    )


def table_json(aggregated: AggregatedGrid | AggregatedMethods) -> bytes:
    """A summarised table as JSON; `read_table` gives the same object back."""
    return _ADAPTER.dump_json(aggregated, indent=2) + b"\n"


def read_table(path: Path, sources: Sources) -> AggregatedGrid | AggregatedMethods:
    """A summarised table that another step wrote.

    Raises:
        EastError: It is not there, not the plan's, or damaged.
    """
    return parsed(sources.derived(path), path, _ADAPTER.validate_json, "a summarised table")


def parsed(content: bytes, path: Path, parse: Callable[[bytes], T], what: str) -> T:
    """The content of a file that an earlier step wrote.

    Raises:
        EastError: It is not `what`.
    """
    try:
        return parse(content)
    except ValidationError as error:
        raise EastError(f"{path} is not {what}: {describe(error)}. {AGAIN}") from error


def mean_and_std(values: Sequence[float], spread: Literal["sample", "population"]) -> tuple[float | None, float | None]:
    """Mean and standard deviation over seeds.

    Args:
        values: One value a seed.
        spread: `sample` divides by n - 1, `population` by n.

    Returns:
        The mean, None without values, and the standard deviation, None with fewer than two values.
    """
    if not values:
        return None, None
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, statistics.stdev(values) if spread == "sample" else statistics.pstdev(values)


def _read_runs(references: Sequence[RunReference], sources: Sources, *, partial: bool) -> "pd.DataFrame":
    """The runs of a table, by id, of which none is stale, nor any missing unless the table may be partial."""
    # Whoever reads a table that is summarised does not wait for pandas.
    from east.analysis.results import PlannedRun, read_runs

    planned = [PlannedRun(id=run.id, fingerprint=run.fingerprint) for run in references]
    runs = read_runs(sources, planned).set_index("id")
    stale = runs[runs["status"] == "stale"]
    if len(stale):
        refused = ""
        for revision, alike in stale.groupby(stale["revision"].fillna(REVISION), sort=False):
            why = "trained with other settings than the plan's"
            if revision != REVISION:
                why = of_another_revision(int(revision))
            refused += f"{_runs_are(len(alike))} in {sources.runs} {why} ({', '.join(alike.index)}). "
        raise EastError(f"{refused}The same `snakemake` command, without `--until` or a target, trains them again.")
    missing = runs.index[~runs["status"].isin(["finished", "diverged"])]
    if len(missing) and not partial:
        raise EastError(
            f"{_runs_are(len(missing))} in {sources.runs} without a summary: {', '.join(missing)}. "
            "Let `snakemake --cores all` finish them, or ask for a partial table."
        )
    return runs


def _references(table: GridTable) -> dict[str, str]:
    """The row that each row's change is measured against, by id; empty for those without."""
    if table.axes or table.reference is not None:
        return {row.id: row.reference or "" for row in table.rows}
    # A table may try other static rows as well (another topology, say): changes are against the first.
    static = next((row.id for row in table.rows if row.pattern is None), "")
    return {row.id: "" if row.id == static else static for row in table.rows}


def _runs_are(number: int) -> str:
    return "1 run is" if number == 1 else f"{number} runs are"


def _seed_value(run: RunReference, found: Mapping[Hashable, Any], summarising: Summarising) -> SeedValue:
    status = found["status"]
    if status == "diverged":
        return SeedValue(run=run.id, seed=run.seed, status=status, diverged_at_epoch=found["diverged_at_epoch"])
    if status != "finished":
        return SeedValue(run=run.id, seed=run.seed, status="missing")
    accuracy = found["final_test_accuracy" if summarising.accuracy == "final" else "best_test_accuracy"]
    if accuracy is None:
        raise EastError(
            f"Run {run.id} has no test accuracy at a best validation epoch, which the table asks for. "
            "Hold out validation images, or set the summarised accuracy to `final`."
        )
    return SeedValue(run=run.id, seed=run.seed, status=status, accuracy=accuracy)


def _grid_result(
    row: GridRow, accuracy: Accuracy, reference_mean: float | None, published: PublishedGrid | None
) -> GridResult:
    printed, value = None, row.published
    if published and row.printed:
        printed = published.find(row.pattern, row.multiplier, row.cycles, row.length_multiplier)
    if printed and published:
        value = published_value(printed, published.static)
    return GridResult(
        **row.model_dump(exclude={"runs", "published", "reference"}),
        accuracy=accuracy,
        change=_minus(accuracy.mean, reference_mean),
        published=value,
        difference=_minus(accuracy.mean, value.mean if value else None),
    )


def published_value(row: PublishedRow, static: PublishedRow | None) -> PublishedValue:
    """What the paper prints for a row, with its change recomputed from the static row's mean."""
    return PublishedValue(
        mean=row.accuracy_mean,
        std=row.accuracy_std,
        change=row.change,
        change_from_means=row.accuracy_mean - static.accuracy_mean if static else None,
    )


def _minus(minuend: float | None, subtrahend: float | None) -> float | None:
    return None if minuend is None or subtrahend is None else minuend - subtrahend
