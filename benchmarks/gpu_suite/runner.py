"""Runs the parts of the suite one after the other, each in a process of its own, and writes after every one."""

import datetime
import multiprocessing
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.gpu_suite import checks, epochs, facts, quiet, resume, side_by_side, steps
from benchmarks.gpu_suite.conditions import NETWORKS, Conditions, paper_runs
from benchmarks.gpu_suite.findings import EpochTimes, Finding, Hours, Note, PartRecord, Results, State
from benchmarks.gpu_suite.hours import extrapolate
from benchmarks.gpu_suite.report import render
from east.errors import EastError
from east.files import write_atomically

GRACE = 5.0
"""Seconds that a part may go on after it should have ended, before it is stopped."""

LEAST = 5.0
"""Seconds below which a part is not begun."""


@dataclass(frozen=True)
class Part:
    """One part of the suite.

    Args:
        name: in the results and for `--parts`.
        title: for people.
        seconds: that it is given of a budget of nine minutes; what earlier parts left is added.
        measure: yields what it finds, one thing at a time; for a process of its own.
    """

    name: str
    title: str
    seconds: float
    measure: Callable[[Conditions], Iterator[Finding]]


PARTS = (
    Part("rates", "Device and its rates", 15, facts.measure),
    Part("kernels", "Kernels against float64", 55, checks.kernels),
    Part("step", "Whole steps against float64", 50, checks.steps),
    Part("times", "Seconds of a step", 95, steps.measure),
    Part("epochs", "Seconds of an epoch", 65, epochs.measure),
    Part("compiled", "Compiled steps against float64", 45, checks.compiled),
    Part("compiled-times", "Seconds of a compiled step", 60, steps.measure_compiled),
    Part("quiet", "No synchronisation, nothing recorded again", 20, quiet.measure),
    Part("stepping", "Captured steps against eager ones", 25, checks.stepping),
    Part("together", "Several processes on the GPU", 45, side_by_side.measure),
    Part("resume", "Killed and resumed", 30, resume.measure),
    Part("compiled-epochs", "Seconds of an epoch, compiled", 20, epochs.measure_compiled),
    Part("compiled-quiet", "Compiled: no synchronisation, nothing compiled again", 15, quiet.measure_compiled),
)
"""In the order of importance. Kernels and compiled networks are cached, so a second run gets further."""


@dataclass(frozen=True)
class _Ended:
    """The last thing that a part sends: why it failed, or None."""

    error: str | None


def run(parts: Sequence[Part], *, seconds: float, device: str, dry: bool, folder: Path) -> tuple[Results, Path]:
    """Run parts within a time, and write JSON and Markdown after every one.

    Args:
        parts: in the order in which they are run.
        seconds: for all of them.
        device: `cuda`, or `cpu` in a rehearsal.
        dry: whether it is a rehearsal.
        folder: where results go.

    Returns:
        What was found, and the Markdown file.
    """
    started = time.monotonic()
    records: list[PartRecord] = []
    share = seconds / sum(part.seconds for part in parts)
    results = _results(records, started, seconds, dry=dry)
    path = folder
    for i, part in enumerate(parts):
        left = seconds - (time.monotonic() - started)
        limit = left - share * sum(later.seconds for later in parts[i + 1 :])
        if limit < LEAST and not dry:
            records.append(_record(part, "left out", 0.0, limit, "time was up", ()))
        else:
            print(f"{part.title}: up to {limit:.0f} s", flush=True)
            records.append(run_part(part, limit, device=device, dry=dry))
            last = records[-1]
            print(f"  {last.state}, {last.seconds:.0f} s, {len(last.findings)} findings {last.error or ''}", flush=True)
        results = _results(records, started, seconds, dry=dry)
        path = save(results, folder)
    return results, path


def run_part(part: Part, limit: float, *, device: str, dry: bool) -> PartRecord:
    """Run a part in a process of its own, and stop it, with all that it started, when its time is up.

    Args:
        part: the part.
        limit: seconds after which it should end by itself.
        device: `cuda` or `cpu`.
        dry: whether it is a rehearsal.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    found: list[Finding] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="east-gpu-") as scratch:
        process = context.Process(target=_work, args=(part.measure, limit, device, dry, Path(scratch), sender))
        process.start()
        sender.close()
        try:
            state, error = _collect(receiver, found, started + limit + GRACE)
        finally:
            _stop(process)
            side_by_side.stop_service(Path(scratch) / "mps")
    return _record(part, state, time.monotonic() - started, limit, error, tuple(found))


def save(results: Results, folder: Path) -> Path:
    """Write the results as JSON and as Markdown, named for device and date; returns the Markdown file."""
    device = re.sub(r"[^a-z0-9]+", "-", results.device.lower()).strip("-")
    stem = f"gpu-{'rehearsal-' if results.dry else ''}{device}-{results.date}"
    write_atomically(folder / f"{stem}.json", results.model_dump_json(indent=1) + "\n")
    path = folder / f"{stem}.md"
    write_atomically(path, render(results))
    return path


def _work(
    measure: Callable[[Conditions], Iterator[Finding]],
    limit: float,
    device: str,
    dry: bool,
    scratch: Path,
    sender: Connection,
) -> None:
    os.setsid()  # so that all that it starts can be stopped with it
    error = None
    try:
        for finding in measure(Conditions(device, dry, limit, scratch)):
            sender.send(finding)
    except Exception as trouble:
        error = steps.first_line(trouble)
    sender.send(_Ended(error))


def _collect(receiver: Connection, found: list[Finding], deadline: float) -> tuple[State, str | None]:
    """Take findings until the part ends or its time is up."""
    while receiver.poll(max(0.0, deadline - time.monotonic())):
        try:
            received = receiver.recv()
        except EOFError:
            return "failed", "its process died"
        if isinstance(received, _Ended):
            return ("done", None) if received.error is None else ("failed", received.error)
        found.append(received)
    return "cut off", None


def _stop(process: BaseProcess) -> None:
    """End a part and all that it started; it may not have got so far as to make a group of its own."""
    process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()


def _record(
    part: Part, state: State, seconds: float, limit: float, error: str | None, found: tuple[Finding, ...]
) -> PartRecord:
    return PartRecord(
        name=part.name,
        title=part.title,
        state=state,
        seconds=seconds,
        limit=max(0.0, limit),
        error=error,
        findings=found,
    )


def _results(records: Sequence[PartRecord], started: float, budget: float, *, dry: bool) -> Results:
    """What there is so far, with the hours that follow from it."""
    results = Results(
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        minutes=(time.monotonic() - started) / 60,
        budget=budget / 60,
        dry=dry,
        parts=tuple(records),
    )
    timed = {epoch.network for epoch in results.all(EpochTimes)}
    names: dict[str, str] = {model: label for label, model in NETWORKS.items()}
    # A rehearsal times one network only.
    runs = [spec for spec in paper_runs() if not dry or names[spec.model.name] in timed] if timed else []
    hours: list[Hours | Note]
    try:
        hours = [*extrapolate(results, runs, names)]
    except EastError as error:
        hours = [Note(about="hours", text=str(error))]
    if not hours:
        return results
    record = PartRecord(
        name="hours",
        title="Hours of Tables 2-5",
        state="done",
        seconds=0.0,
        limit=0.0,
        error=None,
        findings=tuple(hours),
    )
    return results.model_copy(update={"parts": (*results.parts, record)})
