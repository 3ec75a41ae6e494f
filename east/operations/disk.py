"""Bytes that runs and data sets will take on disk, for the estimate and the doctor."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from east.config import Run, RunSpec
from east.config.run import ModelSpec, stand_in
from east.data.catalog import DatasetInfo, info_of, is_streamed, steps_per_epoch
from east.data.manifest import MANIFEST_FILE
from east.models.dyrelu import retire_dyrelu
from east.sparse.schedule import Schedule
from east.sparse.timetable import Timetable
from east.training.describe import build_network

RECORDS = 32_000
EPOCH_RECORDS = 600
UPDATE_RECORDS = 500
"""What a run leaves besides its weights: at all, for an epoch, and for a mask update; somewhat more than it is."""

ARCHIVE_BYTES = {"cifar10": 170_498_071, "cifar100": 169_001_437}
"""What is downloaded, and kept beside the images that are made of it."""


class DiskNeed(NamedTuple):
    """Bytes that each run leaves when it has ended, by its id, and of data sets that are not prepared yet."""

    runs: dict[str, int]
    data: int


def disk_need(runs: Sequence[Run], data_dir: Path) -> DiskNeed:
    """What runs that are not done will take on disk, with their data in the folder of prepared data sets."""
    data = 0
    for images in {run.spec.dataset.images for run in runs}:
        # What is decoded while it is trained on stays where it is.
        if not is_streamed(images) and not (data_dir / images.store / MANIFEST_FILE).is_file():
            info = info_of(images)
            bytes_per_image = math.prod(info.image_shape) + 8  # those of its label
            data += (info.train_images + info.test_images) * bytes_per_image + ARCHIVE_BYTES.get(images.name, 0)
    return DiskNeed({run.id: _run_bytes(run.spec) for run in runs}, data)


def _run_bytes(spec: RunSpec) -> int:
    weights = _weights_bytes(stand_in(spec).model, info_of(spec.dataset))
    updates = sum(1 for _ in Timetable(Schedule.of(stand_in(spec), steps_per_epoch(spec))))
    return weights + RECORDS + spec.training.epochs * EPOCH_RECORDS + updates * UPDATE_RECORDS


@cache
def _weights_bytes(model: ModelSpec, info: DatasetInfo) -> int:
    """Of the network at the end, when DyReLU has become ReLU; off weights are stored as zeros."""
    with torch.device("meta"):
        network = build_network(model, info.num_classes, info.image_shape)
    retire_dyrelu(network)
    return sum(tensor.nbytes for tensor in network.state_dict().values())
