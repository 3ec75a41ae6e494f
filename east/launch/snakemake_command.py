"""The command `snakemake` of this environment: Snakemake's own, after a look at what makes it end in a traceback.

It takes every word after `--configfile` for a file, a target too; and it makes a cache folder in the home, which may be
read-only.
"""

import os
import shlex
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

import yaml

from east.errors import EastError

OPTIONS = ("--configfile", "--configfiles")


def main() -> None:
    """Run Snakemake, unless a configuration file is none."""
    try:
        check_configfiles(sys.argv[1:])
    except EastError as error:
        sys.exit(f"error: {error}")
    find_cache(os.environ, Path.cwd())
    from snakemake.cli import main as snakemake

    snakemake()


def find_cache(environment: MutableMapping[str, str], folder: Path) -> None:
    """Have Snakemake and Matplotlib, which make cache folders when they are imported, make them here in need.

    The need is a home that is read-only.

    Args:
        environment: `os.environ`.
        folder: where Snakemake works.
    """
    caches = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/")) / ".cache")
    try:
        (caches / "snakemake").mkdir(parents=True, exist_ok=True)
    except OSError:
        environment["XDG_CACHE_HOME"] = str(folder / ".snakemake" / "cache")
        environment.setdefault("MPLCONFIGDIR", str(folder / ".snakemake" / "cache" / "matplotlib"))


def check_configfiles(words: Sequence[str]) -> None:
    """Look at the configuration files of a command.

    Args:
        words: what follows `snakemake`.

    Raises:
        EastError: one of them is no such file; if it is meant as a target, the message has the command that works.
    """
    groups = _configfiles(words)
    wrong = {place: problem for group in groups for place in group if (problem := _problem(Path(words[place])))}
    if not wrong:
        return
    place, problem = next(iter(wrong.items()))
    hint = ""
    if all(set(group) - wrong.keys() for group in groups):
        rest = [word for place, word in enumerate(words) if place not in wrong]
        command = shlex.join(["snakemake", *(words[place] for place in wrong), *rest])
        hint = f" Snakemake takes every word after --configfile for a file; a target goes first: {command}"
    raise EastError(f"the configuration file {words[place]} {problem}.{hint}")


def _configfiles(words: Sequence[str]) -> list[list[int]]:
    """Where the words stand that Snakemake takes for configuration files, a list for each option."""
    groups: list[list[int]] = []
    taking = False
    for place, word in enumerate(words):
        if word.startswith("-"):
            taking = word in OPTIONS
            groups += [[]] * taking
        elif taking:
            groups[-1] = [*groups[-1], place]
    return [group for group in groups if group]


def _problem(file: Path) -> str:
    """Why a file is no configuration; empty if it is one."""
    if file.is_dir():
        return "is a folder"
    try:
        content = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (yaml.YAMLError, ValueError) as error:
        return f"is not YAML: {' '.join(str(error).split())}"
    return "" if isinstance(content, dict) else "holds no keys"
