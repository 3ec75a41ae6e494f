"""Files outside the project that register entries: read without executing them, found by digest, loaded by a training.

A plan needs names, parameters and defaults of what a plugin registers. It reads them from the source, so that whoever
makes a plan (status, merge, report) executes nothing. A training executes the file, if it has the very content that its
run was planned with.
"""

import ast
import hashlib
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module, metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from east import parameters
from east.errors import EastError
from east.failures import explained
from east.files import read_regular
from east.registry import Entry, Kind, Parameter, Plugin, described_arguments, registering, snake

GROUP = "east.plugins"
"""Entry points by which an installed package offers plugins."""

AUTHORS = "east.methods"
"""The module from which plugins import decorators and types."""

BUILT_IN = {"int": int, "float": float, "bool": bool, "str": str}
TYPES = [name for name, value in vars(parameters).items() if typing.get_origin(value) is typing.Annotated]
"""Names of parameter types with a range or a unit."""

MOST_BYTES = 2**20
"""Of a plugin's source; none that a person writes is larger."""

GO_ON = "Correct it and give the same command again."


@dataclass(frozen=True)
class Catalogue:
    """What the plugins of a configuration register, as far as their sources say.

    Attributes:
        entries: in the order of the plugins; none has a function.
    """

    entries: tuple[Entry, ...] = ()

    def get(self, kind: Kind, name: str) -> Entry | None:
        """The entry of a kind with this name."""
        return next((one for one in self.entries if one.kind is kind and one.name == name), None)

    def names(self, kind: Kind) -> list[str]:
        """The names that plugins add to a kind."""
        return [one.name for one in self.entries if one.kind is kind]

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Digest -> where the plugin is."""
        return {one.plugin.digest: Path(one.plugin.path) for one in self.entries if one.plugin is not None}

    @classmethod
    def of(cls, paths: Iterable[Path]) -> "Catalogue":
        """What plugins register.

        Raises:
            EastError: one cannot be read, is not valid Python, or registers what another, or the project, has.
        """
        found: list[Entry] = []
        for path in {path.resolve(): path for path in paths}.values():
            for entry in declared(path):
                other = next((one for one in found if (one.kind, one.name) == (entry.kind, entry.name)), None)
                if other is not None:
                    raise EastError(f"{entry.place}: {other.place} registers {entry.title} too. Rename one of them.")
                if entry.name in entry.kind:
                    raise EastError(f"{entry.place}: {entry.title} is the project's own. Give yours another name.")
                found.append(entry)
        return cls(tuple(found))


NO_PLUGINS = Catalogue()


def files_of(path: Path) -> list[Path]:
    """The sources of a plugin: the file, or all those of a package."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*.py") if file.is_file())


def digest_of(path: Path) -> str:
    """SHA-256 of what a plugin is: the bytes of a file; of a package, names and bytes of all its sources.

    Raises:
        EastError: it cannot be read.
    """
    if path.is_file():
        return hashlib.sha256(_content(path)).hexdigest()
    digest = hashlib.sha256()
    for file in files_of(path):
        digest.update(f"{file.relative_to(path).as_posix()}\n".encode() + hashlib.sha256(_content(file)).digest())
    return digest.hexdigest()


def find(named: str, folder: Path) -> Path:
    """The plugin that a configuration names: a file `*.py`, from a folder on, or an entry point of the group.

    Raises:
        EastError: there is none.
    """
    if named.endswith(".py"):
        path = folder / Path(named).expanduser()
        if not path.is_file():
            raise EastError(f"there is no file {path}")
        return path
    offered = installed()
    if named not in offered:
        known = f"; installed packages offer {', '.join(sorted(offered))}" if offered else ""
        raise EastError(f"'{named}' is neither a file *.py nor an installed entry point of {GROUP}{known}")
    return offered[named]


def installed() -> dict[str, Path]:
    """Name of an entry point -> the module or package that it stands for; nothing is imported."""
    found = {}
    for point in metadata.entry_points(group=GROUP):
        where: list[str] | None = None
        spec = None
        name = ""
        for part in point.module.split("."):
            name = f"{name}.{part}".lstrip(".")
            spec = PathFinder.find_spec(name, where)
            if spec is None:
                break
            where = list(spec.submodule_search_locations or ())
        if spec is not None and spec.origin:
            origin = Path(spec.origin)
            found[point.name] = origin.parent if origin.name == "__init__.py" else origin
    return found


