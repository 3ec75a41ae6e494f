"""Runs the parts of the GPU suite one after the other, each in a process of its own, and writes after every one."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd
import torch
from pydantic import Field

from benchmarks.results import ABSENT, markdown, save, slug, spread
from east.config.run import Frozen
from east.errors import EastError

GRACE = 5.0
"""Seconds that a part may go on after it should have ended, before it is stopped."""

LEAST = 5.0
"""Seconds below which a part is not begun."""

PROBLEM = "problem"
"""The column of a row that says why something could not be measured."""

Row = dict[str, Any]
"""One thing found: numbers, words, or a list of numbers, one a round."""

State = Literal["done", "cut off", "failed", "left out"]


@dataclass(frozen=True)
class Setting:
    """What a part is given.

    Args:
        device: `cuda`, or `cpu` in a rehearsal.
        small: a rehearsal: tiny networks and few repetitions, which measure nothing.
        seconds: after so many the part should end by itself; it is stopped soon after.
        scratch: an empty folder for files that are not kept.
        started: when the part began, on the monotonic clock.
    """

    device: str
    small: bool
    seconds: float
    scratch: Path
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def where(self) -> torch.device:
        """The device."""
        return torch.device(self.device)

    @property
    def is_late(self) -> bool:
        """Whether the part should end."""
        return time.monotonic() > self.started + self.seconds

    @property
    def batches(self) -> tuple[int, int]:
        """Images of a full batch and of the last one of an epoch of CIFAR."""
        return (3, 2) if self.small else (128, 72)


class Part(Protocol):
    """One question; the first sentence of a part's docstring says what it decides and by what rule."""

    @property
    def seconds(self) -> float:
        """That it is given of eight minutes; what earlier parts left is added."""
        ...

    def measure(self, setting: Setting) -> Iterator[Row]:
        """What it finds, one thing at a time; in a process of its own."""
        ...

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The answer, from what it found and what the parts before it did."""
        ...


def decides(part: Part) -> str:
    """What a part decides and by what rule, in one sentence."""
    return " ".join((type(part).__doc__ or "").partition("\n\n")[0].split())


def each(setting: Setting, jobs: Iterable[tuple[Row, Callable[[], Iterable[Row]]]]) -> Iterator[Row]:
    """Do one job after the other; one that fails or comes too late leaves a row that says so.

    Args:
        setting: of the part.
        jobs: what each is about, and what gives its rows.
    """
    for about, job in jobs:
        if setting.is_late:
            yield about | {PROBLEM: "time was up"}
            continue
        try:
            for row in job():
                yield about | row
        except Exception as error:
            yield about | {PROBLEM: sentence(error)}


def sentence(error: BaseException) -> str:
    """What an error says, in one line."""
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}"


class Record(Frozen):
    """What a part found."""

    decides: str
    state: State
    seconds: float = Field(description="that it took")
    error: str | None = Field(description="why it failed")
    verdict: str | None = Field(description="its answer; None where it found nothing")
    rows: tuple[Row, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """The rows; `problem` is empty where something was measured."""
        return pd.DataFrame(list(self.rows)).reindex(columns=[*_columns(self.rows), PROBLEM])


def _columns(rows: Iterable[Row]) -> list[str]:
    return [name for name in dict.fromkeys(name for row in rows for name in row) if name != PROBLEM]


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows without those that only name a problem."""
    return frame[frame[PROBLEM].isna()].drop(columns=PROBLEM)


class Results(Frozen):
    """What the suite found on one device."""

    device: str
    commit: str | None
    versions: dict[str, str]
    date: str
    small: bool = Field(description="a rehearsal on the CPU, which measures nothing")
    parts: dict[str, Record] = Field(default_factory=dict)


def run(
    parts: Mapping[str, Part], results: Results, *, seconds: float, device: str, folder: Path, again: bool = False
) -> tuple[Results, Path]:
    """Run parts within a time, and write JSON and Markdown after every one.

    Args:
        parts: name -> part, in the order in which they are run.
        results: where and when, without parts yet.
        seconds: for all of them.
        device: `cuda`, or `cpu` in a rehearsal.
        folder: where results go. Parts that a file of the same day, device and commit has whole are not run again.
        again: run them nevertheless.

    Returns:
        What was found, and the Markdown file.
    """
    stem = f"gpu-{'rehearsal-' if results.small else ''}{slug(results.device)}-{results.date}"
    results = results if again else _earlier(folder / f"{stem}.json", results)
    left = {name: part for name, part in parts.items() if again or not _is_done(results, name)}
    print(f"{len(parts) - len(left)} of {len(parts)} parts are done already", flush=True)
    deadline, share = time.monotonic() + seconds, seconds / max(1.0, sum(part.seconds for part in left.values()))
    path = save(results, render(results), folder, stem)
    for i, (name, part) in enumerate(left.items()):
        later = share * sum(part.seconds for part in list(left.values())[i + 1 :])
        limit = deadline - time.monotonic() - later
        record = run_part(part, limit, device=device, small=results.small)
        others = {other: of.frame for other, of in results.parts.items()}
        record = record.model_copy(update=_verdict(part, record, others))
        results = results.model_copy(update={"parts": results.parts | {name: record}})
        path = save(results, render(results), folder, stem)
        print(f"{name}: {record.state}, {record.seconds:.0f} s. {record.verdict or record.error or ''}", flush=True)
    return results, path


