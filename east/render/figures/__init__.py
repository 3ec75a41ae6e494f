"""The figures of a report, one module each, in one style (report/figures.mplstyle)."""

from east.render.figures.churn import mask_churn
from east.render.figures.cost import time_against_memory
from east.render.figures.curves import accuracy_curves
from east.render.figures.differences import differences_from_the_paper
from east.render.figures.layers import layer_densities
from east.render.figures.multiplier import accuracy_by_multiplier
from east.render.figures.schedules import Line, SchedulePanel, density_schedules, schedule_lines
from east.render.figures.style import Drawing

__all__ = [
    "Drawing",
    "Line",
    "SchedulePanel",
    "accuracy_by_multiplier",
    "accuracy_curves",
    "density_schedules",
    "differences_from_the_paper",
    "layer_densities",
    "mask_churn",
    "schedule_lines",
    "time_against_memory",
]
