"""What a table of the paper consists of, as the workflow's jobs are given it: its rows and what stands behind each."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from east.config import vocabulary as terms
from east.config.conditions import Value
from east.config.run import Frozen, RunSpec
from east.config.vocabulary import UnitName


class RunReference(Frozen):
    """A run that a table shows: where its files are, and the identity they must have."""

    id: str
    seed: int
    fingerprint: str


class PublishedValue(Frozen):
    """What is printed for a row, by the paper or another source."""

    mean: float
    std: float | None = Field(description="None where no spread is printed")
    change: float | None
    change_from_means: float | None = Field(description="the row's printed mean minus that of the row it is against")

    @property
    def change_contradicts_means(self) -> bool:
        """Whether the printed change (one decimal) cannot be the rounded difference of the printed means."""
        if self.change is None or self.change_from_means is None:
            return False
        return abs(self.change - self.change_from_means) > 0.05 + 1e-9


class GridRow(Frozen):
    """A row of Tables 2-5, with the settings as the paper prints them, or of a table of one's own."""

    id: str
    method: str
    pattern: str | None = None
    multiplier: float | None = None
    cycles: int | None = None
    length_multiplier: float | None = None
    values: dict[str, Value] = Field(default_factory=dict, description="what it has on the table's own axes")
    reference: str | None = Field(default=None, description="id of the row that its change is measured against")
    published: PublishedValue | None = Field(default=None, description="what a source of the table's own prints")
    footnote: str | None = None
    printed: bool = Field(default=True, description="whether it is a row of the paper's, with nothing else changed")
    runs: tuple[RunReference, ...]


class MethodColumns(Frozen):
    """What tells the rows of the methods table apart: a method on a network and a data set."""

    id: str
    method: str
    model: terms.ModelName
    width: int | None
    dataset: terms.DatasetName
    recipe: str
    note: str | None = Field(default=None, description="why the row has no runs, where it has none")


class MethodRow(MethodColumns):
    """A row of the methods table."""

    runs: tuple[RunReference, ...]


class Summarising(Frozen):
    """How seeds become one number."""

    accuracy: terms.ReportedAccuracy = "final"
    spread: terms.Spread = "sample"


class PublishedSource(Frozen):
    """Where published numbers come from that are not the paper's."""

    name: terms.Name = Field(description="in headings and sentences, such as `Evci et al.`")
    citation: terms.Text = Field(description="in the caption")
    seeds: terms.PositiveInt | None = Field(
        default=None, description="runs behind each of its numbers; null: as in `comparison`"
    )
    spread: terms.PublishedSpread | None = Field(default=None, description="what its ± is; null: as in `comparison`")


class Comparing(Frozen):
    """How tables are compared with published numbers."""

    margin: Annotated[terms.Positive, UnitName("percentage points")] = Field(
        default=2.0, description="means that surely differ by less count as the same"
    )
    level: Annotated[float, Field(gt=0.5, lt=1), terms.A_NUMBER] = Field(
        default=0.95, description="coverage of intervals; 1 - level is the error allowed in a whole table"
    )
    published_seeds: terms.PositiveInt = Field(default=3, description="runs behind each published number")
    published_spread: terms.PublishedSpread = "sample"


class GridHead(Frozen):
    """One of Tables 2-5 or of one's own, planned or summarised."""

    kind: Literal["grid"] = "grid"
    id: str
    title: str
    model: terms.ModelName
    width: int | None
    dataset: terms.DatasetName
    density: float = Field(description="target density of its rows, but of those that set their own")

    axes: tuple[str, ...] = Field(default=(), description="of its own; none: the four columns of Tables 2-5")
    reference: str | None = Field(default=None, description="label of the rows that changes are measured against")
    source: PublishedSource | None = Field(
        default=None, description="whose numbers stand beside ours; None: the paper's, if any"
    )


class GridTable(GridHead):
    """One of Tables 2-5, rows of schedules on one network and one data set; or a table with axes of its own."""

    published: str | None = Field(description="file of report/published that holds the paper's numbers")
    comparable: bool = Field(description="whether network, width, data set and density are those of the source")
    summarising: Summarising
    comparing: Comparing = Comparing()
    rows: tuple[GridRow, ...]

    @property
    def is_beside(self) -> bool:
        """Whether published numbers stand beside its rows."""
        return self.published is not None or self.source is not None


class ClaimSpec(Frozen):
    """A claim, as it is tested."""

    id: str
    statement: str
    source: str | None
    form: terms.ClaimForm
    tables: tuple[str, ...] = Field(description="ids; none: all")
    possibility: bool = Field(description="whether it is that something may happen, and not that it tends to")


class MethodsHead(Frozen):
    """The methods table, planned or summarised."""

    kind: Literal["methods"] = "methods"
    id: str = "tablemethods"
    title: str
    density: float = Field(description="target density of the plan")
    summarising: Summarising


class MethodsTable(MethodsHead):
    """Accuracy of the methods of Table 6 and of the systems of Table B.1."""

    rows: tuple[MethodRow, ...]


class CostEntry(Frozen):
    """A row of Table 6."""

    method: str
    measured_at_beta: Literal[0, 1] = Field(description="DyReLU weight in the paper's memory measurement")
    spec: RunSpec


class CostPlan(Frozen):
    """All rows of Table 6, and how they are measured."""

    model: terms.ModelName
    dataset: terms.DatasetName
    published: str | None
    comparable: bool = Field(description="whether network, width and data set are the paper's")
    measured_steps: terms.PositiveInt
    measured_batch: dict[Literal["cpu", "cuda"], terms.PositiveInt]
    entries: tuple[CostEntry, ...]


Table = GridTable | MethodsTable


def table_of(described: Mapping[str, Any]) -> Table:
    """A table from its `model_dump`."""
    table: Table = TypeAdapter(Annotated[Table, Field(discriminator="kind")]).validate_python(described)
    return table
