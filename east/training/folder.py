"""The folder of a run: the names of what is in it, and the lock by which one process at a time works there."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from east import locks
from east.files import temporaries, write_atomically
from east.training.records import (
    FILES,
    EpochRecord,
    RunSummary,
    TimingRecord,
    TraceRecord,
    UpdateRecord,
    columns,
)
from east.training.state import STATE

LOG = logging.getLogger(__name__)

RUN = "run.json"
METRICS = FILES[EpochRecord]
UPDATES = FILES[UpdateRecord]
TRACE = FILES[TraceRecord]
TIMING = FILES[TimingRecord]
WEIGHTS = "weights.safetensors"
SUMMARY = "summary.json"
KEPT_SUMMARY = "summary.kept.json"
"""The same once more. Snakemake removes the declared result of a job that it repeats, but not what it does not know."""
LOCK = ".lock"
CHECKPOINTS = "checkpoint-*.pt"
"""Every checkpoint, see `checkpoint_name`."""

REPEATABLE = (RUN, METRICS, UPDATES, TRACE, WEIGHTS)
"""The files of a finished run that have the same bytes whenever and wherever its class of reproducibility allows it.

They hold no times and nothing about the machine. `weights.safetensors` holds tensors under sorted names and no
metadata; its header is the library's, so another version of that may write the same tensors as other bytes: `trace.csv`
has digests of the tensors themselves.
"""

WRITTEN = (*REPEATABLE, TIMING, SUMMARY, KEPT_SUMMARY, STATE, CHECKPOINTS)
"""What a trainer writes here, checkpoints as a pattern."""

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


def write_summary(folder: Path, summary: RunSummary) -> None:
    """Write the summary of a run that has ended, and before it the copy that stays when the summary is removed."""
    for name in (KEPT_SUMMARY, SUMMARY):
        write_atomically(folder / name, summary.json_text())


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
    """The summary in a run's folder if it is whole and of this very run, else None; put back if only its copy is left.

    So a job that is repeated for no reason of the run's own (data to be prepared again, records lost) trains nothing.
    """
    for name in (SUMMARY, KEPT_SUMMARY):
        try:
            content = (folder / name).read_bytes()
            summary = RunSummary.model_validate_json(content)
        except (OSError, ValidationError):
            continue
        if summary.fingerprint == fingerprint:
            if name == KEPT_SUMMARY:
                write_atomically(folder / SUMMARY, content)
            return summary
    return None
