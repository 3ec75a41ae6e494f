"""Kinds of run, whose steps take equally long at equal density, and what a run does at each density."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from east.config import RunSpec
from east.data.catalog import DATASETS, DatasetInfo
from east.sparse.phasing import phasing_beta
from east.sparse.timetable import MaskUpdate, Timetable


@dataclass(frozen=True)
class Moment:
    """What decides how long a step of a kind of run takes.

    Args:
        dynamic: whether DyReLU is active; False for networks without it.
        density: of the network.
    """

    dynamic: bool
    density: float


@dataclass(frozen=True)
class Work:
    """What a training does, counted at each moment.

    Args:
        steps: optimizer steps.
        dense_gradients: those of them that need the gradients of off weights as well.
        updates: changes of the masks.
        epochs: epochs that end there, each with an evaluation and a checkpoint.
    """

    steps: Counter[Moment] = field(default_factory=Counter)
    dense_gradients: Counter[Moment] = field(default_factory=Counter)
    updates: Counter[Moment] = field(default_factory=Counter)
    epochs: Counter[Moment] = field(default_factory=Counter)


def kind_of(spec: RunSpec) -> RunSpec:
    """A run with everything set alike that does not change how long its steps take at a given density.

    That is its seed, its schedule, numbers that are only multiplied by, and between data sets with the same number and
    size of images which of them it is: the number of classes changes the classifier alone.
    """
    clip = spec.training.gradient_clip
    sparsity = spec.sparsity
    average_drop = (sparsity.drop_fraction + sparsity.drop_fraction_end) / 2
    return spec.model_copy(
        update={
            "seed": 0,
            "dataset": spec.dataset.model_copy(
                update={"name": _first_alike(spec.dataset.name), "padding": "zero", "validation_choice": "last"}
            ),
            "sparsity": sparsity.model_copy(
                update={
                    "density": 1.0,
                    "drop_fraction": average_drop,
                    "drop_fraction_end": average_drop,
                    "update_period": 1,
                    "update_on_last_step": True,
                }
            ),
            "cycle": None,
            "phasing": None,
            "training": spec.training.model_copy(
                update={
                    "epochs": 1,
                    "lr": 1.0,
                    "lr_drop_epochs": (),
                    "lr_drop_factor": 1.0,
                    "weight_decay": 0.0,
                    "gradient_clip": None if clip is None else clip.model_copy(update={"norm": 1.0}),
                }
            ),
        }
    )


def describe_kind(kind: RunSpec) -> str:
    """A kind in a few words, for people."""
    model = kind.model
    parts = [
        "DCT" if model.dct else "",
        "DyReLU" if model.activation == "dyrelu" else "",
        f"sharing {model.sharing_ratio}" if model.sharing_ratio else "",
    ]
    _, height, width = DATASETS[kind.dataset.name].image_shape
    added = "".join(f" + {part}" for part in parts if part)
    return f"{model.name} of width {model.width}{added}, {kind.training.batch_size} images of {height} x {width}"


def remaining_work(spec: RunSpec, epochs_done: int = 0) -> Work:
    """What is left of a training after some of its epochs."""
    # A schedule is the same for every seed, and often for several networks.
    unseeded = spec.model_copy(update={"seed": 0, "model": spec.model.model_copy(update={"dct": False, "width": 1})})
    return _remaining_work(unseeded, epochs_done)


@cache
def _remaining_work(spec: RunSpec, epochs_done: int) -> Work:
    from east.sparse.topology import TOPOLOGIES
    from east.training.describe import steps_per_epoch
    from east.training.sparsity import make_timetable

    steps = steps_per_epoch(spec)
    timetable = make_timetable(spec, steps)
    rule = TOPOLOGIES[spec.sparsity.topology]
    updates = iter(_updates(spec, timetable) if rule.grow is not None else ())
    update = next(updates, None)
    density = timetable.scheduled_density(0)
    work = Work()
    for epoch in range(1, spec.training.epochs + 1):
        counted = work if epoch > epochs_done else Work()
        dynamic = spec.phasing is not None and phasing_beta(epoch, spec.phasing.start, spec.phasing.end) > 0
        position, end = (epoch - 1) * steps, epoch * steps
        while update is not None and update.step <= end:
            before = Moment(dynamic, density)
            counted.steps[before] += update.step - position
            counted.updates[before] += 1
            grows = update.density > density or update.kind == "exchange"
            if rule.needs_gradient and grows:
                counted.dense_gradients[before] += 1
            position, density = update.step, update.density
            update = next(updates, None)
        counted.steps[Moment(dynamic, density)] += end - position
        counted.epochs[Moment(dynamic, density)] += 1
    return work


def densities(works: Iterable[Work]) -> dict[bool, tuple[float, float]]:
    """With DyReLU active and without: the lowest and the highest density at which there is anything to do."""
    found: dict[bool, set[float]] = {}
    for work in works:
        for moment, steps in work.steps.items():
            if steps:
                found.setdefault(moment.dynamic, set()).add(moment.density)
    return {dynamic: (min(values), max(values)) for dynamic, values in found.items()}


def _updates(spec: RunSpec, timetable: Timetable) -> Iterable[MaskUpdate]:
    """The mask updates of a timetable in order, found without asking about every step: few steps can have one."""
    periods = [spec.sparsity.update_period] + ([spec.cycle.update_period] if spec.cycle else [])
    steps = {step for period in periods for step in range(period, timetable.total_steps + 1, period)}
    for step in sorted(steps | {timetable.cycle_end_step} - {0}):
        update = timetable.update_at(step)
        if update is not None:
            yield update


def _first_alike(name: str) -> str:
    """The first data set of the catalogue with as many images of the same size."""
    wanted = _size(DATASETS[name])
    return next(other for other, info in DATASETS.items() if _size(info) == wanted)


def _size(info: DatasetInfo) -> tuple[object, ...]:
    return info.image_shape, info.train_images, info.test_images
