"""Stale numbers: everything that leaves old results beside a new plan, in every order of three."""

import itertools
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.workplace import TINY, Workplace
from benchmarks.machine import cores
from east.training.folder import WEIGHTS

LEARNING_RATES = (0.1, 0.05)
LENGTH = 3
OBSTRUCTED = ("aggregate/table2.json", "tables/table2.csv", "report/index.html")


class _Course:
    """A workplace to which things happen; `place` changes where results are copied."""

    def __init__(self, place: Workplace, scratch: Path, draw: random.Random) -> None:
        self.place, self.recipe = place, 0
        self._scratch, self._draw = scratch, draw

    def copy_results(self) -> None:
        """Copy results and data into a fresh clone, with their times and without Snakemake's records."""
        self.place = self.place.copy_to(Path(tempfile.mkdtemp(dir=self._scratch)) / "clone")

    def change_recipe(self) -> None:
        """Another learning rate."""
        self.recipe = 1 - self.recipe
        self.place.configure(**recipe(self.recipe))

    def delete_records(self) -> None:
        """Snakemake's own records."""
        shutil.rmtree(self.place.folder / ".snakemake", ignore_errors=True)

    def delete_a_file(self) -> None:
        """Any file of the results, or a folder; not weights alone, which a user may delete for room."""
        files = [
            path for path in sorted(self.place.results.rglob("*")) if "logs" not in path.parts and path.name != WEIGHTS
        ]
        if files:
            path = self._draw.choice(files)
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def touch_clocks(self) -> None:
        """Times of all files, any at all."""
        for path in sorted(self.place.folder.rglob("results/**/*")):
            when = self._draw.choice((1e9, 1.5e9, 2e9))
            os.utime(path, (when, when))

    def fail_a_step(self) -> None:
        """A step ends in an error, because a folder lies where its file goes; what was there comes back."""
        path = self.place.results / self._draw.choice(OBSTRUCTED)
        kept = path.read_bytes() if path.is_file() else None
        path.unlink(missing_ok=True)
        (path / "in the way").mkdir(parents=True, exist_ok=True)
        self.place.snakemake()
        shutil.rmtree(path)
        if kept is not None:
            path.write_bytes(kept)


EVENTS: tuple[Callable[[_Course], None], ...] = (
    _Course.copy_results,
    _Course.change_recipe,
    _Course.delete_records,
    _Course.delete_a_file,
    _Course.touch_clocks,
    _Course.fail_a_step,
)


def recipe(number: int) -> dict[str, Any]:
    """What makes the small plan train with one of the learning rates."""
    settings = TINY["recipes"]["resnet34-digits"] | {"lr": LEARNING_RATES[number]}
    return {"recipes": {"resnet34-digits": settings}}


def cases(count: int, seed: int) -> Iterator[Outcome]:
    """Let three things happen to finished results, run the workflow, and see whether it shows what the plan gives."""
    draw = random.Random(seed)
    orders = list(itertools.product(EVENTS, repeat=LENGTH))
    draw.shuffle(orders)
    with tempfile.TemporaryDirectory(prefix="east-faults-") as folder:
        finished = [
            Workplace.finished(Path(folder) / f"recipe{number}", **recipe(number))
            for number in range(len(LEARNING_RATES))
        ]
        expected = [place.shown() for place in finished]

        def outcome(order: Sequence[Callable[[_Course], None]], drawn: float) -> Outcome:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                home = Path(scratch) / "case"
                subprocess.run(["cp", "-a", str(finished[0].folder), str(home)], check=True)
                course = _Course(Workplace(home), Path(scratch), random.Random(drawn))
                for event in order:
                    event(course)
                done = course.place.snakemake()
                failure = done.stderr[-300:] if done.returncode else course.place.difference(expected[course.recipe])
                return Outcome(", ".join(event.__name__ for event in order), failure)

        with ThreadPoolExecutor(cores()) as pool:
            yield from pool.map(outcome, orders[:count], [draw.random() for _ in orders[:count]])
