"""Where the code of this package comes from: the commit of its checkout, as Git has it, and what its sources hold."""

import hashlib
import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent

PROJECT = "east"
"""The name of this project in its pyproject.toml, and of its package."""

CODE = (".py", ".cpp", ".h")
"""How the names of the package's sources end."""

ANSWER_SECONDS = 60.0
"""After which Git is not waited for, as on a file system that hangs."""


@dataclass(frozen=True)
class Checkout:
    """What is known of where the code comes from, and no more.

    Attributes:
        commit: of the checkout that it is run from; None where it is run from none, or Git does not say.
        changes: files that are not as that commit has them.
        note: why no commit is known, in words; empty where one is.
    """

    commit: str | None = None
    changes: tuple[str, ...] = ()
    note: str = ""

    @property
    def label(self) -> str | None:
        """The commit, with `+changes` if anything is not as committed."""
        return f"{self.commit}+changes" if self.commit and self.changes else self.commit


def commit(package: Path = PACKAGE) -> str | None:
    """The commit of the checkout that holds this package, with `+changes` if anything there is not as committed.

    Args:
        package: the package's folder.
    """
    return look_up(package).label


def look_up(package: Path = PACKAGE) -> Checkout:
    """Ask Git for the checkout that holds this package.

    A copy of the package that lies within another repository (installed there, or unpacked) has no commit: it is the
    place `east/` at the top of a repository that counts, if the commit has it there and its pyproject.toml, if it has
    one, is this project's. So worktrees, submodules and shallow clones have theirs. Sources are compared by what they
    hold: Git can be asked to overlook an edit, and it overlooks sources that were never added.

    Args:
        package: the package's folder.
    """
    package = package.resolve()
    try:
        return _look_up(package)
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split("\n")[0].split())
        if "dubious ownership" in said:
            return Checkout(note="the repository belongs to another user, so Git does not read it")
        if "not a git repository" in said:
            installed = {"site-packages", "dist-packages"} & set(package.parts)
            return Checkout(note=f"it is {'an installed package' if installed else 'in no Git repository'}")
        if "HEAD" in said:
            return Checkout(note="the repository around it has no commit")
        return Checkout(note=f"Git cannot say: {said}")
    except subprocess.TimeoutExpired:
        return Checkout(note="Git gives no answer")
    except OSError:
        return Checkout(note="there is no command git")


def sources(package: Path = PACKAGE) -> dict[str, str]:
    """A digest of each source of the package as it is now, by its name in the package."""
    files = sorted(file for file in package.rglob("*") if file.suffix in CODE and file.is_file())
    return {file.relative_to(package).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _look_up(package: Path) -> Checkout:
    root = package.parent
    inside, head, *_ = _git(root, "rev-parse", "--show-prefix", "HEAD").split("\n")
    listed = (line.split("\t", 1) for line in _git(root, "ls-tree", "-r", "-z", "HEAD", PROJECT).split("\0") if line)
    committed = {name: entry.split()[2] for entry, name in listed if name.endswith(CODE)}
    if inside or f"{PROJECT}/__init__.py" not in committed or package.name != PROJECT or not _is_this_project(root):
        return Checkout(note="it lies in the repository of another project")
    # Each is two letters, a space and a name; where one was renamed, its former name follows, with no letters before.
    told = _git(root, "status", "--porcelain", "--no-renames", "-z", "--untracked-files=no").split("\0")
    changes = {line[3:] for line in told if line} | _differing(root, package, committed)
    return Checkout(head, tuple(sorted(changes)))


def _is_this_project(root: Path) -> bool:
    """Whether the commit describes itself as this project, or does not describe itself."""
    try:
        described = tomllib.loads(_git(root, "show", "HEAD:pyproject.toml"))
    except subprocess.CalledProcessError:
        return True
    except tomllib.TOMLDecodeError:
        return False
    project = described.get("project")
    return isinstance(project, dict) and project.get("name") == PROJECT


def _differing(root: Path, package: Path, committed: Mapping[str, str]) -> set[str]:
    """Sources in the package's folder that are not as in the commit, or in one of the two alone."""
    files = [file.relative_to(root).as_posix() for file in package.rglob("*") if file.suffix in CODE and file.is_file()]
    # Git is given a name a line.
    names = [name for name in files if "\n" not in name]
    given = "".join(f"{name}\n" for name in names)
    found = dict(zip(names, _git(root, "hash-object", "--stdin-paths", given=given).split(), strict=True))
    unlike = {name for name in {*found, *committed} if found.get(name) != committed.get(name)}
    return unlike | set(files) - set(names)


def _git(root: Path, *arguments: str, given: str | None = None) -> str:
    """What Git prints; a repository that the environment names, as hooks do, is not asked."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # Objects that others stand for (git replace) are not what the commit's name stands for.
    environment |= {"LC_ALL": "C", "GIT_NO_REPLACE_OBJECTS": "1"}
    return subprocess.run(  # noqa: S603
        ["git", "--no-optional-locks", "-C", str(root), *arguments],  # noqa: S607
        check=True,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        input=given,
        env=environment,
        timeout=ANSWER_SECONDS,
    ).stdout
