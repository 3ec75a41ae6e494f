"""Short runs with everything in them, and their checksums: what the same bits everywhere are tested by.

`python -m tests.unit.same_bits DATA_DIR FOLDER RUN=THREADS...` trains some of them and prints the checksums as JSON.
"""

import hashlib
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from east.config import load_plan
from east.config.run import RunSpec
from east.training.assembly import Training
from east.training.folder import REPEATABLE
from east.training.interrupt import Interruption, Stopped
from east.training.records import UpdateRecord
from east.training.run import Resources, train

CHECKSUMS = Path(__file__).with_name("same_bits.json")
"""Run -> checksum: what every processor must give."""

DIGITS = {
    "name": "digits",
    "margin": 1,
    "padding": "zero",
    "flip": True,
    "validation": 144,
    "validation_choice": "shuffled",
    "augment_validation": True,
}
"""The data set of short runs."""

STOP_AFTER = 8
"""Steps after which the stopped run is stopped; it stands within its second epoch then."""


def specs() -> dict[str, RunSpec]:
    """Each with a partial last batch and group, growth, pruning, validation, and with either estimator of the clip."""
    networks: dict[str, dict[str, Any]] = {
        "east": {"model": {"activation": "dyrelu", "sharing_ratio": 2}, "phasing": {"start": 1.0, "end": 3.0}},
        "resnet50": {"model": {"name": "resnet50", "width": 2}, "cycle": {"pattern": "triangular"}},
        "rigl": {"sparsity": {"density": 0.02}},
        "adam": {
            "model": {"activation": "dyrelu"},
            "phasing": {"start": 1.0, "end": 3.0},
            "training": {"optimizer": {"name": "adam"}, "lr": 0.01},
        },
        "bf16": {
            "model": {"activation": "dyrelu"},
            "phasing": {"start": 1.0, "end": 3.0},
            "training": {"numerics": "bf16"},
        },
    }
    clips = {
        "exact": {"estimator": "exact", "probes": 1},
        "sketch": {"estimator": "sketch", "probes": 2},
    }
    return {
        f"{network}-{clip}": _spec(changes, chosen)
        for network, changes in networks.items()
        for clip, chosen in clips.items()
    }


def _spec(changes: dict[str, Any], clip: dict[str, Any]) -> RunSpec:
    content = next(run for run in load_plan() if run.id == "table2/cosine-m3-n1/seed17").spec.model_dump()
    content["dataset"] = dict(DIGITS)
    content["model"]["width"] = 4
    content["sparsity"] |= {"density": 0.05, "update_period": 2}
    content["cycle"] |= {"cycle_length": 2.0, "multiplier": 4.0, "update_period": 2}
    content["training"] |= {"epochs": 3, "batch_size": 250, "lr_drop_epochs": [2]}
    content["training"]["gradient_clip"] |= clip
    for part, values in changes.items():
        content[part] = (content[part] or {}) | values
    if content["training"]["optimizer"]["name"] == "adam":
        content["training"]["optimizer"] = {"name": "adam"}
    return RunSpec.model_validate(content)


class StopAfter(Interruption):
    """Asks for a stop after so many steps of the training."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def after_step(self, training: Training, update: UpdateRecord | None) -> None:
        """One more step."""
        if training.steps_done == self._steps:
            self.request(signal.SIGTERM)


def checksum(folder: Path) -> str:
    """Of all files of a run that can be repeated."""
    digest = hashlib.sha256()
    for name in sorted(REPEATABLE):
        content = (folder / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def train_all(threads: Mapping[str, int], folder: Path, data_dir: Path) -> dict[str, str]:
    """Run -> checksum, for the runs that are given a number of threads; with a sketch they are stopped and resumed."""
    runs = specs()
    return {name: _train(runs[name], folder / name, data_dir, count) for name, count in threads.items()}


def _train(spec: RunSpec, folder: Path, data_dir: Path, threads: int) -> str:
    resources = Resources(device="cpu", engine="sparse", threads=threads, data_dir=data_dir)
    clip = spec.training.gradient_clip
    if clip is not None and clip.estimator == "sketch":
        try:
            train(spec, folder, resources, [StopAfter(STOP_AFTER)])
        except Stopped:
            pass
        else:
            raise RuntimeError("the run was not stopped")
    train(spec, folder, resources)
    return checksum(folder)


if __name__ == "__main__":
    data, out, *counts = sys.argv[1:]
    wanted = {name: int(count) for name, count in (argument.split("=") for argument in counts)}
    print(json.dumps(train_all(wanted, Path(out), Path(data))))
