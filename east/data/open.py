"""Opens a run's data set as the batches that the training loop sees."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from east.config.run import DatasetSpec
from east.data.batches import EVALUATION_BATCH, Batches, EvaluationBatches, TensorBatches
from east.data.catalog import info_of, is_streamed
from east.data.images import Images, load_images
from east.data.listing import alike, describe_folder, layout_of, list_parts
from east.data.manifest import MANIFEST_FILE, FolderManifest, read_manifest
from east.data.source import require_torchvision
from east.errors import EastError
from east.seeding import generator


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set.

    Attributes:
        train: what is trained on.
        validation: None if no images are held out.
        test: what accuracy is reported on.
        num_classes: classes.
        digest: of the whole prepared set: of its images or, for an image folder, of its file names and sizes.
    """

    train: Batches
    validation: Batches | None
    test: Batches
    num_classes: int
    digest: str


def open_dataset(
    spec: DatasetSpec,
    training_batch: int,
    seed: int,
    data_dir: Path,
    device: torch.device,
    folder: Path | None = None,
) -> Splits:
    """Verify and open a prepared data set.

    Args:
        spec: which images, and how they are augmented.
        training_batch: images per training step.
        seed: the run's seed, which decides order, augmentation and, for a shuffled one, the split.
        data_dir: where `prepare` stored the data.
        device: where batches are made.
        folder: of the images, where they are decoded while they are trained on.

    Raises:
        EastError: the data are not prepared, are damaged, or do not fit the spec.
    """
    if not is_streamed(spec):
        return split_images(load_images(spec, data_dir), spec, training_batch, seed, device)
    info = info_of(spec)
    label, size = info.label, info.image_shape[1]
    if folder is None:
        raise EastError(
            f"{label} is read from its image folder, but none was given. Name it in datasets.{spec.name}.folder or "
            f"with {'--image-folder' if spec.name == 'imagenet' else '--folder'}."
        )
    if spec.validation and spec.validation_choice == "last":
        raise EastError(
            f"dataset.validation_choice is 'last', but {label} is stored class by class, so that would hold out whole "
            "classes. Use 'shuffled'."
        )
    require_torchvision()
    from east.data import folder as image_folder

    manifest = read_manifest(FolderManifest, spec, data_dir)
    listed = list_parts(folder, layout_of(spec))
    if not alike(describe_folder(spec, folder, *listed), manifest):
        raise EastError(
            f"{folder} has changed since it was prepared: its file names or sizes differ from those in "
            f"{data_dir / spec.store / MANIFEST_FILE}. Restore the folder, or prepare it as it is now: "
            f"`east prepare {spec.name}` with {'--image-folder' if spec.name == 'imagenet' else '--configfile'}."
        )
    train_samples, test_samples = (listing.samples for listing in listed)
    train, held_out = split_indices(len(train_samples), spec.validation, spec.validation_choice, seed)

    # The cores that a scheduler granted this job; macOS has neither the call nor a scheduler.
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    batches = partial(image_folder.FolderBatches, device=device, mean=manifest.mean, std=manifest.std, workers=workers)
    plain = partial(batches, view=image_folder.CenterView(size), batch_size=image_folder.EVALUATION_BATCH)
    validation: Batches | None = None
    if len(held_out):
        random = image_folder.RandomView(seed, "validation", spec.flip, size)
        validation = plain(train_samples, indices=held_out, **({"view": random} if spec.augment_validation else {}))
    return Splits(
        train=batches(
            train_samples,
            image_folder.RandomView(seed, "augment", spec.flip, size),
            batch_size=training_batch,
            indices=train,
            order_seed=seed,
        ),
        validation=validation,
        test=plain(test_samples),
        num_classes=manifest.num_classes,
        digest=manifest.digest,
    )


def split_indices(count: int, validation: int, choice: Literal["last", "shuffled"], seed: int) -> tuple[Tensor, Tensor]:
    """Split the training images into those trained on and those held out.

    Args:
        count: training images in all.
        validation: images to hold out, 0 <= validation < count.
        choice: 'last' holds out the last images, 'shuffled' draws them with the run's seed.
        seed: the run's seed; unused for 'last'.

    Returns:
        The int64 indices to train on and to validate on, each in ascending order.

    Raises:
        EastError: no image would be left to train on.
    """
    if not 0 <= validation < count:
        raise EastError(f"dataset.validation is {validation}, but there are only {count} training images. Lower it.")
    order = torch.arange(count) if choice == "last" else generator(seed, "split").permutation(count)
    kept = count - validation
    return order[:kept].sort().values, order[kept:].sort().values


def split_images(data: Images, spec: DatasetSpec, training_batch: int, seed: int, device: torch.device) -> Splits:
    """The parts of a data set that fits in memory; arguments as for `open_dataset`.

    Raises:
        EastError: no image would be left to train on.
    """
    train, held_out = split_indices(len(data.train_labels), spec.validation, spec.validation_choice, seed)

    augmented = partial(
        TensorBatches,
        device=device,
        mean=data.mean,
        std=data.std,
        margin=spec.margin,
        padding=spec.padding,
        flip=spec.flip,
        seed=seed,
    )
    plain = partial(EvaluationBatches, device=device, mean=data.mean, std=data.std)
    validation: Batches | None = None
    if len(held_out):
        shown = data.train_images[held_out], data.train_labels[held_out]
        validation = (
            augmented(*shown, batch_size=EVALUATION_BATCH, purpose="validation", shuffle=False)
            if spec.augment_validation
            else plain(*shown)
        )
    return Splits(
        train=augmented(data.train_images[train], data.train_labels[train], batch_size=training_batch),
        validation=validation,
        test=plain(data.test_images, data.test_labels),
        num_classes=data.num_classes,
        digest=data.digest,
    )
