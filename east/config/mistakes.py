"""What is wrong with the values of a configuration, in plain words and with what is allowed."""

import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from east.config.choices import COMPLAINT, Choice, TopologySpec
from east.config.places import Location, Mistake
from east.config.schema import Config
from east.config.vocabulary import Choices, metadata_of

MOST_SHOWN_OF_A_VALUE = 60

_WORDS = {
    "missing": "must be given",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "string_unicode": "must be text that can be written as UTF-8",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a section of keys and values",
    "mapping_type": "must be a section of keys and values",
    "model_type": "must be a section of keys and values",
    "model_attributes_type": "must be a section of keys and values",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be greater than or equal to {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be less than or equal to {le:g}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "recursion_loop": "contains itself",
}
"""Kinds of mistake as the library names them -> what is said of them."""


def explain(error: ValidationError, merged: Mapping[str, Any], within: Location = ()) -> list[Mistake]:
    """The mistakes that a validation found in merged values.

    Args:
        error: what it raised.
        merged: the values.
        within: where in a configuration such values stand, if they are a part of one.
    """
    found = error.errors(include_url=False)
    places = [
        (*within, *_real_location(tuple(part for part in details["loc"] if part != "[key]"), merged))
        for details in found
    ]
    return [
        _explain(details, location)
        for details, location in zip(found, places, strict=True)
        if _is_meant(details, location, places)
    ]


def _is_meant(details: Any, location: Location, places: Sequence[Location]) -> bool:
    """Whether a complaint is of the kind of value that was tried, and not of what follows from another complaint."""
    inner = any(place[: len(location)] == location and len(place) > len(location) for place in places)
    if details["type"] == "literal_error" and isinstance(details["input"], Mapping):
        # Another kind than the section that is there, of which something was said.
        return not inner and places.count(location) == 1
    return not (details["type"] == "too_short" and inner)  # items that are wrong were not counted


def _explain(details: Any, location: Location) -> Mistake:
    """A mistake as one line. A name that is wrong itself has a location that ends in `[key]`."""
    value, kind = details["input"], details["type"]
    if kind == "extra_forbidden":
        section, _ = _schema_at(location[:-1])
        allowed = list(section.model_fields) if section is not None else []
        sentence = f"unknown key.{_closest(location[-1], allowed)} Allowed here: {', '.join(allowed)}."
        return Mistake(location, sentence)
    if kind == COMPLAINT:
        return Mistake(location, f"{details['msg']}.")
    given = "" if isinstance(value, Mapping | BaseModel) or kind == "missing" else f" (it is {shown_value(value)})"
    _, field = _schema_at(location)
    choices = [found for found in metadata_of(field) if isinstance(found, Choices)] if field else []
    expected = details["ctx"]["expected"] if kind == "literal_error" else ""
    if meanings := next((of.meanings for of in choices if all(name in expected for name in of.meanings)), None):
        *most, last = (f"{name} ({meaning})" for name, meaning in meanings.items())
        allowed_texts = f"{', '.join(most)} or {last}" if most else last
        return Mistake(location, f"must be {allowed_texts}{given}.{_closest(value, list(meanings))}")
    return Mistake(location, f"{_words(details)}{given}.")


def _words(details: Any) -> str:
    if details["type"] == "literal_error":
        return f"must be {details['ctx']['expected']}"
    if details["type"] in _WORDS:
        return _WORDS[details["type"]].format(**details.get("ctx", {}))
    said: str = details["msg"]
    return said.removeprefix("Value error, ").replace("Input should be", "must be")


def shown_value(value: object) -> str:
    """A value as it is quoted in a sentence: on one line, and not without end."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN_OF_A_VALUE else f"{text[:MOST_SHOWN_OF_A_VALUE]}…"


def _closest(given: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(given)[:MOST_SHOWN_OF_A_VALUE], known)
    return f" Did you mean '{close[0]}'?" if close else ""


def _real_location(location: Location, merged: Any) -> Location:
    """The location without the names of union members that pydantic puts into it."""
    real: list[str | int] = []
    node = merged
    for i, part in enumerate(location):
        last = i == len(location) - 1 and not re.fullmatch(r"[a-z-]+\[.*\]", str(part))
        if isinstance(node, Mapping) and (part in node or last):
            node = node.get(part)
        elif isinstance(node, list | tuple) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            continue
        real.append(part)
    return tuple(real)


def _schema_at(location: Location) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The section of the schema at a place, if it is one, and the last field on the way there."""
    annotation: Any = Config
    field = None
    for part in location:
        section = model_of(annotation)
        if section is not None:
            field = section.model_fields.get(str(part))
            annotation = field.annotation if field is not None else None
        else:
            annotation = (typing.get_args(annotation) or (None,))[-1 if isinstance(part, str) else 0]
    return model_of(annotation), field


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a type stands for, or null; what is chosen of a registry is none, whatever its form."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if annotation in (Choice, TopologySpec) else annotation
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return next((model for part in typing.get_args(annotation) if (model := model_of(part))), None)
    return None
