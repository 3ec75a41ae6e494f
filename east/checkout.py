"""The commit of the checkout that this package is run from, as Git has it."""

import os
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent

CODE = (".py", ".cpp", ".h")
"""How the names of the package's sources end."""


def commit(package: Path = PACKAGE) -> str | None:
    """The commit of the checkout that holds this package, with `+changes` if anything there is not as committed.

    A copy of the package that lies within another repository (installed there, or unpacked) has no commit: it is the
    place `east/` at the top of a repository that counts, if that repository tracks it. So worktrees and submodules
    have theirs. Sources are compared by what they hold: Git can be asked to overlook an edit, and it overlooks sources
    that were never added.

    Args:
        package: the package's folder.
    """
    package = package.resolve()
    root = package.parent
    try:
        if _git(root, "ls-files", "--full-name", "--error-unmatch", "--", "east/__init__.py") != "east/__init__.py":
            return None
        head = _git(root, "rev-parse", "HEAD")
        same = not _git(root, "status", "--porcelain", "--untracked-files=no") and _is_as_committed(package)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head if same else f"{head}+changes"


def _is_as_committed(package: Path) -> bool:
    """Whether the package's folder holds the sources of the commit, all of them and no other."""
    root = package.parent
    listed = (line.split("\t", 1) for line in _git(root, "ls-tree", "-r", "-z", "HEAD", "east").split("\0") if line)
    committed = {name: entry.split()[2] for entry, name in listed if name.endswith(CODE)}
    files = [file for file in package.rglob("*") if file.suffix in CODE]
    names = [file.relative_to(root).as_posix() for file in files]
    found = _git(root, "hash-object", "--stdin-paths", given="".join(f"{name}\n" for name in names)).split()
    return dict(zip(names, found, strict=True)) == committed


def _git(root: Path, *arguments: str, given: str | None = None) -> str:
    """What Git prints; a repository that the environment names, as hooks do, is not asked."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, input=given, env=environment)  # noqa: S603
    return done.stdout.strip()
