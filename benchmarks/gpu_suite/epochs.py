"""Seconds of whole epochs: batches, steps, evaluation, mask updates and checkpoints, ours and the authors' in turn."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu_suite.conditions import Conditions, training_images
from benchmarks.gpu_suite.findings import EpochTimes, Finding, Note, WayName
from benchmarks.gpu_suite.steps import first_line, release
from benchmarks.gpu_suite.ways import AUTHORS_FP32, AUTHORS_TF32, AuthorsTraining, OurTraining, make_training, way
from east.config.run import RunSpec
from east.cost.clock import seconds_of, synchronize
from east.data.batches import EvaluationBatches, TensorBatches
from east.data.catalog import DATASETS
from east.training.checkpoint import Checkpoints
from east.training.loop import evaluate
from east.training.step import EpochSums

WAYS = (
    AUTHORS_TF32,
    way("dense", "captured", "tf32"),
    way("dense", "captured", "bf16"),
    way("sparse", "captured", "bf16"),
    AUTHORS_FP32,
    way("sparse", "captured", "tf32"),
    way("auto", "captured", "bf16"),
    way("auto", "captured", "tf32"),
)
"""In the order of importance."""

COMPILED_WAYS = (AUTHORS_TF32, way("dense", "compiled", "bf16"), way("dense", "compiled", "tf32"))

ROUNDS, DRY_ROUNDS = 5, 1
LONG_ROUNDS = 3
"""As many rounds are made of what takes long: the authors' way."""

DRY_IMAGES = 5


@dataclass
class Images:
    """A data set of random images, in the sizes of CIFAR-10."""

    spec: RunSpec
    conditions: Conditions
    pixels: Tensor = field(init=False)
    labels: Tensor = field(init=False)
    evaluated: int = field(init=False)

    def __post_init__(self) -> None:
        info, dry = DATASETS[self.spec.dataset.name], self.conditions.dry
        count = DRY_IMAGES if dry else training_images(self.spec)
        self.evaluated = DRY_IMAGES if dry else info.test_images + self.spec.dataset.validation
        draw = torch.Generator().manual_seed(self.spec.seed)
        self.pixels = torch.randint(256, (count, *info.image_shape), generator=draw, dtype=torch.uint8)
        self.labels = torch.randint(info.num_classes, (count,), generator=draw)

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the pixels; any will do."""
        return (0.5, 0.5, 0.5)

    @property
    def batch_size(self) -> int:
        """Images a step."""
        return self.conditions.batches[0]

    @cached_property
    def batches(self) -> TensorBatches:
        """Ours: the data set on the device."""
        return TensorBatches(
            self.pixels,
            self.labels,
            device=self.conditions.where,
            mean=self.mean,
            std=self.mean,
            batch_size=self.batch_size,
            margin=self.spec.dataset.margin,
            padding=self.spec.dataset.padding,
            flip=True,
            seed=self.spec.seed,
        )

    @cached_property
    def evaluation(self) -> EvaluationBatches:
        """As many images as validation and test set have together."""
        pixels, labels = self.pixels[: self.evaluated], self.labels[: self.evaluated]
        return EvaluationBatches(pixels, labels, device=self.conditions.where, mean=self.mean, std=self.mean)


def measure(conditions: Conditions) -> Iterator[Finding]:
    """Epochs of each network, in turn round by round; what there is so far is yielded after every round."""
    return _measure(conditions, WAYS)


def measure_compiled(conditions: Conditions) -> Iterator[Finding]:
    """Likewise, of compiled steps and the authors' way."""
    return _measure(conditions, COMPILED_WAYS)


def _measure(conditions: Conditions, ways: Sequence[WayName]) -> Iterator[Finding]:
    for label, model in conditions.networks.items():
        if conditions.left() <= 0:
            yield Note(about=label, text="no epochs timed: time was up")
            continue
        spec = conditions.plain(model)
        # Half of what is left for each network but the last.
        share = conditions.left() / 2 if label != list(conditions.networks)[-1] else conditions.left()
        yield from _network(label, spec, conditions.ways(ways), conditions, time.monotonic() + share)


def _network(
    label: str, spec: RunSpec, ways: Sequence[WayName], conditions: Conditions, deadline: float
) -> Iterator[Finding]:
    images = Images(spec, conditions)
    timed: list[_Ours | _Authors] = []
    for name in ways:
        try:
            kind = _Authors if name.engine == "authors" else _Ours
            timed.append(kind(label, name, spec, images, conditions))
        except Exception as error:
            yield Note(about=f"epochs of {label}: {name}", text=first_line(error))
    for number in range(1, (DRY_ROUNDS if conditions.dry else ROUNDS) + 1):
        for one in timed:
            if isinstance(one, _Authors) and number > LONG_ROUNDS:
                continue
            # What one epoch took tells whether there is time for another.
            if time.monotonic() + one.expected > deadline:
                continue
            one.round(number)
            yield one.found()
    timed.clear()
    release(conditions.where)


