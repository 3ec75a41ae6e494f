"""The plan beside what is on disk: which runs would train again and why, and whether a finished run is all there."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from east.config import Plan, Run
from east.config.run import of_another_revision, with_defaults
from east.config.tables import Table
from east.operations.on_disk import SMALL_FILES, FoundRun, find, read_run
from east.training.folder import METRICS, WEIGHTS
from east.training.records import EpochRecord, RunSummary, read_records

Status = Literal["new", "changed", "damaged", "unfinished", "same"]
TRAINS: tuple[Status, ...] = ("new", "changed", "damaged", "unfinished")


@dataclass(frozen=True)
class Difference:
    """A key of a run that is not as it was, with its dotted name; None where a value is null or absent."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.key == "revision":
            return of_another_revision(self.old)
        return f"{self.key} {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class RunChange:
    """A run of the plan beside what is on disk of it.

    Attributes:
        id: of the run.
        status: `new`: never begun; `changed`: done or begun with other settings; `damaged`: its summary cannot be
            read; `unfinished`: begun as planned; `same`: done as planned.
        reason: why it would train, for people; empty if it would not.
        differences: the keys behind `changed`.
        unseen: it would train, but Snakemake may take it for done where its own records do not say otherwise: a summary
            lies there that is not the plan's, or what is made from the run is there.
    """

    id: str
    status: Status
    reason: str = ""
    differences: tuple[Difference, ...] = ()
    unseen: bool = False


@dataclass(frozen=True)
class Changes:
    """A whole plan beside a folder of results.

    Attributes:
        runs: of the plan, in its order.
        orphans: runs on disk that the plan does not name.
    """

    runs: tuple[RunChange, ...]
    orphans: tuple[str, ...]

    def by_reason(self, statuses: Iterable[Status]) -> dict[tuple[Status, str], list[str]]:
        """Ids of the runs that have one of these statuses, by status and reason, in the order of the statuses."""
        groups: dict[tuple[Status, str], list[str]] = {}
        for status in statuses:
            for run in self.runs:
                if run.status == status:
                    groups.setdefault((status, run.reason), []).append(run.id)
        return groups


def compare(plan: Plan, results: Path) -> Changes:
    """Compare every run of a plan with what a folder of results holds of it.

    Args:
        plan: the plan.
        results: results/<name>, which need not exist.
    """
    shown = {run.id for table in plan.tables if _is_made(table, results) for row in table.rows for run in row.runs}
    changes = [_compare_run(run, results / "runs" / run.id, shown=run.id in shown) for run in plan.runs]
    planned = {run.id for run in plan.runs}
    return Changes(tuple(changes), tuple(run for run in find(results, "runs") if run not in planned))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    """The keys in which two specs differ, each as deep as both have it, in the order of the new one.

    Args:
        old: a spec as JSON has it.
        new: another.
        prefix: dotted name of the place that both stand at.
    """
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield Difference(prefix + key, before, after)


def complaint(found: FoundRun, run: Run) -> str | None:
    """Why a folder does not hold the whole of a run, to follow the run's name; None if it does.

    Weights may be missing, as tables and figures do without them; if they are there they must be whole.
    """
    folder, planned = found.folder, run.spec.model_dump(mode="json")
    if found.damage:
        return "its summary.json cannot be read"
    if found.summary is None:
        return "it is not finished"
    if found.summary.fingerprint != run.fingerprint:
        changes = list(differences(with_defaults(found.summary.run), planned))
        if any(change.key == "revision" for change in changes):
            return f"it was {of_another_revision(found.summary.run.get('revision'))}"
        shown = ", ".join(map(str, changes))
        return f"it was trained with other settings{shown and f' ({shown})'}"
    if any(path.is_symlink() for path in (folder, *folder.rglob("*"))):
        return "there is a link in its folder"
    missing = [name for name in SMALL_FILES if not (folder / name).is_file()]
    if missing:
        return f"it has no {', '.join(missing)}"
    if with_defaults(found.summary.run) != planned or found.spec != planned:
        return "its summary.json or run.json describes another run than the fingerprint says"
    if not _ends_as_summarised(folder / METRICS, found.summary):
        return "its metrics.csv does not end as its summary.json says"
    if (folder / WEIGHTS).exists() and not _is_whole(folder / WEIGHTS):
        return f"its {WEIGHTS} is damaged"
    return None


def _is_made(table: Table, results: Path) -> bool:
    """Whether Snakemake has something that it makes from a table's runs, and may not look at the runs any more."""
    made = ("report/index.html", f"tables/{table.id}.csv", f"aggregate/{table.id}.json")
    return any((results / name).exists() for name in made)


def _compare_run(run: Run, folder: Path, *, shown: bool) -> RunChange:
    found = read_run(folder)
    if found.summary and found.summary.fingerprint == run.fingerprint:
        return RunChange(run.id, "same")
    status, reason, changes = _why(run, found)
    return RunChange(run.id, status, reason, changes, unseen=shown or bool(found.summary or found.damage))


def _why(run: Run, found: FoundRun) -> tuple[Status, str, tuple[Difference, ...]]:
    """Why a run that is not done would train. A summary that is there is of the last run that was begun."""
    if found.kept and found.kept.fingerprint == run.fingerprint:
        return "unfinished", "finished; its summary will be put back", ()
    if found.damage:
        return "damaged", "its summary.json cannot be read", ()
    old = with_defaults(found.summary.run) if found.summary else found.spec
    planned = run.spec.model_dump(mode="json")
    if old is None:
        return "new", "never trained", ()
    changes = tuple(differences(old, planned))
    if found.summary and not changes:
        changes = (Difference("fingerprint", found.summary.fingerprint, run.fingerprint),)
    if changes:
        return "changed", ", ".join(map(str, changes)), changes
    epochs = run.spec.training.epochs
    return "unfinished", "begun" if found.epoch is None else f"resumes after epoch {found.epoch} of {epochs}", ()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _ends_as_summarised(metrics: Path, summary: RunSummary) -> bool:
    found = read_records(metrics, EpochRecord)
    if found.problem or not found.rows:
        return False
    last = found.rows[-1]
    return last.epoch == summary.epochs and summary.final_test_accuracy in (None, last.test_acc)


def _is_whole(weights: Path) -> bool:
    try:
        with safe_open(weights, framework="numpy"):
            return True
    except (SafetensorError, OSError):
        return False
