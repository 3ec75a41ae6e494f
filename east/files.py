"""Files appear under their final name only when whole: written aside, synced, renamed."""

import csv
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape as glob_escape
from pathlib import Path
from typing import IO, Any

from east.locks import claimed, take

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""How `whole_file` names a file until it is whole."""

_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
"""What file systems answer that have no such operation (FUSE, FAT, shares of other systems); the data are there."""

YOUNG = 10.0
"""Seconds after which nobody is between making a temporary file and locking it."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a crash at any moment leaves either the old file or the whole new one.

    Args:
        path: where the file goes; its folder is created if needed.
        content: text is encoded as UTF-8.
    """
    with whole_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@dataclass(frozen=True)
class CsvText:
    """The texts of a CSV file up to the first line that is not whole.

    Attributes:
        names: of the columns; none where there is no file, or no line in it.
        rows: a text for each column.
        problem: why the rest could not be read, in a sentence; None where all was, or there is no file.
    """

    names: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    problem: str | None = None


def read_csv(path: Path) -> CsvText:
    """Read a CSV file with a header as far as it is whole, every field as text."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return CsvText()
    except OSError as error:
        return CsvText(problem=f"{path} cannot be read: {error.strerror}.")
    try:
        found = [tuple(row) for row in csv.reader(text.splitlines(), strict=True)]
    except csv.Error as error:
        return CsvText(problem=f"{path} is not a CSV file: {error}.")
    if not found:
        return CsvText(problem=f"{path} is empty.")
    names, *rows = found
    whole = next((i for i, row in enumerate(rows) if len(row) != len(names)), len(rows))
    # A line without an end may have been cut within its last field, and be the header.
    if whole == len(rows) and not text.endswith("\n"):
        whole -= 1
    if whole == len(rows):
        return CsvText(names, tuple(rows))
    if whole < 0:
        return CsvText(problem=f"{path} ends within its first line.")
    return CsvText(names, tuple(rows[:whole]), f"{path} is whole only up to line {whole + 1}.")


def parse_json(content: bytes | str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def temporaries(folder: Path, names: Iterable[str]) -> list[Path]:
    """Temporary files of these files: left by processes killed while writing them, or in use by one that writes now.

    Args:
        folder: where the files go.
        names: their final names, as `fnmatch` patterns.
    """
    return [path for path in folder.glob(".*") if any(is_temporary(path.name, name) for name in names)]


def is_temporary(name: str, target: str = "*") -> bool:
    """Whether a file with this name is not whole yet.

    Args:
        name: of a file.
        target: its final name, as an `fnmatch` pattern.
    """
    found = _TEMPORARY.fullmatch(name)
    return found is not None and fnmatchcase(found[1], target)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A stream to a file that appears under its name when the block ends, and not at all if the block fails.

    Args:
        path: where the file goes; its folder is created if needed.
    """
    with about(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            temporary = Path(stream.name)
            try:
                _discard_leftovers(stream, path)
                yield stream
                stream.flush()
                sync(stream)
                with _where_possible():
                    temporary.chmod(0o666 & ~_umask())
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Errors of the system within a block name this path, where they name none or a temporary one."""
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else Path(os.fsdecode(error.filename)).name
        if error.errno is not None and (named is None or is_temporary(named, glob_escape(path.name))):
            error.filename, error.filename2 = str(path), None
        raise


def sync(stream: IO[bytes]) -> None:
    """Have an open file written to its disk, where the file system can be asked for that.

    Raises:
        OSError: it cannot be written.
    """
    with _where_possible():
        os.fsync(stream.fileno())


@contextmanager
def _where_possible() -> Iterator[None]:
    """Go on where a file system has no such operation."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def _discard_leftovers(stream: IO[bytes], path: Path) -> None:
    """Remove what killed processes have left of a file while they wrote it.

    Whoever writes holds a lock on what it writes. Both times are the file system's, so that no clock matters.

    Args:
        stream: what this process is about to write, for the same path.
        path: the file.
    """
    with suppress(OSError):
        take(stream)
        now = os.fstat(stream.fileno()).st_mtime
        for leftover in temporaries(path.parent, [glob_escape(path.name)]):
            if leftover.name == Path(stream.name).name or now - leftover.lstat().st_mtime < YOUNG:
                continue
            with claimed(leftover) as free:
                if free:
                    leftover.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
