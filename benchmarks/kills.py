"""A run that is killed at any moment and resumed leaves the same bytes: `python -m benchmarks.kills`.

Each time the run is trained in a process of its own that gets SIGKILL at a random moment of its life, or between two
file operations, and again until one process comes to the end. What is left is compared with a run never killed.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
import typer

from benchmarks.results import demo_run, run_command
from east.config.run import RunSpec
from east.data.prepare import prepare
from east.errors import EastError
from east.training.folder import REPEATABLE
from east.training.run import Resources, train

RUN_ID = "table2/cosine-m10-n1/seed1"
FILE_OPERATIONS = ((os, "fsync"), (Path, "replace"), (Path, "unlink"))


OPERATIONS = "operations"
"""The file in which a training that was not to be killed leaves how many file operations it took."""


def main(
    count: Annotated[int, typer.Option(min=1, help="Kills.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Kill and resume a run of the demo so many times, and compare what each left with one that was never killed."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    spec = demo_run(RUN_ID)
    with tempfile.TemporaryDirectory(prefix="east-kills-") as temporary:
        folder = Path(temporary)
        prepare(spec.dataset.images, folder / "data")
        resources = Resources(device="cpu", threads=1, data_dir=folder / "data")
        started = time.perf_counter()
        _train_apart(spec, folder / "whole", resources)
        seconds = time.perf_counter() - started
        expected = [(folder / "whole" / name).read_bytes() for name in REPEATABLE]
        operations = int((folder / OPERATIONS).read_text())
        print(f"a run takes {seconds:.1f} s and {operations} file operations", flush=True)
        done = different = 0
        while done < count:
            run = folder / "killed"
            while True:
                at_operation = draw.randrange(operations) if draw.random() < 0.5 else None
                after = None if at_operation is not None else draw.uniform(0, seconds)
                if done >= count or not _train_apart(spec, run, resources, after=after, at_operation=at_operation):
                    break
                done += 1
            _train_apart(spec, run, resources)
            different += [(run / name).read_bytes() for name in REPEATABLE] != expected
            shutil.rmtree(run)
            print(f"{done} kills, {different} runs with other bytes", flush=True)
    if different:
        raise EastError(f"{different} runs that were killed and resumed left other bytes.")


def _train_apart(
    spec: RunSpec, folder: Path, resources: Resources, *, after: float | None = None, at_operation: int | None = None
) -> bool:
    """Train in a process of its own, killed after some seconds or at a file operation; whether it was killed."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            left = [-1 if at_operation is None else at_operation]
            for owner, name in FILE_OPERATIONS:
                mock.patch.object(owner, name, _counting(getattr(owner, name), left)).start()
            train(spec, folder, resources)
            (folder.parent / OPERATIONS).write_text(str(-1 - left[0]))
            status = 0
        finally:
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise EastError(f"a resumed run failed with status {status}; its message is above.")
    return status != 0


def _counting(original: Callable[..., object], left: list[int]) -> Callable[..., object]:
    """A file operation before which the process kills itself once as many have been done."""

    def counted(*arguments: object, **keywords: object) -> object:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return original(*arguments, **keywords)

    return counted


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    run_command(lambda: typer.run(main))
