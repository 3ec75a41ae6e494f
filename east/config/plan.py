"""The plan: every run that a configuration asks for, and the tables that show them."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from east.config.files import read_config
from east.config.run import (
    CycleSpec,
    DatasetName,
    ModelName,
    ModelSpec,
    Pattern,
    PhasingSpec,
    Run,
    RunSpec,
    SparsitySpec,
    TrainingSpec,
)
from east.config.schema import Components, Config, Cyclic, Method, Recipe, Row, TableConfig
from east.config.tables import GridRow, GridTable, MethodRow, MethodsTable, RunReference, Summarising, Table
from east.errors import EastError
from east.sparse.schedule import fit_cycle_length, phasing_bounds

METHODS_TABLE = "tablemethods"

PAPER_DENSITY = 0.0005
PAPER_WIDTH = 64
PAPER_TABLES: dict[str, tuple[ModelName, DatasetName]] = {
    "table2.csv": ("resnet34", "cifar10"),
    "table3.csv": ("resnet34", "cifar100"),
    "table4.csv": ("resnet50", "cifar10"),
    "table5.csv": ("resnet50", "cifar100"),
}
"""What the paper's tables were measured on: only rows of the same kind can be compared with them."""


@dataclass(frozen=True)
class Plan:
    """A configuration made explicit.

    Args:
        config: what it was made from.
        runs: every run once, in the order of the tables.
        tables: Tables 2-5 and the methods table, with references to the runs.
    """

    config: Config
    runs: tuple[Run, ...]
    tables: tuple[Table, ...]

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

    def datasets(self) -> list[DatasetName]:
        """The data sets that the runs need."""
        return sorted({run.spec.dataset.name for run in self.runs})

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

    A run that two tables show is trained once, under the first table's name.

    Raises:
        EastError: a schedule does not fit its training, or two rows have the same settings.
    """
    builder = _Builder(config)
    tables: list[Table] = [builder.grid(name, table) for name, table in config.tables.items()]
    tables.append(builder.methods())
    return Plan(config, tuple(builder.runs.values()), tuple(tables))


def method_specs(config: Config, model: ModelName, dataset: DatasetName) -> dict[str, RunSpec]:
    """What Table 6 counts and times: method name -> a training by that method, with the recipe of `cost`.

    Args:
        config: the configuration.
        model: network, in place of the recipe's.
        dataset: data set that gives image size and number of classes.

    Raises:
        EastError: a schedule does not fit its training.
    """
    recipe = config.recipes[config.cost.recipe].model_copy(update={"density": config.cost.density})
    return {
        name: _Builder(config).method_spec(name, recipe, model, dataset, method, config.seeds[0])
        for name, method in config.methods.rows.items()
    }


class _Builder:
    """Collects runs by fingerprint while it makes the tables."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.runs: dict[str, Run] = {}

    def grid(self, name: str, table: TableConfig) -> GridTable:
        recipe = self.config.recipes[table.recipe]
        model = table.model or recipe.model
        rows: dict[str, GridRow] = {}
        for index, row in enumerate(table.rows):
            for settings in _settings(row):
                where = f"tables.{name}.rows.{index}"
                cycle = self._row_cycle(where, recipe, row, settings)
                row_id = _row_id(row, settings)
                if row_id in rows:
                    raise EastError(f"{where}: two rows of {name} are '{row_id}'. Remove one of them.")
                references = self._references(
                    table=name,
                    row=row_id,
                    label=row.label or ("Static" if row.static else "Cyclic"),
                    recipe_name=table.recipe,
                    model=model,
                    dataset=table.dataset,
                    components=table.components,
                    cycle=cycle,
                    row_config=row,
                )
                wanted = row.cycle_length or (recipe.cyclic.cycle_length if recipe.cyclic else 0.0)
                rows[row_id] = _grid_row(row, row_id, settings, cycle, wanted, references)
        return GridTable(
            id=name,
            title=table.title or "Cyclic sparse training results",
            model=model,
            width=recipe.width,
            dataset=table.dataset,
            density=self._density(recipe),
            published=table.published,
            comparable=self._comparable(table, recipe, model),
            summarising=self._summarising(),
            comparing=self.config.comparison,
            rows=tuple(rows.values()),
        )

    def methods(self) -> MethodsTable:
        rows: list[MethodRow] = []
        for name, method in self.config.methods.rows.items():
            for dataset, recipe_name in self.config.methods.recipes.items():
                recipe = self.config.recipes[recipe_name]
                cyclic = self._method_cyclic(name, method, recipe)
                rows.append(self._method_row(name, recipe_name, dataset, method.components(), cyclic))
        for system in self.config.methods.systems:
            recipe = self.config.recipes[system]
            rows += [
                self._method_row(recipe.system, system, dataset, recipe.components, recipe.cyclic)
                for dataset in recipe.datasets
            ]
        return MethodsTable(
            id=METHODS_TABLE,
            title="Test accuracy of each method of Table 6 and each system of Table B.1",
            density=self.config.density,
            summarising=self._summarising(),
            rows=tuple(rows),
        )

    def method_spec(
        self, name: str, recipe: Recipe, model: ModelName, dataset: DatasetName, method: Method, seed: int
    ) -> RunSpec:
        cyclic = self._method_cyclic(name, method, recipe)
        cycle = None if cyclic is None else self._cycle(f"methods.rows.{name}", recipe, cyclic, self._method_settings())
        return self._spec(recipe, model, dataset, method.components(), cycle, self._method_settings(), seed)

    def _method_cyclic(self, name: str, method: Method, recipe: Recipe) -> Cyclic | None:
        if method.cyclic and recipe.cyclic is None:
            raise EastError(
                f"methods.rows.{name}: its recipe has no cyclic schedule to use; add 'cyclic' to the recipe."
            )
        return recipe.cyclic if method.cyclic else None

    def _method_settings(self) -> Row:
        return Row(static=True, topology=self.config.readings.topology)

    def _method_row(
        self, name: str, recipe_name: str, dataset: DatasetName, components: Components, cyclic: Cyclic | None
    ) -> MethodRow:
        recipe = self.config.recipes[recipe_name]
        row_id = "-".join((_slug(name), recipe.model.replace("_", "-"), dataset.replace("_", "-")))
        note = None
        references: tuple[RunReference, ...] = ()
        if dataset == "imagenet" and self.config.datasets[dataset].folder is None:
            note = "not run: no image folder is configured (datasets.imagenet.folder)"
        else:
            where = f"recipes.{recipe_name}.cyclic"
            references = self._references(
                table=METHODS_TABLE,
                row=row_id,
                label=name,
                recipe_name=recipe_name,
                model=recipe.model,
                dataset=dataset,
                components=components,
                cycle=None if cyclic is None else self._cycle(where, recipe, cyclic, self._method_settings()),
                row_config=self._method_settings(),
            )
        return MethodRow(
            id=row_id,
            method=name,
            model=recipe.model,
            width=recipe.width,
            dataset=dataset,
            recipe=recipe_name,
            note=note,
            runs=references,
        )

    def _references(
        self,
        *,
        table: str,
        row: str,
        label: str,
        recipe_name: str,
        model: ModelName,
        dataset: DatasetName,
        components: Components,
        cycle: CycleSpec | None,
        row_config: Row,
    ) -> tuple[RunReference, ...]:
        recipe, seeds = self.config.recipes[recipe_name], self.config.seeds
        first = self._spec(recipe, model, dataset, components, cycle, row_config, seeds[0])
        references = []
        for seed in seeds:
            spec = first.model_copy(update={"seed": seed})
            run = Run(id=f"{table}/{row}/seed{seed}", table=table, row=row, label=label, recipe=recipe_name, spec=spec)
            fingerprint = run.fingerprint
            run = self.runs.setdefault(fingerprint, run)
            references.append(RunReference(id=run.id, seed=seed, fingerprint=fingerprint))
        return tuple(references)

    def _spec(
        self,
        recipe: Recipe,
        model: ModelName,
        dataset: DatasetName,
        components: Components,
        cycle: CycleSpec | None,
        row: Row,
        seed: int,
    ) -> RunSpec:
        readings = self.config.readings
        return RunSpec(
            seed=seed,
            dataset=self.config.datasets[dataset].spec(dataset, augment_validation=readings.augment_validation),
            model=ModelSpec(name=model, width=recipe.width, **components.model_dump()),
            sparsity=SparsitySpec(
                density=row.density or self._density(recipe),
                distribution=row.distribution or recipe.distribution,
                topology=row.topology or (readings.topology if cycle else readings.static_topology),
                drop_fraction=readings.drop_fraction,
                drop_fraction_end=readings.drop_fraction_end,
                update_period=recipe.update_period,
                update_on_last_step=readings.update_on_last_step,
            ),
            cycle=cycle,
            phasing=self._phasing(recipe, components),
            training=TrainingSpec(
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                lr=recipe.lr,
                lr_drop_epochs=self._lr_drops(recipe),
                lr_drop_factor=recipe.lr_drop_factor,
                optimizer=recipe.optimizer,
                weight_decay=recipe.weight_decay,
                gradient_clip=recipe.gradient_clip or readings.gradient_clip,
                numerics=readings.numerics,
            ),
        )

    def _phasing(self, recipe: Recipe, components: Components) -> PhasingSpec | None:
        if components.activation != "dyrelu":
            return None
        start, end = phasing_bounds(recipe.epochs)
        return PhasingSpec(start=start, end=end, freeze=self.config.readings.phasing_freeze)

    def _lr_drops(self, recipe: Recipe) -> tuple[int, ...]:
        if self.config.readings.lr_drops == "as_coded" and recipe.lr_drop_epochs:
            return (recipe.epochs // 2, recipe.epochs * 3 // 4)
        return recipe.lr_drop_epochs

    def _row_cycle(self, where: str, recipe: Recipe, row: Row, settings: "_Schedule | None") -> CycleSpec | None:
        if settings is None:
            return None
        if recipe.cyclic is None:
            raise EastError(f"{where}: the recipe has no cyclic update period; add 'cyclic' to it in 'recipes'.")
        cyclic = recipe.cyclic.model_copy(
            update={
                "pattern": settings.pattern,
                "multiplier": settings.multiplier,
                "cycles": settings.cycles,
                "length_multiplier": settings.length_multiplier,
                "cycle_length": row.cycle_length or recipe.cyclic.cycle_length,
            }
        )
        return self._cycle(where, recipe, cyclic, row)

    def _cycle(self, where: str, recipe: Recipe, cyclic: Cyclic, row: Row) -> CycleSpec:
        if (row.topology or self.config.readings.topology) == "fixed":
            raise EastError(f"{where}: fixed masks cannot follow a cyclic density. Use another topology.")
        peak = (row.density or self._density(recipe)) * cyclic.multiplier
        if peak > 1:
            raise EastError(f"{where}: multiplier {cyclic.multiplier:g} makes the peak density {peak:g}, more than 1.")
        length_multiplier = cyclic.length_multiplier if cyclic.cycles > 1 else 1.0
        try:
            length = fit_cycle_length(
                recipe.epochs, cyclic.cycles, cyclic.cycle_length, length_multiplier, rescale=row.fit == "rescale"
            )
        except EastError as error:
            raise EastError(f"{where}: {error}") from None
        return CycleSpec(
            pattern=cyclic.pattern,
            multiplier=cyclic.multiplier,
            cycles=cyclic.cycles,
            cycle_length=length,
            length_multiplier=length_multiplier,
            update_period=cyclic.update_period,
            end=self.config.readings.cycle_end,
        )

    def _comparable(self, table: TableConfig, recipe: Recipe, model: ModelName) -> bool:
        same_scale = (recipe.width, self._density(recipe)) == (PAPER_WIDTH, PAPER_DENSITY)
        return same_scale and PAPER_TABLES.get(table.published or "") == (model, table.dataset)

    def _density(self, recipe: Recipe) -> float:
        return recipe.density or self.config.density

    def _summarising(self) -> Summarising:
        return Summarising(accuracy=self.config.readings.accuracy, spread=self.config.readings.spread)


@dataclass(frozen=True)
class _Schedule:
    """One choice of the four schedule columns of Tables 2-5."""

    pattern: Pattern
    multiplier: float
    cycles: int
    length_multiplier: float


def _settings(row: Row) -> Iterator[_Schedule | None]:
    """The rows that a row of the config stands for, the last key varying fastest; None for a static row."""
    if row.static:
        yield None
        return
    for choice in itertools.product(row.pattern, row.multiplier, row.cycles, row.length_multiplier):
        yield _Schedule(*choice)


def _grid_row(
    row: Row,
    row_id: str,
    settings: _Schedule | None,
    cycle: CycleSpec | None,
    wanted_length: float,
    references: tuple[RunReference, ...],
) -> GridRow:
    if settings is None or cycle is None:
        return GridRow(
            id=row_id,
            method=row.label or "Static",
            footnote=row.footnote,
            printed=row.is_printed,
            runs=references,
        )
    return GridRow(
        id=row_id,
        method=row.label or "Cyclic",
        pattern=settings.pattern,
        multiplier=settings.multiplier,
        cycles=row.printed_cycles or settings.cycles,
        length_multiplier=settings.length_multiplier if settings.cycles > 1 else None,
        footnote=_footnote(row, settings, cycle, wanted_length),
        printed=row.is_printed,
        runs=references,
    )


def _footnote(row: Row, settings: _Schedule, cycle: CycleSpec, wanted_length: float) -> str | None:
    """What a reader must know where the row that runs is not the row that is printed."""
    notes = [row.footnote] if row.footnote else []
    if row.printed_cycles and row.printed_cycles != settings.cycles:
        notes.append(f"printed with {row.printed_cycles} cycles, run with {settings.cycles}")
    if cycle.cycle_length != wanted_length:
        lengths = [cycle.cycle_length * cycle.length_multiplier**i for i in range(cycle.cycles)]
        notes.append(
            f"the cycles do not fit the training as printed; run with cycles of "
            f"{', '.join(f'{length:.1f}' for length in lengths)} epochs"
        )
    return "; ".join(notes) or None


def _row_id(row: Row, settings: _Schedule | None) -> str:
    parts = ["static"]
    if settings is not None:
        parts = [settings.pattern, f"m{_number(settings.multiplier)}", f"n{settings.cycles}"]
        if settings.cycles > 1:
            parts.append(f"g{_number(settings.length_multiplier)}")
    if row.cycle_length is not None:
        parts.append(f"l{_number(row.cycle_length)}")
    parts += [part for part in (row.topology, row.distribution) if part]
    if row.density is not None:
        parts.append(f"d{_number(row.density)}")
    return "-".join(parts)


def _number(value: float) -> str:
    """A number as short exact text: 10, 2.5, 5e-4."""
    number = Decimal(str(value)).normalize()
    _, digits, exponent = number.as_tuple()
    if isinstance(exponent, int) and exponent < -2:
        return f"{''.join(map(str, digits))}e{exponent}"
    return f"{number:f}"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
