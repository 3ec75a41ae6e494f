"""Opens a run's data set as the batches that the training loop sees."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from east.config.run import DatasetSpec
from east.data.batches import EVALUATION_BATCH, Batches, EvaluationBatches, TensorBatches
from east.data.catalog import DATASETS
from east.data.images import load_images
from east.data.manifest import MANIFEST_FILE, FolderManifest, read_manifest
from east.data.split import split_indices
from east.data.vision import require_torchvision
from east.errors import EastError


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set.

    Attributes:
        train: what is trained on.
        validation: None where no images are held out.
        test: what accuracy is reported on.
        num_classes: classes that the classifier tells apart.
        digest: of the whole prepared set: of its images, or, of an image folder, of names and sizes of its files.
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
        spec: which images, and what is done to them.
        training_batch: images a training step.
        seed: the run's seed: order, augmentation and, where the spec says so, the split depend on it.
        data_dir: where `prepare` stored the data.
        device: where batches are made.
        folder: for ImageNet, the folder that holds `train/` and `val/`.

    Raises:
        EastError: if the data are not prepared, are damaged, or do not fit the spec.
    """
    if spec.name == "imagenet":
        return _open_folder(spec, training_batch, seed, data_dir, device, folder)
    return _open_images(spec, training_batch, seed, data_dir, device)


def _open_images(spec: DatasetSpec, training_batch: int, seed: int, data_dir: Path, device: torch.device) -> Splits:
    data = load_images(spec.name, data_dir)
    train, held_out = split_indices(len(data.train_labels), spec.validation, spec.validation_choice, seed)

    def augmented(indices: torch.Tensor, *, training: bool) -> TensorBatches:
        return TensorBatches(
            data.train_images[indices],
            data.train_labels[indices],
            device=device,
            mean=data.mean,
            std=data.std,
            batch_size=training_batch if training else EVALUATION_BATCH,
            margin=spec.margin,
            padding=spec.padding,
            flip=spec.flip,
            seed=seed,
            purpose="augment" if training else "validation",
            shuffle=training,
        )

    def plain(images: torch.Tensor, labels: torch.Tensor) -> EvaluationBatches:
        return EvaluationBatches(images, labels, device=device, mean=data.mean, std=data.std)

    validation: Batches | None = None
    if len(held_out):
        validation = (
            augmented(held_out, training=False)
            if spec.augment_validation
            else plain(data.train_images[held_out], data.train_labels[held_out])
        )
    return Splits(
        train=augmented(train, training=True),
        validation=validation,
        test=plain(data.test_images, data.test_labels),
        num_classes=data.num_classes,
        digest=data.digest,
    )


def _open_folder(
    spec: DatasetSpec,
    training_batch: int,
    seed: int,
    data_dir: Path,
    device: torch.device,
    folder: Path | None,
) -> Splits:
    label = DATASETS[spec.name].label
    if folder is None:
        raise EastError(f"{label} is read from its image folder, and none was given.")
    if spec.validation and spec.validation_choice == "last":
        raise EastError(
            f"dataset.validation_choice is 'last', but the images of {label} are stored class by class: "
            "that would hold out whole classes. Use 'shuffled'."
        )
    require_torchvision()
    from east.data import folder as image_folder

    manifest = read_manifest(FolderManifest, spec.name, data_dir)
    if image_folder.scan_folder(spec.name, folder) != manifest:
        raise EastError(
            f"{folder} has changed since it was prepared: names or sizes of its images are no longer those of "
            f"{data_dir / spec.name / MANIFEST_FILE}. Restore it, or run `snakemake --cores 1 data` again."
        )
    _, train_samples = image_folder.list_images(folder, "train")
    _, test_samples = image_folder.list_images(folder, "val")
    train, held_out = split_indices(len(train_samples), spec.validation, spec.validation_choice, seed)

    def batches(
        samples: list[image_folder.Sample],
        view: image_folder.View,
        *,
        indices: torch.Tensor | None = None,
        training: bool = False,
    ) -> image_folder.FolderBatches:
        return image_folder.FolderBatches(
            samples,
            view,
            device=device,
            mean=manifest.mean,
            std=manifest.std,
            batch_size=training_batch if training else image_folder.EVALUATION_BATCH,
            workers=_usable_cores(),
            indices=indices,
            order_seed=seed if training else None,
        )

    validation: Batches | None = None
    if len(held_out):
        view: image_folder.View = (
            image_folder.RandomView(seed, "validation", spec.flip)
            if spec.augment_validation
            else image_folder.CenterView()
        )
        validation = batches(train_samples, view, indices=held_out)
    return Splits(
        train=batches(train_samples, image_folder.RandomView(seed, "augment", spec.flip), indices=train, training=True),
        validation=validation,
        test=batches(test_samples, image_folder.CenterView()),
        num_classes=manifest.num_classes,
        digest=manifest.digest,
    )


def _usable_cores() -> int:
    # The cores a scheduler granted this job; macOS cannot tell, and has no scheduler.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
