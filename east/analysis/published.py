"""The paper's printed numbers, read from the CSV files of report/published."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from east.analysis.words import schedule_text
from east.config.run import Frozen
from east.errors import EastError
from east.files import parse_csv, read_regular
from east.training.records import describe


def _empty_is_none(value: object) -> object:
    return None if value in {"", "-"} else value


OptionalFloat = Annotated[float | None, BeforeValidator(_empty_is_none)]
OptionalInt = Annotated[int | None, BeforeValidator(_empty_is_none)]

Row = TypeVar("Row", bound=Frozen)
Read = Callable[[Path], bytes]
FROM_DISK: Read = read_regular


class ScheduleColumns(Frozen):
    """What tells the rows of Tables 2-5 apart, the paper's and ours."""

    pattern: Annotated[str | None, BeforeValidator(_empty_is_none)]
    multiplier: OptionalFloat
    cycles: OptionalInt
    length_multiplier: OptionalFloat

    @property
    def key(self) -> tuple[str | None, float | None, int | None, float | None]:
        """The four of them."""
        return (self.pattern, self.multiplier, self.cycles, self.length_multiplier)

    @property
    def settings(self) -> str:
        """The row in words, such as `cosine, 10×, 2 cycles, 2×`."""
        return schedule_text(*self.key)


class PublishedRow(ScheduleColumns):
    """A row of Tables 2-5 as printed; accuracies and the change in percentage points."""

    table: str
    dataset: str
    model: str
    method: str
    accuracy_mean: float = Field(ge=0, le=100)
    accuracy_std: float = Field(ge=0)
    change: OptionalFloat


class PublishedGrid(Frozen):
    """One of Tables 2-5 as printed."""

    rows: tuple[PublishedRow, ...]

    @property
    def number(self) -> str:
        """The number of the table in the paper."""
        return self.rows[0].table

    @property
    def static(self) -> PublishedRow | None:
        """The row without cycles."""
        return self.find(None, None, None, None)

    def find(self, *key: object) -> PublishedRow | None:
        """The row with these four settings, as printed, or None where the paper has no such row."""
        return next((row for row in self.rows if row.key == key), None)


class PublishedCost(Frozen):
    """A row of Table 6 as printed; the train time is a text such as `<1`."""

    method: str
    train_time: str
    param_size_mb: float
    est_total_mb: float


class PublishedRecipe(Frozen):
    """What a row of Table B.1 says of the length of a training and of its cycles."""

    model_config = ConfigDict(extra="ignore")

    model: str
    method: str
    data: str
    epochs: int = Field(gt=0)
    cycles: OptionalInt = Field(validation_alias="cyclic_n")
    cycle_length: OptionalFloat = Field(validation_alias="cyclic_l", description="epochs of the first cycle")


def read_published_rows(path: Path, read: Read = FROM_DISK) -> list[dict[str, str]]:
    """Read a CSV file of published numbers as it is, a dictionary a row.

    Args:
        path: The file.
        read: What gives its content.

    Raises:
        EastError: The file is missing, empty, or has a row of the wrong length.
    """
    try:
        found = parse_csv(read(path), path)
    except OSError as error:
        raise EastError(f"The published numbers in {path} cannot be used: {error.strerror}.") from error
    if found.problem or not found.rows:
        raise EastError(f"The published numbers in {path} cannot be used: {found.problem or 'it has none.'}")
    return [dict(zip(found.names, row, strict=True)) for row in found.rows]


def read_published_grid(path: Path, read: Read = FROM_DISK) -> PublishedGrid:
    """Read one of Tables 2-5, as `read_published_rows` does.

    Raises:
        EastError: The file cannot be read, a row is not valid, or two rows have the same settings.
    """
    rows = read_published(path, PublishedRow, read)
    for line, row in enumerate(rows, start=2):
        if any(row.key == earlier.key for earlier in rows[: line - 2]):
            raise EastError(f"{path}, line {line}: an earlier row has the same settings.")
    return PublishedGrid(rows=tuple(rows))


def read_published(path: Path, kind: type[Row], read: Read = FROM_DISK) -> list[Row]:
    """Read the rows of one of the paper's tables, as `read_published_rows` does.

    Raises:
        EastError: The file cannot be read, or a row is not valid.
    """
    rows = []
    for line, record in enumerate(read_published_rows(path, read), start=2):
        try:
            rows.append(kind.model_validate(record))
        except ValidationError as error:
            raise EastError(f"{path}, line {line}: {describe(error)}.") from error
    return rows
