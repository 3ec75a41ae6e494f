"""Whether a run can be trained as it is described: its data, its network and its schedule against each other.

By counting alone, so that the plan, the dry run and the doctor say at once what a training would find out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from east.config.choices import FIXED, is_plugins
from east.config.places import Location, Mistake
from east.config.run import RunSpec, stand_in
from east.data.catalog import info_of, steps_per_epoch
from east.errors import EastError
from east.models.build import description_of
from east.models.description import Description, NetworkSize
from east.sparse.distribution import budget
from east.sparse.schedule import Schedule


@dataclass(frozen=True)
class PlannedRow:
    """Runs of a plan that differ in their seed alone, and the keys that they came from.

    Attributes:
        spec: the run with the first seed.
        recipe: name of its recipe.
        row: the key that asks for it.
        density: the key that sets its density.
    """

    spec: RunSpec
    recipe: str
    row: Location
    density: Location


def impossible(planned: PlannedRow) -> Iterator[Mistake]:
    """Why these runs cannot be trained, or would be other runs than the configuration says."""
    network_mistakes = list(_of_network(planned))
    yield from network_mistakes
    if network_mistakes:
        return
    data_mistakes = list(_of_data(planned))
    yield from data_mistakes
    yield from impossible_density(planned.spec, planned.density)
    if not data_mistakes:  # otherwise no number of steps is known
        # What a plugin gives is seen when it is trained.
        schedule = Schedule.of(stand_in(planned.spec), steps_per_epoch(planned.spec))
        mistakes = list(_of_density_schedule(planned, schedule))
        yield from mistakes or _of_exchanges(planned, schedule)
        yield from _of_cycles(planned, schedule)


def impossible_density(spec: RunSpec, location: Location) -> Iterator[Mistake]:
    """Why a run's network cannot have its density. Of a plugin's network that is found out when it is trained."""
    if is_plugins(spec.model.name):
        return
    size = size_of(spec)
    target, least = budget(spec.sparsity.density, size.dense_weights), len(size.shapes)
    if target < least:
        sentence = (
            f"{spec.sparsity.density:g} of the {size.dense_weights:,} weights of {_network(spec)} are {target} "
            f"non-zeros, fewer than one for each of its {least} tensors. Choose at least "
            f"{_rounded_up(least / size.dense_weights)}."
        )
        yield Mistake(location, sentence)
    peak = spec.sparsity.density * (spec.cycle.multiplier if spec.cycle else 1.0)
    if budget(peak, size.dense_weights) > size.stored_weights:
        what = "the peak density" if spec.cycle else "density"
        sentence = (
            f"{what} {peak:g} asks for {budget(peak, size.dense_weights):,} non-zeros, but with weight sharing "
            f"{_network(spec)} stores {size.stored_weights:,} weights. Choose at most "
            f"{size.stored_weights / size.dense_weights:.3g}."
        )
        yield Mistake(location, sentence)


def can_normalise(spec: RunSpec, images: int) -> bool:
    """Whether batch norm has more than one number a channel in every layer, for a batch of so many images.

    Of a plugin's network that is found out when it is trained.
    """
    return is_plugins(spec.model.name) or images * planned_network(spec).fewest_positions > 1


def notes_of(planned: PlannedRow) -> Iterator[str]:
    """What is legal in a run and may surprise."""
    spec, phasing = planned.spec, planned.spec.phasing
    schedule = Schedule.of(stand_in(spec), steps_per_epoch(spec))
    if phasing is not None and schedule.beta(1) == 0:
        yield (
            f"recipes.{planned.recipe}: DyReLU fades from epoch {phasing.start:g} to {phasing.end:g}, so in "
            f"{spec.training.epochs} epochs it is ReLU from the first on."
        )
    elif phasing is not None and phasing.freeze and not phasing.start.is_integer():
        yield (
            f"recipes.{planned.recipe}: readings.phasing_freeze freezes nothing, because the fade starts within an "
            f"epoch ({phasing.start:g})."
        )
    if spec.sparsity.topology != FIXED and spec.sparsity.drop_fraction == 0 and spec.density_schedule is None:
        yield "readings.drop_fraction: 0 means that no weight is ever exchanged."
    if spec.model.ordinary:
        yield (
            f"network {spec.model.name} is an ordinary nn.Module: PyTorch executes it with all its weights, on every "
            "device, and nothing is known of its live channels."
        )
    if is_plugins(spec.model.name):
        yield (
            f"network {spec.model.name} is a plugin's: its density is checked when it is trained, and until then work "
            "and files are counted as those of a ResNet-34."
        )


def size_of(spec: RunSpec) -> NetworkSize:
    """What a run's network stores."""
    return planned_network(spec).size(dct=spec.model.dct)


def planned_network(spec: RunSpec) -> Description:
    """A run's network for the images of its data set.

    Raises:
        EastError: there is none for such images, or it shares no weight.
    """
    info, model = info_of(spec.dataset), spec.model
    return description_of(
        model.name, info.num_classes, info.image_shape, width=model.width, sharing_ratio=model.sharing_ratio
    )


def _of_network(planned: PlannedRow) -> Iterator[Mistake]:
    """A network must be one for the images, and take what is added to it."""
    model = planned.spec.model
    if is_plugins(model.name):
        added = {"activation": model.activation != "relu", "sharing_ratio": model.sharing_ratio, "dct": model.dct}
        if model.ordinary and any(added.values()):
            names = " and ".join(name for name, is_set in added.items() if is_set)
            sentence = f"{model.name} is an ordinary nn.Module, to which {names} cannot be added. Leave it out."
            yield Mistake(planned.row, sentence)
        return
    try:
        planned_network(planned.spec)
    except EastError as error:
        yield Mistake(planned.row, f"{model} on {planned.spec.dataset.name}: {error}")


