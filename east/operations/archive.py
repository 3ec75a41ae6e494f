"""An archive of results: the small files of every finished run and their lock, as one compressed file."""

import gzip
import io
import os
import tarfile
import tempfile
import zlib
from pathlib import Path

from east.errors import EastError
from east.files import AtMost, open_regular, read_regular, whole_file
from east.operations.merge import INCOMING, Placed, is_free, move_run
from east.operations.results_lock import COST, COST_RECORD, LOCK_FILE, ResultsLock, folder_contents, parse_lock, verify

UNPACKED_BYTES = 2**32
"""More than the small files of any plan have together."""


def write_archive(lock: ResultsLock, results: Path, out: Path) -> None:
    """Archive the locked runs and costs, and the lock itself first; equal results give equal bytes.

    Tables are left out: they are made again from the rest.

    Raises:
        EastError: a file has changed since it was locked.
    """
    wrong, _ = verify(lock, folder_contents(lock, results))
    if wrong:
        raise EastError(f"{wrong[0]} any more; is something training in {results}?")
    with (
        whole_file(out) as stream,
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for name in (LOCK_FILE, *sorted(_archived(lock))):
            content = lock.json_text().encode() if name == LOCK_FILE else read_regular(results / name)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def read_archive(archive: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of an archive, for `verify`, and the names of what else it holds: links, folders, files with holes.

    Raises:
        EastError: the file is not an archive, or damaged, or unpacks to more than any archive of results does.
    """
    contents, others = dict[str, bytes](), list[str]()
    try:
        with open_regular(archive) as stream:
            packed = AtMost(gzip.GzipFile(fileobj=stream), UNPACKED_BYTES)
            with tarfile.open(fileobj=packed, mode="r|") as tar:  # type: ignore[call-overload]
                for member in tar:
                    # A hole may be of any size, and takes no place in the archive.
                    content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                    if content is None:
                        others.append(member.name)
                    else:
                        contents[member.name] = content.read()
            return contents, others
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise EastError(f"{archive} is damaged, or not an archive: {error}.") from error
    except OSError as error:
        raise EastError(f"{archive} cannot be used: {error.strerror or error}.") from error


def restore(archive: Path, results: Path | None) -> tuple[Path, Placed]:
    """Unpack an archive into a folder of results: every run whole or not at all, and nothing written over.

    Args:
        archive: as `write_archive` makes it. Its files are compared with the lock in it before any is put in place.
        results: where to; None for `results/<name>` of the lock.

    Returns:
        The folder of results, and what became of each run, and of the costs.

    Raises:
        EastError: the archive is damaged, holds a link or a file that its lock does not name, or files that are not
            the locked ones; then nothing is put in place.
    """
    contents, others = read_archive(archive)
    if LOCK_FILE not in contents:
        raise EastError(f"{archive} is not an archive of results: there is no {LOCK_FILE} in it.")
    lock = parse_lock(contents.pop(LOCK_FILE), f"{LOCK_FILE} in {archive}")
    for name in (*others, *(contents.keys() - _archived(lock))):
        raise EastError(f"{archive} holds {name!r}, which its lock does not name. It was not unpacked.")
    wrong, _ = verify(lock, contents)
    if wrong:
        raise EastError(f"{archive} is not what its own lock says: {'; '.join(wrong)}.")
    results = results or Path("results") / lock.name
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results, prefix=INCOMING) as temporary:
        for name, content in contents.items():
            path = Path(temporary) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        os.sync()
        return results, _place_all(lock, Path(temporary), results)


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
            for name in (COST_RECORD, COST):
                (results / name).parent.mkdir(parents=True, exist_ok=True)
                (unpacked / name).rename(results / name)
        elif not _same(unpacked / COST, results / COST):
            placed.refused[COST] = "other costs were measured here; remove the file to take these"
    return placed


def _archived(lock: ResultsLock) -> set[str]:
    return {name for name in lock.checksums() if not name.startswith("tables/")}


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and read_regular(one) == read_regular(other)
