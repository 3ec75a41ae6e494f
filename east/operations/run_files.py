"""What the files of one run say about it: its summary, its state and its log, whichever are there and whole."""

import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from east.config.run import fingerprint_of_content
from east.errors import EastError
from east.files import parse_json, read_regular
from east.operations.log_tail import last_error, printable, tail
from east.training.folder import RUN, is_locked
from east.training.records import KEPT_SUMMARY, SUMMARY, RunSummary, parse_summary
from east.training.state import STATE, RunState

T = TypeVar("T")

State = Literal["done", "running", "stopped", "failed", "lost", "diverged", "stale", "waiting"]
"""Of a run: `stopped` by a signal, with a checkpoint; `lost`: it says that it runs, but its process is gone;
`stale`: its summary is not that of the planned run."""

SILENCE = 600.0
SILENT_EPOCHS = 5
SILENCE_AT_FIRST = 3600.0
"""Seconds without a word after which a run on another machine counts as lost: the larger of `SILENCE` and
`SILENT_EPOCHS` of its epochs, or `SILENCE_AT_FIRST` during the first epoch, of which nobody knows the length."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How far a run of the plan is, under the names of docs/status.md; None where something is unknown or absent."""

    id: str
    state: State
    epochs: int
    epoch: int | None = None
    test_accuracy: float | None = None
    seconds: float | None = None
    seconds_per_epoch: float | None = None
    eta_seconds: float | None = None
    attempt: int | None = None
    host: str | None = None
    pid: int | None = None
    job: str | None = None
    device: str | None = None
    gpu: str | None = None
    runs_per_device: int | None = None
    reproducibility: str | None = None
    updated: datetime | None = None
    message: str | None = None
    log: str | None = None
    slurm_log: str | None = None


class RunFiles:
    """The runs and logs of a results folder. What was made of a file is kept until the file changes.

    Args:
        folder: of the plan's results.
    """

    def __init__(self, folder: Path) -> None:
        self._runs = folder / "runs"
        self._logs = folder / "logs" / "train"
        self._slurm_logs = folder.parent / "slurm" / "rule_train"
        self._kept: dict[Path, tuple[tuple[int, int, int], Any]] = {}

    def status(self, run_id: str, fingerprint: str, epochs: int, now: datetime) -> RunStatus:
        """How far a run is; files that vanish or are half there at this moment count as absent.

        Args:
            run_id: its id in the plan.
            fingerprint: its identity in the plan.
            epochs: of its training.
            now: the time that silence is measured to.
        """
        folder, log = self._runs / run_id, self._logs / f"{run_id}.log"
        # Where Snakemake has removed the summary, the trainer puts its copy back.
        for name in (SUMMARY, KEPT_SUMMARY):
            summary = self._read(_read_summary, folder / name)
            if summary is not None and summary.fingerprint == fingerprint:
                is_diverged = summary.status == "diverged"
                return RunStatus(
                    run_id,
                    "diverged" if is_diverged else "done",
                    epochs,
                    epoch=summary.diverged_at_epoch if is_diverged else summary.epochs,
                    test_accuracy=summary.final_test_accuracy,
                    seconds=_number(summary.seconds),
                    attempt=summary.attempts,
                    device=summary.device and printable(summary.device),
                    runs_per_device=summary.runs_per_device,
                    reproducibility=summary.reproducibility,
                )
        state = self._read(lambda path: RunState.model_validate_json(read_regular(path)), folder / STATE)
        if state is not None and state.state != "ended":
            begun = self._read(lambda path: fingerprint_of_content(parse_json(read_regular(path))), folder / RUN)
            if begun in (None, fingerprint):
                return self._attempt(run_id, state, epochs, now)
            if state.state == "running" and _silence(state, folder, now) is None:
                message = f"process {state.pid} on {state.host} still trains it with other settings than the plan's"
                return RunStatus(run_id, "stale", epochs, message=printable(message))
        if (folder / SUMMARY).is_file():
            is_whole = self._read(_read_summary, folder / SUMMARY) is not None
            what = "is of other settings than the plan's" if is_whole else "is not whole"
            return RunStatus(run_id, "stale", epochs, message=f"its {SUMMARY} {what}")
        error = self._error(log)
        if error is not None:
            return RunStatus(run_id, "failed", epochs, message=error, log=str(log))
        return RunStatus(run_id, "waiting", epochs)

    def _attempt(self, run_id: str, state: RunState, epochs: int, now: datetime) -> RunStatus:
        """A run of which an attempt is under way, or has ended without a summary."""
        log = self._logs / f"{run_id}.log"
        # Where profiles/slurm has Slurm write the log of a job: a folder for the rule, and in it one for the run.
        slurm_log = self._slurm_logs / run_id.replace("/seed", "_").replace("/", "_") / f"{state.job}.log"
        found: State = "stopped"
        message = None
        if state.state == "running":
            message = _silence(state, self._runs / run_id, now)
            found = "running" if message is None else "lost"
            words = message and (self._error(slurm_log) or self._last_words(log))
            message = f"{message}; its log ends: {words}" if words else message
        elif state.state == "failed":
            found, message = "failed", state.message or self._last_words(log)
        elif _modified(log) > state.updated.timestamp() and (error := self._error(log)) is not None:
            # A later attempt that failed before it wrote its first state has left nothing but its log.
            found, message = "failed", error
        wrong = found in ("failed", "lost")
        return RunStatus(
            run_id,
            found,
            epochs,
            epoch=state.epoch,
            test_accuracy=_number(state.test_accuracy),
            seconds_per_epoch=_number(state.seconds_per_epoch),
            attempt=state.attempt,
            host=printable(state.host),
            pid=state.pid,
            job=state.job and printable(state.job),
            device=printable(state.device),
            gpu=state.gpu and printable(state.gpu),
            runs_per_device=state.runs_per_device,
            updated=state.updated,
            message=message and printable(message),
            log=str(log) if wrong else None,
            slurm_log=str(slurm_log) if wrong and self._read(tail, slurm_log) is not None else None,
        )

    def _error(self, log: Path) -> str | None:
        return last_error(self._read(tail, log) or [])

    def _last_words(self, log: Path) -> str | None:
        lines = self._read(tail, log)
        return last_error(lines) or lines[-1] if lines else None

    def _read(self, read: Callable[[Path], T], path: Path) -> T | None:
        """What a function, the only one for this file, makes of it; None where it is absent or cannot be understood.

        It is read again only after its time, size or number has changed.
        """
        try:
            stat = path.stat()
            signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if path not in self._kept or self._kept[path][0] != signature:
                self._kept[path] = (signature, read(path))
            found: T = self._kept[path][1]
        except (OSError, ValueError):
            return None
        return found


def _read_summary(path: Path) -> RunSummary:
    try:
        return parse_summary(read_regular(path), path)
    except EastError as error:
        raise ValueError(str(error)) from None


def _silence(state: RunState, folder: Path, now: datetime) -> str | None:
    """Why the process of an attempt counts as gone; None as long as it does not."""
    if state.host == socket.gethostname():
        alive = _exists(state.pid) and is_locked(folder)
        return None if alive else f"process {state.pid} is gone from {state.host}"
    quiet = (now - state.updated).total_seconds()
    pace = _number(state.seconds_per_epoch)
    patience = SILENCE_AT_FIRST if pace is None else max(SILENCE, SILENT_EPOCHS * pace)
    return None if quiet <= patience else f"nothing heard from {state.host} for {quiet / 60:.0f} min"


def _exists(pid: int) -> bool:
    """Whether this machine has a process of this number."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf


def _number(value: object) -> float | None:
    """A finite number, else None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
