"""What the files of one run say about it: its summary, its state and its log, whichever are there and whole."""

import json
import math
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from east.config.run import fingerprint_of_content
from east.operations.log_tail import last_error, printable, tail
from east.training.folder import KEPT_SUMMARY, SUMMARY, is_locked
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
    """How far a run of the plan is.

    Attributes:
        id: of the run.
        state: see `State`.
        epochs: epochs of the whole training.
        epoch: epochs that are done; of a diverged run the one in which it diverged.
        test_accuracy: after the last epoch that is done, in percent.
        seconds: of training over all attempts, where it has ended.
        seconds_per_epoch: of the last epoch that is done.
        eta_seconds: until it ends, an estimate, where it runs.
        attempt: which attempt at the run this is, counted from 1.
        host: machine of the last attempt.
        pid: process of the last attempt.
        job: Slurm's number of that process's job.
        device: name of the processor or GPU.
        gpu: the GPU that was leased for the process, as CUDA_VISIBLE_DEVICES names it.
        runs_per_device: trainings that may share the device, so that seconds are not those of one alone.
        reproducibility: where the run gives the same bytes again, where it has ended.
        updated: when the run last wrote its state.
        message: what went wrong, in one line.
        log: the log to read, where something went wrong.
        slurm_log: Slurm's own log of that job, where it is there.
    """

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
        self._outcomes = _Kept(_read_outcome)
        self._states = _Kept(_read_state)
        self._fingerprints = _Kept(_read_fingerprint)
        self._tails = _Kept(tail)

    def begun(self, ids: Iterable[str]) -> set[str]:
        """Those of these runs that have a folder or a log; nothing but folders is read."""
        rows = {run_id.rpartition("/")[0] for run_id in ids}
        folders = {f"{row}/{name}" for row in rows for name in _names(self._runs / row)}
        logs = {f"{row}/{name.removesuffix('.log')}" for row in rows for name in _names(self._logs / row)}
        return folders | logs

    def status(self, run_id: str, fingerprint: str, epochs: int, now: datetime) -> RunStatus:
        """How far a run is; files that vanish or are half there at this moment count as absent.

        Args:
            run_id: its id in the plan.
            fingerprint: its identity in the plan.
            epochs: of its training.
            now: the time that silence is measured to.
        """
        folder = self._runs / run_id
        outcome = self._outcomes.get(folder / SUMMARY)
        if outcome is None or outcome.fingerprint != fingerprint:
            # Where Snakemake has removed the summary, the trainer puts its copy back.
            kept = self._outcomes.get(folder / KEPT_SUMMARY)
            outcome = kept if kept is not None and kept.fingerprint == fingerprint else outcome
        if outcome is not None and outcome.fingerprint == fingerprint and outcome.status is not None:
            return _ended(run_id, epochs, outcome, outcome.status)
        state = self._states.get(folder / STATE)
        if state is not None and state.state != "ended":
            if self._fingerprints.get(folder / "run.json") in (None, fingerprint):
                return self._attempt(run_id, state, epochs, now)
            if state.state == "running" and _silence(state, folder, now) is None:
                message = f"process {state.pid} on {state.host} still trains it with other settings than the plan's"
                return RunStatus(run_id, "stale", epochs, message=printable(message))
        if outcome is not None:
            what = "is not whole" if outcome.status is None else "is of other settings than the plan's"
            return RunStatus(run_id, "stale", epochs, message=f"its {SUMMARY} {what}")
        log = self._log(run_id)
        error = self._error(log)
        if error is not None:
            return RunStatus(run_id, "failed", epochs, message=error, log=str(log))
        return RunStatus(run_id, "waiting", epochs)

    def _attempt(self, run_id: str, state: RunState, epochs: int, now: datetime) -> RunStatus:
        """A run of which an attempt is under way, or has ended without a summary."""
        log, slurm_log = self._log(run_id), self._slurm_log(run_id, state)
        found, message = self._judge(state, run_id, now)
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
            job=_text(state.job),
            device=printable(state.device),
            gpu=_text(state.gpu),
            runs_per_device=state.runs_per_device,
            updated=state.updated,
            message=_text(message),
            log=str(log) if wrong else None,
            slurm_log=str(slurm_log) if wrong and self._tails.get(slurm_log) is not None else None,
        )

    def _judge(self, state: RunState, run_id: str, now: datetime) -> tuple[State, str | None]:
        """What has become of an attempt, and why."""
        log = self._log(run_id)
        if state.state == "running":
            silence = _silence(state, self._runs / run_id, now)
            if silence is None:
                return "running", None
            words = self._error(self._slurm_log(run_id, state)) or self._last_words(log)
            return "lost", silence if words is None else f"{silence}; its log ends: {words}"
        if state.state == "failed":
            return "failed", state.message or self._last_words(log)
        # A later attempt that failed before it wrote its first state has left nothing but its log.
        error = self._error(log) if _modified(log) > state.updated.timestamp() else None
        return ("stopped", None) if error is None else ("failed", error)

    def _error(self, log: Path) -> str | None:
        return last_error(self._tails.get(log) or [])

    def _last_words(self, log: Path) -> str | None:
        lines = self._tails.get(log)
        return last_error(lines) or lines[-1] if lines else None

    def _slurm_log(self, run_id: str, state: RunState) -> Path:
        """Where profiles/slurm has Slurm write the log of an attempt's job: a folder a rule, a folder a run."""
        return self._slurm_logs / run_id.replace("/seed", "_").replace("/", "_") / f"{state.job}.log"

    def _log(self, run_id: str) -> Path:
        return self._logs / f"{run_id}.log"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The few keys of a summary that matter here; all None if it is not a summary."""

    fingerprint: str | None = None
    status: Literal["done", "diverged"] | None = None
    test_accuracy: float | None = None
    seconds: float | None = None
    epoch: int | None = None
    attempts: int | None = None
    device: str | None = None
    runs_per_device: int | None = None
    reproducibility: str | None = None


class _Kept(Generic[T]):
    """What a function makes of files, kept by path as long as time, size and number of the file stay the same."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._kept: dict[Path, tuple[tuple[int, int, int], T | None]] = {}

    def get(self, path: Path) -> T | None:
        """What is made of a file; None where it is absent or cannot be understood."""
        try:
            stat = path.stat()
            signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            kept = self._kept.get(path)
            if kept is None or kept[0] != signature:
                kept = (signature, self._read(path))
                self._kept[path] = kept
        except (OSError, ValueError):
            return None
        return kept[1]


