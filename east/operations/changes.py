"""The plan beside what is on disk: which runs would train again and why, and whether a finished run is all there."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from east.config import Plan, Run
from east.config.run import of_another_revision, with_defaults
from east.operations.on_disk import FoundRun, find, read_run
from east.training.folder import METRICS, WEIGHTS, damaged_files
from east.training.records import EpochRecord, read_records

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
        old, new = (value if isinstance(value, str) else json.dumps(value) for value in (self.old, self.new))
        return f"{self.key} {old} -> {new}"


@dataclass(frozen=True)
class RunChange:
    """A run of the plan beside what is on disk of it.

    Attributes:
        id: of the run.
        status: `new`: never begun; `changed`: done or begun with other settings; `damaged`: its summary cannot be
            read, or does not know a file that is there; `unfinished`: begun as planned; `same`: done as planned.
        reason: why it would train, for people; empty if it would not.
        differences: the keys behind `changed`.
    """

    id: str
    status: Status
    reason: str = ""
    differences: tuple[Difference, ...] = ()


def compare(plan: Plan, results: Path) -> tuple[list[RunChange], list[str]]:
    """Compare every run of a plan with what a folder of results, which need not exist, holds of it.

    Returns:
        The runs of the plan in its order; and the runs on disk that the plan does not name.
    """
    changes = [_compare_run(run, results / "runs" / run.id) for run in plan.runs]
    planned = {run.id for run in plan.runs}
    return changes, [run for run in find(results, "runs") if run not in planned]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    """The keys in which two specs (JSON) differ, each as deep as both have it, in the order of the new one."""
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
        shown = f" ({', '.join(map(str, changes))})" if changes else ""
        return f"it was trained with other settings{shown}"
    if any(path.is_symlink() for path in (folder, *folder.rglob("*"))):
        return "there is a link in its folder"
    if damaged := damaged_files(folder, found.summary.files):
        return f"its {', '.join(damaged)} {'is' if len(damaged) == 1 else 'are'} missing, or not as it was written"
    if with_defaults(found.summary.run) != planned or found.spec != planned:
        return "its summary.json or run.json describes another run than the fingerprint says"
    metrics, accuracy = read_records(folder / METRICS, EpochRecord), found.summary.final_test_accuracy
    last = metrics.rows[-1] if metrics.rows and not metrics.problem else None
    if last is None or last.epoch != found.summary.epochs or accuracy not in (None, last.test_acc):
        return "its metrics.csv does not end as its summary.json says"
    try:
        with (folder / WEIGHTS).open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"its {WEIGHTS} cannot be read ({error.strerror})"
    return None if digest == found.summary.files.get(WEIGHTS) else f"its {WEIGHTS} is damaged"


def _compare_run(run: Run, folder: Path) -> RunChange:
    """What has changed of a run. A summary that is there is of the last run that was begun."""
    found = read_run(folder)
    if found.summary and found.summary.fingerprint == run.fingerprint:
        if damaged := damaged_files(folder, found.summary.files):
            return RunChange(run.id, "damaged", f"its {', '.join(damaged)} is missing, or not as it was written")
        return RunChange(run.id, "same")
    if found.kept and found.kept.fingerprint == run.fingerprint:
        return RunChange(run.id, "unfinished", "finished; its summary will be put back")
    if found.damage:
        return RunChange(run.id, "damaged", "its summary.json cannot be read")
    old = with_defaults(found.summary.run) if found.summary else found.spec
    if old is None:
        return RunChange(run.id, "new", "never trained")
    changes = tuple(differences(old, run.spec.model_dump(mode="json")))
    if found.summary and not changes:
        changes = (Difference("fingerprint", found.summary.fingerprint, run.fingerprint),)
    if changes:
        return RunChange(run.id, "changed", ", ".join(map(str, changes)), changes)
    epochs = run.spec.training.epochs
    begun = "begun" if found.epoch is None else f"resumes after epoch {found.epoch} of {epochs}"
    return RunChange(run.id, "unfinished", begun)
