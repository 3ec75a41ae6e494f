"""Registries of one shape: a decorated function or class, whose typed parameters are the schema of its entry.

A `Kind` is a registry and the decorator that fills it. What follows the `*` of the signature are the parameters that a
configuration may set; their types, defaults and descriptions (`Args:` of the docstring) are all the schema there is.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from east.errors import EastError
from east.parameters import UnitName, metadata_in

F = TypeVar("F", bound=Callable[..., Any])

NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = ("name", "plugin")
"""What a mapping in a configuration says beside the parameters, so that no parameter may be called so."""


class Facts(BaseModel):
    """What an entry declares of itself beside its parameters; kinds that have any derive from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Parameter:
    """A parameter of an entry.

    Attributes:
        name: as the configuration writes it.
        type: with range and unit, see `east.parameters`.
        default: `inspect.Parameter.empty` where it must be given.
        meaning: in a few words; empty where the docstring does not say.
    """

    name: str
    type: Any
    default: Any
    meaning: str = ""

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty

    @property
    def unit(self) -> str:
        """What its number counts; empty where that goes without saying."""
        return next((found.name for found in metadata_in(self.type) if isinstance(found, UnitName)), "")


@dataclass(frozen=True, eq=False)
class Plugin:
    """A file outside the project that registers entries.

    Attributes:
        path: the file, or the folder of a package.
        digest: SHA-256 of its content.
    """

    path: str
    digest: str


_PLUGIN: ContextVar[Plugin | None] = ContextVar("plugin", default=None)
"""The plugin whose file is being executed, to which what registers now belongs."""


@contextmanager
def registering(plugin: Plugin) -> Iterator[None]:
    """Whatever registers within this block is the plugin's."""
    token = _PLUGIN.set(plugin)
    try:
        yield
    finally:
        _PLUGIN.reset(token)


