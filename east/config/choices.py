"""Members of registries as a configuration and a run's description choose them: a name, or a name with parameters.

A member of the project with no parameter but defaults is its bare name, so that a run has one description and keeps it
when a parameter is added. A plugin's also has the digest of the plugin's content.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_serializer,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from east.errors import EastError
from east.plugins import Catalogue
from east.registry import Entry, Kind, Parameter
from east.sparse.kinds import drop_rule, growth_rule, initial_values, network

DIGEST = re.compile(r"[0-9a-f]{64}")
CATALOGUE = "catalogue"
"""Under which a validation's context has what plugins register; without, it is a run's description that is read."""


WIDTH = "width"
"""The parameter of a network that a recipe has a key of its own for."""

COMPLAINT = "choice"
"""The type of a complaint that is a sentence of this module's."""


class Choice(BaseModel):
    """A member of a registry with parameters, or one of a plugin.

    Attributes:
        name: of the entry.
        plugin: SHA-256 of the plugin's content; None for the project's own.
        parameters: name and value of those that have not their default, in the order of the signature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    plugin: str | None = None
    parameters: tuple[tuple[str, Any], ...] = ()

    @model_serializer
    def _written(self) -> dict[str, Any]:
        plugin = {} if self.plugin is None else {"plugin": self.plugin}
        return {"name": self.name, **{name: _plain(value) for name, value in self.parameters}, **plugin}

    def __str__(self) -> str:
        """As tables and reports print it."""
        values = ", ".join(f"{name} {_shown(value)}" for name, value in self.parameters)
        return f"{self.name} ({values})" if values else self.name


class ChoiceOf:
    """Metadata of a type: a member of a registry."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A bare name, or a choice; whatever is written is checked against the registry."""
        return core_schema.with_info_plain_validator_function(
            lambda value, info: _said(choose, self.kind, value, info),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value.model_dump() if isinstance(value, Choice) else value
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """For editors: the project's own with their parameters, and any other name, which a plugin may have."""
        names = [entry.name for entry in self.kind]
        own = [_object(entry) for entry in self.kind if entry.parameters]
        if self.kind is network:  # its width is a key of its own
            for one in own:
                one["properties"].pop(WIDTH, None)
            own = [one for one in own if len(one["properties"]) > 1]
        another = {"type": "string", "not": {"enum": names}}
        others = {"type": "object", "properties": {"name": another}, "required": ["name"]}
        return {"anyOf": [{"enum": names}, another, *own, others]}


class NameOf:
    """Metadata of a text: the name of a member of a registry, whose parameters stand beside it."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """For editors: the project's own names, and any other."""
        names = [entry.name for entry in self.kind]
        return {"anyOf": [{"enum": names}, {"type": "string", "not": {"enum": names}}]}


def choose(kind: Kind, value: object, info: ValidationInfo) -> str | Choice:
    """What a configuration, or a run's description, chooses of a registry.

    Raises:
        ValueError: there is no such member, or a parameter is not as it wants it.
    """
    if isinstance(value, Choice):
        return value
    given: dict[str, Any]
    if isinstance(value, str):
        given = {"name": value}
    elif isinstance(value, Mapping) and isinstance(value.get("name"), str):
        given = dict(value)
    else:
        raise ValueError(f"must be the name of a {kind.one}, or a section with 'name' and its parameters")
    name = given.pop("name")
    if kind is network and WIDTH in given:
        raise ValueError("the width of a network is a key beside it, 'width' of the recipe")
    catalogue = (info.context or {}).get(CATALOGUE)
    if catalogue is None and "plugin" in given:
        return _described(name, given)
    # Null takes away a parameter that a file below has set.
    return member(kind, name, {key: part for key, part in given.items() if part is not None}, catalogue)


def member(kind: Kind, name: str, given: Mapping[str, Any], catalogue: Catalogue | None) -> str | Choice:
    """A member of a registry, with parameters that are checked.

    Raises:
        ValueError: there is none of this name, or a parameter is not as it wants it.
    """
    entry = entry_named(kind, name, catalogue)
    found = entry.checked(given)
    if entry.plugin is None and not found:
        return name
    digest = entry.plugin.digest if entry.plugin else None
    return Choice(name=name, plugin=digest, parameters=tuple((key, _hashable(part)) for key, part in found.items()))


def entry_named(kind: Kind, name: str, catalogue: Catalogue | None) -> Entry:
    """The entry that a name stands for, of the project or of a plugin.

    Raises:
        ValueError: there is none.
    """
    added = catalogue.get(kind, name) if catalogue else None
    if added is not None:
        return added
    own = {entry.name: entry for entry in kind}
    if name in own:
        return own[name]
    known = [*own, *(catalogue.names(kind) if catalogue else ())]
    close = difflib.get_close_matches(name[:60], known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    texts = (f"{one.name} ({one.summary.rstrip('.')})" for one in own.values())
    described = ", ".join([*texts, *known[len(own) :]])
    raise ValueError(f"there is no {kind.one} '{name[:60]}'.{hint} Choose one of {described}")


def _described(name: str, given: dict[str, Any]) -> Choice:
    """A plugin's member as a run's description has it; its parameters are checked when it is loaded."""
    digest = given.pop("plugin")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ValueError("'plugin' must be the SHA-256 of a plugin's content, in small letters")
    for key, value in given.items():
        if not isinstance(value, bool | int | float | str | list | tuple):
            raise ValueError(f"parameter '{key}' must be a number, a text, true, false, or a list of these")
    return Choice(name=name, plugin=digest, parameters=tuple((key, _hashable(part)) for key, part in given.items()))


NAMED_TOPOLOGIES = {"rigl": ("magnitude", "gradient", "zero"), "set": ("magnitude", "random", "zero")}
"""Name -> its drop rule, growth rule, and initial values."""
FIXED = "fixed"
"""The topology of masks that never change."""


class TopologySpec(BaseModel):
    """How the masks of a method move, rule by rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drop: Annotated[str | Choice, ChoiceOf(drop_rule)] = "magnitude"
    grow: Annotated[str | Choice, ChoiceOf(growth_rule)] = "gradient"
    initial: Annotated[str | Choice, ChoiceOf(initial_values)] = "zero"

    def __str__(self) -> str:
        """As tables and reports print it."""
        begun = "" if self.initial == "zero" else f", from {self.initial}"
        return f"drop {self.drop}, grow {self.grow}{begun}"


class TopologyChoice:
    """Metadata of a type: a named topology, or one rule by rule."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What has a name is called by it, however it is written."""
        return core_schema.with_info_plain_validator_function(
            lambda value, info: _said(_topology, value, info),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value.model_dump(exclude_defaults=True) if isinstance(value, TopologySpec) else value
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """For editors."""
        rules = {
            name: ChoiceOf(kind).__get_pydantic_json_schema__(schema, handler)
            for name, kind in (("drop", drop_rule), ("grow", growth_rule), ("initial", initial_values))
        }
        by_rule = {"type": "object", "properties": rules, "additionalProperties": False}
        return {"anyOf": [{"enum": [*NAMED_TOPOLOGIES, FIXED]}, by_rule]}


def _topology(value: object, info: ValidationInfo) -> str | TopologySpec:
    if isinstance(value, str):
        names = [*NAMED_TOPOLOGIES, FIXED]
        if value in names:
            return value
        close = difflib.get_close_matches(value[:60], names, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ValueError(
            "must be rigl (drop magnitude, grow gradient), set (drop magnitude, grow random), fixed (random masks that "
            f"never change), or a section with drop, grow and initial (it is {value[:60]!r}).{hint}"
        )
    try:
        found = value if isinstance(value, TopologySpec) else TopologySpec.model_validate(value, context=info.context)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ValueError(f"has no key '{where}'; it has drop, grow and initial") from None
        said = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        raise ValueError(f"{where}: {said}" if where else said) from None
    return named_topology(found)


def named_topology(topology: TopologySpec) -> str | TopologySpec:
    """The name of a topology that has one, so that a run has one description however it is written."""
    rules = (topology.drop, topology.grow, topology.initial)
    return next((name for name, own in NAMED_TOPOLOGIES.items() if own == rules), topology)


def _said(validate: Callable[..., Any], *arguments: Any) -> Any:
    """What a validation finds; its complaint is a whole sentence, which names the value."""
    try:
        return validate(*arguments)
    except ValueError as error:
        raise PydanticCustomError(COMPLAINT, "{said}", {"said": str(error)}) from None


def named(choice: str | Choice) -> tuple[str, dict[str, Any], str | None]:
    """Name, parameters and plugin of a choice."""
    return (choice, {}, None) if isinstance(choice, str) else (choice.name, dict(choice.parameters), choice.plugin)


def read_choice(kind: Kind, written: object) -> str | Choice:
    """A choice as a run's description has it.

    Raises:
        ValidationError: it has none.
    """
    found: str | Choice = TypeAdapter(Annotated[str | Choice, ChoiceOf(kind)]).validate_python(written)
    return found


def chosen_name(choice: str | Choice) -> str:
    """The name that is chosen."""
    return named(choice)[0]


def is_plugins(choice: object) -> bool:
    """Whether a choice is of a plugin."""
    return isinstance(choice, Choice) and choice.plugin is not None


def bound(kind: Kind, choice: str | Choice) -> tuple[Entry, Callable[..., Any]]:
    """The entry of a choice, and what is called.

    Raises:
        EastError: it is in a plugin that is not loaded, or its parameters are not as the plugin wants them.
    """
    name, parameters, plugin = named(choice)
    entry = kind.find(name, plugin)
    try:
        return entry, entry.bind(parameters)
    except ValueError as error:
        raise EastError(f"{entry.place}: {error}.") from None


def _object(entry: Entry) -> dict[str, Any]:
    """The JSON Schema of an entry with parameters."""
    properties = entry.model.model_json_schema()["properties"]
    for one in entry.parameters:
        properties[one.name].pop("title", None)
        if one.unit:
            properties[one.name]["description"] = f"{one.meaning} ({one.unit})"
    about = {"description": entry.summary} if entry.summary else {}
    named_so = {"name": {"const": entry.name, **about}}
    return {"type": "object", "properties": {**named_so, **properties}, "additionalProperties": False}


def schema_of(parameter: Parameter, entry: Entry) -> dict[str, Any]:
    """The JSON Schema of a parameter."""
    found: dict[str, Any] = _object(entry)["properties"][parameter.name]
    return found


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    return [*map(_plain, value)] if isinstance(value, tuple) else value


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
