"""A short training in which everything changes that may: masks, density, learning rate and β."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from benchmarks.gpu_suite.conditions import Conditions, one_cycle
from benchmarks.gpu_suite.findings import WayName
from benchmarks.gpu_suite.ways import OurTraining
from east.config.run import PhasingSpec, RunSpec
from east.data.batches import TensorBatches
from east.data.catalog import DATASETS
from east.models.dyrelu import set_beta
from east.seeding import torch_generator
from east.training.step import EpochSums

STEPS_PER_EPOCH, DRY_STEPS_PER_EPOCH = 6, 2
EPOCHS, DRY_EPOCHS = 4, 2
LEARNING_RATE = 0.01
"""Small, so that rounding does not grow much faster than it comes in."""

CYCLE_PERIOD, DRY_CYCLE_PERIOD = 3, 2
EXCHANGE_PERIOD, DRY_EXCHANGE_PERIOD = 5, 3
"""Steps between changes of the masks within the cycle and after it."""

WHAT_CHANGES = "masks by exchange and by a density cycle, density, learning rate, β"


def changing(spec: RunSpec, *, dry: bool) -> RunSpec:
    """A run of a few epochs: a density cycle in the first half, exchanges in the second, two learning rates.

    DyReLU fades without end, so that its units stay.
    """
    epochs = DRY_EPOCHS if dry else EPOCHS
    return spec.model_copy(
        update={
            "sparsity": spec.sparsity.model_copy(
                update={"update_period": DRY_EXCHANGE_PERIOD if dry else EXCHANGE_PERIOD}
            ),
            "cycle": one_cycle(epochs / 2, DRY_CYCLE_PERIOD if dry else CYCLE_PERIOD),
            "phasing": PhasingSpec(start=1, end=epochs + 1, freeze=False) if spec.phasing else None,
            "training": spec.training.model_copy(
                update={"epochs": epochs, "lr": LEARNING_RATE, "lr_drop_epochs": (epochs // 2,)}
            ),
        }
    )


class Rehearsal:
    """The training, by one way, on batches that are made as the trainer makes them.

    Args:
        name: engine, stepping and numerics.
        spec: what `changing` gives.
        conditions: device and sizes.
        warm_ups: epochs before, at learning rate zero.
    """

    def __init__(self, name: WayName, spec: RunSpec, conditions: Conditions, warm_ups: int = 0) -> None:
        full, last = conditions.batches
        steps = DRY_STEPS_PER_EPOCH if conditions.dry else STEPS_PER_EPOCH
        self.training = OurTraining(name, spec, conditions.where, batch_size=full, steps_per_epoch=steps)
        self._spec = spec
        self._device = conditions.where
        self._batches = random_batches(spec, (steps - 1) * full + last, full, conditions.where)
        self.training.resume()
        for number in range(1, warm_ups + 1):
            for batch in self._batches.epoch(number):
                self.training.train(*batch, number, 0.0)

    def run(self, guard: Callable[[], AbstractContextManager[object]] = nullcontext) -> Iterator[Tensor]:
        """Train; batches are guarded, and steps but for those just before and after a change of the masks.

        The one before leaves dense gradients behind, and in the one after engines follow the masks, for which the host
        must know them.

        Yields:
            The summed loss of each step.
        """
        training, sparsity, number = self.training, self.training.sparsity, 0
        for epoch in range(1, self._spec.training.epochs + 1):
            lr = sparsity.schedule.learning_rate(epoch)
            set_beta(training.model, sparsity.schedule.beta(epoch))
            sums = EpochSums.begin(self._device)
            batches = self._batches.epoch(epoch)
            for _ in range(len(self._batches)):
                number += 1
                with guard():
                    images, labels = next(batches)
                if self._is_settled(number):
                    with guard():
                        loss, correct = training.step(images, labels, lr, number, dense_gradients=False)
                        sums.add(loss, correct, len(labels))
                else:
                    dense = sparsity.needs_gradient(number)
                    loss, _ = training.step(images, labels, lr, number, dense_gradients=dense)
                # Kept in memory of its own: a captured step writes the next loss to where this one is.
                yield loss.detach().clone()
                if sparsity.update(number) is not None:
                    training.step.masks_changed()

    def _is_settled(self, number: int) -> bool:
        """Whether the masks change neither just before nor just after a step."""
        near = (number, number - 1) if number > 1 else (number,)
        return all(self.training.sparsity.timetable.at(step) is None for step in near)


def random_batches(spec: RunSpec, count: int, batch_size: int, device: torch.device) -> TensorBatches:
    """Batches of a data set of random images, augmented as the run has it."""
    info = DATASETS[spec.dataset.name]
    draw = torch_generator(spec.seed, "cost", count)
    pixels = torch.randint(256, (count, *info.image_shape), generator=draw, dtype=torch.uint8)
    return TensorBatches(
        pixels,
        torch.randint(info.num_classes, (count,), generator=draw),
        device=device,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        batch_size=batch_size,
        margin=spec.dataset.margin,
        padding=spec.dataset.padding,
        flip=spec.dataset.flip,
        seed=spec.seed,
    )
