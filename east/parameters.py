"""The types that parameters may have: numbers with range and unit, for signatures and for the configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field


@dataclass(frozen=True)
class UnitName:
    """What a number counts: metadata of a type or field."""

    name: str


def _no_boolean(value: object) -> object:
    """Python takes true for 1; a plan does not."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


A_NUMBER = BeforeValidator(_no_boolean)

Number = Annotated[float, A_NUMBER]
Positive = Annotated[float, Field(gt=0), A_NUMBER]
NonNegative = Annotated[float, Field(ge=0), A_NUMBER]
PositiveInt = Annotated[int, Field(gt=0), A_NUMBER]
Fraction = Annotated[float, Field(ge=0, le=1), A_NUMBER]
Share = Annotated[float, Field(gt=0, le=1), A_NUMBER]
"""A fraction that is not nothing, such as a density."""
Epochs = Annotated[int, Field(gt=0, le=100_000), A_NUMBER, UnitName("epochs")]
Steps = Annotated[PositiveInt, UnitName("steps")]
Seed = Annotated[int, Field(ge=0), A_NUMBER]


def metadata_in(annotation: Any) -> Iterator[Any]:
    """All metadata of a type, the outermost first, then its members' and items'."""
    inner = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        yield from annotation.__metadata__
        inner = inner[:1]
    for part in inner:
        yield from metadata_in(part)
