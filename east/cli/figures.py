"""Steps of the workflow that draw: the figures of a table, and those of the whole plan."""

from pathlib import Path
from typing import Annotated

import typer

from east.cli.common import parsed


def figures(
    aggregated: Annotated[Path, typer.Argument(help="A summarised table, JSON.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    stem: Annotated[Path, typer.Option(help="Folder and beginning of the files' names.")],
) -> None:
    """Draw a table: learning curves and mask churn; for Tables 2-5 accuracy by multiplier and layers as well."""
    from east.analysis.aggregate import read_json
    from east.render.figures import TableData, draw_table

    draw_table(TableData(read_json(aggregated), runs), stem)


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
    from east.analysis.evidence import read_evidence
    from east.config.tables import CostPlan
    from east.render.cost import read_costs
    from east.render.figures import PlanData, draw_plan
    from east.render.schedules import SCHEDULES

    data = PlanData(
        schedules=parsed("--schedules", SCHEDULES.validate_json, schedules),
        costs=read_costs(costs),
        cost_plan=parsed("--cost-plan", CostPlan.model_validate_json, cost_plan),
        comparisons=read_evidence(evidence).comparisons if evidence else None,
    )
    draw_plan(data, folder)