def _of_data(planned: PlannedRow) -> Iterator[Mistake]:
    spec, info = planned.spec, info_of(planned.spec.dataset)
    data, described = spec.dataset, ("datasets", spec.dataset.name)
    if data.validation >= info.train_images:
        sentence = f"{data.validation:,} images cannot be held out of {info.train_images:,}. Lower it."
        yield Mistake((*described, "validation"), sentence)
        return
    if info.by_class and data.validation and data.validation_choice == "last":
        sentence = f"{info.label} is stored class by class, so 'last' would hold out whole classes. Use shuffled."
        yield Mistake((*described, "validation_choice"), sentence)
    shortest = min(info.image_shape[1:])
    if data.margin >= shortest:
        sentence = (
            f"a border of {data.margin} pixels does not go with images of {info.image_shape[1]} x "
            f"{info.image_shape[2]}. Choose at most {shortest - 1}."
        )
        yield Mistake((*described, "margin"), sentence)
    batch, images = spec.training.batch_size, info.train_images - data.validation
    if batch > images:
        sentence = f"a batch of {batch:,} is more than the {images:,} images to train on. Lower it."
        yield Mistake(("recipes", planned.recipe, "batch_size"), sentence)
    if not can_normalise(spec, images % batch or batch):
        sentence = (
            f"the last batch of an epoch would be a single image, of which {_network(spec)} sees a single position at "
            f"last, and batch norm cannot normalise one number. Choose another size, or another "
            f"datasets.{data.name}.validation."
        )
        yield Mistake(("recipes", planned.recipe, "batch_size"), sentence)


def _of_exchanges(planned: PlannedRow, schedule: Schedule) -> Iterator[Mistake]:
    sparsity, total = planned.spec.sparsity, schedule.total_steps
    last = min(schedule.exploring_steps, total if sparsity.update_on_last_step else total - 1)
    if planned.spec.density_schedule is None and sparsity.topology != FIXED and sparsity.update_period > last:
        sentence = (
            f"a training of {total:,} steps on {planned.spec.dataset.name} has no update every "
            f"{sparsity.update_period:,} steps, so no weight would ever be exchanged. Choose at most {last:,}, or "
            "topology: fixed."
        )
        yield Mistake(("recipes", planned.recipe, "update_period"), sentence)


def _of_density_schedule(planned: PlannedRow, schedule: Schedule) -> Iterator[Mistake]:
    """A density schedule must end at the target, in time for the last mask update, and fit the network."""
    spec, chosen = planned.spec, schedule.density_schedule
    if chosen is None:
        return
    location: Location = (*planned.row, "density_schedule")
    last = schedule.total_steps - (not spec.sparsity.update_on_last_step)
    if schedule.resizing_end_step > last:
        sentence = (
            f"the last mask update before step {last:,} leaves another density than the target, "
            f"{spec.sparsity.density:g}. Let the schedule end earlier, or shorten update_period."
        )
        yield Mistake(location, sentence)
        return
    if is_plugins(spec.model.name):
        return
    size = size_of(spec)
    if budget(schedule.peak_density, size.dense_weights) > size.stored_weights:
        sentence = (
            f"density {schedule.peak_density:g} asks for more non-zeros than the {size.stored_weights:,} weights that "
            f"{_network(spec)} stores with weight sharing. Choose at most "
            f"{size.stored_weights / size.dense_weights:.3g}."
        )
        yield Mistake(location, sentence)


def _of_cycles(planned: PlannedRow, schedule: Schedule) -> Iterator[Mistake]:
    """Each cycle must have a mask update that finds another number of non-zeros than the target's."""
    cyclic = schedule.cyclic_density
    if cyclic is None or (planned.spec.cycle and is_plugins(planned.spec.cycle.pattern)):
        return
    if is_plugins(planned.spec.model.name):
        return
    cycle, weights, per_epoch = cyclic.cycle, size_of(planned.spec).dense_weights, schedule.steps_per_epoch
    period = cycle.update_period
    target, begin = budget(planned.spec.sparsity.density, weights), 0.0
    last = schedule.cycle_end_step - (cycle.end == "target")
    for number, length in enumerate(cyclic.lengths, start=1):
        # The density is highest in the middle, so that the updates on either side of it tell.
        middle, end = (begin + length / 2) * per_epoch + 1, (begin + length) * per_epoch + 1
        around = (math.floor(middle / period) * period, math.ceil(middle / period) * period)
        inside = [step for step in around if begin * per_epoch + 1 <= step < end and step <= last]
        if not any(budget(schedule.cycle_density(step), weights) != target for step in inside):
            why = (
                "its peak is no weight more than the target"
                if budget(schedule.peak_density, weights) == target
                else f"it has {length * per_epoch:,.4g} steps, and masks follow it only every {period:,} steps"
            )
            sentence = (
                f"the density never changes in cycle {number} of {cycle.cycles}: {why}. Make cycles longer or higher, "
                f"or recipes.{planned.recipe}.cyclic.update_period shorter."
            )
            yield Mistake(planned.row, sentence)
            return
        begin += length


def _network(spec: RunSpec) -> str:
    return str(spec.model)


def _rounded_up(density: float) -> str:
    """Three digits that are no less than a density."""
    unit = 10.0 ** (math.floor(math.log10(density)) - 2)
    return f"{math.ceil(density / unit) * unit:.3g}"
