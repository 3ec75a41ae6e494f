"""How far a plan is: the state of every run, counted by table, with an estimate of the time that is left."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from east.config import Plan
from east.errors import EastError
from east.operations.run_files import RunFiles, RunStatus, State

STATES: tuple[State, ...] = get_args(State)

Kinds = Mapping[str, Hashable]
"""Run id -> what sets its duration: runs of a kind take about as long."""

SCHEMA = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


@dataclass(frozen=True)
class Eta:
    """An estimate of the seconds until some runs have ended; None where nothing runs, or nothing is known.

    It is complete if it counts every run that is left; if not, nothing is known yet of some kinds of run, and it will
    take longer.
    """

    seconds: float | None
    complete: bool


@dataclass(frozen=True)
class Tally:
    """Some runs, counted: all of them, those in each state, and the time until they have ended."""

    runs: int
    counts: dict[State, int]
    eta: Eta

    @property
    def ended(self) -> int:
        """How many are done or diverged."""
        return self.counts["done"] + self.counts["diverged"]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return self.ended == self.runs


@dataclass(frozen=True)
class PlanStatus:
    """How far a plan is: every run once, and by table, where a run that several tables show counts in each."""

    name: str
    time: datetime
    total: Tally
    tables: dict[str, Tally]
    runs: tuple[RunStatus, ...]


class StatusReader:
    """Reads the state of a plan's runs from their files, again and again; of files that stay the same, only once.

    Args:
        plan: all runs.
        folder: of the plan's results.
        tables: only the runs of these tables; all if empty.

    Raises:
        EastError: the plan has no such table.
    """

    def __init__(self, plan: Plan, folder: Path, tables: Sequence[str] = ()) -> None:
        shown = [table.id for table in plan.tables]
        for table in tables:
            if table not in shown:
                raise EastError(f"--table: there is no '{table}' in this plan; it has {', '.join(shown)}.")
        self._name = plan.config.name
        self._files = RunFiles(folder)
        self._tables = {
            table.id: {reference.id: reference.fingerprint for row in table.rows for reference in row.runs}
            for table in plan.tables
            if table.id in (tables or shown)
        }
        self._fingerprints = {run: mark for table in self._tables.values() for run, mark in table.items()}
        self._runs = [run for run in plan.runs if run.id in self._fingerprints]
        # What sets the duration of a run, as far as it matters to an estimate.
        specs = {run.id: run.spec for run in self._runs}
        self._kinds: Kinds = {
            run: (spec.dataset.store, spec.model, spec.training.epochs, spec.training.batch_size)
            for run, spec in specs.items()
        }

    def read(self) -> PlanStatus:
        """The state of this moment."""
        now = datetime.now(UTC)
        found = [
            self._files.status(run.id, self._fingerprints[run.id], run.spec.training.epochs, now) for run in self._runs
        ]
        whole = seconds_by_kind(found, self._kinds)
        runs = {run.id: with_eta(run, whole.get(self._kinds[run.id]), now) for run in found}

        def tally(members: Sequence[RunStatus]) -> Tally:
            counted = Counter(run.state for run in members)
            left = time_left(members, whole, self._kinds)
            return Tally(len(members), {state: counted[state] for state in STATES}, left)

        return PlanStatus(
            name=self._name,
            time=now,
            total=tally(list(runs.values())),
            tables={table: tally([runs[run] for run in members]) for table, members in self._tables.items()},
            runs=tuple(runs.values()),
        )


def seconds_by_kind(runs: Iterable[RunStatus], kinds: Kinds) -> dict[Hashable, float]:
    """Seconds of a whole run of each kind: the mean of those that are done, else of those that run, by their pace."""
    done, running = defaultdict(list), defaultdict(list)
    for run in runs:
        if run.state == "done" and run.seconds is not None:
            done[kinds[run.id]].append(run.seconds)
        elif run.state == "running" and run.seconds_per_epoch is not None:
            running[kinds[run.id]].append(run.seconds_per_epoch * run.epochs)
    return {kind: fmean(seconds) for kind, seconds in (running | done).items()}


def with_eta(run: RunStatus, whole: float | None, now: datetime) -> RunStatus:
    """A run that is running, with its estimate from now on; any other as it is.

    The seconds of a whole run of its kind, if known, are used until its own first epoch is done.
    """
    if run.state != "running" or run.epoch is None or run.updated is None:
        return run
    pace = run.seconds_per_epoch if run.seconds_per_epoch is not None or whole is None else whole / run.epochs
    if pace is None:
        return run
    # The clocks of machines differ; what has gone by since the last epoch is between nothing and another epoch.
    since = min(max((now - run.updated).total_seconds(), 0.0), pace)
    return replace(run, eta_seconds=max((run.epochs - run.epoch) * pace - since, 0.0))


def time_left(runs: Iterable[RunStatus], whole: Mapping[Hashable, float], kinds: Kinds) -> Eta:
    """The time until these runs have ended, if as many go on at a time as run now; failed ones are left out.

    It follows from the estimates of those that run, and the seconds of a whole run by kind.
    """
    places: list[float] = []
    waiting: list[float] = []
    complete = True
    for run in runs:
        if run.state == "running":
            places.append(run.eta_seconds or 0.0)
            complete &= run.eta_seconds is not None
        elif run.state in ("waiting", "stopped", "lost", "stale"):
            seconds = whole.get(kinds[run.id])
            complete &= seconds is not None
            waiting.append((seconds or 0.0) * max(1 - (run.epoch or 0) / run.epochs, 0.0))
    if not places:
        return Eta(None, complete)
    heapq.heapify(places)
    for seconds in waiting:
        heapq.heapreplace(places, places[0] + seconds)
    end = max(places)
    return Eta(end if complete or end > 0 else None, complete)


def status_json(status: PlanStatus) -> dict[str, Any]:
    """Numbers, texts, lists and mappings; what is unknown is None, and no number is infinite."""

    def counted(tally: Tally) -> dict[str, Any]:
        return {
            "runs": tally.runs,
            **{str(state): count for state, count in tally.counts.items()},
            "eta_seconds": tally.eta.seconds,
            "eta_complete": tally.eta.complete,
        }

    return {
        "schema": SCHEMA,
        "name": status.name,
        "time": status.time.isoformat(),
        "total": counted(status.total),
        "tables": [{"id": table, **counted(tally)} for table, tally in status.tables.items()],
        "runs": [asdict(run) | {"updated": run.updated and run.updated.isoformat()} for run in status.runs],
    }
