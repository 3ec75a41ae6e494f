"""Bytes that runs and data sets will take on disk, for the estimate and the doctor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from east.config import Run, RunSpec
from east.config.run import ModelSpec
from east.data.catalog import DATASETS, steps_per_epoch
from east.data.manifest import MANIFEST_FILE
from east.models import build_model
from east.models.dyrelu import retire_dyrelu
from east.sparse.schedule import Schedule
from east.sparse.timetable import Timetable

RECORDS = 32_000
EPOCH_RECORDS = 600
UPDATE_RECORDS = 500
"""What a run leaves besides its weights: at all, for an epoch, and for a mask update; somewhat more than it is."""

LABEL_BYTES = 8
ARCHIVE_BYTES = {"cifar10": 170_498_071, "cifar100": 169_001_437}
"""What is downloaded, and kept beside the images that are made of it."""

KEPT_AS_FILES = {"imagenet"}
"""Data sets that stay where they are."""


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that runs will take.

    Args:
        runs: id of a run -> what it leaves when it has ended: weights, records and log.
        data: of data sets that are not prepared yet, their downloads included.
    """

    runs: Mapping[str, int]
    data: int


def disk_need(runs: Sequence[Run], data_dir: Path) -> DiskNeed:
    """What runs that are not done will take on disk, with their data.

    Args:
        runs: the runs.
        data_dir: where prepared data sets are.
    """
    datasets = {run.spec.dataset.name for run in runs} - KEPT_AS_FILES
    missing = [name for name in datasets if not (data_dir / name / MANIFEST_FILE).is_file()]
    data = sum(_images_bytes(name) + ARCHIVE_BYTES.get(name, 0) for name in missing)
    return DiskNeed({run.id: _run_bytes(run.spec) for run in runs}, data)


def _run_bytes(spec: RunSpec) -> int:
    weights = _weights_bytes(spec.model, DATASETS[spec.dataset.name].num_classes)
    updates = sum(1 for _ in Timetable(Schedule.of(spec, steps_per_epoch(spec))))
    return weights + RECORDS + spec.training.epochs * EPOCH_RECORDS + updates * UPDATE_RECORDS


def _images_bytes(dataset: str) -> int:
    info = DATASETS[dataset]
    return (info.train_images + info.test_images) * (math.prod(info.image_shape) + LABEL_BYTES)


@cache
def _weights_bytes(model: ModelSpec, num_classes: int) -> int:
    """Of the network at the end, when DyReLU has become ReLU; off weights are stored as zeros."""
    with torch.device("meta"):
        network = build_model(model.name, num_classes, **model.model_dump(exclude={"name"}))
    retire_dyrelu(network)
    return sum(tensor.nbytes for tensor in network.state_dict().values())
