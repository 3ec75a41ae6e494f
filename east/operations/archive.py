"""An archive of results: the small files of every finished run and their lock, as one compressed file."""

import gzip
import io
import os
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from east.errors import EastError
from east.files import whole_file
from east.operations.merge import INCOMING, Placed, is_free, move_run
from east.operations.results_lock import COST, LOCK_FILE, ResultsLock, folder_contents, parse_lock, verify


def write_archive(lock: ResultsLock, results: Path, out: Path) -> None:
    """Archive the locked runs and costs, and the lock itself first; equal results give equal bytes.

    Tables are left out: they are made again from the rest.

    Raises:
        EastError: a file has changed since it was locked.
    """
    found = verify(lock, folder_contents(lock, results))
    if found.wrong:
        raise EastError(f"{found.wrong[0]} any more; is something training in {results}?")
    with (
        whole_file(out) as stream,
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        _add(tar, LOCK_FILE, lock.json_text().encode())
        for name in sorted(_archived(lock)):
            _add(tar, name, (results / name).read_bytes())


def archive_contents(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an archive, for `verify`.

    Raises:
        EastError: the file is not an archive, or damaged.
    """
    with _open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is not None:
                yield member.name, stream.read()


def restore(archive: Path, results: Path | None = None) -> tuple[Path, Placed]:
    """Unpack an archive into a folder of results: every run whole or not at all, and nothing written over.

    Args:
        archive: as `write_archive` makes it. Its files are compared with the lock in it before any is put in place.
        results: where to; `results/<name>` of the lock if absent.

    Returns:
        The folder of results, and what became of each run, and of the costs.

    Raises:
        EastError: the archive is damaged, holds a link or a file that its lock does not name, or files that are not
            the locked ones; then nothing is put in place.
    """
    with _open(archive) as tar:
        lock = _lock_in(tar, archive)
        results = results or Path("results") / lock.name
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=results, prefix=INCOMING) as temporary:
            unpacked = Path(temporary)
            _unpack(tar, lock, unpacked, archive)
            found = verify(lock, folder_contents(lock, unpacked))
            if found.wrong:
                raise EastError(f"{archive} is not what its own lock says: {'; '.join(found.wrong)}.")
            os.sync()
            return results, _place_all(lock, unpacked, results)


def _place_all(lock: ResultsLock, unpacked: Path, results: Path) -> Placed:
    placed = Placed()
    for run, entry in lock.runs.items():
        folder = results / "runs" / run
        if is_free(folder):
            move_run(unpacked / "runs" / run, folder)
            placed.taken.append(run)
            continue
        other = [name for name in entry.files if not _same(unpacked / "runs" / run / name, folder / name)]
        if other:
            placed.refused[run] = f"{folder} holds another {', '.join(other)}; remove it to take this one"
        else:
            placed.already.append(run)
    if COST in lock.files:
        if not (results / COST).exists():
            (results / COST).parent.mkdir(exist_ok=True)
            (unpacked / COST).rename(results / COST)
        elif not _same(unpacked / COST, results / COST):
            placed.refused[COST] = "other costs were measured here; remove the file to take these"
    return placed


def _archived(lock: ResultsLock) -> set[str]:
    return {name for name in lock.checksums() if not name.startswith("tables/")}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _unpack(tar: tarfile.TarFile, lock: ResultsLock, folder: Path, archive: Path) -> None:
    allowed = _archived(lock) | {LOCK_FILE}
    for member in tar.getmembers():
        if not member.isreg() or member.name not in allowed:
            raise EastError(f"{archive} holds {member.name!r}, which its lock does not name. It was not unpacked.")
        tar.extract(member, folder, filter=_as_data_of_today)


def _as_data_of_today(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """The data filter; a file gets the time of now, so that tables are made again from it."""
    data = tarfile.data_filter(member, folder)
    return data and data.replace(mtime=time.time())


def _lock_in(tar: tarfile.TarFile, archive: Path) -> ResultsLock:
    member = next(iter(tar), None)
    stream = tar.extractfile(member) if member and member.name == LOCK_FILE and member.isreg() else None
    if stream is None:
        raise EastError(f"{archive} is not an archive of results: it does not begin with a {LOCK_FILE}.")
    return parse_lock(stream.read(), f"{LOCK_FILE} in {archive}")


@contextmanager
def _open(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise EastError(f"{archive} is damaged, or not an archive: {error}.") from error
    except OSError as error:
        raise EastError(f"{archive} cannot be used: {error}.") from error


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()
