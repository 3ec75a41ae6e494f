"""A reproduction made up for the golden views: every kind of row, run and verdict, and the report of it all."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from east.analysis.aggregate import AggregatedGrid
from east.analysis.evidence import Evidence, evidence_json
from east.analysis.sources import Sources
from east.config import read_config
from east.config.tables import Comparing, GridRow, GridTable, MethodRow, MethodsTable, Summarising
from east.cost.record import CostRecord
from east.render.contents import FigureGroup, Reading, ReportFigure, ReportSection, ReportSpec
from east.render.cost import render_cost
from east.render.evidence import evidence_tables
from east.render.hyperparameters import hyperparameter_rows, render_hyperparameters
from tests.unit.fake_report import ANY, SVG, summarise, write_derived, write_rendered
from tests.unit.fake_runs import DIVERGED, PUBLISHED, Outcome, references, write_curve, write_run
from tests.unit.fake_tables import gather

ROWS: Mapping[tuple[Any, ...], Sequence[Outcome]] = {
    (None, None, None, None): [81.0, 81.5, 82.0],
    ("cosine", 3, 1, None): [83.5, 83.6, 83.7],
    ("cosine", 3, 2, 1): [83.9, DIVERGED, 84.1],
    ("cosine", 3, 2, 2): [60.0, 60.5, 61.0],
    ("cosine", 7, 1, None): [84.0, 84.5, 84.2],
    ("cosine", 10, 1, None): [84.2, None, None],
    ("cosine", 10, 2, 1): [85.0, 85.3, 85.4],
    ("cosine", 10, 2, 2): [DIVERGED, DIVERGED, None],
    ("triangular", 3, 1, None): [60.0, 82.0, 99.0],
    ("triangular", 3, 2, 2): [84.5, 84.4, 84.6],
    ("triangular", 10, 1, None): [84.3, 84.5, 84.1],
    ("triangular", 10, 2, 2): [85.4, 85.5, 85.4],
}
"""Settings of Table 2 -> what its seeds came to; the paper has no multiplier of 7."""


def row(runs: Path, table: str, key: Sequence[Any], outcomes: Sequence[Outcome], **keys: Any) -> GridRow:
    pattern, multiplier, cycles, growth = key
    name = "-".join(str(part) for part in key if part is not None) or "static"
    fields = {
        "id": name,
        "method": "Cyclic" if pattern else "Static",
        "pattern": pattern,
        "multiplier": multiplier,
        "cycles": cycles,
        "length_multiplier": growth,
    } | keys
    return GridRow(**fields, runs=references(runs, f"{table}/{fields['id']}", outcomes))


def tables(runs: Path) -> tuple[GridTable | MethodsTable, ...]:
    """Table 2 with every verdict, Table 3 on another scale, one that is no table of the paper's, and the methods."""
    main = [row(runs, "table2", key, outcomes) for key, outcomes in ROWS.items()]
    main[6] = main[6].model_copy(update={"footnote": "rescaled to fit"})
    own = {"id": "gmp", "method": "GMP", "printed": False, "footnote": "Ours, with a fixed topology!"}
    main.append(row(runs, "table2", ("cosine", 10, 2, 2), [86.0, 86.2, 86.1], **own))
    other = [
        ((None,) * 4, [50.0, DIVERGED]),
        (("cosine", 30, 2, 2), [54.0, 56.0]),
        (("triangular", 3, 1, None), [55.5]),
    ]
    mine = [((None,) * 4, [None]), (("cosine", 3, 1, None), [97.0, 98.5])]
    of_methods = [
        ("rigl-cifar10", "RigL", "resnet34", 32, "cifar10", None, [80.0, 81.0]),
        ("rigl-cifar100", "RigL", "resnet34", 32, "cifar100", None, [50.0, DIVERGED]),
        ("dct-cifar10", "DCTpS", "resnet50", 64, "cifar10", None, [None, None]),
        ("dct-imagenet", "DCTpS", "resnet50_imagenet", 64, "imagenet", "there are no such images", []),
    ]
    fields = ("id", "method", "model", "width", "dataset", "note")
    head: dict[str, Any] = {"model": "resnet34", "summarising": Summarising()}
    return (
        GridTable(
            **head,
            id="table2",
            title="Cyclic sparse training",
            width=64,
            dataset="cifar10",
            density=0.0005,
            published="table2.csv",
            comparable=True,
            rows=tuple(main),
        ),
        GridTable(
            **head | {"summarising": Summarising(accuracy="best_validation", spread="population")},
            id="table3",
            title="A rehearsal",
            width=8,
            dataset="cifar100",
            density=0.01,
            published="table3.csv",
            comparable=False,
            comparing=Comparing(margin=1.5, published_spread="standard_error"),
            rows=tuple(row(runs, "table3", *one) for one in other),
        ),
        GridTable(
            **head,
            id="tableMine",
            title="A table of one's own",
            width=8,
            dataset="digits",
            density=0.01,
            published=None,
            comparable=False,
            rows=tuple(row(runs, "tableMine", *one) for one in mine),
        ),
        MethodsTable(
            title="Accuracy of the methods",
            density=0.0005,
            summarising=Summarising(),
            rows=tuple(
                MethodRow(
                    **dict(zip(fields, one, strict=True)),
                    recipe="resnet34",
                    runs=references(runs, f"methods/{one[0]}", outcomes),
                )
                for *one, outcomes in of_methods
            ),
        ),
    )


