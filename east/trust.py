"""Whether a file may be executed: it and its folders are this user's or root's, and nobody else can write there.

On a shared machine, a cache is otherwise a way to run code as somebody else.
"""

import os
import stat
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone. What is there stays as it is."""
    if not folder.is_dir():
        if folder.parent != folder:
            make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def distrust_of_folder(folder: Path) -> str:
    """Why what lies in a folder must not be executed, in words with the mend; empty where it may be.

    Args:
        folder: without links in it (`Path.resolve`), so that what is looked at is what will be used.
    """
    problem = _distrust(folder)
    for above in () if problem else folder.parents:
        # In a sticky folder, such as /tmp, nobody can move or replace what belongs to others.
        problem = _distrust(above, others_may_write=bool(above.stat().st_mode & stat.S_ISVTX))
        if problem:
            break
    return problem


def distrust_of_file(file: Path) -> str:
    """Why a file must not be executed, in words with the mend; empty where it may be; see `distrust_of_folder`."""
    return _distrust(file) or distrust_of_folder(file.parent)


def _distrust(path: Path, *, others_may_write: bool = False) -> str:
    found = path.lstat()
    if found.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to user {found.st_uid}, who is neither this user nor root"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not others_may_write:
        return f"others may write to {path} (`chmod go-w` forbids it)"
    return ""
