"""Finished runs made up for a plan, in Snakemake's books as well: `python -m benchmarks.pretend CONFIGFILE ...`.

For scale.py, which times the workflow around trainings and cannot wait for ten thousand of them. It works in the
current folder, in a process of its own.
"""

import json
import random
import sys
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
    WorkflowSettings,
)

from east.config import Plan, Run, make_plan, read_config
from east.files import sha256_of, write_atomically
from east.training.folder import RUN
from east.training.records import (
    FILES,
    EpochRecord,
    Record,
    TimingRecord,
    TraceRecord,
    UpdateRecord,
    sealed_json,
    summary_path,
    write_records,
)

SNAKEFILE = Path(__file__).parents[1] / "Snakefile"

EMPTY: tuple[type[Record], ...] = (UpdateRecord, TraceRecord, TimingRecord)
"""What such runs have no rows of."""


def write_runs(plan: Plan, folder: Path) -> None:
    """Write the summary and the metrics of every run of a plan, with made-up accuracies."""
    draw = random.Random(0)
    for run in plan.runs:
        path = summary_path(folder, run.id)
        records = _epochs(run, draw.gauss(80, 2))
        path.parent.mkdir(parents=True, exist_ok=True)
        files = {FILES[kind]: write_records(path.parent / FILES[kind], kind, ()) for kind in EMPTY}
        files[FILES[EpochRecord]] = write_records(path.parent / FILES[EpochRecord], EpochRecord, records)
        spec = json.dumps(run.spec.model_dump(mode="json"), indent=2).encode()
        write_atomically(path.parent / RUN, spec)
        files[RUN] = sha256_of(spec)
        path.write_text(sealed_json(_summary(run, records) | {"files": files}), encoding="utf-8")


def record_runs(configfiles: list[Path]) -> None:
    """Enter the trainings, and the data that they need, into Snakemake's records as done."""
    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=configfiles),
            workflow_settings=WorkflowSettings(),
            snakefile=SNAKEFILE,
            workdir=Path.cwd(),
        )
        workflow.dag(DAGSettings()).execute_workflow(executor="dryrun")
        # The public interface runs jobs, or prints them.
        inner = workflow._workflow
        for job in inner.dag.jobs:
            if job.rule.name in ("prepare", "train"):
                inner.async_run(inner.persistence.finished(job))


def _epochs(run: Run, accuracy: float) -> list[EpochRecord]:
    spec = run.spec
    return [
        EpochRecord(
            epoch=epoch,
            step=6 * epoch,
            lr=spec.training.lr,
            density=spec.sparsity.density,
            drop_fraction=spec.sparsity.drop_fraction,
            beta=0.0,
            train_loss=2.0 / epoch,
            train_acc=accuracy,
            val_acc=accuracy,
            test_acc=accuracy - 40 / epoch,
            nonzeros=1000,
            mask_updates=3,
            grown=30,
            blind_growth=0,
            active_zeros=0,
            frozen_layers=0,
            live_channels=100,
            live_weights=900,
            dead_branches=0,
        )
        for epoch in range(1, spec.training.epochs + 1)
    ]


def _summary(run: Run, records: list[EpochRecord]) -> dict[str, object]:
    last = records[-1]
    return {
        "id": run.id,
        "run": run.spec.model_dump(mode="json"),
        "fingerprint": run.fingerprint,
        "status": "finished",
        "final_test_accuracy": last.test_acc,
        "best_test_accuracy": last.test_acc,
        "best_epoch": last.epoch,
        "epochs": last.epoch,
        "steps": last.step,
        "nonzeros": last.nonzeros,
        "seconds": 60.0,
        "attempts": 1,
        "peak_memory_mb": 500.0,
        "commit": None,
        "code_digest": "made up",
        "versions": {},
        "device": "none",
        "engine": "none",
        "threads": 1,
    }


def main(configfiles: list[Path]) -> None:
    """Make up the data and the runs of a plan, and record them."""
    plan = make_plan(read_config(*configfiles))
    for dataset in plan.datasets():
        write_atomically(Path(plan.config.execution.data_dir) / dataset / "manifest.json", "{}\n")
    write_runs(plan, Path("results") / plan.config.name / "runs")
    record_runs(configfiles)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
