"""Keys of a configuration that would have no effect, or another than they say: refused, or told as a note."""

from collections.abc import Iterable, Iterator

from east.config.choices import FIXED, Choice, chosen_name, is_plugins
from east.config.datasets import without_effect_on_images
from east.config.places import Location, Mistake
from east.config.run import RunSpec
from east.config.schema import Config, Recipe, Row
from east.models.build import description_of

MOST_UNSHARED = 3
"""Blocks that a stage must have, so that one of them can share the weights of the second."""


def without_effect(config: Config) -> Iterator[Mistake]:
    """Keys that can be refused from the configuration alone, whatever runs follow."""
    readings = config.readings
    if readings.drop_fraction_end > readings.drop_fraction:
        sentence = (
            f"{readings.drop_fraction_end:g} is above readings.drop_fraction ({readings.drop_fraction:g}), so the "
            "fraction would rise. Give it at most that value."
        )
        yield Mistake(("readings", "drop_fraction_end"), sentence)
    yield from without_effect_on_images(config)
    for name, recipe in config.recipes.items():
        yield from of_recipe(config, recipe, ("recipes", name))
    for name, table in config.tables.items():
        for index, row in enumerate(table.rows):
            yield from of_row(config, row, ("tables", name, "rows", index))
        model = table.model or config.recipes[table.recipe].model
        yield from _of_sharing([model], table.components.sharing_ratio, "tables", name, "components")
    for name, method in config.methods.rows.items():
        recipes = {config.cost.recipe, *config.methods.recipes.values()}
        models = [config.recipes[recipe].model for recipe in sorted(recipes)]
        yield from _of_sharing(models, method.sharing_ratio, "methods", "rows", name)
        if method.measured_at_beta == 0 and method.activation != "dyrelu":
            sentence = "the method has no DyReLU to fade out. Leave it out, or set activation: dyrelu."
            yield Mistake(("methods", "rows", name, "measured_at_beta"), sentence)


def of_row(config: Config, row: Row, location: Location) -> Iterator[Mistake]:
    """Keys of a row that its masks, or its density, make nothing of."""
    is_cyclic = not row.static and row.density_schedule is None
    topology = row.topology or (config.readings.topology if is_cyclic else config.readings.static_topology)
    if topology == FIXED:
        of_updates = ("drop_fraction", "drop_fraction_end", "update_period", "update_until", "density_schedule")
        for key in (*of_updates, "exchange_when_resizing"):
            if key in row.model_fields_set:
                yield Mistake((*location, key), f"masks never change with topology: {FIXED}. Leave it out.")
        return
    if row.static and row.exchange_when_resizing:
        sentence = "the density of a static row never changes. Leave it out."
        yield Mistake((*location, "exchange_when_resizing"), sentence)
    start = config.readings.drop_fraction if row.drop_fraction is None else row.drop_fraction
    end = config.readings.drop_fraction_end if row.drop_fraction_end is None else row.drop_fraction_end
    if end > start and ("drop_fraction" in row.model_fields_set or "drop_fraction_end" in row.model_fields_set):
        sentence = f"the drop fraction would rise from {start:g} to {end:g}. Set both, the second at most the first."
        yield Mistake((*location, "drop_fraction"), sentence)


def of_recipe(config: Config, recipe: Recipe, location: Location) -> Iterator[Mistake]:
    """Keys of a recipe that others make nothing of; a row may change it, and then stands at the location."""
    yield from _of_optimizer(recipe, (*location, "optimizer"))
    yield from _of_rates(recipe, location, as_coded=config.readings.lr_drops == "as_coded")
    yield from _of_sharing([recipe.model], recipe.components.sharing_ratio, *location, "components")


def impossible_on_a_cpu(config: Config, specs: Iterable[RunSpec]) -> str:
    """Why a CPU cannot compute these runs in the plan's numerics; empty if it can."""
    if config.readings.numerics != "bf16":
        return ""
    if config.execution.engine == "dense":
        why = "execution.engine is dense. Set that to auto"
    elif any(spec.model.dct or spec.model.ordinary for spec in specs):
        why = "it executes neither DCT layers nor ordinary modules. Leave out the rows and methods that have them"
    else:
        return ""
    return f"on a CPU bf16 is what the sparse engine keeps activations in, and {why}, or set it to tf32 or fp32."


