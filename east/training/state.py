"""What a training says about itself while it runs: `state.json` in its folder, for those who watch.

It decides nothing. A run is finished when its summary is there, and resumed from its checkpoints.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limits

from east.errors import EastError
from east.failures import explained
from east.files import write_atomically
from east.shown import visible
from east.training.records import LARGEST, Meaning

STATE = "state.json"


Count = Annotated[int, Limits(ge=0, le=LARGEST)]


class RunState(BaseModel):
    """state.json: one attempt at a run, as its process last wrote it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Annotated[
        Literal["running", "stopped", "failed", "ended"],
        Meaning("`running`; `stopped` by a signal, with a checkpoint; `failed`, see `message`; `ended` with a summary"),
    ]
    attempt: Annotated[Count, Meaning("which attempt this is, counted from 1")]
    epoch: Annotated[Count, Meaning("epochs that are done")]
    epochs: Annotated[Count, Meaning("epochs of the whole training")]
    step: Annotated[Count, Meaning("optimizer steps that are done")]
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
    threads: Annotated[Count, Meaning("CPU threads")]
    message: Annotated[str | None, Meaning("the error in one line, where it failed")] = None


class StateFile:
    """`state.json` of a run, kept up to date by the process that trains it; written from the first change on."""

    def __init__(
        self,
        folder: Path,
        *,
        epochs: int,
        device: str,
        threads: int,
        gpu: str | None = None,
        runs_per_device: int = 1,
    ) -> None:
        self._folder = folder
        now = datetime.now(UTC)
        self.state = RunState(
            state="running",
            attempt=1,
            epoch=0,
            epochs=epochs,
            step=0,
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

    def write(self, **changes: object) -> None:
        """Write the state with these changes, and the time."""
        self.state = self.state.model_copy(update={**changes, "updated": datetime.now(UTC)})
        write_atomically(self._folder / STATE, self.state.model_dump_json(indent=2) + "\n")

    @contextmanager
    def failures_noted(self) -> Iterator[None]:
        """Write the state `failed`, with its cause in one line, if the block fails."""
        try:
            yield
        except Exception as error:
            text = str(error) if isinstance(error, EastError) else explained(error)
            text = text or f"{type(error).__name__}: {error}"
            with suppress(OSError):
                self.write(state="failed", message=visible(" ".join(text.split())))
            raise


def slurm_job() -> str | None:
    """The number of the Slurm job that this process belongs to, with its place in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
