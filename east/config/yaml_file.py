"""Reads a YAML file as people mean it: whatever YAML would silently make of a number or a key is a mistake with a line.

Nothing that a file holds keeps the reader busy for long: it must be a file of ordinary size, and what aliases stand
for may not grow without end.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from east.errors import EastError

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000
"""More than any plan needs; an alias counts as all that it stands for."""

_OTHER_BASES = {
    "an octal": re.compile(r"[-+]?0[0-7_]+"),
    "a sexagesimal": re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"),
}
"""Numbers that YAML 1.1 reads as other ones than they look like."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        EastError: it cannot be read, is not valid YAML, or says something that YAML takes for something else.
    """
    content = _constructed(path, _text(path))
    if not isinstance(content, dict):
        raise EastError(f"{path} must hold a mapping of keys to values.")
    return content


def written_line(location: tuple[str | int, ...], path: Path) -> int | None:
    """The line of a key, or of a place in a list; None where the file does not have it."""
    node, line = _composed(path), None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in _entries(node) if key.value == str(part)), None)
            if entry is None:
                return None
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return None
    return line


def _entries(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """The entries of a mapping, its own before those that it merges (`<<`)."""
    own, merged = [], []
    for key, value in node.value:
        if key.tag != "tag:yaml.org,2002:merge":
            own.append((key, value))
            continue
        for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            merged += _entries(part) if isinstance(part, yaml.MappingNode) else []
    return own + merged


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise EastError(f"{path} is no file, so no configuration can be read from it.")
        if path.stat().st_size > MOST_BYTES:
            raise EastError(f"{path} is larger than {MOST_BYTES:,} bytes, which is no configuration.")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise EastError(f"there is no configuration file {path}.") from None
    except UnicodeDecodeError as error:
        raise EastError(f"{path} is not text in UTF-8 (byte {error.start + 1}). Save it in that encoding.") from None
    except (OSError, ValueError) as error:
        raise EastError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _composed(path: Path) -> yaml.Node | None:
    """The nodes of a file that was read before; None if it has changed into one that cannot be read."""
    try:
        return yaml.compose(_text(path), Loader=yaml.SafeLoader)
    except (EastError, yaml.YAMLError, RecursionError):
        return None


def _constructed(path: Path, text: str) -> object:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _refuse_endless(path, node)
        loader = _StrictLoader(text)
        loader.name = str(path)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        said = error.problem or error.context or "it cannot be read"
        raise EastError(f"{path}{line}: this is not valid YAML: {said}.") from None
    except RecursionError:
        raise EastError(f"{path} is nested too deeply to be a configuration.") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise EastError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None


def _refuse_endless(path: Path, root: yaml.Node) -> None:
    """Aliases that contain themselves, or that stand for more values than any plan has."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise EastError(f"{path}:{node.start_mark.line + 1}: an alias stands for what it is itself a part of.")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
            open_nodes.discard(id(node))
        return sizes[id(node)]

    if size(root) > MOST_VALUES:
        raise EastError(f"{path} stands for more than {MOST_VALUES:,} values, which is no configuration.")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for entry in node.value for part in entry]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


class _StrictLoader(yaml.SafeLoader):
    """YAML without surprises: no key stands twice in a mapping, and numbers are what they look like."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        line = key_node.start_mark.line + 1
        if key_node.tag != "tag:yaml.org,2002:str":
            given = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
            raise EastError(f"{loader.name}:{line}: a key must be text, which '{given}' is not. Put it in quotes.")
        if key_node.value in seen:
            raise EastError(
                f"{loader.name}:{line}: key '{key_node.value}' stands twice, first in line {seen[key_node.value]}."
            )
        seen[key_node.value] = line
    return loader.construct_mapping(node, deep=True)


def _number(loader: _StrictLoader, node: yaml.ScalarNode) -> int | float:
    for base, form in _OTHER_BASES.items():
        if form.fullmatch(node.value):
            raise EastError(
                f"{loader.name}:{node.start_mark.line + 1}: YAML takes {node.value} for {base} number. "
                "Write it in decimal digits without zeros or colons before them."
            )
    kind = node.tag.rpartition(":")[2]
    number: int | float = loader.construct_yaml_int(node) if kind == "int" else loader.construct_yaml_float(node)
    return number


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _kind in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)
