"""What goes where in the report of a plan: its tables, figures, readings and hyperparameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import yaml

from east.analysis.words import listed
from east.config.plan import METHODS_TABLE, Plan
from east.config.reference import open_matters, value_text
from east.config.run import ClipSpec
from east.config.schema import Config, Recipe
from east.config.tables import GridTable
from east.render.names import DATASETS, NETWORKS, table_label
from east.render.report.spec import EvidencePart, FigureGroup, Reading, ReportFigure, ReportSection, ReportSpec

FORMATS = ("csv", "md", "tex", "html")


def report_contents(plan: Plan, results: Path, config_files: list[str]) -> ReportSpec:
    """The report of a plan, whose results lie in their usual places under `results`.

    Args:
        plan: the plan.
        results: the folder results/<name>.
        config_files: the files that the configuration was read from.
    """
    config = plan.config
    grids = [table for table in plan.tables if isinstance(table, GridTable)]
    return ReportSpec(
        title=config.title,
        name=config.name,
        introduction=(_introduction(plan),),
        tables=(
            *(_summarised(table.id, _grid_heading(table), results) for table in grids),
            _summarised(METHODS_TABLE, "Methods", results),
            _section("tableB1", "Table B.1: hyperparameters", results),
        ),
        evidence=results / "analysis" / "evidence.json",
        evidence_files={part: _downloads(part, results) for part in get_args(EvidencePart)},
        figures=_figures(grids, results / "figures"),
        cost=_section("table6", "Table 6: training cost", results, figures=(_cost_figure(results / "figures"),)),
        readings=readings(plan),
        facts={
            "Configuration": ", ".join(config_files),
            "Runs": f"{len(plan.runs)}, with seeds {', '.join(map(str, config.seeds))}",
            "Density": _densities(plan),
        },
        logs=results / "logs" / "train",
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110),
    )


def hyperparameter_rows(config: Config) -> list[dict[str, str]]:
    """The recipes of a configuration in the columns of Table B.1."""
    return [_hyperparameters(recipe) for recipe in config.recipes.values()]


def readings(plan: Plan) -> tuple[Reading, ...]:
    """Each matter that the paper leaves open, with the reading in force (docs/reproduction-notes.md)."""
    in_force = plan.config.readings.model_dump() | _readings_of_runs(plan)
    return tuple(
        Reading(
            matter=matter.ambiguity.matter,
            value=value_text(in_force[matter.key.name]),
            default=matter.reading,
            other=matter.other,
            key=matter.keys,
            reason=matter.ambiguity.reason,
        )
        for matter in open_matters()
    )


def _readings_of_runs(plan: Plan) -> dict[str, object]:
    """The readings that no single key holds, by the last part of the key that is described as theirs."""
    config, runs = plan.config, [run.spec for run in plan.runs]
    sgd = {run.training.optimizer.nesterov for run in runs if run.training.optimizer.name == "sgd"}
    fits = {row.fit for table in config.tables.values() for row in table.rows}
    fifty = {
        f"{table.recipe}{' with DCT' if table.components.dct else ''}"
        for table in config.tables.values()
        if (table.model or config.recipes[table.recipe].model) == "resnet50"
    }
    cycles = {
        f"{recipe.cyclic.pattern}, {recipe.cyclic.length_multiplier:g}×"
        for recipe in config.recipes.values()
        if recipe.cyclic
    }
    return {
        "seeds": ", ".join(map(str, config.seeds)),
        "density": _densities(plan),
        "gradient_clip": ", ".join(sorted({_clip(run.training.gradient_clip) for run in runs})),
        "drop_fraction": f"{config.readings.drop_fraction:g} to {config.readings.drop_fraction_end:g}",
        "validation": ", ".join(f"{count:,}" for count in sorted({run.dataset.validation for run in runs})),
        "optimizer": ", ".join(sorted(map(value_text, sgd))) or "no SGD in this plan",
        "distribution": ", ".join(sorted({recipe.distribution for recipe in config.recipes.values()})),
        "cyclic": "; ".join(sorted(cycles)) or "no cycles in this plan",
        "fit": "rescaled in the rows that say so" if "rescale" in fits else "refused",
        "recipe": ", ".join(sorted(fifty)) or "not in this plan",
    }


def _introduction(plan: Plan) -> str:
    networks = sorted({NETWORKS[run.spec.model.name] for run in plan.runs})
    widths = sorted({run.spec.model.width for run in plan.runs})
    datasets = [DATASETS[name] for name in plan.datasets()]
    seeds = len(plan.config.seeds)
    return (
        f"{listed(networks)} of width {listed(list(map(str, widths)))}, trained from scratch "
        f"on {listed(datasets)} at density {_densities(plan)}, with "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'} a row. Beside every number stands what the paper prints."
    )


def _grid_heading(table: GridTable) -> str:
    return f"{table_label(table.id) or table.id}: {_setting(table)}"


def _setting(table: GridTable) -> str:
    return f"{NETWORKS[table.model]} on {DATASETS[table.dataset]}"


def _figures(grids: Sequence[GridTable], folder: Path) -> tuple[FigureGroup, ...]:
    """The figures by the question that they answer, those that need a table or a comparison only where there is one."""

    def of_tables(figure: str, caption: str, *, methods: bool = False) -> tuple[ReportFigure, ...]:
        settings = [(grid.id, f"{table_label(grid.id) or grid.title}, {_setting(grid)}") for grid in grids]
        settings += [(METHODS_TABLE, "The methods")] if methods else []
        return tuple(
            ReportFigure(svg=folder / f"{table}-{figure}.svg", caption=f"{setting}: {caption}")
            for table, setting in settings
        )

    differences = ReportFigure(
        svg=folder / "differences.svg",
        caption="Our mean minus the paper's with its interval, a row each; the band is the margin of equivalence.",
    )
    density = ReportFigure(
        svg=folder / "density.svg",
        caption="Density and drop fraction against the epoch, for every schedule of the tables.",
    )
    groups = (
        ("Differences from the paper", (differences,) if any(map(_compared, grids)) else ()),
        (
            "Accuracy against multiplier and cycles",
            of_tables("multiplier", "test accuracy against the density multiplier; open markers are the paper's."),
        ),
        (
            "Accuracy against the epoch",
            of_tables("curves", "mean over seeds, and a band of one standard deviation.", methods=True),
        ),
        ("Schedules", (density,)),
        (
            "Mask churn",
            of_tables("churn", "what the mask updates drop and grow, and how much of it blindly.", methods=True),
        ),
        ("Layers", of_tables("layers", "density of each layer before, during and after training.")),
    )
    return tuple(FigureGroup(heading=heading, figures=figures) for heading, figures in groups if figures)


def _compared(grid: GridTable) -> bool:
    return grid.comparable and grid.published is not None


def _summarised(table_id: str, heading: str, results: Path) -> ReportSection:
    return ReportSection(
        id=table_id,
        heading=heading,
        aggregated=results / "aggregate" / f"{table_id}.json",
        downloads=_downloads(table_id, results),
    )


def _section(table_id: str, heading: str, results: Path, *, figures: tuple[ReportFigure, ...] = ()) -> ReportSection:
    return ReportSection(
        id=table_id,
        heading=heading,
        table=results / "tables" / f"{table_id}.html",
        downloads=_downloads(table_id, results),
        figures=figures,
    )


def _cost_figure(folder: Path) -> ReportFigure:
    return ReportFigure(
        svg=folder / "cost.svg", caption="Time against memory of each method; open markers are the paper's."
    )


def _downloads(table_id: str, results: Path) -> tuple[Path, ...]:
    return tuple(results / "tables" / f"{table_id}.{ending}" for ending in FORMATS if ending != "html")


def _hyperparameters(recipe: Recipe) -> dict[str, str]:
    cyclic = recipe.cyclic
    drops = ",".join(map(str, recipe.lr_drop_epochs))
    optimizer = "Adam" if recipe.optimizer.name == "adam" else f"SGD({recipe.optimizer.momentum:g})"
    return {
        "model": NETWORKS[recipe.model].split(" (")[0],
        "method": recipe.system,
        "data": _data(recipe),
        "batch_size": str(recipe.batch_size),
        "epochs": str(recipe.epochs),
        "lr": f"{recipe.lr:g}",
        "lr_drop_epochs": f"{1 / recipe.lr_drop_factor:g}x[{drops}]" if drops else "-",
        "optimizer": optimizer,
        "weight_decay": f"{recipe.weight_decay:.1e}",
        "init": recipe.distribution.split("_")[0].upper(),
        "cyclic_n": str(cyclic.cycles) if cyclic else "-",
        "cyclic_l": f"{cyclic.cycle_length:g}" if cyclic else "-",
        "cyclic_m": f"{cyclic.multiplier:g}" if cyclic else "-",
        "delta_t_cs": str(cyclic.update_period) if cyclic else "-",
        "delta_t_dst": str(recipe.update_period),
    }


def _data(recipe: Recipe) -> str:
    if set(recipe.datasets) == {"cifar10", "cifar100"}:
        return "CIFAR-10/100"
    return ", ".join(DATASETS[name] for name in recipe.datasets)


def _densities(plan: Plan) -> str:
    return ", ".join(f"{density:g}" for density in sorted({run.spec.sparsity.density for run in plan.runs}))


def _clip(clip: ClipSpec | None) -> str:
    if clip is None:
        return "none"
    how = []
    if clip.scope == "dense":
        how.append(f"sketch of {clip.probes} probes" if clip.probes > 1 else clip.estimator)
    if clip.every > 1:
        how.append(f"measured every {clip.every} steps")
    return f"norm {clip.norm:g} over {clip.scope} gradients" + (f" ({', '.join(how)})" if how else "")
