"""What all benchmarks share: rounds in turn, spreads and ratios, tables in Markdown, files of results, how one ends."""

import datetime
import re
import statistics
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from east.config import load_plan
from east.config.run import Frozen, RunSpec
from east.errors import EastError
from east.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS_FOLDER = Path(__file__).parent / "results"
ABSENT = "–"
MS_PER_SECOND = 1e3

Series = TypeVar("Series", bound=Hashable)


def demo_run(run_id: str) -> RunSpec:
    """A run of the demo's plan."""
    return next(run for run in load_plan(ROOT / "config" / "demo.yaml") if run.id == run_id).spec


def in_turn(
    turns: Iterable[Callable[[int], Mapping[Series, float]]],
    rounds: int,
    report: Callable[[int], None] = lambda number: None,
) -> dict[Series, list[float]]:
    """Time things in turn, round by round: a quotient of one round compares what ran shortly one after the other.

    Args:
        turns: each does one thing, or a few, and returns the seconds of each; takes the number of the round, from 1.
        rounds: how often all of them are done.
        report: called with the number of a round when it is done.

    Returns:
        Series -> seconds, a number a round.
    """
    turns = list(turns)
    found: dict[Series, list[float]] = {}
    for number in range(1, rounds + 1):
        for turn in turns:
            for series, seconds in turn(number).items():
                found.setdefault(series, []).append(seconds)
        report(number)
    return found


class Spread(Frozen):
    """A quantity over rounds."""

    median: float
    lower: float = Field(description="lower quartile")
    upper: float = Field(description="upper quartile")

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.lower:.3g}–{self.upper:.3g})"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, interpolated between the values."""
    if len(values) == 1:
        return Spread(median=values[0], lower=values[0], upper=values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median=median, lower=lower, upper=upper)


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """How many times longer one thing takes than another: quotients of the same round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def milliseconds(seconds: float) -> str:
    """For a table."""
    return f"{seconds * MS_PER_SECOND:,.{0 if seconds >= 0.1 else 1}f} ms"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)


def today() -> str:
    """The date of a result, in UTC."""
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def slug(name: str) -> str:
    """A name of a processor or GPU as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def save(content: str, text: str, folder: Path, stem: str) -> Path:
    """Write results as JSON and as Markdown beside it; returns the Markdown file."""
    write_atomically(folder / f"{stem}.json", content + "\n")
    path = folder / f"{stem}.md"
    write_atomically(path, text)
    return path


def run_command(command: Callable[[], object]) -> None:
    """Run a benchmark; a mistake of its user ends in a plain sentence and status 1, as in the `east` command."""
    try:
        command()
    except EastError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
