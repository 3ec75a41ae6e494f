"""Bytes that runs and data sets will take on disk, for the estimate and the doctor."""

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch

from east.config import RunSpec
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


def run_bytes(spec: RunSpec) -> int:
    """What a run leaves when it has ended: weights, records and log."""
    weights = _weights_bytes(spec.model, DATASETS[spec.dataset.name].num_classes)
    updates = sum(1 for _ in Timetable(Schedule.of(spec, steps_per_epoch(spec))))
    return weights + RECORDS + spec.training.epochs * EPOCH_RECORDS + updates * UPDATE_RECORDS


def data_bytes(datasets: Iterable[str], data_dir: Path) -> int:
    """What data sets take that are not prepared yet, their downloads included."""
    missing = [name for name in datasets if not (data_dir / name / MANIFEST_FILE).is_file()]
    return sum(_images_bytes(name) + ARCHIVE_BYTES.get(name, 0) for name in missing if name not in KEPT_AS_FILES)


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