@dataclass(frozen=True, eq=False)
class Entry:
    """A member of a registry.

    Attributes:
        kind: the registry.
        name: as the configuration writes it.
        parameters: in the order of the signature.
        facts: what it declares beside them.
        summary: the first line of its docstring.
        paper: where it comes from.
        file: of its source.
        line: where its source begins.
        plugin: the file outside the project that has it; None for the project's own.
        function: what is called; None where a plugin's source was only read.
    """

    kind: "Kind"
    name: str
    parameters: tuple[Parameter, ...]
    facts: Any
    summary: str
    paper: str
    file: str
    line: int
    plugin: Plugin | None = None
    function: Callable[..., Any] | None = None

    @property
    def place(self) -> str:
        """File and line of its source."""
        return f"{self.file}:{self.line}"

    @property
    def title(self) -> str:
        """What it is, with its name."""
        return f"{self.kind.one} '{self.name}'"

    @cached_property
    def model(self) -> type[BaseModel]:
        """The schema of its parameters."""
        fields: dict[str, Any] = {}
        for one in self.parameters:
            described = Field(default=... if one.is_required else one.default, description=one.meaning or None)
            fields[one.name] = (one.type, described)
        config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
        return create_model(self.name, __config__=config, **fields)

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Given parameters as they are called with, without those that have their default anyway.

        Raises:
            ValueError: one is unknown, missing, or out of its range; in words.
        """
        known = [one.name for one in self.parameters]
        for name in given:
            if name not in known:
                allowed = f"it has {', '.join(known)}" if known else "it has none"
                raise ValueError(
                    f"{self.title} has no parameter '{name}'; {allowed}. Null takes away what another file sets"
                )
        try:
            found = self.model.model_validate(dict(given))
        except ValidationError as error:
            raise ValueError(_said(error, self.title)) from None
        defaults = {one.name: one.default for one in self.parameters}
        return {name: value for name in known if (value := getattr(found, name)) != defaults[name]}

    def bind(self, given: Mapping[str, Any]) -> Callable[..., Any]:
        """What is called with a kind's arguments: the function with its parameters, or an object of the class.

        Raises:
            ValueError: a parameter is not as the signature wants it.
        """
        if self.function is None:
            raise ValueError(f"{self.title} was read and not loaded")
        values = self.checked(given)
        return self.function(**values) if isinstance(self.function, type) else partial(self.function, **values)


@dataclass(eq=False)
class Kind:
    """A registry, and the decorator that adds to it.

    Args:
        name: of the registry, in the plural: `growth rules`.
        one: of a member: `growth rule`.
        word: by which commands ask for it: `growth`.
        home: the module that has the project's own entries; it is imported when they are asked for.
        takes: what an entry is called with, by position.
        gives: what it returns, for messages.
        facts: what an entry may declare beside its parameters.
    """

    name: str
    one: str
    word: str
    home: str
    takes: tuple[str, ...]
    gives: str
    facts: type[Facts] = Facts
    _entries: dict[tuple[str, str | None], Entry] = field(default_factory=dict, repr=False)

    def __call__(
        self, function: Any = None, /, *, name: str | None = None, paper: str = "", **facts: Any
    ) -> Callable[[F], F]:
        """Decorate a function or class. It stays what it is.

        Args:
            function: what is decorated, where no keyword follows the decorator.
            name: as the configuration writes it; by default that of the function, of a class in small letters.
            paper: where it comes from.
            facts: what else it declares.
        """

        def register(decorated: F) -> F:
            entry = self.describe(decorated, name=name, paper=paper, **facts)
            key = (entry.name, None if entry.plugin is None else entry.plugin.digest)
            if entry.plugin is None and key in self._entries:
                raise ValueError(f"there are two {self.name} called '{entry.name}'")
            self._entries[key] = entry
            return decorated

        decorator: Any = register if function is None else register(function)
        return decorator  # type: ignore[no-any-return]

    def describe(
        self, function: Callable[..., Any], *, name: str | None = None, paper: str = "", **facts: Any
    ) -> Entry:
        """The entry of a function or class, which is not added.

        Raises:
            EastError: its signature is none of this kind; with file and line.
        """
        is_class = isinstance(function, type)
        documented = inspect.getdoc(function) or ""
        file, line = _place(function)
        found = [*inspect.signature(function).parameters.values()]
        named = name or (snake(function.__name__) if is_class else function.__name__)
        meanings = described_arguments(documented)
        hints = _hints(function, [one.name for one in found if one.kind is one.KEYWORD_ONLY])
        parameters = tuple(
            Parameter(one.name, hints[one.name], one.default, meanings.get(one.name, ""))
            for one in found
            if one.kind is one.KEYWORD_ONLY
        )
        positional = [one.name for one in found if one.kind is not one.KEYWORD_ONLY]
        constructed: list[str] = []
        if is_class:
            # An object of it is called, so that is where the arguments are.
            called = vars(function).get("__call__")
            constructed, positional = positional, []
            if called is not None:
                positional = [*inspect.signature(called).parameters][1:]
        self.check(f"{file}:{line}", named, positional, parameters, constructed)
        return Entry(
            kind=self,
            name=named,
            parameters=parameters,
            facts=self.declared(f"{file}:{line}", facts),
            summary=documented.partition("\n")[0],
            paper=paper,
            file=file,
            line=line,
            plugin=_PLUGIN.get(),
            function=function,
        )

    def check(
        self,
        place: str,
        name: str,
        positional: list[str],
        parameters: tuple[Parameter, ...],
        constructed: list[str],
    ) -> None:
        """Make sure that a signature is one of this kind.

        Args:
            place: file and line.
            name: of the entry.
            positional: what it is called with.
            parameters: its own.
            constructed: what an object of a class is made with by position, which is nothing.

        Raises:
            EastError: it is not.
        """
        if constructed or len(positional) != len(self.takes):
            made = f" and is made with ({', '.join(constructed)})" if constructed else ""
            raise EastError(
                f"{place}: {self.one} '{name}' takes ({', '.join(positional)}){made}, but is called with "
                f"({', '.join(self.takes)}). Its own parameters come after a `*`; those of a class in `__init__`."
            )
        if not NAME.fullmatch(name):
            raise EastError(f"{place}: '{name}' must be small letters, digits and underscores, to be a name.")
        for one in parameters:
            if one.name in RESERVED:
                raise EastError(f"{place}: no parameter can be called '{one.name}'. Rename it.")

    def declared(self, place: str, facts: Mapping[str, Any]) -> Facts:
        """What an entry declares beside its parameters.

        Raises:
            EastError: this kind declares no such thing.
        """
        try:
            return self.facts.model_validate(dict(facts))
        except ValidationError as error:
            known = ", ".join(("name", "paper", *self.facts.model_fields))
            said = _said(error, f"the decorator of this {self.one}")
            raise EastError(f"{place}: {said}. It may declare {known}.") from None

    def __iter__(self) -> Iterator[Entry]:
        """The project's own entries."""
        import_module(self.home)
        return (entry for (_, plugin), entry in self._entries.items() if plugin is None)

    def __contains__(self, name: object) -> bool:
        """Whether the project has an entry of this name."""
        return any(entry.name == name for entry in self)

    def __getitem__(self, name: str) -> Entry:
        """The project's own entry of this name."""
        return self.find(name)

    def find(self, name: str, plugin: str | None = None) -> Entry:
        """An entry of the project, or of the plugin with this digest, which must have been loaded.

        Raises:
            EastError: there is none.
        """
        import_module(self.home)
        if entry := self._entries.get((name, plugin)):
            return entry
        if plugin is None:
            raise EastError(f"there is no {self.one} '{name}'. Choose one of {', '.join(one.name for one in self)}.")
        raise EastError(f"{self.one} '{name}' is in a plugin (SHA-256 {plugin[:12]}…) that is not loaded here.")


def snake(name: str) -> str:
    """The name of a class in small letters: `MixedGrowth` is `mixed_growth`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def described_arguments(docstring: str) -> dict[str, str]:
    """Name -> what a docstring says of it under `Args:`, on one line."""
    _, found, rest = docstring.partition("Args:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in rest.split("\n") if found else ():
        if line and not line.startswith(" "):
            break
        begun = re.match(r" {4}(\w+)(?: \([^)]*\))?: (.*)", line)
        if begun:
            name = begun[1]
            meanings[name] = begun[2].strip()
        elif name and line.strip():
            meanings[name] += f" {line.strip()}"
    return {name: text.rstrip(".") for name, text in meanings.items()}


def _said(error: ValidationError, owner: str) -> str:
    """The first complaint of a validation of an owner's parameters, in words."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"parameter '{where}' of {owner} must be given"
    if first["type"] == "extra_forbidden":
        return f"{owner} declares nothing that is called '{where}'"
    said = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"parameter '{where}' of {owner} {said} (it is {first['input']!r})"


def _place(function: Any) -> tuple[str, int]:
    """File and line of the source of a function, or of the method by which objects of a class are called."""
    called = vars(function).get("__call__") if isinstance(function, type) else function
    code = getattr(called, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else (function.__module__, 1)


def _hints(function: Any, names: list[str]) -> dict[str, Any]:
    """The types of some parameters; what else the signature names need not be importable."""
    if not names:
        return {}
    owner: Any = vars(function)["__init__"] if isinstance(function, type) else function
    written = {name: owner.__annotations__.get(name, Any) for name in names}
    holder = type("Parameters", (), {"__annotations__": written})
    return get_type_hints(holder, globalns=getattr(owner, "__globals__", {}), include_extras=True)
