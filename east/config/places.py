"""Where each value of a configuration was written: file and line, or the command line."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from east.config.yaml_file import read_yaml, written_line
from east.errors import EastError

BASE = "config.yaml"
COMMAND_LINE = "--config"
Location = tuple[str | int, ...]

MOST_SHOWN = 6
"""Mistakes that are named at once."""


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a configuration, or what of it has another effect than it seems.

    Attributes:
        location: of the key at fault.
        sentence: what is wrong there, and what to do.
    """

    location: Location
    sentence: str


@dataclass(frozen=True)
class Origins:
    """What a configuration was merged from. All are equal: where values come from is no part of them.

    Attributes:
        merged: the values.
        contents: what each file holds; config.yaml first, and of two that hold a value the later one counts.
        elsewhere: what has the values that no file holds.
    """

    merged: Mapping[str, Any] = field(default_factory=dict, compare=False)
    contents: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    elsewhere: str = field(default=COMMAND_LINE, compare=False)

    @classmethod
    def of(cls, merged: Mapping[str, Any], files: Iterable[str | Path], elsewhere: str = COMMAND_LINE) -> "Origins":
        """The files that values were merged from, in whatever order they come, and what else.

        Raises:
            EastError: a file cannot be read, or is not valid YAML.
        """
        paths = sorted(map(Path, files), key=lambda path: path.name != BASE)
        return cls(merged, {path: read_yaml(path) for path in paths}, elsewhere)

    def folder(self, location: Location) -> Path:
        """The folder of the file that says what is at a place; the working directory if no file does."""
        there, value = _look_up(self.merged, location)
        found = [path for path, content in self.contents.items() if _look_up(content, location) == (there, value)]
        return _shown(found[-1].absolute()).parent if there and found else Path()

    def place(self, location: Location) -> str:
        """`file:line: ` of a key, or of its nearest parent where it is not written; `unwritten` if no file has it."""
        for depth in range(len(location), 0, -1):
            there, value = _look_up(self.merged, location[:depth])
            if not there:
                continue
            found = [(path, *_look_up(content, location[:depth])) for path, content in self.contents.items()]
            having = [path for path, has, own in found if has and (own == value or isinstance(value, Mapping))]
            if having:
                path = having[-1]
                return f"{_shown(path)}:{written_line(location[:depth], path) or 1}: "
            if self.contents and not isinstance(value, Mapping):
                return f"{self.elsewhere}: "
        return f"{_shown(list(self.contents)[-1])}: " if self.contents else ""

    def refuse(self, mistakes: Iterable[Mistake]) -> None:
        """End with all mistakes, a line each, if there are any.

        Raises:
            EastError: there are.
        """
        found = list(dict.fromkeys(mistakes))
        lines = [
            f"{self.place(mistake.location)}{_key(mistake.location)}: {mistake.sentence}"
            for mistake in found[:MOST_SHOWN]
        ]
        if len(found) > MOST_SHOWN:
            lines.append(f"and {len(found) - MOST_SHOWN} more.")
        if lines:
            raise EastError("\n".join(lines))


def _look_up(node: Any, location: Location) -> tuple[bool, Any]:
    """Whether there is something at a place, and what."""
    for part in location:
        if isinstance(node, str):
            return False, None
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return False, None
    return True, node


def _key(location: Location) -> str:
    """A place as one word; a name that cannot be shown is written in escapes."""
    return ".".join(str(part) if str(part).isprintable() else ascii(part) for part in location) or "configuration"


def _shown(path: Path) -> Path:
    """A path as it would be written in the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