def _read_outcome(path: Path) -> _Outcome:
    content = path.read_bytes()
    try:
        summary = json.loads(content)
    except ValueError:
        return _Outcome()
    if not isinstance(summary, dict):
        return _Outcome()
    statuses: dict[Any, Literal["done", "diverged"]] = {"finished": "done", "diverged": "diverged"}
    diverged_at = summary.get("diverged_at_epoch")
    return _Outcome(
        fingerprint=str(summary.get("fingerprint")),
        status=statuses.get(str(summary.get("status"))),
        test_accuracy=_number(summary.get("final_test_accuracy")),
        seconds=_number(summary.get("seconds")),
        epoch=_count(summary.get("epochs") if diverged_at is None else diverged_at),
        attempts=_count(summary.get("attempts")),
        device=_text(summary.get("device")),
        runs_per_device=_count(summary.get("runs_per_device")),
        reproducibility=_text(summary.get("reproducibility")),
    )


def _read_state(path: Path) -> RunState:
    state = RunState.model_validate_json(path.read_bytes())
    # A time without a zone, which this program never writes, could not be compared with one.
    return state if state.updated.tzinfo else state.model_copy(update={"updated": state.updated.replace(tzinfo=UTC)})


def _read_fingerprint(path: Path) -> str:
    """The identity of the run that a run.json describes (`RunSpec.fingerprint`), whatever keys its time knew."""
    return fingerprint_of_content(json.loads(path.read_bytes()))


def _ended(run_id: str, epochs: int, outcome: _Outcome, state: State) -> RunStatus:
    return RunStatus(
        run_id,
        state,
        epochs,
        epoch=outcome.epoch,
        test_accuracy=outcome.test_accuracy,
        seconds=outcome.seconds,
        attempt=outcome.attempts,
        device=outcome.device,
        runs_per_device=outcome.runs_per_device,
        reproducibility=outcome.reproducibility,
    )


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


def _names(folder: Path) -> list[str]:
    """Names in a folder; none where it is absent or vanishes meanwhile."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf


def _number(value: object) -> float | None:
    """A finite number, else None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _text(value: object) -> str | None:
    """A text fit to be shown."""
    return printable(value) if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
