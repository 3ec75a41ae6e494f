"""What a process of `east train` takes besides its epochs, found by starting some that train almost nothing."""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean

from east.config import RunSpec
from east.config.run import DatasetSpec
from east.cost.timing import Conditions
from east.data.catalog import DATASETS
from east.data.prepare import prepare
from east.errors import EastError
from east.training.device import choose_device
from east.training.folder import TIMING
from east.training.records import TimingRecord, read_records

EPOCHS = 2
BATCH = 32

DATASET = DatasetSpec(
    name="digits",
    margin=1,
    padding="zero",
    flip=False,
    validation=DATASETS["digits"].train_images - BATCH,
    validation_choice="last",
    augment_validation=False,
)
"""Embedded images, of which a batch is trained on."""


def time_start(spec: RunSpec, conditions: Conditions) -> tuple[float, tuple[str, ...]]:
    """Start processes that train one step in each of two epochs, as many at once as runs will share this machine.

    Args:
        spec: what they train; its images, epochs and batch do not matter.
        conditions: device, engine, threads and processes.

    Returns:
        Seconds of a process outside its `EPOCHS` epochs, checkpoints included, plus the extra time of its first epoch
        over its second; and what the process warned of.

    Raises:
        EastError: a process fails; with its last words.
    """
    short = spec.model_copy(
        update={
            "dataset": DATASET,
            "training": spec.training.model_copy(update={"epochs": EPOCHS, "batch_size": BATCH}),
        }
    )
    with tempfile.TemporaryDirectory(prefix="east-estimate-") as scratch:
        data = Path(scratch) / "data"
        prepare(DATASET.name, data)
        folders = [[Path(scratch) / f"{i}-{j}" for i in range(conditions.side_by_side)] for j in range(2)]
        begin = partial(_start, short, conditions, data)
        with ThreadPoolExecutor(conditions.side_by_side) as threads:
            rounds = [list(threads.map(begin, at_once)) for at_once in folders]
        # On a GPU the first processes compile what later ones find in the cache.
        on_gpu = choose_device(conditions.device).type == "cuda"
        started = rounds[-1] if on_gpu else list(itertools.chain(*rounds))
        last = {folder: read_records(folder / TIMING, TimingRecord).checked()[-1].seconds for folder, *_ in started}
        seconds = fmean(wall - EPOCHS * last[folder] for folder, wall, _ in started)
        return seconds, tuple(line for line in started[0][2].splitlines() if line.startswith("warning:"))


def _start(spec: RunSpec, conditions: Conditions, data: Path, folder: Path) -> tuple[Path, float, str]:
    """The folder again, seconds of the process, and its log."""
    # GPUs are leased by locks in the folder of temporary files: with a separate one it waits for nobody.
    environment = {**os.environ, "TMPDIR": str(folder.parent)}
    command = [sys.executable, "-m", "east", "train", "--run", spec.canonical_json(), "--out", str(folder)]
    command += ["--data-dir", str(data), "--device", conditions.device, "--engine", conditions.engine]
    command += ["--threads", str(conditions.threads), "--runs-per-gpu", str(conditions.side_by_side)]
    command += ["--step", conditions.step]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment)  # noqa: S603
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise EastError(f"a training that was started to be timed failed: {words[0].removeprefix('error: ')}")
    return folder, seconds, done.stderr
