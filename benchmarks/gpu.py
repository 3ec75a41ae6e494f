"""The GPU suite: `python -m benchmarks.gpu` answers what can only be answered on a GPU, in at most eight minutes."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.gpu_suite.fast import Epochs, Floors, Group, Times
from benchmarks.gpu_suite.right import REFERENCE, Steps, Tests
from benchmarks.gpu_suite.runs import Hours, Sharing, Trainings
from benchmarks.gpu_suite.suite import Part, Results, decides, run, stem
from benchmarks.gpu_suite.ways import AUTHORS, CAPTURED, COMPILED, EAGER, MODELS, PLAIN, Way
from benchmarks.results import RESULTS_FOLDER, run_command, today
from east.checkout import commit
from east.errors import EastError
from east.training.provenance import device_name

MINUTES = 8.0
NO_GPU = 2
"""The exit status where there is no GPU."""

PARTS: dict[str, Part] = {
    "kernels": Tests(60, "the sparse engine's kernels are right", ["tests/unit/test_cuda_*.py"]),
    "steps": Steps(60, (REFERENCE, Way("sparse", "eager", "fp32"), *EAGER, *CAPTURED)),
    "floors": Floors(15),
    "times": Times(95),
    "waiting": Tests(
        30,
        "recorded steps follow masks, density, learning rate and β, and never wait for the GPU",
        ["tests/unit/test_training_captured.py", "tests/unit/test_data_batches.py"],
    ),
    "hours": Hours(60),
    "epochs": Epochs(35),
    "trainings": Trainings(35),
    "sharing": Sharing(45),
    "compiled-steps": Steps(20, (*EAGER[::2], *COMPILED)),
    "compiled-times": Times(25, [Group(network, PLAIN, (AUTHORS[0], *CAPTURED, *COMPILED)) for network in MODELS]),
}
"""In the order of importance; seconds of eight minutes."""


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="For all parts together.")] = MINUTES,
    parts: Annotated[list[str] | None, typer.Option(help="Parts to run; all when left out.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Run parts that today's results have already.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Rehearse on the CPU at tiny shapes: nothing is measured. Needs --out.")
    ] = False,
    questions: Annotated[bool, typer.Option("--questions", help="Say what each part decides, and end.")] = False,
    out: Annotated[Path | None, typer.Option(help="The folder of the results; benchmarks/results if left out.")] = None,
) -> None:
    """Kernels, numerics, seconds of a step, hours of the paper, sharing: what holds on this GPU.

    Results are written after every part; the same command goes on with the parts that are missing.
    """
    if unknown := set(parts or ()) - PARTS.keys():
        raise EastError(f"there is no part '{unknown.pop()}'. Choose from {', '.join(PARTS)}.")
    if questions:
        print("\n".join(f"{name}: {decides(part)}" for name, part in PARTS.items()))
        return
    if dry_run:
        if out is None:
            raise EastError("--dry-run measures nothing, so it writes to no results: give it a folder with --out.")
        # Before Triton is imported, in every process that is started.
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    elif not torch.cuda.is_available():
        print("There is no GPU here. `--dry-run --out DIR` rehearses the suite on the CPU.", file=sys.stderr)
        raise typer.Exit(NO_GPU)
    device = "cpu" if dry_run else "cuda"
    packages = {name: metadata.version(name) for name in ("torch", "triton")}
    versions = {"Python": platform.python_version(), **packages, "CUDA": str(torch.version.cuda)}
    name = device_name(torch.device(device))
    results = Results(device=name, commit=commit(), versions=versions, date=today(), small=dry_run)
    earlier = (out or RESULTS_FOLDER) / f"{stem(results)}.json"
    if earlier.exists() and not again:
        found = Results.model_validate_json(earlier.read_text(encoding="utf-8"))
        results = found if found.commit == results.commit else results
    done = {name for name, record in results.parts.items() if record.state == "done"}
    chosen = {name: part for name, part in PARTS.items() if name not in done and (not parts or name in parts)}
    print(f"Done already: {', '.join(done) or 'none'}. To do: {', '.join(chosen) or 'nothing'}.", flush=True)
    results, path = run(chosen, results, seconds=60 * minutes, folder=out or RESULTS_FOLDER)
    print(f"Written to {path}.")
    if any(results.parts[name].state == "failed" for name in chosen):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
