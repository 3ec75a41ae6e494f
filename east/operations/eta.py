"""When the runs of a plan will have ended: an estimate from those that have, and from the pace of those that run."""

import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import fmean

from east.operations.run_files import RunStatus

Kinds = Mapping[str, Hashable]
"""Run id -> what sets its duration: runs of a kind take about as long."""


@dataclass(frozen=True)
class Eta:
    """An estimate of the time until some runs have ended.

    Attributes:
        seconds: None where nothing runs, or nothing is known.
        complete: whether it counts every run that is left; if not, there are kinds of run that nothing is known of yet,
            and it will take longer.
    """

    seconds: float | None
    complete: bool


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
    """A run that is running, with its estimate; any other as it is.

    Args:
        run: the run.
        whole: seconds of a whole run of its kind, if known; used until its own first epoch is done.
        now: the time to count from.
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

    Args:
        runs: of a table or a plan, with the estimates of those that run.
        whole: seconds of a whole run by kind.
        kinds: of the runs.
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
