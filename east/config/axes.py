"""The axes of a table of one's own: which key of a run each is, what a row has on it, how a row is given a value."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from east.config.choices import CATALOGUE, NAMED_TOPOLOGIES, Choice, TopologySpec
from east.config.conditions import Value
from east.config.mistakes import explain, model_of
from east.config.places import Location, Mistake
from east.config.run import OptimizerSpec, RunSpec, canonical_json, fingerprint_of
from east.config.schema import Components, Config, Recipe, Row

SCHEDULE_AXES = ("pattern", "multiplier", "cycles", "length_multiplier")
"""What tells the rows of Tables 2-5 apart; a table may have them among its own axes."""

_SECTIONS = ("sparsity", "cycle", "model", "training", "dataset")
"""Of a run; an axis leaves out the name of the first of them that has the key."""
_OF_THE_TABLE = ("system", "datasets", "components", "cyclic", "density", "distribution", "update_period")
"""Keys of a recipe that a row does not change: tables and rows have their own, or nothing follows from them."""
_NO_VALUES = ("static", "fit", "printed_cycles", "changes", "label", "footnote")
"""Keys of a row that are no axis."""
_A_ROW: Location = ("tables", "*", "rows", 0)
_A_RECIPE: Location = ("recipes", "*")
CHANGEABLE = tuple(key for key in (*Recipe.model_fields, *Components.model_fields) if key not in _OF_THE_TABLE)
"""Keys of a recipe, and of what a system adds to RigL, that a row may change."""
ROW_KEYS = tuple(key for key in Row.model_fields if key not in _NO_VALUES)
"""Keys of a row that may be given values for all rows."""


def path_of(axis: str) -> tuple[str, ...] | None:
    """Where a run has the key that an axis names: `density` is `sparsity.density`; None if it has none."""
    parts = tuple(axis.split("."))
    if parts[0] in ("seed", "revision"):
        return None
    candidates = [(section, *parts) for section in _SECTIONS if parts[0] in _fields_at((section,))]
    return next((path for path in [*candidates, parts] if _is_key(path)), None)


def value_at(spec: RunSpec, path: tuple[str, ...]) -> Value:
    """What a run has at a key; a section is called by its name, and what has no number or word by its text."""
    found: Any = spec
    for part in path:
        if found is None:
            return None
        if part in TopologySpec.model_fields and isinstance(found, str):
            rules = NAMED_TOPOLOGIES.get(found)
            found = rules and dict(zip(TopologySpec.model_fields, rules, strict=True))[part]
        else:
            found = getattr(found, part)
    if isinstance(found, BaseModel) and not isinstance(found, Choice | TopologySpec):
        found = getattr(found, "name", None)
    return found if found is None or isinstance(found, bool | int | float | str) else str(found)


def with_value(row: Row, key: str, value: object, context: Mapping[str, Any]) -> Row:
    """A row with another value of one of its keys, or of a key of its recipe.

    Raises:
        ValueError: there is no such key, or the row cannot have the value; in words.
    """
    first, *rest = key.split(".")
    if first not in (*ROW_KEYS, *CHANGEABLE):
        raise ValueError(
            f"no row has such a key. It may be one of a row ({', '.join(ROW_KEYS)}), or of a recipe "
            f"({', '.join(CHANGEABLE)})."
        )
    given = {name: getattr(row, name) for name in row.model_fields_set}
    nested = value
    for part in reversed(rest):
        nested = {part: nested}
    if first in ROW_KEYS:
        given[first] = _merged(given.get(first), nested)
    else:
        given["changes"] = _merged(row.changes, {first: nested})
    try:
        return Row.model_validate(given, context=dict(context))
    except ValidationError as error:
        first_mistake, *_ = explain(error, given, _A_ROW)
        raise ValueError(first_mistake.sentence) from None


def changed_recipe(recipe: Recipe, changes: Mapping[str, Any], where: Location, config: Config) -> Recipe:
    """A recipe as a row has it.

    Args:
        recipe: with the table's network and components.
        changes: what the row says.
        where: the key that says it.
        config: whose files are named in a mistake.

    Raises:
        EastError: a key is unknown, or a value wrong; with file and line.
    """
    if not changes:
        return recipe
    unknown = [Mistake((*where, key), _why_not(key)) for key in changes if key not in CHANGEABLE]
    config.sources.refuse(unknown)
    given = {name: getattr(recipe, name) for name in recipe.model_fields_set}
    of_components = {key: value for key, value in changes.items() if key in Components.model_fields}
    given = _merged(given, {key: value for key, value in changes.items() if key not in of_components})
    given["components"] = _merged(recipe.components, of_components)
    try:
        return Recipe.model_validate(given, context={CATALOGUE: config.catalogue})
    except ValidationError as error:
        mistakes = explain(error, given, _A_RECIPE)
        places = [one.location[len(_A_RECIPE) :] for one in mistakes]
        config.sources.refuse(
            Mistake((*where, *(part for part in place if part != "components")), one.sentence)
            for place, one in zip(places, mistakes, strict=True)
        )
        raise


def leaves(changes: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every changed key with dots between its parts, and its value; a section with a name is called by that alone."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and set(value) != {"name"}:
            yield from leaves(value, f"{before}{key}.")
        else:
            yield before + key, value["name"] if isinstance(value, Mapping) else value


def short_digest(value: object) -> str:
    """Six digits that tell values apart in names of folders."""
    return fingerprint_of(canonical_json({"value": value}))[:6]


def _why_not(key: str) -> str:
    if key in Row.model_fields and key not in _NO_VALUES:
        return "the row has this key itself. Write it beside `changes`."
    if key in Recipe.model_fields:
        return "a row does not change this key of its recipe. Leave it out."
    return f"a recipe has no such key that a row may change. Allowed here: {', '.join(CHANGEABLE)}."


def _merged(old: Any, new: Any) -> Any:
    """As overlays merge; a section with another name takes the place of the old one."""
    if isinstance(old, Choice):
        old = {"name": old.name, **dict(old.parameters)}
    elif isinstance(old, OptimizerSpec):
        old = old.model_dump(exclude={"plugin"})
    elif isinstance(old, BaseModel):
        old = {name: getattr(old, name) for name in old.model_fields_set}
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    if "name" in new and new["name"] != old.get("name"):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _fields_at(path: tuple[str, ...]) -> Mapping[str, FieldInfo]:
    section: type[BaseModel] | None = RunSpec
    for part in path:
        field = section.model_fields.get(part) if section is not None else None
        section = model_of(field.annotation) if field is not None else None
    return section.model_fields if section is not None else {}


def _is_key(path: tuple[str, ...]) -> bool:
    *before, last = path
    if before[-1:] == ["topology"]:
        return last in TopologySpec.model_fields and _is_key(tuple(before))
    return last in _fields_at(tuple(before))