def run_part(part: Part, limit: float, *, device: str, small: bool) -> Record:
    """Run a part in a process of its own, and stop it, with all that it started, when its time is up.

    Args:
        part: the part.
        limit: seconds after which it should end by itself.
        device: `cuda` or `cpu`.
        small: whether it is a rehearsal.
    """
    rows: list[Row] = []
    if limit < LEAST and not small:
        return Record(decides=decides(part), state="left out", seconds=0, error="time was up", verdict=None, rows=())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="east-gpu-", ignore_cleanup_errors=True) as scratch:
        process = context.Process(target=_work, args=(part, Setting(device, small, limit, Path(scratch)), sender))
        process.start()
        sender.close()
        try:
            state, error = _collect(receiver, rows, started + limit + GRACE)
        finally:
            process.kill()
            # It may not have got so far as to make a group of its own.
            with suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
    seconds = time.monotonic() - started
    return Record(decides=decides(part), state=state, seconds=seconds, error=error, verdict=None, rows=tuple(rows))


def render(results: Results) -> str:
    """A Markdown document: the answer of each part, then what it found."""
    warning = (
        "\n\n**A rehearsal on the CPU: tiny networks. No number in it measures anything.**" if results.small else ""
    )
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    text = [f"# {results.device}, {results.date}{warning}\n\nCommit {results.commit}; {versions}."]
    for name, record in results.parts.items():
        text.append(f"## {name}: {record.state}\n\n{record.decides}\n\n**{record.verdict or record.error}**")
        frame = record.frame
        if len(frame):
            text.append(
                markdown(list(frame), [[_cell(value) for value in row] for row in frame.itertuples(index=False)])
            )
        troubles = [row for row in record.rows if row.get(PROBLEM)]
        text += [f"Not measured: {', '.join(str(value) for value in row.values())}" for row in troubles]
    return "\n\n".join(text) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return str(spread(value)) if value else ABSENT
    if isinstance(value, float):
        return ABSENT if value != value else f"{value:.4g}"
    return ABSENT if value is None else str(value)


def _earlier(path: Path, results: Results) -> Results:
    """What a file has of the same commit, or nothing yet."""
    if not path.exists():
        return results
    found = Results.model_validate_json(path.read_text(encoding="utf-8"))
    return found if found.commit == results.commit else results


def _is_done(results: Results, name: str) -> bool:
    return name in results.parts and results.parts[name].state == "done"


def _verdict(part: Part, record: Record, others: Mapping[str, pd.DataFrame]) -> Row:
    if measured(record.frame).empty:
        problems = [row[PROBLEM] for row in record.rows if row.get(PROBLEM)]
        return {} if record.error else {"state": "failed", "error": (problems or ["it found nothing"])[0]}
    try:
        return {"verdict": part.decide(record.frame, others)}
    except Exception as error:
        return {"state": "failed", "error": f"nothing follows from what was found: {sentence(error)}"}


def _work(part: Part, setting: Setting, sender: Connection) -> None:
    os.setsid()  # so that all that it starts can be stopped with it
    error = None
    try:
        for row in part.measure(setting):
            sender.send(row)
    except EastError as trouble:
        error = str(trouble)
    except Exception as trouble:
        error = sentence(trouble)
    sender.send(("ended", error))


def _collect(receiver: Connection, rows: list[Row], deadline: float) -> tuple[State, str | None]:
    """Take rows until the part ends or its time is up."""
    while receiver.poll(max(0.0, deadline - time.monotonic())):
        try:
            received = receiver.recv()
        except EOFError:
            return "failed", "its process died"
        if isinstance(received, tuple):
            return ("done", None) if received[1] is None else ("failed", received[1])
        rows.append(received)
    return "cut off", "time was up"
