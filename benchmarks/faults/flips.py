"""Damage: one bit turned over, anywhere in finished results or prepared data, and read by those who read the file."""

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.workplace import CONFIG_FILES, Workplace
from east.analysis.sources import RECORDS, Sources, read_made_from
from east.config import Plan, make_plan, read_config
from east.data.images import load_images
from east.errors import EastError
from east.operations.steps import Steps
from east.training.folder import WEIGHTS, finished_summary
from east.training.records import FILES, KEPT_SUMMARY, SUMMARY, parse_summary

NOT_READ = ("state.json", ".lock", ".workflow.lock")
"""What decides no number: `state.json` is for those who watch a run."""


def cases(count: int, seed: int) -> Iterator[Outcome]:
    """Turn a bit over, see whether a reader takes another number for right, and turn it back."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="east-faults-") as folder:
        place = Workplace.finished(Path(folder) / "clone")
        plan = make_plan(read_config(*(place.folder / file for file in CONFIG_FILES)))
        files = files_that_are_read(place)
        for _ in range(count):
            path = draw.choice(files)
            right = path.read_bytes()
            if not right:
                continue
            at, bit = draw.randrange(len(right)), draw.randrange(8)
            path.write_bytes(flipped(right, at, bit))
            accepted = is_accepted(path, place, plan)
            path.write_bytes(right)
            name = path.relative_to(place.folder)
            yield Outcome(f"bit {bit} of byte {at} of {name}", "taken for right" if accepted else "")


def flipped(content: bytes, at: int, bit: int) -> bytes:
    """The content with one bit turned over."""
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def files_that_are_read(place: Workplace) -> list[Path]:
    """All files of results and prepared data that a number comes from."""
    below = [*place.results.rglob("*"), *(place.folder / "data").rglob("*")]
    unread = ("logs", "benchmarks")
    return sorted(
        path for path in below if path.is_file() and path.name not in NOT_READ and not set(unread) & set(path.parts)
    )


def is_accepted(path: Path, place: Workplace, plan: Plan) -> bool:
    """Whether those who read a file, which is damaged, give something else than before without a word."""
    if path.is_relative_to(place.folder / "data"):
        return _is_taken(lambda: load_images(path.parent.name, place.folder / "data"))
    part, *rest = path.relative_to(place.results).parts
    if part == "runs":
        return _of_a_run(path, place, plan)
    if part == RECORDS:
        return _is_taken(lambda: read_made_from(place.results, "/".join(rest).removesuffix(".json")))
    steps = Steps(plan, place.results, list(CONFIG_FILES))
    noticed = any(steps.problem(name) for name in steps)
    return not noticed or _is_taken(lambda: Sources(place.results).derived(path))


def _of_a_run(path: Path, place: Workplace, plan: Plan) -> bool:
    run = path.parent.relative_to(place.results / "runs").as_posix()
    planned = plan.run(run)
    sources = Sources(place.results)
    if path.name == WEIGHTS:
        return _is_taken(lambda: sources.weights(run))
    if path.name in (SUMMARY, KEPT_SUMMARY):
        # The other of the two is whole: what is read, if anything, must be what that says.
        other = path.with_name(KEPT_SUMMARY if path.name == SUMMARY else SUMMARY)
        right = parse_summary(other.read_bytes(), other)
        read = (sources.summary(run), finished_summary(path.parent, planned.fingerprint))
        return any(summary not in (right, None) for summary in read)
    kinds: list[Any] = [kind for kind, name in FILES.items() if name == path.name]
    steps = Steps(plan, place.results, list(CONFIG_FILES))
    return steps.run_problem(run) is None or any(sources.rows(run, kind).problem is None for kind in kinds)


def _is_taken(read: Callable[[], object]) -> bool:
    try:
        read()
    except EastError:
        return False
    return True
