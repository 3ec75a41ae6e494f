"""Kinds of run, whose steps take equally long at equal density, and how long a run of a kind takes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from statistics import fmean

import numpy as np

from east.config.run import RunSpec, stand_in
from east.cost.timing import KindTimes, PartSeconds, Situation
from east.data.catalog import DATASETS, DatasetInfo, info_of, steps_per_epoch
from east.sparse.schedule import Schedule
from east.sparse.timetable import Phase, Timetable

PARTS = tuple(field.name for field in fields(PartSeconds))


def kind_of(spec: RunSpec) -> RunSpec:
    """A run with everything set alike that does not change how long its steps take at a given density.

    That is its seed, its schedule, numbers that are only multiplied by, and between data sets with the same number and
    size of images which of them it is: the number of classes changes the classifier alone. What plugins give is left
    out, as nobody but a training executes them.
    """
    spec = stand_in(spec)
    clip = spec.training.gradient_clip
    average_drop = (spec.sparsity.drop_fraction + spec.sparsity.drop_fraction_end) / 2
    wanted = _size(info_of(spec.dataset))
    alike = next((name for name, info in DATASETS.items() if _size(info) == wanted), None)
    dataset = {
        **({} if alike is None else {"name": alike, "source": None, "facts": None}),
        "padding": "zero",
        "validation_choice": "last",
    }
    sparsity = {
        "density": 1.0,
        "drop_fraction": average_drop,
        "drop_fraction_end": average_drop,
        "update_period": 1,
        "update_on_last_step": True,
        "update_until": 1.0,
        "exchange_when_resizing": False,
    }
    training = {
        "epochs": 1,
        "lr": 1e-6,  # no training diverges
        "lr_drop_epochs": (),
        "lr_drop_factor": 1.0,
        "lr_schedule": None,
        "warmup_epochs": 0.0,
        "weight_decay": 0.0,
        "gradient_clip": clip and clip.model_copy(update={"norm": 1.0}),
    }
    return spec.model_copy(
        update={
            "seed": 0,
            "dataset": spec.dataset.model_copy(update=dataset),
            "sparsity": spec.sparsity.model_copy(update=sparsity),
            "cycle": None,
            "density_schedule": None,
            "phasing": None,
            "training": spec.training.model_copy(update=training),
        }
    )


def describe_kind(kind: RunSpec) -> str:
    """A kind in a few words, for people."""
    model = kind.model
    _, height, width = info_of(kind.dataset).image_shape
    added = " + DCT" * model.dct + " + DyReLU" * (model.activation == "dyrelu")
    added += f" + sharing {model.sharing_ratio}" if model.sharing_ratio else ""
    return f"{model}{added}, {kind.training.batch_size} images of {height} x {width}"


def remaining_phases(spec: RunSpec, epochs_done: int = 0) -> tuple[Phase, ...]:
    """What is left of a training after some of its epochs."""
    return _phases(Schedule.of(stand_in(spec), steps_per_epoch(spec)), epochs_done)


@cache
def _phases(schedule: Schedule, epochs_done: int) -> tuple[Phase, ...]:
    """A schedule is the same for every seed, and often for several networks."""
    return tuple(Timetable(schedule).phases(epochs_done))


def situations(phases: Iterable[Phase]) -> list[Situation]:
    """When a kind of run is timed: at both ends and in the middle (by logarithm) of the densities of its steps.

    With DyReLU active first, from low to high; at the middle alone where they differ little. The phases are those of
    all runs of the kind.
    """
    found = []
    steps = [phase for phase in phases if phase.steps]
    for dynamic in (True, False):
        if densities := {phase.density for phase in steps if phase.dynamic == dynamic}:
            lowest, highest = min(densities), max(densities)
            middle = math.sqrt(lowest * highest)
            timed = (lowest, middle, highest) if highest > 1.5 * lowest else (middle,)
            found += [Situation(dynamic, density) for density in timed]
    return found


class KindSeconds:
    """Seconds of what runs of a kind consist of.

    Between two densities, seconds are taken to be linear in the logarithm of the density. They grow more slowly than
    the density itself, as the sparse engine chooses other kernels where there are more weights.

    Args:
        found: what processes found of the kind; their means count.

    Attributes:
        build: seconds to make network, masks, engine and optimizer.
        save: seconds to write a checkpoint and the records of an epoch.
        checkpoint_bytes: size of the largest checkpoint.
        batch: images that the timed steps had, the fewest.
        timed: what was found in each situation.
    """

    def __init__(self, found: Sequence[KindTimes]) -> None:
        self.build = fmean(times.build for times in found)
        self.save = fmean(times.save for times in found)
        self.checkpoint_bytes = max(times.checkpoint_bytes for times in found)
        self.batch = min(times.batch for times in found)
        self.timed = {
            situation: PartSeconds(
                **{part: fmean(getattr(times.parts[situation], part) for times in found) for part in PARTS}
            )
            for situation in sorted(found[0].parts)
        }

    def at(self, situation: Situation) -> PartSeconds:
        """The parts in a situation; outside the densities that were timed, those of the nearest one."""
        known = {timed.density: parts for timed, parts in self.timed.items() if timed.dynamic == situation.dynamic}
        where, places = math.log(situation.density), np.log(list(known))

        values = {part: [getattr(parts, part) for parts in known.values()] for part in PARTS}
        return PartSeconds(**{part: float(np.interp(where, places, of_part)) for part, of_part in values.items()})

    def of(self, phases: Iterable[Phase]) -> float:
        """Seconds of a training, with an evaluation and a checkpoint after each epoch."""
        seconds = 0.0
        for phase in phases:
            parts = self.at(Situation(phase.dynamic, phase.density))
            seconds += phase.steps * parts.step
            seconds += phase.dense_gradients * parts.dense_gradients
            seconds += phase.updates * parts.update
            seconds += phase.epochs * (parts.evaluation + self.save)
        return seconds


def _size(info: DatasetInfo) -> tuple[object, ...]:
    return info.image_shape, info.train_images, info.test_images
