"""The figures of a report, in one style (report/figures.mplstyle).

Each is the function `draw` of the module that has its name: to add one, add that module, and an entry to `FIGURES` in
`east/render/contents.py`, which says what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods
from east.analysis.compare import TableComparison
from east.analysis.published import FROM_DISK, Read
from east.analysis.sources import Sources
from east.config.tables import CostPlan
from east.cost.record import CostRecord
from east.render.contents import FIGURES, figure_kind, table_figures
from east.render.schedules import DrawnSchedule


@dataclass(frozen=True)
class Drawing:
    """A figure in both formats, and what it shows in words, for those who cannot see it."""

    png: bytes
    svg: bytes
    alt: str


@dataclass(frozen=True)
class TableData:
    """What the figures of a table are drawn from: its numbers, and what reads its runs."""

    table: AggregatedGrid | AggregatedMethods
    sources: Sources


@dataclass(frozen=True)
class PlanData:
    """What the figures of a whole plan are drawn from."""

    schedules: Sequence[DrawnSchedule]
    costs: Sequence[CostRecord]
    cost_plan: CostPlan
    comparisons: Sequence[TableComparison] | None
    """None where no table can be compared with published numbers."""
    read: Read = FROM_DISK
    """What gives the content of the paper's files."""


def draw_table(data: TableData) -> dict[str, Drawing]:
    """Draw every figure of a table, by the figure's name.

    Raises:
        EastError: A file of a run cannot be read.
    """
    return {name: draw(name, data) for name in table_figures(figure_kind(data.table))}


def draw_plan(data: PlanData) -> dict[str, Drawing]:
    """Draw every figure of a plan, by the figure's name; differences only where tables were compared."""
    names = [figure.name for figure in FIGURES if "plan" in figure.of]
    return {name: draw(name, data) for name in names if name != "differences" or data.comparisons is not None}


def draw(name: str, data: TableData | PlanData) -> Drawing:
    """Draw one figure."""
    drawing: Drawing = import_module(f"east.render.figures.{name}").draw(data)
    return drawing
