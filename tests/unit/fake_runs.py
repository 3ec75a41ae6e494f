"""Plans and finished runs made up for the tests of analysis and rendering."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from east.analysis.sources import Sources
from east.config import Plan, Run, load_plan, make_plan, read_config
from east.config.tables import GridRow, GridTable, MethodRow, MethodsTable, RunReference, Summarising
from east.files import sha256_of
from east.operations.steps import Steps
from east.training.folder import DIGESTED, WEIGHTS
from east.training.records import (
    FILES,
    EpochRecord,
    TimingRecord,
    TraceRecord,
    UpdateRecord,
    columns,
    sealed_json,
    write_records,
)

PROJECT = Path(__file__).parents[2]
PUBLISHED = PROJECT / "report" / "published"
TEST_CONFIG = PROJECT / "config" / "test.yaml"
PLAN = {run.id: run for run in load_plan(TEST_CONFIG)}
DIVERGED = "diverged"
OF_A_RUN = {*DIGESTED, WEIGHTS}

Outcome = float | str | None


def write_run(runs_dir: Path, run: str, outcome: float | str, /, **keys: Any) -> Path:
    folder = runs_dir / run
    folder.mkdir(parents=True, exist_ok=True)
    finished = not isinstance(outcome, str)
    summary = {
        "id": run,
        "run": {"seed": int(run.rpartition("seed")[2])},
        "fingerprint": f"fingerprint of {run}",
        "status": "finished" if finished else outcome,
        "final_test_accuracy": outcome if finished else None,
        "best_test_accuracy": outcome - 1 if finished else None,
        "diverged_at_epoch": None if finished else 7,
        "seconds": 60.0,
        "attempts": 1,
        "commit": "c0ffee",
        "code_digest": "d1",
        "versions": {"python": "3.12.1"},
        "device": "cpu",
        "engine": "sparse",
        "threads": 1,
        "reproducibility": "any processor",
        "a_key_of_tomorrow": [1],
    }
    path = folder / "summary.json"
    path.write_text(json.dumps(summary | keys))
    return seal(path)


def seal(summary: Path, /, **changes: Any) -> Path:
    """Give a summary these keys, and the digests of itself and of the files beside it."""
    files = {file.name: sha256_of(file.read_bytes()) for file in summary.parent.iterdir() if file.name in OF_A_RUN}
    summary.write_text(sealed_json(json.loads(summary.read_text()) | {"files": files} | changes))
    return summary


def sources(runs_dir: Path) -> Sources:
    """What reads the runs of a folder, which need not be that of results."""
    found = Sources(runs_dir.parent)
    found.runs = runs_dir
    return found


def record(kind: type, /, **values: Any) -> Any:
    """A row of one of a run's files: zero, or empty, where nothing else is said."""
    return kind(**{column.name: column.kind() for column in columns(kind)} | values)


def write_rows(folder: Path, kind: type, *rows: Mapping[str, Any]) -> Path:
    """One of the files of a run."""
    write_records(folder / FILES[kind], kind, [record(kind, **row) for row in rows])
    if (folder / "summary.json").is_file():
        seal(folder / "summary.json")
    return folder / FILES[kind]


def write_curve(folder: Path, accuracies: Sequence[float], steps: int = 10) -> Path:
    """The learning curve of a run, which need not have ended."""
    rows = [{"epoch": i, "step": steps * i, "test_acc": accuracy} for i, accuracy in enumerate(accuracies, start=1)]
    return write_rows(folder, EpochRecord, *rows)


def write_planned_run(runs_dir: Path, run: Run, accuracy: float = 50.0, /, **keys: Any) -> Path:
    """The folder of a finished run of a plan, with every small file that a training leaves, all in accord."""
    epochs = run.spec.training.epochs
    said = {"run": run.spec.model_dump(mode="json"), "fingerprint": run.fingerprint, "epochs": epochs} | keys
    folder = write_run(runs_dir, run.id, accuracy, **said).parent
    (folder / "run.json").write_text(json.dumps(said["run"]))
    write_curve(folder, [10.0] * (epochs - 1) + [accuracy])
    write_rows(folder, UpdateRecord, {"kind": "initial"})
    write_rows(folder, TraceRecord, {"event": "start"})
    write_rows(folder, TimingRecord, {"epoch": 1, "seconds": 2.5, "attempt": 1})
    return folder


def write_steps(results: Path, *names: str, plan: Plan | None = None) -> None:
    """The files of some steps of the small plan, with their names in them, and recorded as made from what is there."""
    steps = Steps(plan or make_plan(read_config(TEST_CONFIG)), results, [])
    for name in names:
        step, read = steps[name], Sources(results)
        for run in step.runs:
            read.summary(run)
        for needed in step.request.expected:
            for file in steps.files_of(needed):
                read.derived(results / file)
        for one in step.names:
            read.write(step.request, {results / file: file for file in step.files if file.startswith(f"{one}.")})


def references(runs_dir: Path, row: str, outcomes: Sequence[Outcome]) -> tuple[RunReference, ...]:
    """One run for each outcome, with seeds 17, 18, ...; None leaves the run without a summary."""
    runs = []
    for seed, outcome in enumerate(outcomes, start=17):
        run = f"{row}/seed{seed}"
        if outcome is not None:
            write_run(runs_dir, run, outcome)
        runs.append(RunReference(id=run, seed=seed, fingerprint=f"fingerprint of {run}"))
    return tuple(runs)


CYCLIC: Mapping[str, Any] = {"method": "Cyclic", "pattern": "cosine", "multiplier": 10.0, "cycles": 2}


def grid(
    runs_dir: Path,
    static: Sequence[Outcome],
    cyclic: Sequence[Outcome] = (),
    *,
    static_keys: Mapping[str, Any] | None = None,
    cyclic_keys: Mapping[str, Any] | None = None,
    **keys: Any,
) -> GridTable:
    """Table 2 with its static row and, where outcomes are given, the row `cosine, 10, 2, 2×`."""
    first = {"id": "static", "method": "Static", "runs": references(runs_dir, "table2/static", static)}
    rows = [GridRow(**(first | dict(static_keys or {})))]
    if cyclic:
        second = {
            **CYCLIC,
            "id": "cosine-m10-n2-g2",
            "length_multiplier": 2.0,
            "runs": references(runs_dir, "table2/cosine-m10-n2-g2", cyclic),
        }
        rows.append(GridRow(**(second | dict(cyclic_keys or {}))))
    table = {
        "id": "table2",
        "title": "Cyclic sparse training results",
        "model": "resnet34",
        "width": 64,
        "dataset": "cifar10",
        "density": 0.0005,
        "published": "table2.csv",
        "comparable": True,
        "summarising": Summarising(),
        "rows": tuple(rows),
    }
    return GridTable(**(table | keys))


def methods(runs_dir: Path, outcomes: Sequence[Outcome], **keys: Any) -> MethodsTable:
    row = {
        "id": "rigl-cifar10",
        "method": "RigL",
        "model": "resnet34",
        "width": 32,
        "dataset": "cifar10",
        "recipe": "resnet34",
        "runs": references(runs_dir, "methods/rigl-cifar10", outcomes),
    }
    return MethodsTable(
        title="Accuracy of the methods",
        density=0.0005,
        summarising=Summarising(),
        rows=(MethodRow(**(row | keys)),),
    )
