"""The GPU suite: `python -m benchmarks.gpu` measures everything on a GPU in at most nine minutes."""

import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.command import run_command
from benchmarks.gpu_suite.conditions import Conditions, narrow, with_density
from benchmarks.gpu_suite.expected import GIVEN_RATES, expected
from benchmarks.gpu_suite.numerics import Pair, judge, prepare_task, render, task_spec, tasks, train_pairs
from benchmarks.gpu_suite.runner import PARTS, run
from east.errors import EastError
from east.files import write_atomically

MINUTES = 9.0
RESULTS_FOLDER = Path(__file__).parent / "results"
NO_GPU = 2
"""The exit status where there is no GPU."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Rehearse on the CPU at tiny shapes: nothing is measured. Needs --out.")
]
Out = Annotated[Path | None, typer.Option(help="The folder of the results; benchmarks/results when left out.")]


@app.callback(invoke_without_command=True)
def suite(
    context: typer.Context,
    minutes: Annotated[float, typer.Option(min=0.1, help="For all parts together.")] = MINUTES,
    parts: Annotated[list[str] | None, typer.Option(help="Parts to run; all when left out.")] = None,
    dry_run: DryRun = False,
    out: Out = None,
) -> None:
    """Rates of the GPU, correctness, seconds of steps and epochs, several processes, hours that follow.

    Parts run in the order of their importance, each within a time of its own; results are written after every one.
    """
    if context.invoked_subcommand is not None:
        return
    names = [part.name for part in PARTS]
    if unknown := set(parts or ()) - set(names):
        raise EastError(f"there is no part '{unknown.pop()}'. Choose from {', '.join(names)}.")
    chosen = [part for part in PARTS if not parts or part.name in parts]
    folder = _prepare(out, dry_run=dry_run)
    results, path = run(chosen, seconds=60 * minutes, device="cpu" if dry_run else "cuda", dry=dry_run, folder=folder)
    print(f"Written to {path} and the .json beside it, {results.minutes:.1f} minutes.")
    if any(part.state == "failed" for part in results.parts):
        raise typer.Exit(1)


@app.command()
def numerics(
    seeds: Annotated[int, typer.Option(min=2, help="Pairs of trainings.")] = 5,
    task: Annotated[str, typer.Option(help=f"What is learnt: {', '.join(tasks())}.")] = "digits",
    epochs: Annotated[int, typer.Option(min=2, help="Of a training.")] = 30,
    density: Annotated[float, typer.Option(min=1e-5, max=1, help="Of the network.")] = 0.01,
    model: Annotated[str, typer.Option(help="ResNet-34 or ResNet-50.")] = "ResNet-34",
    engine: Annotated[str, typer.Option(help="auto, dense or sparse.")] = "dense",
    margin: Annotated[float, typer.Option(min=0, help="Percentage points that count as the same.")] = 0.5,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Coverage of the interval.")] = 0.95,
    data_dir: Annotated[Path, typer.Option(help="Downloads and prepared data sets.")] = Path("data"),
    dry_run: DryRun = False,
    out: Out = None,
) -> None:
    """The paired test of bf16 against TF32 over seeds, for as long as it takes; the same command goes on."""
    folder = _prepare(out, dry_run=dry_run)
    conditions = Conditions("cpu" if dry_run else "cuda", dry_run, 0.0, folder)
    if model not in conditions.networks:
        raise EastError(f"there is no network '{model}' here. Choose from {', '.join(conditions.networks)}.")
    spec = with_density(Conditions("cuda", False, 0.0, folder).plain(conditions.networks[model]), density)
    spec = task_spec(task, spec, epochs=epochs, dry=dry_run)
    if dry_run:
        spec = spec.model_copy(update={"model": narrow(spec).model})
    data = prepare_task(task, spec, data_dir, folder, dry=dry_run)
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    stem = f"gpu-numerics-{task}-{model.lower()}-{density:g}-{date}"
    title = f"{model}, {task}, density {density:g}, {epochs} epochs, engine {engine}"

    def report(pairs: Sequence[Pair]) -> None:
        verdict = judge(pairs, margin, level)
        write_atomically(folder / f"{stem}.json", verdict.model_dump_json(indent=1) + "\n")
        write_atomically(folder / f"{stem}.md", render(verdict, title, dry=dry_run))
        last = pairs[-1]
        print(f"seed {last.seed}: TF32 {last.tf32}, bf16 {last.bf16}", flush=True)

    runs = folder / "numerics-runs"
    train_pairs(spec, range(1, seeds + 1), runs, data, device=conditions.device, engine=engine, report=report)
    print((folder / f"{stem}.md").read_text())


@app.command(name="expected")
def expected_command() -> None:
    """The time of each kernel and of a step that follows from bytes and operations at given rates: computed."""
    print(expected(GIVEN_RATES))


def _prepare(out: Path | None, *, dry_run: bool) -> Path:
    """The folder of the results; a rehearsal on the CPU is told to itself and to Triton.

    Raises:
        EastError: a rehearsal has no folder of its own.
        typer.Exit: there is no GPU.
    """
    if dry_run:
        if out is None:
            raise EastError("--dry-run measures nothing, so it writes to no results: give it a folder with --out.")
        # Before Triton is imported, here and in every process that is started.
        os.environ["TRITON_INTERPRET"] = "1"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        print("A rehearsal on the CPU: nothing is measured.", flush=True)
        return out
    if not torch.cuda.is_available():
        print(
            "There is no GPU here (PyTorch finds no CUDA device), so the suite has nothing to measure. "
            "`--dry-run --out DIR` rehearses it on the CPU.",
            file=sys.stderr,
        )
        raise typer.Exit(NO_GPU)
    return out or RESULTS_FOLDER


if __name__ == "__main__":
    run_command(app)
