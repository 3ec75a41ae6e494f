"""What goes where in the report of a plan: its tables, figures and readings. The rules hand it over as JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from east.analysis.aggregate import THE_PAPER
from east.analysis.compare import PUBLISHED, whose
from east.analysis.words import counted, listed
from east.config.plan import METHODS_TABLE, Plan
from east.config.reference import open_matters, value_text
from east.config.run import ClipSpec, Frozen
from east.config.schema import Config
from east.config.tables import GridHead, GridTable, MethodsHead
from east.render.names import DATASETS, network_label, table_label

FORMATS = ("csv", "md", "tex", "html")
EVIDENCE = ("comparison", "claims", "audit")
"""Names of the tables that say how the plan stands to the paper."""


class ReportFigure(Frozen):
    """A figure: its SVG file, which describes it in words as well, and its caption."""

    svg: Path
    caption: str


class FigureGroup(Frozen):
    """Figures under one heading."""

    heading: str
    figures: tuple[ReportFigure, ...]


class ReportSection(Frozen):
    """A table under a heading: either a summarised one, whose cells open their runs, or one that is there as HTML."""

    id: str = Field(description="name of the table, which links lead to")
    heading: str
    aggregated: Path | None = Field(default=None, description="a summarised table (JSON)")
    table: Path | None = Field(default=None, description="a table that is there as an HTML document")
    downloads: tuple[Path, ...] = Field(default=(), description="the same in other formats, put into the page")
    figures: tuple[ReportFigure, ...] = ()


class Reading(Frozen):
    """A matter that the paper leaves open, and how this plan reads it."""

    matter: str
    value: str = Field(description="the reading in force")
    default: str = Field(description="the project's reading unless the config says otherwise")
    other: str = Field(default="", description="what else it can mean")
    key: str = Field(default="", description="the config key that sets it")
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether the plan departs from the default."""
        return self.value != self.default


class ReportSpec(Frozen):
    """All that goes into a report but the runs."""

    title: str
    name: str = Field(description="the plan's name, such as `demo`")
    introduction: str = Field(default="", description="under the title")
    tables: tuple[ReportSection, ...] = ()
    evidence: Path | None = Field(default=None, description="comparison, claims and audit")
    evidence_files: dict[str, tuple[Path, ...]] = Field(
        default_factory=dict, description="the same as tables in other formats, put into the page"
    )
    figures: tuple[FigureGroup, ...] = ()
    cost: ReportSection | None = None
    readings: tuple[Reading, ...] = ()
    facts: dict[str, str] = Field(default_factory=dict, description="provenance in words: config files, command, ...")
    logs: Path | None = Field(default=None, description="folder of the logs, which are named by run")
    config: str | None = Field(default=None, description="the resolved config, shown as it is")


FigureOf = Literal["grid", "own", "methods", "plan"]
"""What a figure shows: one of Tables 2-5, a table with axes of its own, the methods table, or the whole plan."""


TABLE_KINDS: tuple[FigureOf, ...] = ("grid", "own", "methods")
"""Kinds of tables."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: Its file in `figures/`: `<table>-<name>` if it shows a table, `<name>` if it shows the plan.
        of: What there is one of it for.
        heading: What it is about; the report has the figures under their headings, in the order of `FIGURES`.
        caption: What it shows; a table's caption begins with the table's name. `{whose}` stands for what is beside
            ours, and `{source}` in the heading for those who print it.
    """

    name: str
    of: tuple[FigureOf, ...]
    heading: str
    caption: str


FIGURES = (
    Figure(
        "differences",
        ("plan",),
        "Differences from {source}",
        "Our mean minus {whose}, with its interval, one line per row. The band is the equivalence margin.",
    ),
    Figure(
        "multiplier",
        ("grid",),
        "Accuracy against multiplier and cycles",
        "test accuracy against the density multiplier. Open markers are the paper's.",
    ),
    Figure(
        "axis",
        ("own",),
        "Accuracy along an axis",
        "test accuracy along the table's first axis that has numbers, mean and standard deviation over seeds. Open "
        "markers are published numbers.",
    ),
    Figure(
        "curves",
        ("grid", "own", "methods"),
        "Accuracy during training",
        "test accuracy per epoch, mean over seeds. Bands are one standard deviation wide on either side.",
    ),
    Figure("density", ("plan",), "Schedules", "Density and drop fraction per epoch, for every schedule in the tables."),
    Figure(
        "churn",
        ("grid", "own", "methods"),
        "Mask churn",
        "share of the weights that each mask update drops and grows, and how much of the growth is blind "
        "(the weight had no gradient).",
    ),
    Figure("layers", ("grid", "own"), "Layers", "density of each layer before, during and after training."),
    Figure("cost", ("plan",), "Training cost", "Time against memory of each method. Open markers are the paper's."),
)
"""Every figure, in the order of the report. To add one: an entry here, and its module in `east/render/figures`."""


def table_figures(kind: FigureOf) -> tuple[str, ...]:
    """Names of the figures of each table of a kind."""
    return tuple(figure.name for figure in FIGURES if kind in figure.of)


def figure_kind(table: GridHead | MethodsHead) -> FigureOf:
    """What kind of table a table is for its figures."""
    if isinstance(table, MethodsHead):
        return "methods"
    return "own" if table.axes else "grid"


def plan_figures(plan: Plan) -> tuple[str, ...]:
    """Names of the figures of a plan; differences from published numbers are drawn only if a table can be compared."""
    compared = any(table.comparable and table.is_beside for table in _grids(plan))
    return tuple(
        figure.name for figure in FIGURES if "plan" in figure.of and (compared or figure.name != "differences")
    )


