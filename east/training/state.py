"""What a training says about itself while it runs: `state.json` in its folder, for those who watch.

It decides nothing. A run is finished when its summary is there, and resumed from its checkpoints.
"""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from east.files import write_atomically

STATE = "state.json"


class RunState(BaseModel):
    """One attempt at a run, as its process last wrote it.

    Attributes:
        state: `running`; `stopped` by a signal, with a checkpoint; `failed`, see `message`; `ended` with a summary.
        attempt: which attempt this is, counted from 1.
        epoch: epochs that are done.
        epochs: epochs of the whole training.
        step: steps that are done.
        test_accuracy: after the last epoch that is done, in percent.
        seconds_per_epoch: of the last epoch that is done, evaluation included.
        started: of this attempt.
        updated: when this was written.
        host: name of the machine.
        pid: the process there.
        job: the scheduler's number of the job, if one started the process.
        device: name of the processor or GPU.
        threads: CPU threads.
        message: the error in one line, where it failed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Literal["running", "stopped", "failed", "ended"]
    attempt: int
    epoch: int
    epochs: int
    step: int
    test_accuracy: float | None = None
    seconds_per_epoch: float | None = None
    started: datetime
    updated: datetime
    host: str
    pid: int
    job: str | None = None
    device: str
    threads: int
    message: str | None = None

    @classmethod
    def begin(cls, *, attempt: int, epoch: int, epochs: int, step: int, device: str, threads: int) -> Self:
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
            threads=threads,
        )

    def write(self, folder: Path, **changes: object) -> Self:
        """Write the state with these changes, and the time, into a run's folder; returns what was written."""
        changed = self.model_copy(update={**changes, "updated": datetime.now(UTC)})
        write_atomically(folder / STATE, changed.model_dump_json(indent=2) + "\n")
        return changed


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
