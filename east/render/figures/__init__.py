"""The figures of a report, in one style (report/figures.mplstyle).

Each is the function `draw` of the module that has its name: to add one, add that module, and an entry to `FIGURES` in
`east/render/contents.py`, which says what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods
from east.analysis.compare import TableComparison
from east.config.tables import CostPlan
from east.cost.record import CostRecord
from east.render.contents import FIGURES, grid_figures, methods_figures
from east.render.schedules import DrawnSchedule


@dataclass(frozen=True)
class Drawing:
    """A figure on disk, and what it shows in words, for those who cannot see it."""

    png: Path
    svg: Path
    alt: str


@dataclass(frozen=True)
class TableData:
    """What the figures of a table are drawn from: its numbers, and the folder with its runs."""

    table: AggregatedGrid | AggregatedMethods
    runs_dir: Path


@dataclass(frozen=True)
class PlanData:
    """What the figures of a whole plan are drawn from."""

    schedules: Sequence[DrawnSchedule]
    costs: Sequence[CostRecord]
    cost_plan: CostPlan
    comparisons: Sequence[TableComparison] | None
    """None where no table can be compared with the paper's."""


def draw_table(data: TableData, stem: Path) -> list[Drawing]:
    """Draw every figure of a table, as `<stem>-<figure>.png` and `.svg`.

    Raises:
        EastError: A file of a run cannot be read.
    """
    names = grid_figures() if isinstance(data.table, AggregatedGrid) else methods_figures()
    return [draw(name, data, stem.with_name(f"{stem.name}-{name}")) for name in names]


def draw_plan(data: PlanData, folder: Path) -> list[Drawing]:
    """Draw every figure of a plan, as `<figure>.png` and `.svg`; differences only where tables were compared."""
    names = [figure.name for figure in FIGURES if "plan" in figure.of]
    return [draw(name, data, folder / name) for name in names if name != "differences" or data.comparisons is not None]


def draw(name: str, data: TableData | PlanData, stem: Path) -> Drawing:
    """Draw one figure, as `<stem>.png` and `.svg`."""
    drawing: Drawing = import_module(f"east.render.figures.{name}").draw(data, stem)
    return drawing