def describe_runs(runs: Path) -> None:
    """Give some of the runs what others lack: attempts, a GPU that is shared, curves, live channels."""
    attempts = [
        {
            "attempt": 1,
            "first_step": 0,
            "last_step": 9,
            "code_digest": "d2",
            "device": "H100",
            "versions": {"torch": "2.10"},
        },
        {"attempt": 2, "first_step": 10, "last_step": 30, "code_digest": "d1", "device": "cpu"},
    ]
    resumed = {"attempts": 2, "attempt_records": attempts, "seconds": 11_100.0, "versions": {"torch": "2.11"}}
    shared = {"runs_per_device": 3, "device": "H100", "reproducibility": "statistical", "seconds": 200_000.0}
    known = {"best_epoch": 70, "best_test_accuracy": 81.25, "peak_memory_mb": 1234.5, "commit": "0123456789abcdef"}
    live = {"liveness": {"channels": 8512, "live_channels": 4001}, "reproducibility": None, "device": None}
    write_run(runs, "table2/static/seed17", 81.0, **resumed, **known)
    write_run(runs, "table2/static/seed18", 81.5, **shared, peak_memory_mb=77.0)
    write_run(runs, "table2/static/seed19", 82.0, **live, commit=None, seconds=None, attempts=None, best_epoch=3)
    write_run(runs, "table2/cosine-3-1/seed17", 83.5, best_test_accuracy=None, best_epoch=3, liveness={"channels": 5})
    write_run(runs, "methods/rigl-cifar100/seed18", DIVERGED, diverged_at_epoch=None)
    write_curve(runs / "table2/static/seed17", [81 * (1 - 0.9**epoch) for epoch in range(1, 81)])
    write_curve(runs / "table2/static/seed18", [20.0, 60.0, 81.5])
    write_curve(runs / "table2/cosine-10-1/seed18", [10.0, 20.5])
    write_curve(runs / "table2/cosine-10-2-2/seed17", [30.0])


