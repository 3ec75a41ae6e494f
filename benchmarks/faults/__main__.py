"""Runs the parts of the campaign, prints and keeps what each came to: `python -m benchmarks.faults`."""

import json
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.outcome import Outcome
from benchmarks.results import RESULTS_FOLDER, run_command
from east.errors import EastError
from east.files import write_atomically

PARTS = {"orders": 216, "flips": 10_000, "flipped_workflow": 200, "texts": 40}
PARTS |= {"configurations": 300, "readers": 10_000, "surroundings": 208}
"""Module of this package -> cases of a full campaign. Each has `cases(count, seed)`, which yields what each came to."""

RESULTS = RESULTS_FOLDER / "faults.json"


def run_part(name: str, count: int, seed: int) -> Iterator[dict[str, object]]:
    """Try the cases of a part and say which failed; yields what was found so far, once a second and at last."""
    cases: Callable[[int, int], Iterator[Outcome]] = import_module(f"benchmarks.faults.{name}").cases
    started, tried, told, failures = time.monotonic(), 0, 0, list[dict[str, str]]()

    def found(seconds: int) -> dict[str, object]:
        counts = {"seed": seed, "of": count, "tried": tried, "failed": len(failures)}
        return counts | {"failures": failures, "seconds": seconds}

    for outcome in cases(count, seed):
        tried += 1
        if outcome.failure:
            failures.append({"case": outcome.case, "failure": outcome.failure})
            print(f"{name}: {outcome.case}: {outcome.failure}", flush=True)
        if (seconds := round(time.monotonic() - started)) > told:
            told = seconds
            yield found(seconds)
    seconds = round(time.monotonic() - started)
    yield found(seconds)
    print(f"{name}: {tried - len(failures)} of {tried} as they should be, in {seconds} s", flush=True)


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; all if absent.")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the cases of a full campaign.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Decides which cases are drawn.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the counts go; those of other parts stay.")] = RESULTS,
) -> None:
    """Try what may go wrong; status 1 if a case did not end as it should."""
    chosen = parts or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        raise EastError(f"there is no part '{unknown[0]}'; choose of {', '.join(PARTS)}.")
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    for name in chosen:
        for so_far in run_part(name, max(1, round(share * PARTS[name])), seed):
            found[name] = so_far
            write_atomically(out, json.dumps(found, indent=1) + "\n")
    if any(found[name]["failed"] for name in chosen):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