class _Ours:
    """A training of ours, epoch by epoch."""

    def __init__(self, label: str, name: WayName, spec: RunSpec, images: Images, conditions: Conditions) -> None:
        self._label, self._images, self._conditions = label, images, conditions
        # Mask updates are timed by themselves: none falls into the first epochs of this timetable.
        self._training = OurTraining(name, spec, conditions.where, batch_size=images.batch_size, steps_per_epoch=10**6)
        self._number = 0
        self._training_seconds: list[float] = []
        self._evaluation_seconds: list[float] = []
        self._update_seconds: list[float] = []
        self._saving_seconds: list[float] = []
        self._epoch(0, most=4)
        self._epoch(0, last=True)

    @property
    def expected(self) -> float:
        """Seconds of another round, about."""
        return self._training_seconds[-1] + self._evaluation_seconds[-1] if self._training_seconds else 0.0

    def round(self, number: int) -> None:
        """Train an epoch, evaluate, change the masks, save."""
        device = self._conditions.where
        self._training.resume()
        self._training_seconds.append(seconds_of(lambda: self._epoch(number), device))
        self._evaluation_seconds.append(
            seconds_of(
                lambda: evaluate(self._training.engine, self._training.model, self._images.evaluation, number), device
            )
        )
        self._update_seconds.append(seconds_of(self._update, device))
        self._saving_seconds.append(seconds_of(self._save, device))
        # After a change of the masks engines prepare themselves anew; that is part of the update, not of the epoch.
        self._epoch(number, most=2)
        synchronize(device)

    def found(self) -> EpochTimes:
        """What was timed so far."""
        return EpochTimes(
            network=self._label,
            way=self._training.way,
            batch=self._conditions.batches[0],
            images=len(self._images.labels),
            steps=len(self._images.batches),
            training=tuple(self._training_seconds),
            evaluation=tuple(self._evaluation_seconds),
            update=tuple(self._update_seconds),
            saving=tuple(self._saving_seconds),
        )

    def _epoch(self, number: int, most: int | None = None, *, last: bool = False) -> None:
        """An epoch as the trainer makes it, its sums read at the end; or its first steps, or the last one twice."""
        sums = EpochSums.begin(self._conditions.where)
        start = len(self._images.batches) - 1 if last else 0
        for _ in range(3 if last else 1):
            for made, (images, labels) in enumerate(self._images.batches.epoch(number, start=start)):
                if most is not None and made == most:
                    break
                self._number += 1
                lr = self._training.spec.training.lr
                loss, correct = self._training.step(images, labels, lr, self._number, dense_gradients=False)
                sums.add(loss, correct, len(labels))
        _ = sums.mean_loss, sums.accuracy

    def _update(self) -> None:
        """A step with dense gradients, the change of the masks, and the step after it."""
        training, step = self._training, self._training.sparsity.timetable.update_period
        images, labels = next(self._images.batches.epoch(0))
        self._number += 1
        training.step(images, labels, training.spec.training.lr, self._number, dense_gradients=True)
        training.sparsity.update(step)
        training.step.masks_changed()
        self._number += 1
        training.step(images, labels, training.spec.training.lr, self._number, dense_gradients=False)

    def _save(self) -> None:
        training = self._training
        state = {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}
        folder: Path = self._conditions.scratch
        Checkpoints(folder, training.spec.fingerprint).save(self._number, state)


class _Authors:
    """A training in the authors' way, epoch by epoch."""

    def __init__(self, label: str, name: WayName, spec: RunSpec, images: Images, conditions: Conditions) -> None:
        from benchmarks.gpu_suite.authors import AuthorsBatches, AuthorsImages, loader_workers

        self._label, self._conditions = label, conditions
        made = make_training(name, spec, conditions.where, batch_size=images.batch_size)
        assert isinstance(made, AuthorsTraining)
        self._training = made
        dataset = AuthorsImages(images.pixels, images.labels, images.mean, images.mean, spec.dataset.margin)
        self._count = len(dataset)
        self._batches = AuthorsBatches(
            dataset, images.batch_size, conditions.where, 1 if conditions.dry else loader_workers()
        )
        self._seconds: list[float] = []
        self._steps = 0
        self._training.resume()
        batch, labels = next(self._batches.epoch())  # starts the workers
        for small in (slice(None), slice(0, conditions.batches[1])):
            for _ in range(3):
                self._training.train(batch[small], labels[small], 1, spec.training.lr)

    @property
    def expected(self) -> float:
        """Seconds of another round, about."""
        return self._seconds[-1] if self._seconds else 0.0

    def round(self, number: int) -> None:
        """Train an epoch."""
        self._training.resume()
        self._seconds.append(seconds_of(self._epoch, self._conditions.where))

    def found(self) -> EpochTimes:
        """What was timed so far."""
        return EpochTimes(
            network=self._label,
            way=self._training.way,
            batch=self._conditions.batches[0],
            images=self._count,
            steps=self._steps,
            training=tuple(self._seconds),
            evaluation=(),
            update=(),
            saving=(),
        )

    def _epoch(self) -> None:
        self._steps = 0
        for images, labels in self._batches.epoch():
            self._steps += 1
            self._training.train(images, labels, self._steps, self._training.spec.training.lr)