def notes_of_execution(config: Config) -> Iterator[str]:
    """What is legal in `execution` and does nothing there."""
    execution = config.execution
    if execution.device == "cpu" and execution.step in ("captured", "compiled"):
        yield f"execution.step: {execution.step} needs a GPU; on the CPU every step is eager."
    if execution.device == "cpu" and execution.runs_per_gpu > 1:
        yield f"execution.runs_per_gpu: {execution.runs_per_gpu} has no effect on the CPU."


def _of_optimizer(recipe: Recipe, location: Location) -> Iterator[Mistake]:
    optimizer = recipe.optimizer
    if optimizer.name != "sgd" and (optimizer.momentum or optimizer.nesterov):
        given = {"momentum: 0": optimizer.momentum, "nesterov: false": optimizer.nesterov}
        remedy = " and ".join(text for text, is_set in given.items() if is_set)
        sentence = f"{optimizer.name} has no momentum of SGD and no Nesterov; they would be ignored. Set {remedy}."
        yield Mistake(location, sentence)
    elif optimizer.nesterov and not optimizer.momentum:
        yield Mistake((*location, "nesterov"), "Nesterov needs a momentum above 0. Set one, or nesterov: false.")


def _of_rates(recipe: Recipe, place: Location, *, as_coded: bool) -> Iterator[Mistake]:
    drops, epochs, location = recipe.lr_drop_epochs, recipe.epochs, (*place, "lr_drop_epochs")
    if recipe.warmup_epochs >= epochs:
        sentence = f"a warm-up of {recipe.warmup_epochs:g} epochs leaves nothing of {epochs}. Shorten it."
        yield Mistake((*place, "warmup_epochs"), sentence)
    if recipe.lr_schedule is not None:
        chosen = chosen_name(recipe.lr_schedule)
        if chosen == "drops":
            sentence = "drops are what lr_drop_epochs and lr_drop_factor say. Leave lr_schedule out, or set it to null."
            yield Mistake((*place, "lr_schedule"), sentence)
        elif drops:
            sentence = (
                f"lr_schedule: {chosen} takes the place of drops, which would be ignored. Set lr_drop_epochs: []."
            )
            yield Mistake(location, sentence)
    if as_coded and drops:
        if epochs < 3:
            sentence = (
                f"{epochs} epochs are too few for the drops at 1/2 and 3/4 of the training that readings.lr_drops: "
                "as_coded asks for. Train for at least 3, or set lr_drop_epochs: []."
            )
            yield Mistake((*place, "epochs"), sentence)
    elif late := [drop for drop in drops if drop >= epochs]:
        sentence = f"no epoch follows epoch {late[0]} of a training of {epochs}, so the rate would not drop there. "
        yield Mistake(location, f"{sentence}Name epochs before the last, or none.")
    elif list(drops) != sorted(set(drops)):
        yield Mistake(location, f"{list(drops)} must rise, and name each epoch once.")
    if recipe.lr_drop_factor == 1 and drops:
        sentence = "at a factor of 1 the rate never drops. Set lr_drop_epochs: [] in its place."
        yield Mistake((*place, "lr_drop_factor"), sentence)
    if not drops and "lr_drop_factor" in recipe.model_fields_set:
        sentence = "the rate never drops (lr_drop_epochs is empty). Leave the factor out, or name epochs."
        yield Mistake((*place, "lr_drop_factor"), sentence)


def _of_sharing(models: list[str | Choice], ratio: int | None, *location: str | int) -> Iterator[Mistake]:
    if ratio is None or any(is_plugins(model) for model in models):
        return
    most = max(description_of(model, num_classes=2).repeats for model in models)
    if ratio >= most:
        sentence = (
            f"no stage has more than {most} blocks, so with {ratio} that own weights none is shared. Choose at "
            f"most {most - 1}, or null for no sharing."
        )
        if most < MOST_UNSHARED:
            sentence = "the network repeats no block, so that no weight can be shared. Leave it out, or set it to null."
        yield Mistake((*location, "sharing_ratio"), sentence)
