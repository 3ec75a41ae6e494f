"""What the rows of a table are called in figures, and how each is drawn in all of them."""

from collections.abc import Sequence

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, GridResult, MethodResult
from east.analysis.words import counted, schedule_text
from east.render.figures.style import Look, look
from east.render.names import DATASETS, NETWORKS, capital, table_label

Setting = tuple[str | None, float | None]


def setting(row: GridResult) -> Setting:
    """Pattern and multiplier: the rows that share a panel."""
    return row.pattern, row.multiplier


def setting_title(setting: Setting) -> str:
    """Such as `Cosine, 10×`."""
    pattern, multiplier = setting
    return (pattern or "").capitalize() + ("" if multiplier is None else f", {multiplier:g}×")


def variant(row: GridResult) -> str:
    """What tells the rows of a panel apart, such as `2 cycles, length 2×`."""
    text = cycles_text(row.cycles, row.length_multiplier)
    return text if row.printed else f"{row.method}, {text}"


def cycles_text(cycles: int | None, length_multiplier: float | None) -> str:
    """How many cycles a schedule has, and how they grow."""
    text = counted(cycles or 0, "cycle")
    return text if length_multiplier is None else f"{text}, length {length_multiplier:g}×"


def variants(labels: Sequence[str]) -> dict[str, Look]:
    """The look of each different label, in the order of their names: fewer cycles look the same in every table."""
    return {label: look(index) for index, label in enumerate(sorted(set(labels)))}


def row_name(row: GridResult | MethodResult) -> str:
    """A row of either kind of table on one line, such as `Cosine, 10×, 2 cycles, 2×`, or the method."""
    if isinstance(row, MethodResult) or row.pattern is None:
        return row.method
    name = schedule_text(row.pattern, row.multiplier, row.cycles, row.length_multiplier)
    return capital(name) if row.printed else f"{row.method}, {name}"


def table_title(table: AggregatedGrid | AggregatedMethods) -> str:
    """A table and what it is about, such as `Table 2, ResNet-34 on CIFAR-10`."""
    if isinstance(table, AggregatedMethods):
        return "The methods"
    return f"{table_label(table.id) or table.id}, {NETWORKS[table.model]} on {DATASETS[table.dataset]}"
