"""Steps of the workflow that draw: the figures of a table, and those of the whole plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from east.cli.common import parsed

if TYPE_CHECKING:
    from east.analysis.aggregate import AggregatedGrid
    from east.analysis.layers import LayerMask
    from east.config.tables import CostPlan


def figures(
    aggregated: Annotated[Path, typer.Argument(help="A summarised table, JSON.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    stem: Annotated[Path, typer.Option(help="Folder and beginning of the files' names.")],
) -> None:
    """Draw a table: learning curves and mask churn; for Tables 2-5 accuracy by multiplier and layers as well."""
    from east.analysis.aggregate import AggregatedGrid, read_json
    from east.render.figures import accuracy_by_multiplier, accuracy_curves, layer_densities, mask_churn

    table = read_json(aggregated)

    def named(figure: str) -> Path:
        return stem.with_name(f"{stem.name}-{figure}")

    accuracy_curves(table, runs, named("curves"))
    mask_churn(table, runs, named("churn"))
    if isinstance(table, AggregatedGrid):
        accuracy_by_multiplier(table, named("multiplier"))
        layer_densities(table, _layers(table, runs), named("layers"))


def plan_figures(
    folder: Annotated[Path, typer.Option(help="Where the figures go.")],
    schedules: Annotated[str, typer.Option(help="Every schedule, as JSON; - reads standard input.")],
    costs: Annotated[Path, typer.Option(help="What `east cost` wrote.")],
    cost_plan: Annotated[str, typer.Option(help="What was measured, as JSON.")],
    evidence: Annotated[
        Path | None, typer.Option(help="What `east analyse` wrote; without it the differences are not drawn.")
    ] = None,
) -> None:
    """Draw what belongs to no single table: schedules, cost and the differences from the paper."""
    from east.config.tables import CostPlan
    from east.render.figures import density_schedules, schedule_lines
    from east.render.schedules import SCHEDULES

    drawn = parsed("--schedules", SCHEDULES.validate_json, schedules)
    density_schedules(*schedule_lines(drawn), folder / "density")
    _draw_costs(costs, parsed("--cost-plan", CostPlan.model_validate_json, cost_plan), folder / "cost")
    if evidence is not None:
        from east.analysis.evidence import read_evidence
        from east.render.figures import differences_from_the_paper

        differences_from_the_paper(read_evidence(evidence).comparisons, folder / "differences")


def _draw_costs(costs: Path, plan: "CostPlan", stem: Path) -> None:
    from east.analysis.published import read_published_costs
    from east.render.cost import read_costs
    from east.render.figures import time_against_memory
    from east.render.names import DATASETS, NETWORKS
    from east.render.templating import REPORT_FOLDER

    published = read_published_costs(REPORT_FOLDER / "published" / plan.published) if plan.published else []
    setting = f"{NETWORKS[plan.model]} on {DATASETS[plan.dataset]}"
    time_against_memory(read_costs(costs), published, stem, setting=setting)


def _layers(table: "AggregatedGrid", runs: Path) -> "dict[str, tuple[LayerMask, ...]]":
    """The layers of the runs that are shown, by run id."""
    from east.analysis.layers import read_layers, runs_to_show
    from east.sparse.distribution import DISTRIBUTIONS
    from east.training.records import read_summary, summary_path

    layers = {}
    for run in runs_to_show(table):
        spec = read_summary(summary_path(runs, run)).run
        distribution = spec.get("sparsity", {}).get("distribution", "erk")
        layers[run] = read_layers(runs / run, DISTRIBUTIONS[distribution])
    return layers