COSTS = (
    {
        "method": "RigL",
        "param_size_mb": 81.3606,
        "est_total_mb": 100.4352,
        "trainable_parameters": 21_328_192,
        "nonzeros": 10_664,
        "batch_norm_parameters": 17_024,
        "dyrelu_parameters": 0,
        "other_parameters": 5,
        "flops_inference_dense": 2.32e9,
        "flops_inference_sparse": 5.1e6,
        "flops_training_dense": 6.96e9,
        "flops_training_sparse": 999.9e6,
        "peak_memory_mb": 1822.4,
        "seconds_per_step": 0.2041,
        "seconds_spread": 0.05,
        "hours_estimate": 0.512,
        "measured_batch_size": 128,
        "measured_on": "a CPU",
    },
    {
        "method": "DCTpS",
        "param_size_mb": 162.5,
        "est_total_mb": 197.36,
        "trainable_parameters": 21_328_292,
        "hours_estimate": 2.26,
        "measured_on": "a GPU",
    },
    {
        "method": "EAST w/ DyReLU",
        "param_size_mb": 81.36,
        "est_total_mb": 107.81,
        "param_size_mb_active": 93.5,
        "est_total_mb_active": 120.44,
        "hours_estimate": 0.95,
        "peak_memory_mb": 2000.0,
        "measured_on": "a CPU",
    },
    {"method": "New", "param_size_mb": 5, "est_total_mb": 6, "trainable_parameters": 1_000_000, "seconds_per_step": 2},
)
"""Rows of Table 6, two of them with numbers other than the paper's, and one that it has not."""


def section(name: str, folder: Path, **keys: Any) -> ReportSection:
    downloads = tuple(folder / "tables" / f"{name}.{ending}" for ending in ("csv", "md", "tex"))
    return ReportSection(id=name, heading=f"Heading: {name}", downloads=downloads, **keys)


def reproduction(folder: Path) -> tuple[ReportSpec, Evidence]:
    """What goes into the report, everything of which lies in the empty `folder`, and how it stands to the paper."""
    runs = folder / "runs"
    planned = tables(runs)
    describe_runs(runs)
    summarised = [summarise(table, folder) for table in planned]
    evidence = gather([table for table in summarised if isinstance(table, AggregatedGrid)], PUBLISHED)
    write_derived(folder, {"analysis/evidence.json": evidence_json(evidence)})
    for table in evidence_tables(evidence):
        write_rendered(folder, table.name, table.render())
    costs = [CostRecord.model_validate(row) for row in COSTS]
    printed = PUBLISHED / "table6.csv"
    write_rendered(folder, "table6", render_cost(costs, printed, network="ResNet-34", dataset="CIFAR-100"))
    recipes = hyperparameter_rows(read_config())
    own = recipes[0] | {"method": "SET", "lr_drop_epochs": "-", "weight_decay": ""}
    changed = recipes[0] | {"lr": "0.2", "cyclic_n": "3", "weight_decay": "0.0001"}
    write_rendered(folder, "tableB1", render_hyperparameters([changed, own, *recipes[1:]], PUBLISHED / "tableB1.csv"))
    stem = folder / "figures" / "cost"
    Sources(folder).write(ANY, {stem.with_suffix(".svg"): SVG, stem.with_suffix(".png"): b"pixels"})
    write_derived(folder, {"figures/table2-curves.svg": re.sub(r"viewBox.*</metadata>", 'id="a">', SVG)})
    curves, cost = (
        ReportFigure(svg=folder / "figures" / f"{name}.svg", caption=f"Of {name}.")
        for name in ("table2-curves", "cost")
    )
    spec = ReportSpec(
        title="EAST",
        name="made-up",
        introduction="Three networks.",
        tables=(
            *(section(table.id, folder, aggregated=folder / "aggregate" / f"{table.id}.json") for table in planned),
            section("tableB1", folder, table=folder / "tables" / "tableB1.html"),
        ),
        evidence=folder / "analysis" / "evidence.json",
        evidence_files={"claims": (folder / "tables" / "claims.csv",)},
        figures=(FigureGroup(heading="Curves", figures=(curves, cost)),),
        cost=section("table6", folder, table=folder / "tables" / "table6.html", figures=(cost,)),
        readings=(
            Reading(matter="Clip", value="none", default="norm 1", other="both", key="readings.clip", reason="Why."),
            Reading(matter="Seeds", value="3", default="3"),
        ),
        facts={"Configuration": "config.yaml", "Runs": "many"},
        logs=folder / "logs",
        config="seeds:\n  - 17\n",
    )
    return spec, evidence
