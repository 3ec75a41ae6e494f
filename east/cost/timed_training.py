"""A training whose parts are timed one by one: on random images, with everything else as the trainer has it."""

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from east.config.run import RunSpec
from east.cost.clock import seconds_of, settling_steps
from east.data.batches import EvaluationBatches, TensorBatches
from east.data.catalog import DATASETS
from east.files import write_atomically
from east.models.dyrelu import retire_dyrelu
from east.models.liveness import liveness
from east.seeding import torch_generator
from east.sparse.layers import masked_layers
from east.sparse.topology import TOPOLOGIES
from east.training.assembly import assemble, initial_model
from east.training.captured import StepKind
from east.training.checkpoint import Checkpoints
from east.training.describe import mask_updater
from east.training.folder import CHECKPOINTS
from east.training.loop import evaluate
from east.training.trace import Tracer

PROBE_BATCH = 2
LEAST_BATCH = 16
"""Images of a step that finds out how slow steps are, and at least of one from which the time of a full one is told."""

EPOCH_STEPS = 10**6
"""Steps of the training that parts are timed of: more than will be made."""

TOLD_SHARE = 4
"""What can be afforded for a step, over seconds of one on fewer images from which it is told."""

BATCHES = 32
"""Batches of an epoch of random images, if the data set has as many and they take no more than `MOST_IMAGE_BYTES`."""

