"""Table 6: what training costs, counted as the paper counts and as measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from east.analysis.published import PublishedCost, read_published_costs
from east.cost.record import CostRecord
from east.errors import EastError
from east.render.numbers import DASH, NOT_AVAILABLE, fixed, quantity, setting_text, thousands
from east.render.rendered import Quantity, Rendered, Value, numeric, render_views, view_of
from east.render.templating import caption
from east.render.view import Cell, Column, Footnotes, TableView, ViewRow
from east.training.records import describe

BYTES_PER_MB = 2**20
BYTES_PER_PARAMETER = 4


def render_cost(
    rows: Sequence[CostRecord], published: Path | None, *, network: str, dataset: str, comparable: bool = True
) -> Rendered:
    """Print Table 6 in two parts: the paper's accounting beside the printed numbers, and what was measured.

    Args:
        rows: What each method costs.
        published: `report/published/table6.csv`; rows are matched by method. None sets nothing beside.
        network: How the network is called, such as `ResNet-34`.
        dataset: How the data set is called.
        comparable: Whether both are the paper's.

    Raises:
        EastError: The published file cannot be read.
    """
    theirs = {row.method: row for row in read_published_costs(published)} if published else {}
    pairs = [(row, theirs.get(row.method)) for row in rows]
    what = {"network": network, "dataset": dataset, "comparable": comparable or not theirs}
    machines = list(dict.fromkeys(row.measured_on for row in rows if row.measured_on))
    measured = view_of(
        _MEASURED,
        rows,
        id="table6-measured",
        caption=caption("table-6", part="measured", **what),
        remarks=(f"Measured on {'; '.join(machines)}." if machines else "Nothing was timed.",),
    )
    counted = _accounting_view(
        pairs, caption("table-6", part="paper", **what), beside=bool(theirs), comparable=comparable
    )
    columns = [*CostRecord.model_fields, "published_train_time", "published_param_size_mb", "published_est_total_mb"]
    return render_views([counted, measured], columns, [_record(row, other) for row, other in pairs])


def read_costs(path: Path) -> list[CostRecord]:
    """Read what `east cost --out` wrote.

    Raises:
        EastError: The file cannot be read, or is something else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EastError(f"The costs in {path} cannot be read: {error}.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise EastError(f"{path} is not what `east cost` writes.")
    return [_validated(row) for row in rows]


def explain_differences(row: CostRecord, published: PublishedCost | None) -> list[str]:
    """Sentences on where the paper's accounting of a row and the truth differ, and why.

    Args:
        row: The row; its fields decide what is said.
        published: The printed row, if it is to be compared with.
    """
    sentences = []
    if row.param_size_mb_active is not None and row.est_total_mb_active is not None:
        active = f"{fixed(row.param_size_mb_active)} MB of parameters and {fixed(row.est_total_mb_active)} MB in total"
        if published is not None and _agrees(row.est_total_mb, published.est_total_mb):
            sentences.append(
                f"{row.method}: the paper's numbers match a network with DyReLU off; with DyReLU on there are {active}."
            )
        else:
            sentences.append(f"{row.method}: counted with DyReLU off; with it on there are {active}.")
    trainable = _trainable_mb(row)
    if trainable is not None and row.param_size_mb - trainable > 0.01 * row.param_size_mb:
        frozen = "DCT matrices" if "DCT" in row.method.upper() else "tensors"
        sentences.append(
            f"{row.method}: the {fixed(row.param_size_mb)} MB include frozen {frozen}; "
            f"{fixed(trainable)} MB are trained."
        )
    return sentences


def _accounting_view(
    pairs: Sequence[tuple[CostRecord, PublishedCost | None]], text: str, *, beside: bool, comparable: bool
) -> TableView:
    footnotes = Footnotes()
    rows = []
    for row, published in pairs:
        marks = footnotes.marks([*explain_differences(row, published if comparable else None)])
        hours = NOT_AVAILABLE if row.hours_estimate is None else _hours(row.hours_estimate)
        cells = [Cell(text=row.method, marks=marks), Cell(text=hours)]
        sizes = (
            (row.param_size_mb, published.param_size_mb if published else None),
            (row.est_total_mb, published.est_total_mb if published else None),
        )
        if beside:
            cells.append(Cell(text=published.train_time if published else DASH))
        for here, printed in sizes:
            differs = comparable and printed is not None and not _agrees(here, printed)
            cells.append(Cell(text=fixed(here), tone="differs" if differs else "plain"))
            if beside:
                cells.append(Cell(text=fixed(printed)))
        rows.append(ViewRow(cells=tuple(cells)))
    names = ("Train Time (hours)", "Param Size (MB)", "Est. Total (MB)")
    columns = [Column(label="Method")]
    for name in names:
        if beside:
            columns += [Column(label=label, group=name, align="right") for label in ("here", "paper")]
        else:
            columns.append(Column(label=name, align="right"))
    return TableView(
        id="table6",
        label="Table 6",
        caption=text,
        columns=tuple(columns),
        rows=tuple(rows),
        footnotes=footnotes.collected(),
    )


_MEASURED: tuple[Quantity[CostRecord], ...] = (
    Quantity(Column(label="Method"), lambda row: row.method),
    Quantity(numeric("Trainable", "Parameters"), lambda row: thousands(row.trainable_parameters)),
    Quantity(numeric("Non-zeros", "Parameters"), lambda row: thousands(row.nonzeros)),
    Quantity(numeric("Batch norm", "Parameters"), lambda row: thousands(row.batch_norm_parameters)),
    Quantity(numeric("DyReLU", "Parameters"), lambda row: thousands(row.dyrelu_parameters)),
    Quantity(numeric("Other", "Parameters"), lambda row: thousands(row.other_parameters)),
    Quantity(numeric("dense", "Inference FLOPs"), lambda row: quantity(row.flops_inference_dense)),
    Quantity(numeric("sparse", "Inference FLOPs"), lambda row: quantity(row.flops_inference_sparse)),
    Quantity(numeric("dense", "Training FLOPs"), lambda row: quantity(row.flops_training_dense)),
    Quantity(numeric("sparse", "Training FLOPs"), lambda row: quantity(row.flops_training_sparse)),
    Quantity(numeric("Memory (MB)"), lambda row: fixed(row.peak_memory_mb, 0)),
    Quantity(numeric("s / step"), lambda row: quantity(row.seconds_per_step)),
    Quantity(numeric("Batch"), lambda row: setting_text(row.measured_batch_size)),
)


def _trainable_mb(row: CostRecord) -> float | None:
    if row.trainable_parameters is None:
        return None
    return row.trainable_parameters * BYTES_PER_PARAMETER / BYTES_PER_MB


def _agrees(here: float, printed: float) -> bool:
    return fixed(here) == fixed(printed)


def _hours(hours: float) -> str:
    return fixed(hours, 1 if hours >= 0.95 else 2)


def _validated(row: Mapping[str, object]) -> CostRecord:
    try:
        return CostRecord.model_validate(dict(row))
    except ValidationError as error:
        raise EastError(f"The cost of {row.get('method', 'a method')} is not valid: {describe(error)}.") from error


def _record(row: CostRecord, published: PublishedCost | None) -> dict[str, Value]:
    record: dict[str, Value] = dict(row.model_dump())
    if published is not None:
        record["published_train_time"] = published.train_time
        record["published_param_size_mb"] = published.param_size_mb
        record["published_est_total_mb"] = published.est_total_mb
    return record
