"""Conditions on the rows of a table, as claims write them: `density<0.001`, `pattern=cosine|triangular`."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

_WRITTEN = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(!=|<=|>=|=|<|>)\s*(.*\S)\s*")
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Value = float | int | bool | str | None
"""What a row has on an axis."""


@dataclass(frozen=True)
class Condition:
    """What a row must have on one axis.

    Attributes:
        axis: its name.
        sign: `=` or `!=` any of the values; `<`, `<=`, `>` or `>=` the only one, which is a number.
        values: as they are written.
    """

    axis: str
    sign: str
    values: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "Condition":
        """The condition that a text stands for.

        Raises:
            ValueError: it stands for none.
        """
        found = _WRITTEN.fullmatch(text)
        if found is None:
            raise ValueError("must be an axis, a sign and a value, such as density<0.001 or pattern=cosine|triangular")
        axis, sign, written = found.groups()
        values = tuple(part.strip() for part in written.split("|"))
        if sign in _ORDERS and (len(values) > 1 or as_number(values[0]) is None):
            raise ValueError(f"must have one number after {sign}")
        return cls(axis, sign, values)

    def holds(self, value: Value) -> bool:
        """Whether a row with this value is meant; one that has none never is."""
        if value is None or value != value:
            return False
        if self.sign in _ORDERS:
            number = as_number(value)
            return number is not None and _ORDERS[self.sign](number, float(self.values[0]))
        return any(is_written(written, value) for written in self.values) == (self.sign == "=")


def as_number(value: Value) -> float | None:
    """A value as a number, if it is one; true and false are none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def is_written(text: str, value: Value) -> bool:
    """Whether a text stands for a value: the same number, or the same word in whatever letters."""
    number = as_number(value)
    if number is not None and not isinstance(value, str):
        return as_number(text) == number
    return text.casefold() == str(value).casefold()


def _is_one(text: str) -> str:
    Condition.read(text)
    return text


WrittenCondition = Annotated[str, AfterValidator(_is_one)]
"""A condition as a configuration writes it."""
