"""Tables 2-5 and the methods table, beside the published numbers."""

from collections.abc import Iterable, Sequence

from east.analysis.aggregate import (
    Accuracy,
    AggregatedGrid,
    AggregatedMethods,
    GridResult,
    MethodResult,
    PublishedValue,
)
from east.analysis.words import listed
from east.render.names import DATASETS, NETWORKS, sentence, table_label
from east.render.numbers import (
    DASH,
    NOT_AVAILABLE,
    accuracy_text,
    density_text,
    fixed,
    plus_minus,
    seeds_note,
    setting_text,
    signed,
)
from east.render.rendered import Rendered, Value, render_views
from east.render.templating import caption
from east.render.view import Cell, Column, Footnotes, TableView, ViewRow

_SEED_COLUMNS = ("seeds_planned", "seeds_used", "seeds_diverged", "seeds_missing", "seed_values", "footnote")
GRID_CSV = (
    *("table", "dataset", "model", "width", "density"),
    *("method", "pattern", "multiplier", "cycles", "length_multiplier"),
    *("accuracy_mean", "accuracy_std", "change"),
    *("published_accuracy_mean", "published_accuracy_std", "published_change", "difference"),
    *_SEED_COLUMNS,
)
METHODS_CSV = (
    *("table", "method", "model", "width", "dataset", "density", "recipe"),
    *("accuracy_mean", "accuracy_std", "published_accuracy_mean"),
    *_SEED_COLUMNS,
)


def render_table(aggregated: AggregatedGrid | AggregatedMethods) -> Rendered:
    """Print a summarised table in every format.

    Args:
        aggregated: What `aggregate` returned.
    """
    if isinstance(aggregated, AggregatedGrid):
        records: list[dict[str, Value]] = [_grid_record(aggregated, row) for row in aggregated.rows]
        return render_views([grid_view(aggregated)], GRID_CSV, records)
    records = [_method_record(aggregated, row) for row in aggregated.rows]
    return render_views([methods_view(aggregated)], METHODS_CSV, records)


def grid_view(table: AggregatedGrid) -> TableView:
    """One of Tables 2-5 with the paper's columns, and the published numbers where the table has them."""
    beside = table.published_table is not None
    here = "This run" if beside else ""
    columns = [
        Column(label="Method"),
        Column(label="Pattern"),
        Column(label="Multiplier", align="right"),
        Column(label="Cycles", align="right"),
        Column(label="Length Mult.", align="right"),
        Column(label="Test Accuracy (%)", group=here, align="right"),
        Column(label="Change (%)", group=here, align="right"),
    ]
    if beside:
        columns += [
            Column(label="Test Accuracy (%)", group="Paper", align="right"),
            Column(label="Change (%)", group="Paper", align="right"),
            Column(label="Difference", align="right"),
        ]
    footnotes = Footnotes()
    rows = []
    previous: GridResult | None = None
    for row in table.rows:
        cells = _grid_cells(row, footnotes)
        if beside:
            cells += _published_cells(row, row.published, footnotes)
        rows.append(
            ViewRow(
                cells=tuple(cells),
                rule=previous is not None and previous.pattern != row.pattern,
                reference=row.pattern is None,
            )
        )
        previous = row
    return TableView(
        id=table.id,
        label=table_label(table.id),
        caption=_grid_caption(table),
        columns=tuple(columns),
        rows=tuple(rows),
        footnotes=footnotes.collected(),
    )


def methods_view(table: AggregatedMethods) -> TableView:
    """The methods table: every method on every network and data set of the plan."""
    footnotes = Footnotes()
    rows = []
    previous: MethodResult | None = None
    for row in table.rows:
        setting = (row.model, row.width, row.dataset)
        cells = (
            Cell(text=row.method, marks=footnotes.marks([row.note and sentence(row.note)])),
            Cell(text=NETWORKS[row.model]),
            Cell(text=str(row.width)),
            Cell(text=DATASETS[row.dataset]),
            Cell(text=row.recipe),
            _accuracy_cell(row.id, row.accuracy, footnotes),
            Cell(text="n/a"),
        )
        rule = previous is not None and (previous.model, previous.width, previous.dataset) != setting
        rows.append(ViewRow(cells=cells, rule=rule))
        previous = row
    return TableView(
        id=table.id,
        label=table_label(table.id),
        caption=caption(
            "table-methods",
            title=table.title,
            density=density_text(table.density),
            **_summarised(table, [row.accuracy for row in table.rows]),
        ),
        columns=(
            Column(label="Method"),
            Column(label="Network"),
            Column(label="Width", align="right"),
            Column(label="Data"),
            Column(label="Recipe"),
            Column(label="Test Accuracy (%)", align="right"),
            Column(label="Published (%)", align="right"),
        ),
        rows=tuple(rows),
        footnotes=footnotes.collected(),
    )


