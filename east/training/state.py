"""What a training says about itself while it runs: `state.json` in its folder, for those who watch.

It decides nothing. A run is finished when its summary is there, and resumed from its checkpoints.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from east.errors import EastError
from east.files import write_atomically
from east.training.hooks import Ending, Hook
from east.training.records import Meaning

if TYPE_CHECKING:
    from east.training.assembly import Training
    from east.training.attempts import AttemptLog
    from east.training.records import EpochRecord

STATE = "state.json"


class RunState(BaseModel):
    """state.json: one attempt at a run, as its process last wrote it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Annotated[
        Literal["running", "stopped", "failed", "ended"],
        Meaning("`running`; `stopped` by a signal, with a checkpoint; `failed`, see `message`; `ended` with a summary"),
    ]
    attempt: Annotated[int, Meaning("which attempt this is, counted from 1")]
    epoch: Annotated[int, Meaning("epochs that are done")]
    epochs: Annotated[int, Meaning("epochs of the whole training")]
    step: Annotated[int, Meaning("optimizer steps that are done")]
    test_accuracy: Annotated[float | None, Meaning("after the last epoch that is done", "%")] = None
    seconds_per_epoch: Annotated[float | None, Meaning("of the last epoch that is done, with evaluation", "s")] = None
    started: Annotated[datetime, Meaning("when this attempt began")]
    updated: Annotated[datetime, Meaning("when this was written")]
    host: Annotated[str, Meaning("name of the machine")]
    pid: Annotated[int, Meaning("the process there")]
    job: Annotated[str | None, Meaning("the scheduler's number of the job, if one started the process")] = None
    device: Annotated[str, Meaning("name of the processor or GPU; before that is known, what was asked for")]
    gpu: Annotated[str | None, Meaning("the GPU leased for the process, as CUDA_VISIBLE_DEVICES names it")] = None
    runs_per_device: Annotated[int, Meaning("trainings that may share the device with this one, itself included")] = 1
    threads: Annotated[int, Meaning("CPU threads")]
    message: Annotated[str | None, Meaning("the error in one line, where it failed")] = None

    @classmethod
    def begin(
        cls,
        *,
        attempt: int,
        epoch: int,
        epochs: int,
        step: int,
        device: str,
        threads: int,
        gpu: str | None = None,
        runs_per_device: int = 1,
    ) -> Self:
        """The state of this process, which begins or resumes a run."""
        now = datetime.now(UTC)
        return cls(
            state="running",
            attempt=attempt,
            epoch=epoch,
            epochs=epochs,
            step=step,
            started=now,
            updated=now,
            host=socket.gethostname(),
            pid=os.getpid(),
            job=slurm_job(),
            device=device,
            gpu=gpu,
            runs_per_device=runs_per_device,
            threads=threads,
        )

    def write(self, folder: Path, **changes: object) -> Self:
        """Write the state with these changes, and the time, into a run's folder; returns what was written."""
        changed = self.model_copy(update={**changes, "updated": datetime.now(UTC)})
        write_atomically(folder / STATE, changed.model_dump_json(indent=2) + "\n")
        return changed


class StateFile:
    """`state.json` of a run, kept up to date by the process that trains it.

    Args:
        folder: of the run.
        state: of this process; not written yet.
    """

    def __init__(self, folder: Path, state: RunState) -> None:
        self._folder = folder
        self._state = state

    @classmethod
    def begin(
        cls, folder: Path, *, epochs: int, device: str, threads: int, gpu: str | None, runs_per_device: int
    ) -> Self:
        """That of a process that has not looked yet how far the run is."""
        state = RunState.begin(
            attempt=1,
            epoch=0,
            epochs=epochs,
            step=0,
            device=device,
            threads=threads,
            gpu=gpu,
            runs_per_device=runs_per_device,
        )
        return cls(folder, state)

    def write(self, **changes: object) -> None:
        """Write the state with these changes."""
        self._state = self._state.write(self._folder, **changes)

    @contextmanager
    def failures_noted(self) -> Iterator[None]:
        """Write the state `failed`, with its cause in one line, if the block fails."""
        try:
            yield
        except Exception as error:
            name = "" if isinstance(error, EastError) else f"{type(error).__name__}: "
            with suppress(OSError):
                self.write(state="failed", message=" ".join(f"{name}{error}".split()))
            raise


class Watched(Hook):
    """Tells those who watch how far the run is.

    Args:
        file: where it is told.
        attempts: at the run.
    """

    def __init__(self, file: StateFile, attempts: "AttemptLog") -> None:
        self._file = file
        self._attempts = attempts

    def on_begin(self, training: "Training") -> None:
        """The run goes on."""
        self._write(training, "running")

    def after_epoch(self, training: "Training", record: "EpochRecord") -> None:
        """Likewise, one epoch further."""
        self._write(training, "running")

    def on_end(self, training: "Training", ending: Ending) -> None:
        """The run has ended, or waits to go on."""
        self._write(training, "ended" if training.is_over else "stopped")

    def _write(self, training: "Training", state: Literal["running", "stopped", "ended"]) -> None:
        self._file.write(
            state=state,
            attempt=self._attempts.attempt,
            epoch=training.epoch,
            step=training.steps_done,
            test_accuracy=training.epochs[-1].test_acc if training.epochs else None,
            seconds_per_epoch=self._attempts.seconds_of(training.epoch),
        )


def read_state(folder: Path) -> RunState | None:
    """The state in a run's folder; None where there is none that can be read."""
    try:
        return RunState.model_validate_json((folder / STATE).read_bytes())
    except (OSError, ValidationError):
        return None


def slurm_job() -> str | None:
    """The number of the Slurm job that this process belongs to, with its place in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
