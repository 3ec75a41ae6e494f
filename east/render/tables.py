"""Tables 2-5 and the methods table, beside the published numbers."""

from collections.abc import Callable, Sequence

from east.analysis.aggregate import Accuracy, AggregatedGrid, AggregatedMethods, GridResult, MethodResult
from east.analysis.words import axis_text, listed
from east.render.names import DATASETS, axis_label, network_label, sentence, table_label
from east.render.numbers import (
    DASH,
    NOT_AVAILABLE,
    accuracy_text,
    density_text,
    fixed,
    plus_minus,
    seeds_note,
    setting_text,
    signed_or_dash,
)
from east.render.rendered import Quantity, Rendered, Value, data_of, numeric, render_views, view_of
from east.render.templating import caption
from east.render.view import Cell, Column, Footnotes, TableView


def render_table(aggregated: AggregatedGrid | AggregatedMethods) -> Rendered:
    """Print a summarised table, what `aggregate` returned, in every format."""
    if isinstance(aggregated, AggregatedGrid):
        return render_views([grid_view(aggregated)], *data_of(_of_grid(aggregated, Footnotes()), aggregated.rows))
    return render_views([methods_view(aggregated)], *data_of(_of_methods(aggregated, Footnotes()), aggregated.rows))


def grid_view(table: AggregatedGrid) -> TableView:
    """A table with the paper's columns or its own, and the published numbers where the table has them."""
    footnotes = Footnotes()
    return view_of(
        _of_grid(table, footnotes),
        table.rows,
        footnotes=footnotes,
        begins=lambda before, row: _part(table, before) != _part(table, row),
        reference=lambda row: _is_reference(table, row),
        id=table.id,
        label=table_label(table.id),
        caption=caption(
            "tables-2-to-5",
            title=table.title,
            setting=_setting(table),
            published_table=table.published_table,
            source=table.source,
            comparable=table.comparable,
            reference=_reference(table),
            reference_is_partial=any(0 < row.accuracy.used < row.accuracy.planned for row in _measured_against(table)),
            **_summarised(table),
        ),
    )


def methods_view(table: AggregatedMethods) -> TableView:
    """The methods table: every method on every network and data set of the plan."""
    footnotes = Footnotes()
    return view_of(
        _of_methods(table, footnotes),
        table.rows,
        footnotes=footnotes,
        begins=lambda *two: len({(row.model, row.width, row.dataset) for row in two}) == 2,
        id=table.id,
        label=table_label(table.id),
        caption=caption("table-methods", title=table.title, density=density_text(table.density), **_summarised(table)),
    )


def _setting(table: AggregatedGrid) -> str:
    """What all rows have in common: network, width, data set and density, but for those that are axes."""
    network = "" if "model" in table.axes else network_label(table.model)
    width = "" if "width" in table.axes or table.width is None else f"of width {table.width}"
    density = "" if "density" in table.axes else f"at density {density_text(table.density)}"
    return " ".join(filter(None, [network, width, f"on {DATASETS[table.dataset]}", density]))


def _part(table: AggregatedGrid, row: GridResult) -> object:
    """What the rows of one part of a table have in common."""
    return row.method if table.axes else row.pattern


def _is_reference(table: AggregatedGrid, row: GridResult) -> bool:
    if table.reference is not None:
        return row.method == table.reference
    return not table.axes and row.pattern is None


def _reference(table: AggregatedGrid) -> str | None:
    """What changes are measured against, in words; None where they are not."""
    if table.reference is None:
        return None if table.axes else "the static row"
    return f"{table.reference} at the same values" if len(_measured_against(table)) > 1 else table.reference


def _measured_against(table: AggregatedGrid) -> list[GridResult]:
    """The rows that changes are measured against."""
    if table.reference is None:
        return [table.static] if table.static is not None and not table.axes else []
    return [row for row in table.rows if row.method == table.reference]


def _of_grid(table: AggregatedGrid, footnotes: Footnotes) -> list[Quantity[GridResult]]:
    """What a table says of a row."""
    beside = table.is_beside
    here = "This run" if beside else ""
    source = "Paper" if table.source is None else table.source.name
    has_changes = _reference(table) is not None
    printed = [row.published.change for row in table.rows if row.published]
    has_printed_changes = table.source is None or any(change is not None for change in printed)

    def change(row: GridResult) -> Cell:
        unknown = not _is_reference(table, row) and row.change is None
        return Cell(text=NOT_AVAILABLE, tone="missing") if unknown else Cell(text=signed_or_dash(row.change))

    def published(row: GridResult) -> Cell:
        if row.published is None:
            lacking = (
                "The paper has no such row." if table.source is None else f"Not in {table.source.name.rstrip('.')}."
            )
            marks = footnotes.marks([lacking])
            return Cell(text=NOT_AVAILABLE, marks=marks, tone="missing")
        return Cell(text=plus_minus(row.published.mean, row.published.std))

    def published_change(row: GridResult) -> Cell:
        if row.published is None:
            return Cell(text=DASH)
        note = f"As printed; the printed accuracies give {signed_or_dash(row.published.change_from_means)}."
        marks = footnotes.marks([note] if row.published.change_contradicts_means else [])
        return Cell(text=signed_or_dash(row.published.change), marks=marks)

    def difference(row: GridResult) -> Cell:
        missing = row.published is not None and row.difference is None
        return Cell(text=NOT_AVAILABLE, tone="missing") if missing else Cell(text=signed_or_dash(row.difference, 2))

    def paper(label: str, group: str = "") -> Column | None:
        return numeric(label, group) if beside else None

    return [
        Quantity(
            None,
            data={
                "table": lambda _: table.id,
                "dataset": lambda _: DATASETS[table.dataset],
                "model": lambda _: network_label(table.model),
                "width": lambda _: table.width,
                "density": lambda _: density_text(table.density),
            },
        ),
        Quantity(Column(label="Method"), lambda row: _noted(row.method, row.footnote, footnotes), {"method": "method"}),
        *(_of_axes(table) if table.axes else _SCHEDULE),
        Quantity(
            numeric("Test Accuracy (%)", here),
            lambda row: _accuracy_cell(row.id, row.accuracy, footnotes),
            {"accuracy_mean": "accuracy.mean", "accuracy_std": "accuracy.std"},
        ),
        Quantity(numeric("Change (%)", here) if has_changes else None, change, {"change": "change"}),
        Quantity(
            paper("Test Accuracy (%)", source),
            published,
            {"published_accuracy_mean": "published.mean", "published_accuracy_std": "published.std"},
        ),
        Quantity(
            paper("Change (%)", source) if has_printed_changes else None,
            published_change,
            {"published_change": "published.change"},
        ),
        Quantity(paper("Difference"), difference, {"difference": "difference"}),
        Quantity(None, data={**_SEEDS, "footnote": "footnote"}),
    ]


