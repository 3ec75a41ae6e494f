"""Configuration files: read, merged as Snakemake merges them, validated, and every mistake located."""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from east.config.schema import Config
from east.config.vocabulary import Choices, metadata_of
from east.errors import EastError

BASE = "config.yaml"
REMOVABLE = ("recipes", "tables", "datasets", "methods.recipes", "methods.rows")
"""Mappings from which an overlay takes an entry away by null."""
Location = tuple[str | int, ...]


def read_config(*overlays: str | Path) -> Config:
    """The validated configuration: config.yaml with each overlay merged over it, in order.

    Raises:
        EastError: a file is missing or not valid YAML, or a key or value is wrong; all mistakes are named at once.
    """
    paths = [base_config(), *(Path(overlay) for overlay in overlays)]
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merge(merged, _read_yaml(path))
    return validate(merged, paths)


def base_config() -> Path:
    """The config.yaml of the working directory or, from elsewhere, of the project that holds this package."""
    for folder in (Path.cwd(), Path(__file__).parents[2]):
        if (folder / BASE).is_file():
            return folder / BASE
    raise EastError(f"there is no {BASE} in {Path.cwd()}. Run the command from the project's folder.")


def _merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, anything else is replaced: what Snakemake does with `--configfile`."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def validate(merged: Mapping[str, Any], sources: Iterable[str | Path] = ()) -> Config:
    """Validate a merged configuration.

    Args:
        merged: plain mappings and lists; an entry of a `REMOVABLE` mapping that is null is left out.
        sources: the files it came from; used to name file and line of a mistake.

    Raises:
        EastError: one line per mistake: file and line, key, what is wrong, what is allowed.
    """
    files = [Path(source) for source in sources]
    for file in files:
        _read_yaml(file)
    try:
        return Config.model_validate(_without_removed(merged))
    except ValidationError as error:
        lines = [_explain(details, merged, files) for details in error.errors(include_url=False)]
        raise EastError("\n".join(dict.fromkeys(lines))) from None


def _without_removed(node: Any, path: str = "") -> Any:
    """A configuration, or what stands at a dotted path in it, without the entries that an overlay took away."""
    if not isinstance(node, Mapping):
        return node
    return {
        key: _without_removed(value, f"{path}.{key}".lstrip("."))
        for key, value in node.items()
        if value is not None or path not in REMOVABLE
    }


def _explain(details: Any, merged: Mapping[str, Any], sources: list[Path]) -> str:
    """A mistake as one line. A name that is wrong itself has a location that ends in `[key]`."""
    location = _real_location(tuple(part for part in details["loc"] if part != "[key]"), merged)
    key = ".".join(str(part) for part in location) or "configuration"
    place = _place(location, sources)
    value = details["input"]
    if details["type"] == "extra_forbidden":
        section, _ = _schema_at(location[:-1])
        allowed = list(section.model_fields) if section is not None else []
        return f"{place}{key}: unknown key.{_closest(location[-1], allowed)} Allowed here: {', '.join(allowed)}."
    given = "" if isinstance(value, Mapping | BaseModel) or details["type"] == "missing" else f" (it is {value!r})"
    _, field = _schema_at(location)
    choices = [found for found in metadata_of(field) if isinstance(found, Choices)] if field else []
    expected = details["ctx"]["expected"] if details["type"] == "literal_error" else ""
    if meanings := next((of.meanings for of in choices if all(name in expected for name in of.meanings)), None):
        *most, last = (f"{name} ({meaning})" for name, meaning in meanings.items())
        allowed_texts = f"{', '.join(most)} or {last}" if most else last
        return f"{place}{key}: must be {allowed_texts}{given}.{_closest(value, list(meanings))}"
    return f"{place}{key}: {details['msg'].removeprefix('Value error, ')}{given}."


def _closest(given: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(given), known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _real_location(location: Location, merged: Any) -> Location:
    """The location without the names of union members that pydantic puts into it."""
    real: list[str | int] = []
    node = merged
    for i, part in enumerate(location):
        if isinstance(node, Mapping) and (part in node or i == len(location) - 1):
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
    """The section that a type stands for, or null."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((model for part in typing.get_args(annotation) if (model := model_of(part))), None)
    return None


def _place(location: Location, sources: list[Path]) -> str:
    """`file:line: ` of a key in the last file that has it; of its nearest parent for a key that none has."""
    for depth in range(len(location), 0, -1):
        for source in reversed(sources):
            line = _line_of(location[:depth], yaml.compose(source.read_text(encoding="utf-8")))
            if line is not None:
                return f"{source}:{line}: "
    return f"{sources[-1]}: " if sources else ""


def _line_of(location: Location, node: yaml.Node | None) -> int | None:
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if entry is None:
                return None
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return None
    return line


class _StrictLoader(yaml.SafeLoader):
    """YAML without surprises: a key that stands twice in a mapping is a mistake, not an override."""


def _strict_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise EastError(f"{node.start_mark.name}:{line}: key '{key}' stands twice, first in line {seen[key]}.")
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as stream:
            content = yaml.load(stream, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise EastError(f"there is no configuration file {path}.") from None
    except OSError as error:
        raise EastError(f"the configuration file {path} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise EastError(f"{path} is nested too deeply to be a configuration.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise EastError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise EastError(f"{path} must hold a mapping of keys to values.")
    return content
