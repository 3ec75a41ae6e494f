"""Two checkouts of this project, step by step in turn: `python -m benchmarks.against CHECKOUT`.

Each has a process of its own, which times one kind of step when it is asked to; the other one waits meanwhile. What is
compared is ratios, as times of one machine vary from hour to hour.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.results import RESULTS_FOLDER, ROOT, in_turn, markdown, run_command, slug
from east.errors import EastError
from east.files import write_atomically
from east.training.provenance import device_name

WORKER = Path(__file__).with_name("against_worker.py")
STEP_KINDS = {
    "plain": "step",
    "sketch": "step with the default clip",
    "exact": "step with dense gradients",
    "evaluation": "evaluation of a batch",
    "epoch": "epoch of CIFAR-10's size",
}
DENSITIES = (0.0005, 0.005, 0.01)


@contextmanager
def worker(checkout: Path, threads: int) -> Iterator[Callable[[str, float], float]]:
    """A process that times steps of a checkout: seconds of one kind of step at a density, the fastest of a few."""
    command, pipe = [sys.executable, str(WORKER), str(checkout), str(threads)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:

        def seconds(kind: str, density: float) -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps([kind, density]), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            if not answer:
                raise EastError(f"timing {checkout} failed; its message is above.")
            return float(answer)

        try:
            yield seconds
        finally:
            process.terminate()


def compare(
    checkout: Path, threads: int, rounds: int, densities: Sequence[float], kinds: Sequence[str]
) -> list[list[str]]:
    """Time kinds of steps in both checkouts, in turn: a row of the table for each.

    The first round does not count.
    """
    rows = []
    with worker(checkout, threads) as theirs, worker(ROOT, threads) as ours:
        for density in densities:
            for kind in kinds:
                turns = [
                    lambda _, kind=kind, density=density: {"theirs": theirs(kind, density)},
                    lambda _, kind=kind, density=density: {"ours": ours(kind, density)},
                ]
                timed = in_turn(turns, rounds + 1)
                before, after = timed["theirs"][1:], timed["ours"][1:]
                ratios = [own / other for own, other in zip(after, before, strict=True)]
                ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
                times = [f"{1000 * statistics.median(seconds):,.0f}" for seconds in (before, after)]
                rows.append([STEP_KINDS[kind], f"{density:g}", str(threads), *times, ratio])
                print(" | ".join(rows[-1]), flush=True)
    return rows


def main(
    checkout: Annotated[Path, typer.Argument(help="The folder of the other checkout.")],
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Numbers of threads; 1 and 2 when left out.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is timed.")] = 3,
    density: Annotated[list[float] | None, typer.Option(help="Densities of the network.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help=f"What is timed: {', '.join(STEP_KINDS)}.")] = None,
) -> None:
    """Compare the steps of ResNet-34, batch 128, with those of another checkout."""
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    kinds = kind or list(STEP_KINDS)
    if unknown := sorted({*kinds} - {*STEP_KINDS}):
        raise EastError(f"--kind {unknown[0]} is not one of {', '.join(STEP_KINDS)}.")
    counts, densities = threads or [1, 2], density or DENSITIES
    found = [row for count in counts for row in compare(checkout, count, rounds, densities, kinds)]
    processor = slug(device_name(torch.device("cpu")))
    path = RESULTS_FOLDER / f"against-{commit or 'checkout'}-{processor}.md"
    header = ["step", "density", "threads", f"{commit or 'theirs'}, ms", "this, ms", "ratio"]
    write_atomically(path, markdown(header, found) + "\n")
    print(f"Written to {path}.")


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
