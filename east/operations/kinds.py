"""Kinds of run, whose steps take equally long at equal density, and what a run does at each density."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from east.config import RunSpec
from east.data.catalog import DATASETS, DatasetInfo, steps_per_epoch
from east.sparse.schedule import Schedule
from east.sparse.timetable import Timetable


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
    return _work(Schedule.of(spec, steps_per_epoch(spec)), epochs_done)


@cache
def _work(schedule: Schedule, epochs_done: int) -> Work:
    """A schedule is the same for every seed, and often for several networks."""
    work = Work()
    for phase in Timetable(schedule).phases(epochs_done):
        moment = Moment(phase.dynamic, phase.density)
        work.steps[moment] += phase.steps
        work.dense_gradients[moment] += phase.dense_gradients
        work.updates[moment] += phase.updates
        work.epochs[moment] += phase.epochs
    return work


def densities(works: Iterable[Work]) -> dict[bool, tuple[float, float]]:
    """With DyReLU active and without: the lowest and the highest density at which there is anything to do."""
    found: dict[bool, set[float]] = {}
    for work in works:
        for moment, steps in work.steps.items():
            if steps:
                found.setdefault(moment.dynamic, set()).add(moment.density)
    return {dynamic: (min(values), max(values)) for dynamic, values in found.items()}


def _first_alike(name: str) -> str:
    """The first data set of the catalogue with as many images of the same size."""
    wanted = _size(DATASETS[name])
    return next(other for other, info in DATASETS.items() if _size(info) == wanted)


def _size(info: DatasetInfo) -> tuple[object, ...]:
    return info.image_shape, info.train_images, info.test_images
