"""What a table of the paper consists of: its rows, the runs behind each, and how they are summarised."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from east.config.run import DatasetName, Frozen, ModelName, Pattern, Positive, PositiveInt


class RunReference(Frozen):
    """A run that a table shows: where its files are, and the identity they must have."""

    id: str
    seed: int
    fingerprint: str


class GridRow(Frozen):
    """A row of Tables 2-5, with the settings as the paper prints them."""

    id: str
    method: str
    pattern: Pattern | None = None
    multiplier: float | None = None
    cycles: int | None = None
    length_multiplier: float | None = None
    footnote: str | None = None
    printed: bool = Field(default=True, description="whether it is a row of the paper's, with nothing else changed")
    runs: tuple[RunReference, ...]


class MethodRow(Frozen):
    """A row of the methods table: a method on a network and a data set."""

    id: str
    method: str
    model: ModelName
    width: int
    dataset: DatasetName
    recipe: str
    note: str | None = Field(default=None, description="why the row has no runs, where it has none")
    runs: tuple[RunReference, ...]


class Summarising(Frozen):
    """How seeds become one number."""

    accuracy: Literal["final", "best_validation"] = "final"
    spread: Literal["sample", "population"] = "sample"


class Comparing(Frozen):
    """How Tables 2-5 are compared with the paper's."""

    margin: Positive = Field(default=2.0, description="percentage points; means closer than this count as the same")
    level: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="coverage of intervals; 1 - level is the error allowed in a whole table"
    )
    published_seeds: PositiveInt = Field(default=3, description="runs behind each number of the paper's")
    published_spread: Literal["sample", "population", "standard_error"] = Field(
        default="sample", description="what the paper's ± is taken for"
    )


class GridTable(Frozen):
    """One of Tables 2-5: the static row and the cyclic schedules on one network and one data set."""

    kind: Literal["grid"] = "grid"
    id: str
    title: str
    model: ModelName
    width: int
    dataset: DatasetName
    density: float
    published: str | None = Field(description="file of report/published that holds the paper's numbers")
    comparable: bool = Field(description="whether network, width, data set and density are the paper's")
    summarising: Summarising
    comparing: Comparing = Comparing()
    rows: tuple[GridRow, ...]


class MethodsTable(Frozen):
    """Accuracy of the methods of Table 6 and of the systems of Table B.1."""

    kind: Literal["methods"] = "methods"
    id: str = "tablemethods"
    title: str
    density: float
    summarising: Summarising
    rows: tuple[MethodRow, ...]


Table = GridTable | MethodsTable


def read_table(text: str) -> Table:
    """A table from the JSON of its `model_dump_json`."""
    table: Table = TypeAdapter(Annotated[Table, Field(discriminator="kind")]).validate_json(text)
    return table
