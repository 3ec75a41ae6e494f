"""Runs the parts of the GPU suite one after the other, each in a process of its own, and writes after every one."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd
import torch
from pydantic import Field

from benchmarks.results import save, slug
from east.config.run import Frozen

GRACE, LEAST = 5.0, 5.0
"""Seconds that a part may go on after it should have ended; seconds below which it is not begun."""

PROBLEM = "problem"
"""The column of a row that says why something could not be measured."""

Row = dict[str, Any]
"""One thing found: numbers, words, or a list of numbers, one a round."""

State = Literal["done", "cut off", "failed"]


@dataclass(frozen=True)
class Setting:
    """What a part is given.

    Args:
        device: `cuda`, or `cpu` in a rehearsal.
        small: a rehearsal: tiny networks and few repetitions, which measure nothing.
        seconds: after this long the part should end by itself; it is stopped soon after.
        scratch: an empty folder for files that are not kept.
        started: when the part began, on the monotonic clock.
    """

    device: str
    small: bool
    seconds: float
    scratch: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def where(self) -> torch.device:
        """The device, for tensors."""
        return torch.device(self.device)

    @property
    def batches(self) -> tuple[int, int]:
        """Images of a full batch and of the last one of an epoch of CIFAR."""
        return (3, 2) if self.small else (128, 72)


class Part(Protocol):
    """One question; the first paragraph of a part's docstring says what it decides and by what rule."""

    @property
    def seconds(self) -> float:
        """That it is given of eight minutes; what earlier parts left is added."""

    def measure(self, setting: Setting) -> Iterator[Row]:
        """What it finds, one thing at a time; in a process of its own."""

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The answer, from what it found and what the parts before it did."""


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
        frame = pd.DataFrame(list(self.rows))
        return frame if PROBLEM in frame else frame.assign(**{PROBLEM: None})


class Results(Frozen):
    """What the suite found on one device."""

    device: str
    commit: str | None
    versions: dict[str, str]
    date: str
    small: bool = Field(description="a rehearsal on the CPU, which measures nothing")
    parts: dict[str, Record] = Field(default_factory=dict)


def decides(part: Part) -> str:
    """What a part decides and by what rule."""
    return " ".join((type(part).__doc__ or "").partition("\n\n")[0].split())


def each(setting: Setting, jobs: Iterable[tuple[Row, Callable[[], Iterable[Row]]]]) -> Iterator[Row]:
    """Do jobs (what each is about, what gives its rows); one that fails or comes too late leaves a row that says so."""
    for about, job in jobs:
        try:
            if time.monotonic() > setting.started + setting.seconds:
                raise TimeoutError("time was up")
            for row in job():
                yield about | row
        except Exception as error:
            yield about | {PROBLEM: sentence(error)}


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows without those that only name a problem."""
    return frame[frame[PROBLEM].isna()]


def sentence(error: BaseException) -> str:
    """What an error says, in one line."""
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}"


def run(parts: Mapping[str, Part], results: Results, *, seconds: float, folder: Path) -> tuple[Results, Path]:
    """Run parts in order within a time, and write JSON and Markdown after every one; returns the Markdown file too.

    `results` says where and when, and has what was found already.
    """
    deadline, path = time.monotonic() + seconds, folder
    later = sum(part.seconds for part in parts.values())
    share = seconds / max(later, 1)
    for name, part in parts.items():
        later -= part.seconds
        record = run_part(part, deadline - time.monotonic() - share * later, small=results.small)
        record = _decided(part, record, {other: of.frame for other, of in results.parts.items()})
        results = results.model_copy(update={"parts": results.parts | {name: record}})
        path = save(results.model_dump_json(indent=1), render(results), folder, stem(results))
        print(f"{name}: {record.state}, {record.seconds:.0f} s. {record.verdict or record.error}", flush=True)
    return results, path


def stem(results: Results) -> str:
    """The name of the files, by device and date."""
    return f"gpu-{'rehearsal-' if results.small else ''}{slug(results.device)}-{results.date}"


def run_part(part: Part, limit: float, *, small: bool) -> Record:
    """Run a part in a process of its own, and stop it, with all that it started, soon after `limit` seconds."""
    rows: list[Row] = []
    started = time.monotonic()
    ended: tuple[State, str | None] = ("cut off", "time was up")
    if limit >= LEAST or small:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        receiver, sender = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(prefix="east-gpu-", ignore_cleanup_errors=True) as scratch:
            setting = Setting("cpu" if small else "cuda", small, limit, Path(scratch))
            process = context.Process(target=_work, args=(part, setting, sender))
            process.start()
            sender.close()
            try:
                ended = _collect(receiver, rows, started + limit + GRACE)
            finally:
                process.kill()
                # It may not have got so far as to make a group of its own.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid or 0, signal.SIGKILL)
                process.join()
    seconds, (state, error) = time.monotonic() - started, ended
    return Record(decides=decides(part), state=state, seconds=seconds, error=error, verdict=None, rows=tuple(rows))


def render(results: Results) -> str:
    """The answer of each part, in Markdown; what it follows from is in the JSON."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    text = [f"# {results.device}, {results.date}", f"Commit {results.commit}; {versions}."]
    if results.small:
        text.append("**A rehearsal on tiny networks: no number in it measures anything.**")
    for name, record in results.parts.items():
        text += [f"## {name}: {record.state}", record.decides, f"**{record.verdict or record.error}**"]
    return "\n\n".join(text) + "\n"


def _decided(part: Part, record: Record, others: Mapping[str, pd.DataFrame]) -> Record:
    """The record with the part's answer, or with why there is none."""
    if measured(record.frame).empty:
        problems = [row[PROBLEM] for row in record.rows]
        error = record.error or next(iter(problems), "it found nothing")
        return record.model_copy(update={"error": error, "state": record.state if record.error else "failed"})
    try:
        return record.model_copy(update={"verdict": part.decide(record.frame, others)})
    except Exception as error:
        return record.model_copy(update={"error": f"no answer follows: {sentence(error)}", "state": "failed"})


def _work(part: Part, setting: Setting, sender: Connection) -> None:
    os.setsid()  # so that all that it starts can be stopped with it
    error = None
    try:
        for row in part.measure(setting):
            sender.send(row)
    except Exception as trouble:
        error = sentence(trouble)
    sender.send(("failed" if error else "done", error))


def _collect(receiver: Connection, rows: list[Row], deadline: float) -> tuple[State, str | None]:
    """Take rows until the part ends or its time is up."""
    while receiver.poll(max(0.0, deadline - time.monotonic())):
        try:
            received = receiver.recv()
        except EOFError:
            return "failed", "its process died"
        if isinstance(received, tuple):
            return received
        rows.append(received)
    return "cut off", "time was up"