def declared(path: Path) -> tuple[Entry, ...]:
    """What a plugin registers, from its source: decorated functions and classes at the top level of its files.

    Raises:
        EastError: a file cannot be read, or a declaration is not one; with file and line.
    """
    plugin = Plugin(str(path), digest_of(path))
    return tuple(entry for file in files_of(path) for entry in _Source.read(file, plugin).entries())


def load(path: Path, digest: str) -> None:
    """Execute a plugin, if its content is the one with this digest; what it registers can then be found by it.

    Raises:
        EastError: its content is another, or executing it fails; with file and line.
    """
    name = f"east_plugin_{digest[:16]}"
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return
    content = _content(path) if path.is_file() else b""
    found = hashlib.sha256(content).hexdigest() if content else digest_of(path)
    if found != digest:
        raise EastError(f"{path} was changed since its run was planned (SHA-256 {digest[:12]}…). {GO_ON}")
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        with registering(Plugin(str(path), digest)), located(path, "when it was loaded"):
            if content:
                exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 - what a plugin is for
            else:
                import_module(next(point.module for point in metadata.entry_points(group=GROUP) if _is_at(point, path)))
    except BaseException:
        del sys.modules[name]
        raise


def _is_at(point: metadata.EntryPoint, path: Path) -> bool:
    return installed().get(point.name) == path


def locate(needed: Mapping[str, str], places: Sequence[Path]) -> dict[str, Path]:
    """Digest -> the plugin with that content.

    Args:
        needed: digest -> what of it a run uses, for messages.
        places: plugins, or folders that may hold them, the likeliest first; installed ones are looked at in the end.

    Raises:
        EastError: one is nowhere; what has its name and another content is named.
    """
    found: dict[str, Path] = {}
    others: dict[Path, str] = {}
    for path in _candidates(places):
        if found.keys() == needed.keys():
            return found
        with suppress(OSError, EastError):
            others[path] = digest_of(path)
            if others[path] in needed:
                found.setdefault(others[path], path)
    for digest, use in needed.items():
        if digest not in found:
            known = [f"{path} (SHA-256 {own[:12]}…)" for path, own in others.items() if _mentions(path, use)]
            other = f" Another content of it is in {known[0]}." if known else ""
            raise EastError(
                f"this run uses {use} of a plugin with SHA-256 {digest[:12]}…, which is not here.{other} Name the file "
                "with --plugin, or plan the run again with the content that there is."
            )
    return found


def load_needed(needed: Mapping[str, str], places: Sequence[Path]) -> dict[str, Path]:
    """Load all plugins of a run; arguments, result and errors as for `locate` and `load`."""
    found = locate(needed, places) if needed else {}
    for digest, path in found.items():
        load(path, digest)
    return found


