"""The plan: every run that a configuration asks for, and the tables that show them."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from east.config.axes import SCHEDULE_AXES, changed_recipe, leaves, path_of, short_digest, value_at, with_value
from east.config.choices import (
    CATALOGUE,
    FIXED,
    WIDTH,
    Choice,
    TopologySpec,
    chosen_name,
    entry_named,
    is_plugins,
)
from east.config.claims import claims_of, untestable
from east.config.conditions import Value
from east.config.datasets import images_of, lacks_its_folder
from east.config.effects import impossible_on_a_cpu, notes_of_execution, of_recipe, of_row, without_effect
from east.config.feasible import PlannedRow, can_normalise, impossible, impossible_density, notes_of
from east.config.files import read_config
from east.config.places import Location, Mistake
from east.config.published import published_values
from east.config.run import (
    CycleSpec,
    DatasetSpec,
    ImagesSpec,
    ModelSpec,
    PhasingSpec,
    Run,
    RunSpec,
    SparsitySpec,
    TrainingSpec,
    canonical_json,
)
from east.config.schema import Components, Config, Cyclic, Recipe, Row, TableConfig
from east.config.shorten import at_training_length
from east.config.tables import (
    ClaimSpec,
    Comparing,
    CostEntry,
    CostPlan,
    GridRow,
    GridTable,
    MethodRow,
    MethodsTable,
    RunReference,
    Summarising,
    Table,
)
from east.config.vocabulary import DatasetName, ModelName
from east.errors import EastError
from east.models.build import own_width
from east.registry import Entry
from east.sparse.kinds import network
from east.sparse.schedule import cycle_lengths, fit_cycle_length, phasing_bounds

METHODS_TABLE = "tablemethods"

STATIC = Row(static=True)
"""What a run that no row asks for has beside its recipe."""

PAPER_DENSITY = 0.0005
PAPER_WIDTH = 64
PAPER_TABLES: dict[str, tuple[ModelName, DatasetName]] = {
    "table2.csv": ("resnet34", "cifar10"),
    "table3.csv": ("resnet34", "cifar100"),
    "table4.csv": ("resnet50", "cifar10"),
    "table5.csv": ("resnet50", "cifar100"),
}
"""What the paper's tables were measured on: only rows of the same kind can be compared with them."""
PAPER_COST: tuple[ModelName, DatasetName] = ("resnet34", "cifar100")
"""What its Table 6 was measured on."""