_SCHEDULE: tuple[Quantity[GridResult], ...] = (
    Quantity(
        Column(label="Pattern"), lambda row: row.pattern.capitalize() if row.pattern else DASH, {"pattern": "pattern"}
    ),
    Quantity(numeric("Multiplier"), lambda row: setting_text(row.multiplier), {"multiplier": "multiplier"}),
    Quantity(numeric("Cycles"), lambda row: setting_text(row.cycles), {"cycles": "cycles"}),
    Quantity(
        numeric("Length Mult."),
        lambda row: setting_text(row.length_multiplier, "×"),
        {"length_multiplier": "length_multiplier"},
    ),
)
"""The columns of Tables 2-5."""


def _of_axes(table: AggregatedGrid) -> list[Quantity[GridResult]]:
    """The columns of a table's own axes."""

    def quantity(axis: str) -> Quantity[GridResult]:
        has_words = any(isinstance(row.values[axis], str) for row in table.rows)
        column = Column(label=axis_label(axis)) if has_words else numeric(axis_label(axis))

        def data(row: GridResult) -> Value:
            # The data are as exact as the configuration: a CSV file's floats have six decimals.
            value = row.values[axis]
            return axis_text(value) if isinstance(value, float) else value

        return Quantity(column, lambda row: axis_text(row.values[axis]) or DASH, {axis: data})

    return [quantity(axis) for axis in table.axes]


def _of_methods(table: AggregatedMethods, footnotes: Footnotes) -> list[Quantity[MethodResult]]:
    """What the methods table says of a row."""
    return [
        Quantity(None, data={"table": lambda _: table.id}),
        Quantity(Column(label="Method"), lambda row: _noted(row.method, row.note, footnotes), {"method": "method"}),
        Quantity(
            Column(label="Network"),
            lambda row: network_label(row.model),
            {"model": lambda row: network_label(row.model)},
        ),
        Quantity(numeric("Width"), lambda row: str(row.width), {"width": "width"}),
        Quantity(
            Column(label="Data"), lambda row: DATASETS[row.dataset], {"dataset": lambda row: DATASETS[row.dataset]}
        ),
        Quantity(
            Column(label="Recipe"),
            lambda row: row.recipe,
            {"density": lambda _: density_text(table.density), "recipe": "recipe"},
        ),
        Quantity(
            numeric("Test Accuracy (%)"),
            lambda row: _accuracy_cell(row.id, row.accuracy, footnotes),
            {"accuracy_mean": "accuracy.mean", "accuracy_std": "accuracy.std"},
        ),
        Quantity(numeric("Published (%)"), lambda row: "n/a", {"published_accuracy_mean": lambda _: "n/a"}),
        Quantity(None, data={**_SEEDS, "footnote": "note"}),
    ]


_SEEDS: dict[str, str | Callable[[GridResult | MethodResult], Value]] = {
    "seeds_planned": "accuracy.planned",
    "seeds_used": "accuracy.used",
    "seeds_diverged": lambda row: len(row.accuracy.with_status("diverged")),
    "seeds_missing": lambda row: len(row.accuracy.with_status("missing")),
    "seed_values": lambda row: " ".join(
        f"{seed.seed}:{seed.status if seed.accuracy is None else fixed(seed.accuracy, 4)}"
        for seed in row.accuracy.seeds
    ),
}


def _noted(text: str, note: str | None, footnotes: Footnotes) -> Cell:
    return Cell(text=text, marks=footnotes.marks([note and sentence(note)]))


def _accuracy_cell(row: str, accuracy: Accuracy, footnotes: Footnotes) -> Cell:
    return Cell(
        text=accuracy_text(accuracy),
        marks=footnotes.marks([seeds_note(accuracy)]),
        tone="plain" if accuracy.complete and accuracy.planned else "missing",
        row=row,
    )


def _summarised(table: AggregatedGrid | AggregatedMethods) -> dict[str, object]:
    accuracies: Sequence[Accuracy] = [row.accuracy for row in table.rows]
    seeds = sorted({seed.seed for accuracy in accuracies for seed in accuracy.seeds})
    return {
        "accuracy": table.summarising.accuracy,
        "spread": table.summarising.spread,
        "seeds": listed([str(seed) for seed in seeds]),
        "number_of_seeds": len(seeds),
        "incomplete": any(accuracy.planned and not accuracy.complete for accuracy in accuracies),
    }