def _candidates(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        yield from [place] if place.is_file() else sorted(place.glob("*.py"))
    yield from installed().values()


def _mentions(path: Path, use: str) -> bool:
    try:
        return any(entry.title == use for entry in declared(path))
    except (EastError, OSError):
        return False


@contextmanager
def blamed(entry: Entry, when: str) -> Iterator[None]:
    """What a plugin raises within this block ends in a sentence with its file and line; what others do is left alone.

    Raises:
        EastError: it has raised anything but failures of the surroundings, such as want of memory.
    """
    if entry.plugin is None:
        yield
        return
    with located(Path(entry.plugin.path), when, entry):
        yield


@contextmanager
def located(path: Path, when: str, entry: Entry | None = None) -> Iterator[None]:
    """Give what is raised within this block the line of the plugin at which it happened."""
    try:
        yield
    except EastError:
        raise
    except SyntaxError as error:
        raise EastError(
            f"{error.filename or path}:{error.lineno}: the plugin is not valid Python: {error.msg}."
        ) from None
    except Exception as error:
        if explained(error) is not None and not isinstance(error, ImportError):
            raise
        files = set(map(str, files_of(path)))
        lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        file, line = next((place for place in reversed(lines) if place[0] in files), (str(path), 1))
        what = f"{entry.title} failed {when}" if entry else f"the plugin failed {when}"
        wanted = f" It must give {entry.kind.gives}." if entry else ""
        said = " ".join(str(error).split())
        raise EastError(f"{file}:{line}: {what}: {type(error).__name__}: {said}.{wanted} {GO_ON}") from error


@dataclass
class _Source:
    """A plugin's file as a tree.

    Attributes:
        file: its path.
        plugin: whose it is.
        tree: its statements.
        names: what names at its top level stand for: `east.methods.growth_rule`, `typing.Literal`.
    """

    file: Path
    plugin: Plugin
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, plugin: Plugin) -> "_Source":
        """Parse a file.

        Raises:
            EastError: it is not valid Python.
        """
        with located(file, "when it was read"):
            tree = ast.parse(_content(file), str(file))
        names: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return cls(file, plugin, tree, names)

    def entries(self) -> Iterator[Entry]:
        """What the file registers."""
        for node in self.tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                module, _, name = self._meant(called).rpartition(".")
                if module == AUTHORS and name in kinds():
                    yield self._entry(node, kinds()[name], decorator)

    def _entry(self, node: ast.FunctionDef | ast.ClassDef, kind: Kind, decorator: ast.expr) -> Entry:
        declares: dict[str, Any] = {}
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
            declares[str(keyword.arg)] = self._literal(keyword.value, f"{keyword.arg} of a decorator")
        name = declares.pop("name", snake(node.name) if isinstance(node, ast.ClassDef) else node.name)
        paper = declares.pop("paper", "")
        line = node.decorator_list[0].lineno
        place = f"{self.file}:{line}"
        documented = inspect.cleandoc(ast.get_docstring(node) or "")
        meanings = described_arguments(documented)
        begun, called, constructed = self._signatures(node)
        own = [] if begun is None else list(zip(begun.kwonlyargs, begun.kw_defaults, strict=True))
        found = tuple(self._parameter(argument, default, meanings) for argument, default in own)
        positional = [] if called is None else [one.arg for one in (*called.posonlyargs, *called.args)]
        kind.check(place, name, positional, found, constructed)
        facts = kind.declared(place, declares)
        summary = documented.partition("\n")[0]
        return Entry(kind, name, found, facts, summary, paper, str(self.file), line, self.plugin)

    def _signatures(
        self, node: ast.FunctionDef | ast.ClassDef
    ) -> tuple[ast.arguments | None, ast.arguments | None, list[str]]:
        """The arguments that hold parameters, those of a call, and what an object is made with by position."""
        if isinstance(node, ast.FunctionDef):
            return node.args, node.args, []
        methods = {part.name: part.args for part in node.body if isinstance(part, ast.FunctionDef)}
        for arguments in methods.values():
            del (arguments.posonlyargs or arguments.args)[:1]  # self
        begun = methods.get("__init__")
        constructed = [] if begun is None else [one.arg for one in (*begun.posonlyargs, *begun.args)]
        return begun, methods.get("__call__"), constructed

    def _parameter(self, argument: ast.arg, default: ast.expr | None, meanings: Mapping[str, str]) -> Parameter:
        kind = self._type(argument.annotation, argument)
        what = f"the default of parameter '{argument.arg}'"
        value = inspect.Parameter.empty if default is None else self._literal(default, what)
        return Parameter(argument.arg, kind, value, meanings.get(argument.arg, ""))

    def _type(self, node: ast.expr | None, argument: ast.arg) -> Any:
        """The type that an annotation stands for, of those that a configuration can hold."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self._type(ast.parse(node.value, mode="eval").body, argument)
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        meant = self._meant(node) if node is not None else ""
        module, _, name = meant.rpartition(".")
        if meant in BUILT_IN:
            return BUILT_IN[meant]
        if module in (AUTHORS, "east.parameters") and name in TYPES:
            return getattr(parameters, name)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return typing.Union[self._type(node.left, argument), self._type(node.right, argument)]  # noqa: UP007
        if isinstance(node, ast.Subscript):
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if self._meant(node.value) == "typing.Literal":
                return typing.Literal[tuple(self._literal(one, "a Literal") for one in inner)]
            if self._meant(node.value) == "tuple" and len(inner) == 2 and _is_ellipsis(inner[1]):
                return tuple[self._type(inner[0], argument), ...]  # type: ignore[misc]
        raise EastError(
            f"{self.file}:{argument.lineno}: the type of parameter '{argument.arg}' must be one of "
            f"{', '.join(BUILT_IN)}, {', '.join(TYPES)}, Literal[...], tuple[..., ...], or one of these or None."
        )

    def _literal(self, node: ast.expr, what: str) -> Any:
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise EastError(
                f"{self.file}:{node.lineno}: {what} must be written out: a plan reads it without executing the file."
            ) from None

    def _meant(self, node: ast.expr) -> str:
        """The full name that an expression of names and dots stands for; empty for any other."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            before = ast.unparse(node.value)
            return f"{self.names.get(before, self._meant(node.value))}.{node.attr}"
        return ""


def kinds() -> dict[str, Kind]:
    """Name of a decorator -> its registry."""
    found: dict[str, Kind] = import_module(AUTHORS).KINDS
    return found


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _content(file: Path) -> bytes:
    return read_regular(file, at_most=MOST_BYTES)