def report_contents(plan: Plan, results: Path, config_files: list[str]) -> ReportSpec:
    """The report of a plan, whose results lie in their usual places under `results`."""
    config = plan.config
    caption = next(figure.caption for figure in FIGURES if figure.name == "cost")
    cost = ReportFigure(svg=results / "figures" / "cost.svg", caption=caption)
    networks = sorted({network_label(run.spec.model.name) for run in plan.runs})
    widths = sorted({run.spec.model.width for run in plan.runs if run.spec.model.width is not None})
    of_width = f" of width {listed(list(map(str, widths)))}" if widths else ""
    return ReportSpec(
        title=config.title,
        name=config.name,
        introduction=f"{listed(networks)}{of_width}, trained from scratch "
        f"on {listed([DATASETS[name] for name in plan.datasets()])} at density {_densities(plan)}, "
        f"{counted(len(config.seeds), 'seed')} per row{_of_length(config)}{_next_to(plan)}.",
        tables=(
            *(
                _section(table.id, f"{table_label(table.id) or table.id}: {_setting(table)}", results, summarised=True)
                for table in _grids(plan)
            ),
            _section(METHODS_TABLE, "Methods", results, summarised=True),
            _section("tableB1", "Table B.1: hyperparameters", results),
        ),
        evidence=results / "analysis" / "evidence.json",
        evidence_files={part: _downloads(part, results) for part in EVIDENCE},
        figures=_figure_groups(plan, results / "figures"),
        cost=_section("table6", "Table 6: training cost", results, cost),
        readings=readings(plan),
        facts={
            "Configuration": ", ".join(config_files),
            "Runs": f"{len(plan.runs)}, with seeds {', '.join(map(str, config.seeds))}",
            "Density": _densities(plan),
            **({"Length": f"{config.training_length:g} of the recipes'"} if config.training_length != 1 else {}),
            **({"To note": " ".join(plan.notes)} if plan.notes else {}),
        },
        logs=results / "logs" / "train",
        config=yaml.safe_dump(config.written.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110),
    )


def _of_length(config: Config) -> str:
    if config.training_length == 1:
        return ""
    return f", for {config.training_length:.3g} of the epochs that the recipes ask for"


def _sources(plan: Plan) -> list[str]:
    """Whose numbers stand beside the plan's tables, as sentences call them."""
    tables = [table for table in _grids(plan) if table.is_beside]
    return list(dict.fromkeys(THE_PAPER if table.source is None else table.source.name for table in tables))


def _next_to(plan: Plan) -> str:
    """Whose numbers stand beside the plan's, as the end of a sentence."""
    names = _sources(plan)
    if names == [THE_PAPER]:
        return f", next to the numbers that {THE_PAPER} prints"
    return f", next to the numbers of {listed(names).removesuffix('.')}" if names else ""


def readings(plan: Plan) -> tuple[Reading, ...]:
    """Each matter that the paper leaves open, with the reading in force (docs/reproduction-notes.md)."""
    in_force = plan.config.readings.model_dump() | _readings_of_runs(plan)
    return tuple(
        Reading(
            matter=about.matter,
            value=value_text(in_force[key.name]),
            default=about.reading,
            other=about.other,
            key=", ".join(about.keys),
            reason=about.reason,
        )
        for key, about in open_matters()
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
        "distribution": ", ".join(sorted({str(recipe.distribution) for recipe in config.recipes.values()})),
        "cyclic": "; ".join(sorted(cycles)) or "no cycles in this plan",
        "fit": "rescaled in the rows that say so" if "rescale" in fits else "refused",
        "recipe": ", ".join(sorted(fifty)) or "not in this plan",
    }


def _setting(table: GridTable) -> str:
    on = f"on {DATASETS[table.dataset]}"
    return f"networks {on}" if "model" in table.axes else f"{network_label(table.model)} {on}"


def _figure_groups(plan: Plan, folder: Path) -> tuple[FigureGroup, ...]:
    """The figures under their headings; the cost figure stands beside Table 6."""
    names = {table.id: f"{table_label(table.id) or table.title}, {_setting(table)}" for table in _grids(plan)}
    kinds = {table.id: figure_kind(table) for table in plan.tables}
    drawn = plan_figures(plan)
    sources = _sources(plan)
    source = sources[0] if len(sources) == 1 else PUBLISHED
    groups = []
    for figure in FIGURES:
        shown = [
            ReportFigure(svg=folder / f"{table}-{figure.name}.svg", caption=f"{name}: {figure.caption}")
            for table, name in [*names.items(), (METHODS_TABLE, "The methods")]
            if kinds[table] in figure.of
        ]
        if figure.name in drawn and figure.name != "cost":
            caption = figure.caption.format(whose=whose(source))
            shown.append(ReportFigure(svg=folder / f"{figure.name}.svg", caption=caption))
        if shown:
            groups.append(FigureGroup(heading=figure.heading.format(source=source), figures=tuple(shown)))
    return tuple(groups)


def _grids(plan: Plan) -> list[GridTable]:
    return [table for table in plan.tables if isinstance(table, GridTable)]


def _section(
    table: str, heading: str, results: Path, *figures: ReportFigure, summarised: bool = False
) -> ReportSection:
    return ReportSection(
        id=table,
        heading=heading,
        aggregated=results / "aggregate" / f"{table}.json" if summarised else None,
        table=None if summarised else results / "tables" / f"{table}.html",
        downloads=_downloads(table, results),
        figures=figures,
    )


def _downloads(table_id: str, results: Path) -> tuple[Path, ...]:
    return tuple(results / "tables" / f"{table_id}.{ending}" for ending in FORMATS if ending != "html")


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
