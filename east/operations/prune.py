"""What lies in a folder of results and is of no use to its plan: found with its size, removed on request."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from east.config import Plan
from east.errors import EastError
from east.files import is_temporary
from east.locks import claimed
from east.operations.merge import INCOMING
from east.operations.on_disk import find, is_plain, read_run
from east.render.contents import TABLE_KINDS, table_figures
from east.training.folder import CHECKPOINTS, LOCK, is_locked

KINDS = (
    "runs in no plan",
    "tables in no plan",
    "checkpoints of finished runs",
    "damaged or half-written files of runs",
)

_TABLE_FILES = ("aggregate/*.json", "tables/*", "figures/*", "logs/aggregate/*", "logs/table/*", "logs/figures/*")
_FIGURES = "|".join(sorted({name for kind in TABLE_KINDS for name in table_figures(kind)}))
_TABLE_NAME = re.compile(rf"(table[A-Za-z0-9]+)(-({_FIGURES}))?\.(json|csv|md|tex|html|png|svg|log)")


@dataclass(frozen=True)
class Leftover:
    """Something that may go.

    Attributes:
        kind: why.
        name: the run or table that it belongs to.
        paths: folders and files, none of them a link.
        size: bytes in them.
        run: folder of the run that the files belong to; nothing goes while a process trains there.
        in_use: whether one did when this was found.
    """

    kind: str
    name: str
    paths: tuple[Path, ...]
    size: int
    run: Path | None = None
    in_use: bool = False


def leftovers(plan: Plan, results: Path) -> list[Leftover]:
    """What a folder of results holds that its plan has no use for, by kind.

    Args:
        plan: the plan; what it names stays, whatever state it is in.
        results: results/<name>. Nothing outside is looked at, and no link in it is followed.

    Raises:
        EastError: there is no such folder.
    """
    if not results.is_dir():
        raise EastError(f"there is no folder {results}, so there is nothing to remove.")
    found = [*_unplanned_runs(plan, results), *_unplanned_tables(plan, results), *_needless_files(plan, results)]
    # What a merge that was killed has left; one that still works is younger than a day.
    found += [
        _leftover("damaged or half-written files of runs", folder.name, [folder])
        for folder in results.glob(f"{INCOMING}*")
        if not folder.is_symlink() and time.time() - folder.stat().st_mtime > 24 * 3600
    ]
    return sorted(found, key=lambda leftover: (KINDS.index(leftover.kind), leftover.name))


def remove(leftover: Leftover, results: Path) -> bool:
    """Remove files and folders, and the folders in `results` that this leaves empty; not while a process trains there.

    Returns:
        Whether they are gone.

    Raises:
        EastError: a file cannot be removed.
    """
    with claimed(leftover.run / LOCK) if leftover.run else nullcontext(True) as free:
        if not free:
            return False
        try:
            for path in leftover.paths:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise EastError(f"{error.filename} cannot be removed: {error.strerror}.") from error
    above = {folder for path in leftover.paths for folder in path.parents if results in folder.parents}
    for folder in sorted(above, reverse=True):  # those within a folder before it
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return True


def _unplanned_runs(plan: Plan, results: Path) -> Iterator[Leftover]:
    """Folders, logs and benchmarks of runs that the plan does not name."""
    folders = find(results, "runs")
    everything = (folders, find(results, "logs/train", ".log"), find(results, "benchmarks/train", ".tsv"))
    planned = {run.id for run in plan.runs}
    for run in set().union(*everything) - planned:
        paths = [there[run] for there in everything if run in there]
        yield _leftover("runs in no plan", run, paths, folders.get(run))


def _unplanned_tables(plan: Plan, results: Path) -> Iterator[Leftover]:
    # Every plan has the last two, whatever its grids.
    kept = {table.id for table in plan.tables} | {"table6", "tableB1"}
    by_table: dict[str, list[Path]] = {}
    for pattern in _TABLE_FILES:
        for path in sorted(results.glob(pattern)):
            match = _TABLE_NAME.fullmatch(path.name)
            if match and match[1] not in kept and path.is_file() and is_plain(path, results):
                by_table.setdefault(match[1], []).append(path)
    for table, paths in by_table.items():
        yield _leftover("tables in no plan", table, paths)


def _needless_files(plan: Plan, results: Path) -> Iterator[Leftover]:
    """In the folders of runs that the plan names."""
    folders = find(results, "runs")
    for run in plan.runs:
        folder = folders.get(run.id)
        if folder is None:
            continue
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
        broken = [path for path in files if path.suffix == ".damaged" or is_temporary(path.name)]
        if broken:
            yield _leftover("damaged or half-written files of runs", run.id, broken, folder)
        checkpoints = [path for path in files if path.match(CHECKPOINTS)]
        summary = read_run(folder).summary if checkpoints else None
        if summary and summary.fingerprint == run.fingerprint:
            yield _leftover("checkpoints of finished runs", run.id, checkpoints, folder)


def _leftover(kind: str, name: str, paths: list[Path], run: Path | None = None) -> Leftover:
    files = (file for path in paths for file in (path, *path.rglob("*")) if file.is_file() and not file.is_symlink())
    size = sum(file.stat().st_size for file in files)
    return Leftover(kind, name, tuple(paths), size, run, in_use=run is not None and is_locked(run))
