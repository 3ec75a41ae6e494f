"""The folder of a run: the names of what is in it, and the lock by which one process at a time works there."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from east import locks
from east.errors import EastError
from east.files import read_regular, sha256_of, temporaries, write_atomically
from east.training.records import (
    DIGEST,
    FILES,
    KEPT_SUMMARY,
    SUMMARY,
    EpochRecord,
    RunSummary,
    TimingRecord,
    TraceRecord,
    UpdateRecord,
    columns,
    parse_summary,
    unsealed,
)
from east.training.state import STATE

LOG = logging.getLogger(__name__)

RUN = "run.json"
METRICS = FILES[EpochRecord]
UPDATES = FILES[UpdateRecord]
TRACE = FILES[TraceRecord]
TIMING = FILES[TimingRecord]
WEIGHTS = "weights.safetensors"
ATTEMPTS = "attempts.json"
LOCK = ".lock"
PLUGIN = "plugin-*.py"
"""A copy of each plugin that the run uses; the star stands for the first 16 digits of its SHA-256."""
CHECKPOINTS = "checkpoint-*.pt"
"""Every checkpoint, see `checkpoint_name`."""

DIGESTED = (METRICS, RUN, TIMING, TRACE, UPDATES)
"""What a finished run leaves besides its summary and its weights; each is small, and its digest is in the summary."""

REPEATABLE = (RUN, METRICS, UPDATES, TRACE, WEIGHTS)
"""The files of a finished run that have the same bytes whenever and wherever its class of reproducibility allows it.

They hold no times and nothing about the machine. `weights.safetensors` holds tensors under sorted names and no
metadata; its header is the library's, so another version of that may write the same tensors as other bytes: `trace.csv`
has digests of the tensors themselves.
"""

WRITTEN = (*REPEATABLE, TIMING, SUMMARY, KEPT_SUMMARY, STATE, ATTEMPTS, CHECKPOINTS, PLUGIN)
"""What a trainer writes here, checkpoints as a pattern."""


def plugin_copy(digest: str) -> str:
    """The name of the copy of a plugin with this SHA-256."""
    return PLUGIN.replace("*", digest[:16])


_CHECKPOINT = re.compile(r"checkpoint-(\d+)(-\d+)?\.pt")


@contextmanager
def locked(folder: Path) -> Iterator[locks.HeldLock]:
    """Hold the run's lock. The kernel releases it when the process ends, however it ends.

    A second trainer of the same run (a workflow restarted beside an orphaned job) waits here until the first is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = partial(LOG.info, "another process trains %s; waiting for it to end.", folder)
    with locks.locked(folder / LOCK, waiting) as held:
        yield held


def write_summary(folder: Path, summary: RunSummary) -> RunSummary:
    """Write the summary of a run that has ended, and before it the copy that stays when the summary is removed.

    Returns:
        The summary with its digest, as it is read.
    """
    content = summary.json_text().encode()
    for name in (KEPT_SUMMARY, SUMMARY):
        write_atomically(folder / name, content)
    return parse_summary(content, folder / SUMMARY)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the run's lock; where the lock cannot be asked, that is assumed.

    To ask takes a shared lock for an instant. A trainer that comes just then waits for that instant.
    """
    try:
        with locks.open_lock(folder / LOCK, shared=True) as stream:
            return not locks.take(stream, shared=True)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def checkpoint_name(epoch: int, steps: int = 0) -> str:
    """The name of a checkpoint: names in order are states in order.

    `checkpoint-000004.pt` is the state after epoch 4, `checkpoint-000004-000017.pt` that within it, after 17 of its
    steps.
    """
    place = f"{epoch + 1:06d}-{steps:06d}" if steps else f"{epoch:06d}"
    return f"checkpoint-{place}.pt"


def epochs_done(folder: Path) -> int | None:
    """Epochs that the newest checkpoint of a folder has done; None where there is no checkpoint."""
    matches = [_CHECKPOINT.fullmatch(path.name) for path in folder.glob(CHECKPOINTS)]
    return max((int(match[1]) - bool(match[2]) for match in matches if match), default=None)


def discard_temporaries(folder: Path) -> None:
    """Remove what a trainer that was killed has not written to the end. Only while the run's lock is held."""
    for path in temporaries(folder, WRITTEN):
        path.unlink(missing_ok=True)


def repeatable_summary(summary: RunSummary) -> dict[str, Any]:
    """What two trainings of a run have in common in their summaries, where their files of `REPEATABLE` are the same.

    That is all but seconds, memory, and what says by which program and on which machine it was trained.
    """
    # The id is the place of the folder.
    differing = {"id", *(column.name for column in columns(RunSummary) if not column.meaning.repeatable)}
    return summary.model_dump(mode="json", exclude_unset=True, exclude=differing)


def discard_summary(folder: Path) -> None:
    """Remove what is left of another run that ended here, before its records are written over."""
    for name in (KEPT_SUMMARY, SUMMARY):
        (folder / name).unlink(missing_ok=True)


def finished_summary(folder: Path, fingerprint: str) -> RunSummary | None:
    """The summary in a run's folder if it is whole, of this very run, and beside its files; else None.

    If only its copy is whole, that is put in its place. So a job that is repeated for no reason of the run's own (data
    to be prepared again, records lost) trains nothing.
    """
    for name in (SUMMARY, KEPT_SUMMARY):
        try:
            content = read_regular(folder / name)
            summary = parse_summary(content, folder / name)
        except (FileNotFoundError, EastError):  # what cannot be read now may be whole
            continue
        if summary.fingerprint == fingerprint:
            if damaged := damaged_files(folder, summary.files):
                LOG.warning("%s of a finished run is missing or damaged: it is trained again.", folder / damaged[0])
                return None
            if name == KEPT_SUMMARY:
                write_atomically(folder / SUMMARY, content)
            return summary
    return None


def intact_run(folder: Path, fingerprint: str) -> str | None:
    """The digest of a finished run's summary, which has those of its files; None if it is not whole or another run's.

    It is found without the schema, so quickly that every start of the workflow looks at every run.
    """
    try:
        summary = unsealed(read_regular(folder / SUMMARY))
        files = summary.get("files")
        if summary.get("fingerprint") != fingerprint or not isinstance(files, dict) or damaged_files(folder, files):
            return None
    except (OSError, ValueError):
        return None
    return str(summary[DIGEST])


def read_weights(folder: Path, sha256: str | None) -> bytes | None:
    """The content of a run's weights; None where they are not on disk.

    Args:
        folder: of the run.
        sha256: what the summary says of them; empty if it knows of none, None as long as there is no summary.

    Raises:
        EastError: they are damaged, or cannot be read.
    """
    path = folder / WEIGHTS
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EastError(f"{path} cannot be read: {error.strerror}.") from error
    if sha256 not in (None, sha256_of(content)):
        raise EastError(f"{path} is damaged: it is not what its digest was made of. Delete it: no table needs it.")
    return content


def damaged_files(folder: Path, digests: Mapping[str, object]) -> list[str]:
    """The small files of a finished run that are missing, or are not those that its summary was written with.

    Weights are left out: they are large, and may be removed (`east prune`).
    """
    damaged = []
    for name in DIGESTED:
        try:
            content = read_regular(folder / name)
        except FileNotFoundError:
            content = None
        if content is None or sha256_of(content) != digests.get(name):
            damaged.append(name)
    return damaged
