"""Files appear under their final name only when whole: written aside, synced, renamed; only ordinary files are read."""

import csv
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape as glob_escape
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Protocol

from east.errors import EastError
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


def read_csv(path: Path, sha256: str | None = None) -> CsvText:
    """Read a CSV file with a header as far as it is whole, every field as text.

    Args:
        path: the file.
        sha256: what its content must have, if that is known; empty if there must be no file. Of one that differs
            nothing is read.
    """
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return CsvText(problem=f"{path} is missing." if sha256 else None)
    except OSError as error:
        return CsvText(problem=f"{path} cannot be read: {error.strerror}.")
    if sha256 not in (None, sha256_of(content)):
        return CsvText(problem=f"{path} is damaged: it is not what its digest was made of.")
    return parse_csv(content, path)


def parse_csv(content: bytes, path: Path) -> CsvText:
    """The texts of a CSV file with this content, as far as it is whole."""
    text = content.decode(errors="replace")
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


MOST_BYTES = 2**30
"""More than any file is long that is read in one piece, unless its reader knows better."""


@contextmanager
def open_regular(path: Path, *, at_most: int = MOST_BYTES, follow: bool = True) -> Iterator[BufferedReader]:
    """A stream from an ordinary file; pipes, devices, sockets and folders are refused without waiting for them.

    What is checked is the open file, not its name, which may stand for another file an instant later.

    Args:
        path: the file.
        at_most: bytes that it may have.
        follow: whether the name may be a symbolic link. Links among its folders are followed.

    Raises:
        OSError: as for `open`; or it is not an ordinary file, or too large. `strerror` says so in words.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer; on an ordinary file the flag has no effect.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink() and not follow:
            raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed here", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.EINVAL, "it is not an ordinary file", str(path)) from None
        raise
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not an ordinary file", str(path))
        if found.st_size > at_most:
            message = f"it has {found.st_size:,} bytes, and no more than {at_most:,} are expected"
            raise OSError(errno.EFBIG, message, str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.close(descriptor)


def read_regular(path: Path, *, at_most: int = MOST_BYTES, follow: bool = True) -> bytes:
    """The content of an ordinary file, read once; arguments and errors as for `open_regular`.

    A file that changes its length while it is read is refused as well, and so is one whose length is not known, as in
    /proc: what is returned has the length that was checked.
    """
    with open_regular(path, at_most=at_most, follow=follow) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(size)
        if len(content) != size or stream.read(1):
            raise OSError(errno.EIO, "it changes while it is read", str(path))
        return content


def sha256_of(content: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class Readable(Protocol):
    """What gives bytes in order: a file, or what unpacks one."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, so many at most; all that are left where the size is negative."""


class AtMost:
    """A stream that fails where it would give more than so many bytes: what unpacks to more is not what it seems.

    Args:
        stream: what is read, such as a decompressor.
        at_most: bytes that it may give.
    """

    def __init__(self, stream: Readable, at_most: int) -> None:
        self._stream, self._limit, self._left = stream, at_most, at_most

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            OSError: there are too many.
        """
        part = self._stream.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(part)
        if self._left < 0:
            raise OSError(errno.EFBIG, f"it unpacks to more than {self._limit:,} bytes")
        return part


def parse_json(content: bytes | str) -> dict[str, Any]:
    """The keys and values of a JSON object, which is what all JSON files here hold.

    Raises:
        ValueError: it is not JSON, another kind of value, or nested too deeply.
    """
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it has no keys")
    return found


def end_the_future(folders: Iterable[Path]) -> None:
    """Give files whose times lie in the future the time that it is now: a clock was wrong, or has been put back.

    Raises:
        EastError: that of somebody else's file cannot be set.
    """
    now = time.time()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink() or path.stat().st_mtime <= now:
                continue
            try:
                os.utime(path, (now, now))
            except OSError as error:
                raise EastError(
                    f"{path} has a time in the future, and Snakemake refuses what is made from it. Set the clock, or "
                    f"the time of the file, which cannot be done from here ({error.strerror})."
                ) from error


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