@dataclass(frozen=True)
class Plan:
    """A configuration made explicit.

    Args:
        config: what it was made from.
        runs: every run once, in the order of the tables.
        tables: Tables 2-5, those of one's own, and the methods table, with references to the runs.
        notes: what is legal and may surprise, in sentences.
    """

    config: Config
    runs: tuple[Run, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()

    def run(self, run_id: str) -> Run:
        """The run with this id.

        Raises:
            EastError: the plan has no such run; the closest ids are named.
        """
        if run_id in self._runs_by_id:
            return self._runs_by_id[run_id]
        near = [run.id for run in self.runs if run.id.startswith(run_id.split("/")[0])][:3]
        hint = f", for example {', '.join(near)}" if near else ""
        raise EastError(f"'{run_id}' is not a run of this plan; `east plan` lists them{hint}.")

    @property
    def claims(self) -> tuple[ClaimSpec, ...]:
        """What is claimed of the tables."""
        return claims_of(self.config)

    def datasets(self) -> list[DatasetName]:
        """The names of the data sets that the runs need."""
        return sorted(self.images())

    def images(self) -> dict[DatasetName, ImagesSpec]:
        """Name of each data set that the runs need -> its images."""
        found = {run.spec.dataset.name: run.spec.dataset for run in self.runs}
        return {name: spec.images for name, spec in sorted(found.items())}

    @cached_property
    def _runs_by_id(self) -> dict[str, Run]:
        return {run.id: run for run in self.runs}


def load_plan(*configfiles: str | Path) -> list[Run]:
    """Every run of config.yaml with these overlays, in the order of the tables.

    Raises:
        EastError: a file is missing, or a key or value in it is wrong.
    """
    return list(make_plan(read_config(*configfiles)).runs)


def make_plan(config: Config) -> Plan:
    """Resolve a configuration into runs and tables.

    A run that two tables show is trained once, under the first table's name. What cannot run, or would be something
    else than it says, is refused here, so that whatever follows can rely on the plan.

    Raises:
        EastError: a line for each mistake, with the place where it is written.
    """
    config.sources.refuse(without_effect(config))
    made = _Made(config)
    grids = [_grid(made, name, table) for name, table in config.tables.items()]
    config.sources.refuse(mistake for claim in claims_of(config) for mistake in untestable(claim, grids))
    tables: list[Table] = [*grids, _methods(made)]
    if not made.runs:
        config.sources.refuse([Mistake(("tables",), "no table and no method asks for a run, so there is no plan.")])
    measured = method_specs(config, *_of_cost(config)).values()
    costs = (mistake for spec in measured for mistake in _impossible_cost(config, spec))
    of_rows = (mistake for row in made.rows for mistake in _mistakes(config, row))
    of_numerics = list[Mistake]()
    if config.execution.device == "cpu":
        problem = impossible_on_a_cpu(config, (*(row.spec for row in made.rows), *measured))
        of_numerics = [Mistake(("readings", "numerics"), problem)] if problem else []
    config.sources.refuse([*of_rows, *costs, *of_numerics])
    notes = (*notes_of_execution(config), *(note for row in made.rows for note in notes_of(row)))
    return Plan(config, tuple(made.runs.values()), tuple(tables), tuple(dict.fromkeys(notes)))


@dataclass
class _Made:
    """What of a plan is made.

    Attributes:
        config: what it is made from.
        runs: by fingerprint.
        rows: what was asked for, each with the keys that it comes from.
    """

    config: Config
    runs: dict[str, Run] = field(default_factory=dict)
    rows: list[PlannedRow] = field(default_factory=list)


def _mistakes(config: Config, row: PlannedRow) -> Iterator[Mistake]:
    yield from impossible(row)
    if config.readings.accuracy == "best_validation" and not row.spec.dataset.validation:
        sentence = (
            f"best_validation needs validation images, and datasets.{row.spec.dataset.name}.validation is 0. Hold some "
            "out, or set accuracy: final."
        )
        yield Mistake(("readings", "accuracy"), sentence)


def _impossible_cost(config: Config, spec: RunSpec) -> Iterator[Mistake]:
    if is_plugins(spec.model.name):
        yield Mistake(("cost", "model"), "Table 6 executes no plugin. Name one of the project's networks here.")
        return
    own = config.cost.density is not None
    location = ("cost", "density") if own else _density_key(config, config.cost.recipe)
    yield from impossible_density(spec, location)
    for device, images in config.cost.measured_batch.items():
        if not can_normalise(spec, images):
            sentence = (
                "batch norm cannot normalise the one number a channel that this network has of it. Take 2 images."
            )
            yield Mistake(("cost", "measured_batch", device), sentence)


def _density_key(config: Config, recipe: str) -> Location:
    """The key that sets the density of a recipe's runs."""
    return ("density",) if config.recipes[recipe].density is None else ("recipes", recipe, "density")


def _of_cost(config: Config) -> tuple[ModelName, DatasetName]:
    """The network and data set of Table 6."""
    return config.cost.model or config.recipes[config.cost.recipe].model, config.cost.dataset


def cost_plan(config: Config, model: str | None = None, dataset: str | None = None) -> CostPlan:
    """Table 6 of a configuration, for another network or data set where one is given.

    Raises:
        EastError: there is no such network or data set, or a network cannot have its density.
    """
    settings = config.cost
    own_model, own_dataset = _of_cost(config)
    chosen: Any = model or own_model
    data: Any = dataset or own_dataset
    options = (("--model", chosen_name(chosen), [one.name for one in network]), ("--dataset", data, config.datasets))
    for option, name, known in options:
        if name not in known:
            raise EastError(f"{option}: there is no '{name}'. Choose one of {', '.join(known)}.")
    specs = method_specs(config, chosen, data)
    config.sources.refuse(mistake for spec in specs.values() for mistake in _impossible_cost(config, spec))
    return CostPlan(
        model=chosen,
        dataset=data,
        published=settings.published,
        comparable={(chosen, data, spec.model.width) for spec in specs.values()} == {(*PAPER_COST, PAPER_WIDTH)},
        measured_steps=settings.measured_steps,
        measured_batch=settings.measured_batch,
        entries=tuple(
            CostEntry(method=name, measured_at_beta=config.methods.rows[name].measured_at_beta, spec=spec)
            for name, spec in specs.items()
        ),
    )


def method_specs(config: Config, model: ModelName, dataset: DatasetName) -> dict[str, RunSpec]:
    """What Table 6 counts and times: method name -> a training by that method, with the recipe of `cost`.

    Raises:
        EastError: a schedule does not fit its training.
    """
    name = config.cost.recipe
    recipe = config.recipes[name]
    width = recipe.width if model == recipe.model or _has_width(config, model) else None
    density = config.cost.density or recipe.density
    recipe = recipe.model_copy(update={"model": model, "width": width, "density": density})
    return {
        method: _spec(config, _of_method(config, method, recipe), dataset, ("recipes", name, "cyclic"))
        for method in config.methods.rows
    }


def _references(made: _Made, table: str, row: str, label: str, recipe: str, spec: RunSpec) -> tuple[RunReference, ...]:
    """A run of a row for each seed; all but the seed is in `spec`. A run that is known keeps the name that it has."""
    references = []
    for seed in made.config.seeds:
        of_seed = spec.model_copy(update={"seed": seed})
        run = Run(id=f"{table}/{row}/seed{seed}", table=table, row=row, label=label, recipe=recipe, spec=of_seed)
        fingerprint = run.fingerprint
        run = made.runs.setdefault(fingerprint, run)
        references.append(RunReference(id=run.id, seed=seed, fingerprint=fingerprint))
    return tuple(references)


def _grid(made: _Made, name: str, table: TableConfig) -> GridTable:
    config = made.config
    # As they are written: what a row changes is at the length that its recipe is written with.
    table, recipe = config.written.tables[name], config.written.recipes[table.recipe]
    model = table.model or recipe.model
    base = recipe.model_copy(
        update={"model": model, "width": _width_for(config, recipe, model), "components": table.components}
    )
    paths = _axes(config, name, table)
    rows: dict[str, GridRow] = {}
    combinations: dict[str, int] = {}
    for index, written in enumerate(table.rows):
        where = ("tables", name, "rows", index)
        for number, of_value in _at_each_value(config, where, table, written):
            row = at_training_length(config, of_value, where)
            changed = changed_recipe(base, row.changes, (*where, "changes"), config)
            if row.changes:
                if "width" not in row.changes:
                    changed = changed.model_copy(update={"width": _width_for(config, base, changed.model)})
                config.sources.refuse(of_recipe(config, changed, (*where, "changes")))
            changed = at_training_length(config, changed, (*where, "changes"))
            for cyclic in _schedules(config, where, changed, row):
                row_id = _row_id(row, cyclic)
                if row_id in rows:
                    config.sources.refuse([Mistake(where, f"two rows of {name} are '{row_id}'. Remove one of them.")])
                own = {key: getattr(row, key) for key in ("density", "distribution", "update_period")}
                set_here = {key: value for key, value in own.items() if value}
                followed = changed.model_copy(update={"cyclic": cyclic, **set_here})
                topology = row.topology or (config.readings.topology if cyclic else config.readings.static_topology)
                spec = _spec(config, followed, table.dataset, where, topology=topology, row=row)
                label = row.label or _default_label(written)
                density_key: Location = ("tables", name, "each", "density")
                if "density" not in table.each:
                    density_key = (*where, "density") if row.density else _density_key(config, table.recipe)
                made.rows.append(PlannedRow(spec, table.recipe, where, density_key))
                references = _references(made, name, row_id, label, table.recipe, spec)
                found = _grid_row(row, row_id, label, cyclic, spec.cycle, references)
                if paths:
                    on_axes = {axis: _on_axis(found, spec, axis, path) for axis, path in paths.items()}
                    found = found.model_copy(update={"values": on_axes, "printed": True})
                    _refuse_alike(config, where, found, rows.values())
                rows[row_id] = found
                combinations[row_id] = number
    if table.reference is not None:
        rows = _against(config, name, table.reference, rows, combinations)
    if table.source is not None or table.published is not None:
        rows = _beside(config, name, table, rows)
    density = recipe.density or config.density
    of_network = _width(config, model, base.width, ("tables", name))
    paper = (PAPER_WIDTH, PAPER_DENSITY, PAPER_TABLES.get(table.published or ""))
    return GridTable(
        id=name,
        title=table.title or ("Test accuracy" if paths else "Cyclic sparse training results"),
        model=model,
        width=of_network,
        dataset=table.dataset,
        density=density,
        axes=tuple(paths),
        reference=table.reference,
        source=table.source,
        published=None if table.source else table.published,
        comparable=table.source is not None
        or ((of_network, density, (model, table.dataset)) == paper and config.training_length == 1),
        summarising=_summarising(config),
        comparing=_comparing(config, table),
        rows=tuple(rows.values()),
    )


def _axes(config: Config, name: str, table: TableConfig) -> dict[str, tuple[str, ...]]:
    """A table's own axes, each with its place in a run."""
    found: dict[str, tuple[str, ...]] = {}
    for axis in dict.fromkeys((*table.axes, *table.each)):
        path = path_of(axis)
        if path is None:
            location = ("tables", name, *(("each", axis) if axis in table.each else ("axes", table.axes.index(axis))))
            sentence = (
                f"no run has the key '{axis}'. Write one of docs/results.md (runs.csv) without its section's name, "
                "such as density, topology.grow, optimizer, lr or model."
            )
            config.sources.refuse([Mistake(location, sentence)])
            continue
        found[axis] = path
    return found


def _at_each_value(config: Config, where: Location, table: TableConfig, row: Row) -> Iterator[tuple[int, Row]]:
    """A row at every combination of the values of `each`, with its number; the last key varies fastest."""
    context = {CATALOGUE: config.catalogue}
    for number, places in enumerate(itertools.product(*(range(len(values)) for values in table.each.values()))):
        made = row
        for key, place in zip(table.each, places, strict=True):
            try:
                made = with_value(made, key, table.each[key][place], context)
            except ValueError as error:
                sentence = f"{error} The row is '{row.label or _default_label(row)}'."
                config.sources.refuse([Mistake((*where[:2], "each", key, place), sentence)])
        if table.each:
            config.sources.refuse(of_row(config, made, where))
        yield number, made


def _on_axis(row: GridRow, spec: RunSpec, axis: str, path: tuple[str, ...]) -> Value:
    """What a row has on an axis: a schedule as it is printed, all else as it runs."""
    found: Value = getattr(row, axis) if axis in SCHEDULE_AXES else value_at(spec, path)
    return found


def _refuse_alike(config: Config, where: Location, row: GridRow, others: Iterable[GridRow]) -> None:
    """No two rows of a table with its own axes look the same."""
    if any((row.method, row.values) == (other.method, other.values) for other in others):
        shown = ", ".join(f"{axis} {value}" for axis, value in row.values.items())
        sentence = (
            f"another row is called '{row.method}' too and has the same on all axes ({shown}). Give one another label, "
            "or add the key that tells them apart to the axes."
        )
        config.sources.refuse([Mistake(where, sentence)])


def _against(
    config: Config, name: str, reference: str, rows: dict[str, GridRow], combinations: dict[str, int]
) -> dict[str, GridRow]:
    """The rows, each with the one of the reference's label that its change is measured against."""
    against = {combinations[row.id]: row.id for row in rows.values() if row.method == reference}
    if not against:
        labels = ", ".join(dict.fromkeys(row.method for row in rows.values()))
        sentence = f"there is no row '{reference}'; there are {labels}."
        config.sources.refuse([Mistake(("tables", name, "reference"), sentence)])
    return {
        row_id: row
        if row.method == reference
        else row.model_copy(update={"reference": against.get(combinations[row_id])})
        for row_id, row in rows.items()
    }


def _beside(config: Config, name: str, table: TableConfig, rows: dict[str, GridRow]) -> dict[str, GridRow]:
    """The rows with what a source of the table's own prints for them; the paper's numbers are read when runs are."""
    location: Location = ("tables", name, "published")
    own_axes = tuple(dict.fromkeys((*table.axes, *table.each)))
    if table.published is None:
        sentence = "a source goes with `published`, the CSV file of its numbers. Name the file, or leave it out."
        config.sources.refuse([Mistake((*location[:2], "source"), sentence)])
    elif table.published in PAPER_TABLES:
        if table.source is not None:
            sentence = f"{table.published} is the paper's. Name a file of your own in `published`, or leave this out."
            config.sources.refuse([Mistake((*location[:2], "source"), sentence)])
        if own_axes:
            sentence = "the paper's numbers have the columns of Tables 2–5. Leave it out, or name a file of your own."
            config.sources.refuse([Mistake(location, sentence)])
    elif table.source is None:
        sentence = f"say where {table.published} comes from: add `source`, with a name and a citation."
        config.sources.refuse([Mistake(location, sentence)])
    else:
        path = config.sources.folder(location) / Path(table.published).expanduser()
        try:
            printed = published_values(path, list(rows.values()), own_axes or SCHEDULE_AXES)
        except EastError as error:
            config.sources.refuse(Mistake(location, problem) for problem in str(error).split("\n"))
            raise
        return {row_id: row.model_copy(update={"published": printed.get(row_id)}) for row_id, row in rows.items()}
    return rows


def _comparing(config: Config, table: TableConfig) -> Comparing:
    """How a table is compared: what its source says of its numbers counts for it alone."""
    if table.source is None:
        return config.comparison
    own = {"published_seeds": table.source.seeds, "published_spread": table.source.spread}
    return config.comparison.model_copy(update={key: value for key, value in own.items() if value is not None})


def _default_label(row: Row) -> str:
    if row.density_schedule is not None:
        return f"{chosen_name(row.density_schedule).capitalize()} density"
    own = [*map(str, _own_rules(row.topology)), *([str(row.distribution)] if row.distribution else [])]
    own += [f"density {row.density:g}"] if row.density else []
    own += [_changed_text(key, value) for key, value in leaves(row.changes)]
    return ", ".join(["Static" if row.static else "Cyclic", *own])


def _changed_text(key: str, value: object) -> str:
    """A changed key of the recipe in words: a word says all, a number needs its key."""
    return value if isinstance(value, str) else f"{key} {value}"


def _own_rules(topology: str | TopologySpec | None) -> list[str | Choice]:
    """The rules that a row has for itself."""
    if not isinstance(topology, TopologySpec):
        return [topology] if topology else []
    rules = [(topology.drop, "magnitude"), (topology.grow, "gradient"), (topology.initial, "zero")]
    return [rule for rule, default in rules if rule != default]


def _schedules(config: Config, where: Location, recipe: Recipe, row: Row) -> Iterator[Cyclic | None]:
    """The cycles of each row that a row of the config stands for, the last key varying fastest; None without any."""
    if row.static or row.density_schedule is not None:
        yield None
        return
    if recipe.cyclic is None:
        sentence = "the recipe has no cyclic update period; add 'cyclic' to it in 'recipes'."
        config.sources.refuse([Mistake(where, sentence)])
        return
    for pattern, multiplier, cycles, growth in itertools.product(
        row.pattern, row.multiplier, row.cycles, row.length_multiplier
    ):
        yield Cyclic(
            pattern=pattern,
            multiplier=multiplier,
            cycles=cycles,
            length_multiplier=growth,
            cycle_length=row.cycle_length or recipe.cyclic.cycle_length,
            update_period=recipe.cyclic.update_period,
        )


def _grid_row(
    row: Row,
    row_id: str,
    label: str,
    cyclic: Cyclic | None,
    cycle: CycleSpec | None,
    references: tuple[RunReference, ...],
) -> GridRow:
    """A row as the paper prints it: the settings are those that are written, not those that fit.

    Its footnote says what a reader must know where the row that runs is not the row that is printed.
    """
    schedule: dict[str, Any] = {}
    notes = [row.footnote] if row.footnote else []
    if cyclic is not None:
        schedule = {
            "pattern": str(cyclic.pattern),
            "multiplier": cyclic.multiplier,
            "cycles": row.printed_cycles or cyclic.cycles,
            "length_multiplier": cyclic.length_multiplier if cyclic.cycles > 1 else None,
        }
        if schedule["cycles"] != cyclic.cycles:
            notes.append(f"printed with {row.printed_cycles} cycles, run with {cyclic.cycles}")
        if cycle is not None and cycle.cycle_length != cyclic.cycle_length:
            lengths = cycle_lengths(cycle.cycles, cycle.cycle_length, cycle.length_multiplier)
            notes.append(
                f"the cycles do not fit the training as printed; run with cycles of "
                f"{', '.join(f'{length:.1f}' for length in lengths)} epochs"
            )
    return GridRow(
        id=row_id,
        method=label,
        **schedule,
        footnote="; ".join(notes) or None,
        printed=row.is_printed,
        runs=references,
    )


def _methods(made: _Made) -> MethodsTable:
    config = made.config
    rows = [
        _method_row(made, method, name, _of_method(config, method, config.recipes[name]), dataset)
        for method in config.methods.rows
        for dataset, name in config.methods.recipes.items()
    ]
    rows += [
        _method_row(made, recipe.system, name, recipe, dataset)
        for name, recipe in ((name, config.recipes[name]) for name in config.methods.systems)
        for dataset in recipe.datasets
    ]
    config.sources.refuse(_twice(config, rows))
    return MethodsTable(
        id=METHODS_TABLE,
        title="Test accuracy of each method of Table 6 and each system of Table B.1",
        density=config.density,
        summarising=_summarising(config),
        rows=tuple(rows),
    )


def _twice(config: Config, rows: list[MethodRow]) -> Iterator[Mistake]:
    """Rows of the methods table whose runs would have one folder."""
    seen: dict[str, MethodRow] = {}
    for row in rows:
        other = seen.setdefault(row.id, row)
        if other is not row:
            of_method = row.method in config.methods.rows and row.recipe in config.methods.recipes.values()
            location: Location = ("methods", "rows", row.method) if of_method else ("recipes", row.recipe, "system")
            what = f"'{other.method}' of recipe {other.recipe} and '{row.method}' of recipe {row.recipe}"
            yield Mistake(location, f"{what} would both be '{row.id}' in the methods table. Rename one.")


def _of_method(config: Config, name: str, recipe: Recipe) -> Recipe:
    """The recipe as a method of Table 6 follows it."""
    method = config.methods.rows[name]
    if method.cyclic and recipe.cyclic is None:
        sentence = "its recipe has no cyclic schedule to use; add 'cyclic' to the recipe."
        config.sources.refuse([Mistake(("methods", "rows", name), sentence)])
    cyclic = recipe.cyclic if method.cyclic else None
    components = Components(**method.model_dump(include=set(Components.model_fields)))
    return recipe.model_copy(update={"components": components, "cyclic": cyclic})


def _method_row(made: _Made, method: str, recipe_name: str, recipe: Recipe, dataset: DatasetName) -> MethodRow:
    config = made.config
    of_network = _choice_id(recipe.model).replace("_", "-")
    row_id = "-".join((_slug(method), of_network, dataset.replace("_", "-")))
    note = None
    references: tuple[RunReference, ...] = ()
    if lacks_its_folder(config, dataset):
        note = f"not run: no image folder is configured (datasets.{dataset}.folder)"
    else:
        where = ("recipes", recipe_name, "cyclic")
        spec = _spec(config, recipe, dataset, where)
        made.rows.append(PlannedRow(spec, recipe_name, where, _density_key(config, recipe_name)))
        references = _references(made, METHODS_TABLE, row_id, method, recipe_name, spec)
    return MethodRow(
        id=row_id,
        method=method,
        model=recipe.model,
        width=_width(config, recipe.model, recipe.width, ("recipes", recipe_name, "width")),
        dataset=dataset,
        recipe=recipe_name,
        note=note,
        runs=references,
    )


def _spec(
    config: Config,
    recipe: Recipe,
    dataset: DatasetName,
    where: Location,
    *,
    topology: str | TopologySpec | None = None,
    row: Row = STATIC,
) -> RunSpec:
    """The run of a row with the first seed: everything that decides its numbers.

    Args:
        config: the configuration.
        recipe: the recipe, with what the row decides itself.
        dataset: data set.
        where: the key at fault where the cycles are wrong.
        topology: how the masks move, in place of the reading.
        row: what else makes the row another method than the recipe's, and whether its cycles may be shortened.
    """
    readings, epochs = config.readings, recipe.epochs
    drops, phasing = recipe.lr_drop_epochs, None
    if readings.lr_drops == "as_coded" and drops:
        drops = (epochs // 2, epochs * 3 // 4)
    if recipe.components.activation == "dyrelu":
        start, end = phasing_bounds(epochs)
        phasing = PhasingSpec(start=start, end=end, freeze=readings.phasing_freeze)
    sparsity = SparsitySpec(
        density=recipe.density or config.density,
        distribution=recipe.distribution,
        topology=topology or readings.topology,
        drop_fraction=_first(row.drop_fraction, readings.drop_fraction),
        drop_fraction_end=_first(row.drop_fraction_end, readings.drop_fraction_end),
        update_period=recipe.update_period,
        update_on_last_step=readings.update_on_last_step,
        update_until=row.update_until,
        exchange_when_resizing=row.exchange_when_resizing,
    )
    return RunSpec(
        seed=config.seeds[0],
        dataset=DatasetSpec(
            **dict(images_of(config, dataset)),
            augment_validation=readings.augment_validation,
            **config.datasets[dataset].model_dump(include=set(DatasetSpec.model_fields) - {"source"}),
        ),
        model=_network(config, recipe, where),
        sparsity=sparsity,
        cycle=recipe.cyclic and _cycle(config, recipe.cyclic, epochs, sparsity, where, row.fit),
        phasing=phasing,
        training=TrainingSpec(
            epochs=epochs,
            batch_size=recipe.batch_size,
            lr=recipe.lr,
            lr_drop_epochs=drops,
            lr_drop_factor=recipe.lr_drop_factor,
            optimizer=recipe.optimizer,
            weight_decay=recipe.weight_decay,
            gradient_clip=readings.gradient_clip if recipe.gradient_clip == "readings" else recipe.gradient_clip,
            numerics=readings.numerics,
            lr_schedule=recipe.lr_schedule,
            warmup_epochs=recipe.warmup_epochs,
        ),
        density_schedule=row.density_schedule,
    )


def _network(config: Config, recipe: Recipe, where: Location) -> ModelSpec:
    """The network of a recipe, of the width that it has there, with what is added to it."""
    width = _width(config, recipe.model, recipe.width, where)
    ordinary = _entry(config, recipe.model).facts.module
    return ModelSpec(name=recipe.model, width=width, ordinary=ordinary, **recipe.components.model_dump())


def _width(config: Config, model: str | Choice, width: int | None, where: Location) -> int | None:
    """The width of a network: as it is written, or its own; None if it has none."""
    if width is not None and not _has_width(config, model):
        sentence = f"network {chosen_name(model)} has no width, which the recipe sets. Set the recipe's width to null."
        config.sources.refuse([Mistake(where, sentence)])
    return own_width(_entry(config, model)) if width is None else width


def _width_for(config: Config, recipe: Recipe, model: str | Choice) -> int | None:
    """What of a recipe's width another network takes: one without any takes none."""
    return recipe.width if model == recipe.model or _has_width(config, model) else None


def _has_width(config: Config, model: str | Choice) -> bool:
    return any(one.name == WIDTH for one in _entry(config, model).parameters)


def _entry(config: Config, model: str | Choice) -> Entry:
    return entry_named(network, chosen_name(model), config.catalogue)


def _first(own: float | None, other: float) -> float:
    return other if own is None else own


def _cycle(config: Config, cyclic: Cyclic, epochs: int, sparsity: SparsitySpec, where: Location, fit: str) -> CycleSpec:
    """The cycles that run: those that are written, shortened where the row says so and they do not fit."""
    refuse, peak = config.sources.refuse, sparsity.density * cyclic.multiplier
    if sparsity.topology == FIXED:
        refuse([Mistake(where, "fixed masks cannot follow a cyclic density. Use another topology.")])
    if peak > 1:
        sentence = f"multiplier {cyclic.multiplier:g} makes the peak density {peak:g}, more than 1. Lower one of them."
        refuse([Mistake(where, sentence)])
    # One cycle has no length multiplier: whatever is written, it is one and the same run.
    growth, length = cyclic.length_multiplier if cyclic.cycles > 1 else 1.0, cyclic.cycle_length
    try:
        length = fit_cycle_length(epochs, cyclic.cycles, length, growth, rescale=fit == "rescale")
    except EastError as error:
        refuse([Mistake(where, str(error))])
    end = config.readings.cycle_end
    return CycleSpec(**cyclic.model_dump() | {"cycle_length": length, "length_multiplier": growth}, end=end)


def _summarising(config: Config) -> Summarising:
    return Summarising(accuracy=config.readings.accuracy, spread=config.readings.spread)


def _slug(method: str) -> str:
    """A method's name as part of a file name, in ASCII; in other scripts a digest tells names apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", method.lower()).strip("-")
    if slug and method.isascii():
        return slug
    digest = hashlib.sha256(method.encode()).hexdigest()[:8]
    return f"{slug}-{digest}" if slug else digest


def _row_id(row: Row, cyclic: Cyclic | None) -> str:
    parts = ["static" if row.density_schedule is None else _choice_id(row.density_schedule)]
    if cyclic is not None:
        parts = [_choice_id(cyclic.pattern), f"m{_number(cyclic.multiplier)}", f"n{cyclic.cycles}"]
        if cyclic.cycles > 1:
            parts.append(f"g{_number(cyclic.length_multiplier)}")
    if row.cycle_length is not None:
        parts.append(f"l{_number(row.cycle_length)}")
    parts += [_choice_id(rule) for rule in _own_rules(row.topology)]
    if row.distribution is not None:
        parts.append(_choice_id(row.distribution))
    numbers = {"d": row.density, "f": row.drop_fraction, "e": row.drop_fraction_end, "u": row.update_period}
    numbers["t"] = None if row.update_until == 1 else row.update_until
    parts += [f"{letter}{_number(value)}" for letter, value in numbers.items() if value is not None]
    if row.exchange_when_resizing:
        parts.append("exchange")
    parts += [_changed_id(key, value) for key, value in leaves(row.changes)]
    return "-".join(parts)


def _changed_id(key: str, value: object) -> str:
    """A changed key of the recipe as part of a file name."""
    name = _slug(key)
    if isinstance(value, str):
        return _slug(value)
    if isinstance(value, bool) or value is None:
        return name if value else f"no-{name}"
    return f"{name}{_number(value)}" if isinstance(value, int | float) else f"{name}.{short_digest(value)}"


def _choice_id(choice: str | Choice) -> str:
    """A choice as part of a file name; parameters are told apart by a digest, and a plugin's content is not.

    So a plugin that is corrected trains into the folder that it had.
    """
    if isinstance(choice, str):
        return choice
    if not choice.parameters:
        return choice.name
    written = canonical_json(dict(choice.parameters))
    return f"{choice.name}.{hashlib.sha256(written.encode()).hexdigest()[:6]}"


def _number(value: float) -> str:
    """A number as short exact text: 10, 2.5, 5e-4."""
    number = Decimal(str(value)).normalize()
    _, digits, exponent = number.as_tuple()
    if isinstance(exponent, int) and exponent < -2:
        return f"{''.join(map(str, digits))}e{exponent}"
    return f"{number:f}"
