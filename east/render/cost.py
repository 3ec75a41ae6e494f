"""Table 6: what training costs, counted as the paper counts and as measured."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from east.analysis.aggregate import parsed
from east.analysis.published import FROM_DISK, PublishedCost, Read, read_published
from east.analysis.sources import Sources
from east.cost.record import CostRecord
from east.render.numbers import DASH, NOT_AVAILABLE, fixed, quantity, setting_text, thousands
from east.render.rendered import Quantity, Rendered, numeric, render_views, view_of
from east.render.templating import caption
from east.render.view import Cell, Column, Footnotes

BYTES_PER_MB = 2**20
BYTES_PER_VALUE = 4
_RECORDS = TypeAdapter(list[CostRecord])


def render_cost(
    rows: Sequence[CostRecord],
    published: Path | None,
    *,
    network: str,
    dataset: str,
    comparable: bool = True,
    read: Read = FROM_DISK,
) -> Rendered:
    """Print Table 6 in two parts: the paper's accounting beside the printed numbers, and what was measured.

    Rows are matched by method with those of `published`, `report/published/table6.csv`, whose content `read` gives;
    None sets nothing beside them.

    Raises:
        EastError: The published file cannot be read.
    """
    theirs = {row.method: row for row in read_published(published, PublishedCost, read)} if published else {}
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
    footnotes = Footnotes()
    counted = view_of(
        _accounting(footnotes, beside=bool(theirs), comparable=comparable),
        pairs,
        footnotes=footnotes,
        id="table6",
        label="Table 6",
        caption=caption("table-6", part="paper", **what),
    )
    printed = {f"published_{name}": name for name in ("train_time", "param_size_mb", "est_total_mb")}
    records = [
        row.model_dump() | {name: getattr(other, of, None) for name, of in printed.items()} for row, other in pairs
    ]
    return render_views([counted, measured], [*CostRecord.model_fields, *printed], records)


def costs_json(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of Table 6 as JSON; `read_costs` gives them back."""
    return json.dumps(rows, indent=2) + "\n"


def read_costs(path: Path, sources: Sources) -> list[CostRecord]:
    """What `east cost` measured.

    Raises:
        EastError: It is not there, not the plan's, or damaged.
    """
    return parsed(sources.derived(path), path, _RECORDS.validate_json, "measured costs")


def explain_differences(row: CostRecord, published: PublishedCost | None) -> list[str]:
    """Sentences on where the paper's accounting of a row and the truth differ, and why."""
    sentences = []
    if row.param_size_mb_active is not None and row.est_total_mb_active is not None:
        active = f"{fixed(row.param_size_mb_active)} MB of parameters and {fixed(row.est_total_mb_active)} MB in total"
        if published is not None and _agrees(row.est_total_mb, published.est_total_mb):
            sentences.append(
                f"{row.method}: the paper's numbers match a network with DyReLU off; with DyReLU on there are {active}."
            )
        else:
            sentences.append(f"{row.method}: counted with DyReLU off; with it on there are {active}.")
    trainable = (row.trainable_parameters or 0) * BYTES_PER_VALUE / BYTES_PER_MB
    if trainable and row.param_size_mb - trainable > 0.01 * row.param_size_mb:
        frozen = "DCT matrices" if "DCT" in row.method.upper() else "tensors"
        sentences.append(
            f"{row.method}: the {fixed(row.param_size_mb)} MB include frozen {frozen}; "
            f"{fixed(trainable)} MB are trained."
        )
    return sentences


_Pair = tuple[CostRecord, PublishedCost | None]
_Says = Callable[[_Pair], Cell | str]


def _accounting(footnotes: Footnotes, *, beside: bool, comparable: bool) -> list[Quantity[_Pair]]:
    """What the part of Table 6 says of a row that counts as the paper counts."""

    def method(pair: _Pair) -> Cell:
        row, printed = pair
        marks = footnotes.marks([*explain_differences(row, printed if comparable else None)])
        return Cell(text=row.method, marks=marks)

    def hours(pair: _Pair) -> str:
        hours = pair[0].hours_estimate
        return NOT_AVAILABLE if hours is None else fixed(hours, 1 if hours > 0.95 else 2)

    def size(name: str) -> tuple[_Says, _Says]:
        def here(pair: _Pair) -> Cell:
            value, printed = getattr(pair[0], name), getattr(pair[1], name, None)
            differs = comparable and printed is not None and not _agrees(value, printed)
            return Cell(text=fixed(value), tone="differs" if differs else "plain")

        return here, lambda pair: fixed(getattr(pair[1], name, None))

    columns: dict[str, tuple[_Says, _Says]] = {
        "Train Time (hours)": (hours, lambda pair: pair[1].train_time if pair[1] else DASH),
        "Param Size (MB)": size("param_size_mb"),
        "Est. Total (MB)": size("est_total_mb"),
    }
    quantities = [Quantity(Column(label="Method"), method)]
    for name, (here, paper) in columns.items():
        quantities.append(Quantity(numeric("here", name) if beside else numeric(name), here))
        quantities.append(Quantity(numeric("paper", name) if beside else None, paper))
    return quantities


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


def _agrees(here: float, printed: float) -> bool:
    return fixed(here) == fixed(printed)
