"""What a table of the paper consists of, as the workflow's jobs are given it: its rows and what stands behind each."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from east.config import vocabulary as terms
from east.config.run import Frozen, RunSpec
from east.config.vocabulary import UnitName


class RunReference(Frozen):
    """A run that a table shows: where its files are, and the identity they must have."""

    id: str
    seed: int
    fingerprint: str


class GridRow(Frozen):
    """A row of Tables 2-5, with the settings as the paper prints them."""

    id: str
    method: str
    pattern: str | None = None
    multiplier: float | None = None
    cycles: int | None = None
    length_multiplier: float | None = None
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


class Comparing(Frozen):
    """How Tables 2-5 are compared with the paper's."""

    margin: Annotated[terms.Positive, UnitName("percentage points")] = Field(
        default=2.0, description="means that surely differ by less count as the same"
    )
    level: Annotated[float, Field(gt=0.5, lt=1), terms.A_NUMBER] = Field(
        default=0.95, description="coverage of intervals; 1 - level is the error allowed in a whole table"
    )
    published_seeds: terms.PositiveInt = Field(default=3, description="runs behind each number of the paper's")
    published_spread: terms.PublishedSpread = "sample"


class GridHead(Frozen):
    """One of Tables 2-5, planned or summarised."""

    kind: Literal["grid"] = "grid"
    id: str
    title: str
    model: terms.ModelName
    width: int | None
    dataset: terms.DatasetName
    density: float = Field(description="target density of its rows, but of those that set their own")


class GridTable(GridHead):
    """One of Tables 2-5: the static row and the cyclic schedules on one network and one data set."""

    published: str | None = Field(description="file of report/published that holds the paper's numbers")
    comparable: bool = Field(description="whether network, width, data set and density are the paper's")
    summarising: Summarising
    comparing: Comparing = Comparing()
    rows: tuple[GridRow, ...]


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
