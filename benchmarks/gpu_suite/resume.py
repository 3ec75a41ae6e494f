"""A training that is killed and resumed, by the command that the workflow uses, on a data set that the suite writes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu_suite.conditions import DRY_DENSITY, ROOT, Conditions, one_cycle, with_density
from benchmarks.gpu_suite.findings import Finding, Note, Resumed
from east.config.run import RunSpec
from east.data.catalog import DATASETS
from east.data.prepare import store_images
from east.data.source import SourceImages
from east.errors import EastError
from east.training.folder import REPEATABLE

TRAIN_IMAGES, TEST_IMAGES, HELD_OUT = 3_000, 500, 120
DRY_TRAIN_IMAGES = 60
DENSITY = 0.005
EPOCHS = 8
POLL = 0.02

SCHEDULE = ("step", "epoch", "kind", "density", "nonzeros", "frozen_layers")
"""Columns of updates.csv that follow from the run's spec alone, whatever the device rounds."""


def measure(conditions: Conditions) -> Iterator[Finding]:
    """Train once without a break, once with a SIGKILL in the middle, and compare what is promised."""
    spec = short_run(conditions)
    data = conditions.scratch / "data"
    store_images(spec.dataset.name, data, lambda: random_source(spec, conditions))
    whole, broken = conditions.scratch / "whole", conditions.scratch / "broken"
    _train(spec, data, whole, conditions)
    if conditions.left() <= 0:
        yield Note(about="kill and resume", text="not done: time was up after the training without a break")
        return
    epoch = _kill_within(spec, data, broken, conditions)
    yield Resumed(promise="it was killed within the training, after an epoch", kept=0 < epoch < EPOCHS, note=f"{epoch}")
    _train(spec, data, broken, conditions)
    yield from compare(whole, broken, identical=conditions.device == "cpu")


def short_run(conditions: Conditions) -> RunSpec:
    """A training of some epochs with a density cycle and exchanges of weights, on few images."""
    model = next(iter(conditions.networks.values()))
    spec = with_density(conditions.plain(model), DRY_DENSITY if conditions.dry else DENSITY)
    dataset = {"name": "cifar10", "validation": 20 if conditions.dry else HELD_OUT}
    return spec.model_copy(
        update={
            "dataset": spec.dataset.model_copy(update=dataset),
            "sparsity": spec.sparsity.model_copy(update={"update_period": 5}),
            "cycle": one_cycle(EPOCHS / 2, 3),
            "training": spec.training.model_copy(
                update={
                    "epochs": EPOCHS,
                    "lr": 0.01,
                    "lr_drop_epochs": (EPOCHS // 2,),
                    "batch_size": 16 if conditions.dry else 128,
                }
            ),
        }
    )


def random_source(spec: RunSpec, conditions: Conditions) -> SourceImages:
    """Images whose class shows in their brightness, so that there is something to learn."""
    info = DATASETS[spec.dataset.name]
    draw = torch.Generator().manual_seed(0)

    def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(info.num_classes, (count,), generator=draw)
        noise = torch.randint(128, (count, *info.image_shape), generator=draw)
        brightness = (127 * labels // info.num_classes).view(-1, 1, 1, 1)
        return (noise + brightness).to(torch.uint8), labels

    train = images(DRY_TRAIN_IMAGES if conditions.dry else TRAIN_IMAGES)
    test = images(DRY_TRAIN_IMAGES if conditions.dry else TEST_IMAGES)
    return SourceImages(*train, *test, sources=())


def compare(whole: Path, broken: Path, *, identical: bool) -> Iterator[Resumed]:
    """What a resumed run promises: on a CPU the same bytes, on a GPU the same schedule, order and numbers of weights.

    Args:
        whole: the folder of the run that was not killed.
        broken: that of the run that was killed and resumed.
        identical: whether the device repeats itself to the last bit.
    """
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (whole, broken))
    yield Resumed(
        promise="it ends whole", kept=second["status"] == first["status"] == "finished", note=str(second["status"])
    )
    yield Resumed(promise="in its second attempt", kept=second["attempts"] == 2, note=str(second["attempts"]))
    yield Resumed(promise="it is the same run", kept=first["fingerprint"] == second["fingerprint"])
    epochs = [row["epoch"] for row in _rows(broken / "metrics.csv")]
    yield Resumed(promise="every epoch is recorded once", kept=epochs == [str(epoch) for epoch in range(1, EPOCHS + 1)])
    yield Resumed(
        promise="density, counts and steps of all mask updates are the same",
        kept=_schedule(whole / "updates.csv") == _schedule(broken / "updates.csv"),
    )
    counts = [_nonzeros(folder / "weights.safetensors") for folder in (whole, broken)]
    yield Resumed(promise="as many active weights in every tensor", kept=counts[0] == counts[1])
    left = sorted(path.name for path in broken.glob("checkpoint-*"))
    yield Resumed(promise="no checkpoint is left", kept=not left, note=", ".join(left))
    if identical:
        for name in REPEATABLE:
            same = (whole / name).read_bytes() == (broken / name).read_bytes()
            yield Resumed(promise=f"{name} has the same bytes", kept=same)
    else:
        gap = abs(first["final_test_accuracy"] - second["final_test_accuracy"])
        yield Resumed(
            promise="bits are not promised on a GPU; test accuracies are both there", kept=True, note=f"{gap:.2f} apart"
        )


def _command(spec: RunSpec, data: Path, out: Path, conditions: Conditions) -> list[str]:
    options = {"--run": spec.canonical_json(), "--out": out, "--data-dir": data, "--device": conditions.device}
    options |= {"--threads": 1} if conditions.device == "cpu" else {}
    command = [sys.executable, "-m", "east", "train"]
    for name, value in options.items():
        command += [name, str(value)]
    return command


def _train(spec: RunSpec, data: Path, out: Path, conditions: Conditions) -> None:
    process = subprocess.run(
        _command(spec, data, out, conditions), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if process.returncode != 0:
        raise EastError(f"`east train` ended with {process.returncode}: {process.stderr.strip()[-300:]}")


def _kill_within(spec: RunSpec, data: Path, out: Path, conditions: Conditions) -> int:
    """Kill a training as soon as an epoch is done; returns the epochs that were done."""
    process = subprocess.Popen(
        _command(spec, data, out, conditions), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None and not _epochs_done(out):
            time.sleep(POLL)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return _epochs_done(out)


def _epochs_done(out: Path) -> int:
    try:
        return len(_rows(out / "metrics.csv"))
    except OSError:
        return 0


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _schedule(path: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name in SCHEDULE} for row in _rows(path)]


def _nonzeros(path: Path) -> dict[str, int]:
    return {name: int(tensor.sum()) for name, tensor in load_file(path).items() if name.endswith("mask")}
