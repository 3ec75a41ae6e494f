"""How far a plan is: the state of every run, counted by table, with the time that is left."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from east.config import Plan, Run
from east.errors import EastError
from east.operations.eta import Eta, seconds_by_kind, time_left, with_eta
from east.operations.run_files import RunFiles, RunStatus, State

STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Tally:
    """Some runs, counted.

    Attributes:
        runs: how many there are.
        counts: how many are in each state.
        eta: until they have ended.
    """

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
    """How far a plan is.

    Attributes:
        name: of the configuration.
        time: of this reading.
        total: every run once.
        tables: by table; a run that several tables show counts in each.
        runs: in the order of the plan.
    """

    name: str
    time: datetime
    total: Tally
    tables: dict[str, Tally]
    runs: tuple[RunStatus, ...]


class StatusReader:
    """Reads the state of a plan's runs from their files, again and again; of files that stay the same, only once.

    Args:
        plan: the plan.
        folder: of the plan's results.
        tables: only the runs of these tables; all if empty.

    Raises:
        EastError: the plan has no such table.
    """

    def __init__(self, plan: Plan, folder: Path, tables: Sequence[str] = ()) -> None:
        shown = {table.id: table for table in plan.tables}
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
        self._kinds = {run.id: _kind(run) for run in self._runs}

    def read(self) -> PlanStatus:
        """The state of this moment."""
        now = datetime.now(UTC)
        begun = self._files.begun(self._fingerprints)
        found = [
            self._files.status(run.id, self._fingerprints[run.id], run.spec.training.epochs, now)
            if run.id in begun
            else RunStatus(run.id, "waiting", run.spec.training.epochs)
            for run in self._runs
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


def _kind(run: Run) -> Hashable:
    """What sets the duration of a run, as far as it matters to an estimate."""
    spec = run.spec
    return spec.dataset.name, spec.model, spec.training.epochs, spec.training.batch_size