MOST_IMAGE_BYTES = 2**26

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""Of the pixels; any will do."""

SMALL_FILES = 5
"""Files that a training writes after an epoch beside its checkpoint: four of records and its state."""


class TimedTraining:
    """A training on random images, to be timed part by part. It learns nothing: the learning rate is zero.

    Args:
        spec: the run.
        device: where it computes.
        engine: `auto` or the name of an engine.
        kind: how steps are executed.
    """

    def __init__(self, spec: RunSpec, device: torch.device, engine: str, kind: StepKind = "eager") -> None:
        started = time.perf_counter()
        self.spec = spec
        self.device = device
        self.model = initial_model(spec, DATASETS[spec.dataset.name].num_classes).to(device)
        seconds = time.perf_counter() - started
        self.layers = masked_layers(self.model)
        self._weights = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
        started = time.perf_counter()
        self.sparsity = mask_updater(self.model, spec, EPOCH_STEPS)
        self.sparsity.initialise()
        assembly = assemble(spec, self.model, self.sparsity, device=device, engine=engine, kind=kind)
        self.engine, self.optimizer = assembly.engine, assembly.optimizer
        self.clip, self.step = assembly.clip, assembly.step
        self.tracer = Tracer(self.model, assembly.active, self.optimizer, self.clip)
        clip = spec.training.gradient_clip
        # Of so many steps one measures the norm.
        self._turn = 1 if clip is None else clip.every
        self._settling = settling_steps(kind, self._turn)
        liveness(self.model)
        self.build_seconds = seconds + time.perf_counter() - started
        self.batch = 0
        self._step_seconds = 0.0
        self._full_step_seconds = 0.0
        self._number = 0
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())

    def worth_timing(self, densities: Sequence[float]) -> Sequence[float]:
        """These densities, or only the middle one where every position is executed whatever the density."""
        return densities[len(densities) // 2 :][:1] if self.engine.name == "dense" else densities

    def retire_dyrelu(self) -> None:
        """As at the end of the fade."""
        removed = retire_dyrelu(self.model)
        self.optimizer.remove(removed)
        if removed:
            self.step.phase_changed()

    def set_density(self, density: float) -> None:
        """Draw random masks of this density over the weights of the start."""
        counts = self.sparsity.allocation.counts(density)
        draw = np.random.default_rng(self.spec.seed)
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.weight.copy_(self._weights[name])
                # Unlike `initialise_masks` this does not shuffle all positions, which takes long.
                mask = torch.zeros(layer.mask.numel(), dtype=torch.bool)
                mask[draw.choice(len(mask), counts[name], replace=False, shuffle=False)] = True
                layer.mask.copy_(mask.view_as(layer.mask))
        self.step.masks_changed()

    def time_step(self, window: float, affordable: float) -> float:
        """Mean seconds of a step.

        Args:
            window: seconds for which steps are repeated.
            affordable: a step that takes longer than this is not made, but told (`_told`) from one on fewer images;
                on a GPU no step does.
        """
        full = self.spec.training.batch_size
        if self.device.type == "cuda":
            self._full_step_seconds = self._time_steps(full, window)
            return self._full_step_seconds
        probe = min(PROBE_BATCH, full)
        few = self._time_steps(probe, 0)
        images = full
        if few * full > affordable * probe:
            images = min(full, max(LEAST_BATCH, int(probe * affordable / TOLD_SHARE / few)))
        seconds = self._told(few, self._time_steps(images, window))
        if images < full and seconds <= affordable:
            seconds = self._time_steps(full, window)
        self._full_step_seconds = seconds
        return seconds

    def time_update(self, window: float) -> tuple[float, float]:
        """Mean seconds that dense gradients add to a step, and that a change of the masks takes.

        Args:
            window: seconds for which updates are repeated.
        """
        rule = TOPOLOGIES.get(self.spec.sparsity.topology)
        if rule is None:
            return 0.0, 0.0
        train_densely = partial(self._train, dense_gradients=rule.grows_by_gradient)
        gradients: list[float] = []
        changes: list[float] = []
        afterwards: list[float] = []
        while not changes or sum(gradients + changes + afterwards) < window:
            gradients.append(self._seconds(train_densely))
            changes.append(self._seconds(self._change_masks))
            afterwards.append(self._seconds(self._train))
        change = _settled(changes) + max(0.0, _settled(afterwards) - self._step_seconds)
        dense_step = _settled(gradients)
        if self.batch < self.spec.training.batch_size:
            images = self.batch
            self._use_batches_of(PROBE_BATCH)
            self._train()
            few = self._seconds(train_densely)
            self._use_batches_of(images)
            dense_step = self._told(few, dense_step)
        return max(0.0, dense_step - self._full_step_seconds), change

    def time_evaluation(self, window: float) -> float:
        """Mean seconds of the evaluation after an epoch, told from a part of the images where it takes long.

        Args:
            window: seconds for which images are evaluated, but at least a batch of each part.
        """
        sizes = [size for size in (self.spec.dataset.validation, DATASETS[self.spec.dataset.name].test_images) if size]
        # A step is about as much as three evaluations of its images.
        affordable = 3 * window * self.spec.training.batch_size / self._full_step_seconds
        share = min(1.0, affordable / sum(sizes))
        chosen = [min(size, max(self.batch, int(share * size))) for size in sizes]
        parts = [
            EvaluationBatches(*self._random_images(size), device=self.device, mean=MEAN, std=STD) for size in chosen
        ]
        seconds: list[float] = []
        while not seconds or sum(seconds) < window:
            self.step.masks_changed()  # as they have in most epochs: the engine begins anew
            self._train()
            seconds.append(self._seconds(lambda: [evaluate(self.engine, self.model, part, 1) for part in parts]))
        return _settled(seconds) * sum(sizes) / sum(chosen)

    def time_save(self, folder: Path, window: float) -> tuple[float, int]:
        """Mean seconds to write what is written after an epoch, and the bytes of the checkpoint.

        Args:
            folder: where it is written for a while.
            window: seconds for which that is repeated.
        """
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            checkpoints = Checkpoints(Path(scratch), self.spec.fingerprint)
            seconds: list[float] = []
            while not seconds or sum(seconds) < window:
                seconds.append(self._seconds(partial(self._save, checkpoints, len(seconds))))
            return _settled(seconds), max(path.stat().st_size for path in checkpoints.folder.glob(CHECKPOINTS))

    def _time_steps(self, images: int, window: float) -> float:
        """Mean seconds of a step on this many images, after some that are not timed."""
        self._use_batches_of(images)
        self._train_several(self._settling)
        turns, seconds = 1, self._seconds(partial(self._train_several, self._turn))
        if seconds < window:
            # Without a look at the clock between them, for which a GPU would have to be waited for.
            turns = math.ceil(window / seconds)
            seconds = self._seconds(partial(self._train_several, turns * self._turn))
        self._step_seconds = seconds / (turns * self._turn)
        return self._step_seconds

    def _train_several(self, steps: int) -> None:
        for _ in range(steps):
            self._train()

    def _told(self, few: float, seconds: float) -> float:
        """Seconds of a step on all images of a batch, as it grows in proportion to the images beyond a fixed part.

        Args:
            few: seconds of one on `PROBE_BATCH` images.
            seconds: of one on as many images as there are in a batch now.
        """
        more = self.spec.training.batch_size - self.batch
        return seconds + more * max(0.0, seconds - few) / max(1, self.batch - PROBE_BATCH)

    def _use_batches_of(self, images: int) -> None:
        self.batch = images
        self._batches = self._endless_batches(images)

    def _train(self, *, dense_gradients: bool = False) -> None:
        self._number += 1
        images, labels = next(self._batches)
        self.step(images, labels, 0.0, self._number, dense_gradients=dense_gradients)

    def _change_masks(self) -> None:
        self.sparsity.update(self._number)
        self.step.masks_changed()
        liveness(self.model)
        self.tracer.record(self._number, 1, ["update"])

    def _save(self, checkpoints: Checkpoints, epoch: int) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "clip": None if self.clip is None else self.clip.state_dict(),
        }
        checkpoints.save(epoch, state)
        for number in range(SMALL_FILES):
            write_atomically(checkpoints.folder / f"records-{number}.csv", "\n")

    def _endless_batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        dataset = self.spec.dataset
        batches = TensorBatches(
            *self._random_images(min(BATCHES * size, DATASETS[dataset.name].train_images)),
            device=self.device,
            mean=MEAN,
            std=STD,
            batch_size=size,
            margin=dataset.margin,
            padding=dataset.padding,
            flip=dataset.flip,
            seed=self.spec.seed,
        )
        for epoch in itertools.count(1):
            yield from batches.epoch(epoch)

    def _random_images(self, count: int) -> tuple[Tensor, Tensor]:
        """Images and labels; fewer where they would take much memory, but a batch at least."""
        info = DATASETS[self.spec.dataset.name]
        count = min(count, max(self.batch, MOST_IMAGE_BYTES // math.prod(info.image_shape)))
        draw = torch_generator(self.spec.seed, "cost", count)
        pixels = torch.randint(256, (count, *info.image_shape), generator=draw, dtype=torch.uint8)
        return pixels, torch.randint(info.num_classes, (count,), generator=draw)

    def _seconds(self, run: Callable[[], object]) -> float:
        return seconds_of(run, self.device)


def _settled(seconds: list[float]) -> float:
    """The mean without the first, which takes memory for the first time; what is timed only once counts as it is."""
    return fmean(seconds[1:] or seconds)
