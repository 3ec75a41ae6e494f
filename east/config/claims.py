"""The claims of a configuration, and why one could not be tested on its tables."""

from collections.abc import Iterator, Mapping, Sequence

from east.config.axes import SCHEDULE_AXES
from east.config.choices import named
from east.config.conditions import Condition, Value, as_number, is_written
from east.config.places import Mistake
from east.config.schema import Config
from east.config.tables import ClaimSpec, GridTable

DESCRIBED = ("table", "model", "label")
"""What conditions may be on, beside the axes of a table."""


def claims_of(config: Config) -> tuple[ClaimSpec, ...]:
    """The claims, as they are tested."""
    return tuple(ClaimSpec(id=name, **dict(claim)) for name, claim in config.claims.items())


def untestable(claim: ClaimSpec, tables: Sequence[GridTable]) -> Iterator[Mistake]:
    """What a claim names and none of its tables has; a claim about all tables may find that another plan has it.

    What a plugin's form makes of its parameters is not known.
    """
    name, parameters, plugin = named(claim.form)
    about = [table for table in tables if table.id in claim.tables]
    if plugin is not None or not about:
        return
    values = _values(about)
    axes = [axis for key in ("axis", "apart", "same") for axis in _texts(parameters.get(key))]
    conditions = [Condition.read(text) for key in ("group", "other") for text in _texts(parameters.get(key), name)]
    location = ("claims", claim.id, "form")
    for axis in dict.fromkeys([*axes, *(condition.axis for condition in conditions)]):
        if axis not in values:
            yield Mistake(location, f"{_tables(about)} no axis '{axis}'; known are {', '.join(values)}.")
            return
    for condition in conditions:
        if not any(condition.holds(value) for value in values[condition.axis]):
            shown = ", ".join(dict.fromkeys(str(value) for value in values[condition.axis]))
            sentence = (
                f"no row has {condition.axis}{condition.sign}{'|'.join(condition.values)}; its values are {shown}."
            )
            yield Mistake(location, sentence)
    if name in ("raises", "lowers"):
        yield from _of_a_direction(claim, parameters, values[parameters["axis"]])
    if name == "beats":
        labels = dict.fromkeys(row.method for table in about for row in table.rows)
        for key in ("row", "other"):
            if parameters[key] not in labels:
                yield Mistake(location, f"there is no row '{parameters[key]}'; there are {', '.join(labels)}.")


def _of_a_direction(claim: ClaimSpec, parameters: Mapping[str, object], values: Sequence[Value]) -> Iterator[Mistake]:
    location, axis = ("claims", claim.id, "form"), parameters["axis"]
    numbers = {number for value in values if (number := as_number(value)) is not None}
    if len(numbers) < 2:
        yield Mistake(location, f"'{axis}' has fewer than two numbers, so nothing is above another.")
        return
    low, high = parameters.get("low"), parameters.get("high")
    if (low is None) != (high is None):
        yield Mistake(location, "give both low and high, or neither.")
    for key, value in (("low", low), ("high", high)):
        if value is not None and not any(is_written(str(value), number) for number in numbers):
            shown = ", ".join(f"{number:g}" for number in sorted(numbers))
            yield Mistake(location, f"{key}: no row has {axis} {value:g}; there are {shown}.")
    if isinstance(low, float) and isinstance(high, float) and low >= high:
        yield Mistake(location, f"low ({low:g}) must be below high ({high:g}).")


def _values(tables: Sequence[GridTable]) -> dict[str, list[Value]]:
    """What the rows of some tables have, by axis."""
    found: dict[str, list[Value]] = {name: [] for name in DESCRIBED}
    for table in tables:
        for row in table.rows:
            on_axes: dict[str, Value] = {"method": row.method, **row.values}
            if not table.axes:
                on_axes = {axis: getattr(row, axis) for axis in SCHEDULE_AXES}
            if "pattern" in on_axes and on_axes["pattern"] is None:
                on_axes["pattern"] = "static"
            for axis, value in {"table": table.id, "model": str(table.model), "label": row.method, **on_axes}.items():
                found.setdefault(axis, []).append(value)
    return found


def _texts(value: object, form: str = "") -> list[str]:
    """The texts of a parameter; of `beats` no text is a condition."""
    if form == "beats" or value is None:
        return []
    return [value] if isinstance(value, str) else [str(part) for part in value]  # type: ignore[attr-defined]


def _tables(tables: Sequence[GridTable]) -> str:
    return f"{' and '.join(table.id for table in tables)} {'has' if len(tables) == 1 else 'have'}"