def _grid_cells(row: GridResult, footnotes: Footnotes) -> list[Cell]:
    change = row.change
    unknown = row.pattern is not None and change is None
    return [
        Cell(text=row.method, marks=footnotes.marks([row.footnote and sentence(row.footnote)])),
        Cell(text=row.pattern.capitalize() if row.pattern else DASH),
        Cell(text=setting_text(row.multiplier)),
        Cell(text=setting_text(row.cycles)),
        Cell(text=setting_text(row.length_multiplier, "×")),
        _accuracy_cell(row.id, row.accuracy, footnotes),
        Cell(text=NOT_AVAILABLE, tone="missing") if unknown else Cell(text=signed(change)),
    ]


def _accuracy_cell(row: str, accuracy: Accuracy, footnotes: Footnotes) -> Cell:
    return Cell(
        text=accuracy_text(accuracy),
        marks=footnotes.marks([seeds_note(accuracy)]),
        tone="plain" if accuracy.complete and accuracy.planned else "missing",
        row=row,
    )


def _published_cells(row: GridResult, published: PublishedValue | None, footnotes: Footnotes) -> list[Cell]:
    if published is None:
        note = footnotes.marks(["The paper has no such row."])
        return [Cell(text=NOT_AVAILABLE, marks=note, tone="missing"), Cell(text=DASH), Cell(text=DASH)]
    contradiction = None
    if published.change_contradicts_means:
        contradiction = f"As printed; the printed accuracies give {signed(published.change_from_means)}."
    difference = row.difference
    return [
        Cell(text=plus_minus(published.mean, published.std)),
        Cell(text=signed(published.change), marks=footnotes.marks([contradiction])),
        Cell(text=NOT_AVAILABLE, tone="missing") if difference is None else Cell(text=signed(difference, 2)),
    ]


def _grid_caption(table: AggregatedGrid) -> str:
    static = table.static
    return caption(
        "tables-2-to-5",
        title=table.title,
        network=NETWORKS[table.model],
        dataset=DATASETS[table.dataset],
        width=table.width,
        density=density_text(table.density),
        published_table=table.published_table,
        comparable=table.comparable,
        static_is_partial=static is not None and 0 < static.accuracy.used < static.accuracy.planned,
        **_summarised(table, [row.accuracy for row in table.rows]),
    )


def _summarised(table: AggregatedGrid | AggregatedMethods, accuracies: Sequence[Accuracy]) -> dict[str, object]:
    seeds = sorted({seed.seed for accuracy in accuracies for seed in accuracy.seeds})
    return {
        "accuracy": table.summarising.accuracy,
        "spread": table.summarising.spread,
        "seeds": listed([str(seed) for seed in seeds]),
        "number_of_seeds": len(seeds),
        "incomplete": any(accuracy.planned and not accuracy.complete for accuracy in accuracies),
    }


def _grid_record(table: AggregatedGrid, row: GridResult) -> dict[str, Value]:
    published = row.published
    return {
        "table": table.id,
        "dataset": DATASETS[table.dataset],
        "model": NETWORKS[table.model],
        "width": table.width,
        "density": density_text(table.density),
        "method": row.method,
        "pattern": row.pattern,
        "multiplier": row.multiplier,
        "cycles": row.cycles,
        "length_multiplier": row.length_multiplier,
        "accuracy_mean": row.accuracy.mean,
        "accuracy_std": row.accuracy.std,
        "change": row.change,
        "published_accuracy_mean": published.mean if published else None,
        "published_accuracy_std": published.std if published else None,
        "published_change": published.change if published else None,
        "difference": row.difference,
        **_seed_record(row.accuracy),
        "footnote": row.footnote,
    }


def _method_record(table: AggregatedMethods, row: MethodResult) -> dict[str, Value]:
    return {
        "table": table.id,
        "method": row.method,
        "model": NETWORKS[row.model],
        "width": row.width,
        "dataset": DATASETS[row.dataset],
        "density": density_text(table.density),
        "recipe": row.recipe,
        "accuracy_mean": row.accuracy.mean,
        "accuracy_std": row.accuracy.std,
        "published_accuracy_mean": "n/a",
        **_seed_record(row.accuracy),
        "footnote": row.note,
    }


def _seed_record(accuracy: Accuracy) -> dict[str, Value]:
    return {
        "seeds_planned": accuracy.planned,
        "seeds_used": accuracy.used,
        "seeds_diverged": len(accuracy.with_status("diverged")),
        "seeds_missing": len(accuracy.with_status("missing")),
        "seed_values": " ".join(_seed_texts(accuracy)),
    }


def _seed_texts(accuracy: Accuracy) -> Iterable[str]:
    for seed in accuracy.seeds:
        yield f"{seed.seed}:{seed.status if seed.accuracy is None else fixed(seed.accuracy, 4)}"
