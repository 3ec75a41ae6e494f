"""How far rounding alone moves a run, beside how far the seed does: `python -m benchmarks.chaos`.

One row of the demo is trained with many seeds, and with one seed and learning rates that differ by less than a part in
a hundred thousand: by single units in the last place of a float. What that changes in the first step is rounding.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.paired import accuracy
from benchmarks.results import RESULTS_FOLDER, demo_run, run_command
from benchmarks.variants import changed
from east.config.run import RunSpec
from east.data.prepare import prepare
from east.errors import EastError
from east.files import write_atomically
from east.training.run import Resources

ROW = "table2/cosine-m10-n2-g1"
UNIT = 2.0**-23
"""The distance of neighbouring floats, relative to their size."""


def accuracies(specs: list[RunSpec], data_dir: Path) -> list[float]:
    """The final test accuracy of each run, on the CPU by the engine that is right for it."""
    found = []
    for spec in specs:
        with tempfile.TemporaryDirectory(prefix="east-chaos-") as folder:
            reached = accuracy(spec, Path(folder), Resources(device="cpu", data_dir=data_dir))
        if reached is None:
            raise EastError(f"the run with seed {spec.seed} and lr {spec.training.lr:.10f} diverged.")
        found.append(reached)
        print(f"seed {spec.seed}, lr {spec.training.lr:.10f}: {found[-1]:.2f} %", flush=True)
    return found


def main(
    runs: Annotated[int, typer.Option(min=2, help="Of each kind.")] = 16,
    out: Annotated[Path, typer.Option(help="Where the accuracies go.")] = RESULTS_FOLDER / "chaos.json",
) -> None:
    """Train a row of the demo with many seeds, and with one seed and many roundings."""
    spec = demo_run(f"{ROW}/seed1")
    with tempfile.TemporaryDirectory(prefix="east-chaos-data-") as folder:
        data_dir = Path(folder)
        prepare(spec.dataset.images, data_dir)
        # In percent: with seeds 1, 2, ..., and with seed 1 and learning rates 0, 1, ... units in the last place higher.
        found = {
            "seeds": accuracies([spec.model_copy(update={"seed": seed}) for seed in range(1, runs + 1)], data_dir),
            "roundings": accuracies(
                [changed(spec, training={"lr": spec.training.lr * (1 + units * UNIT)}) for units in range(runs)],
                data_dir,
            ),
        }
    write_atomically(out, json.dumps({"row": ROW, **found}, indent=1) + "\n")
    for name, values in found.items():
        print(f"{name}: {statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} % over {len(values)} runs")


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
