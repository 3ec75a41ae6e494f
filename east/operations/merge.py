"""Finished runs taken over from another folder of results: another person's, or another cluster's."""

from pathlib import Path

from east.config import Plan, Run
from east.errors import EastError
from east.operations.complete import complaint
from east.operations.on_disk import FoundRun, find, read_run
from east.operations.place import Placed, copy_run, is_free
from east.training.folder import METRICS, is_locked
from east.training.records import RunSummary


def merge(plan: Plan, source: Path, results: Path, *, dry_run: bool = False) -> Placed:
    """Take over the finished runs of a plan that another folder of results holds.

    A run is looked for by its id and, where another one lies there, by its fingerprint: another plan may have trained
    the same run under another table. Runs that are not finished there are passed over.

    Args:
        plan: what may be taken.
        source: the other results/<name>; nothing in it is changed, and no link in it is followed.
        results: results/<name> here.
        dry_run: only say what would be taken.

    Raises:
        EastError: `source` is no folder of results.
    """
    if not (source / "runs").is_dir():
        raise EastError(f"{source} has no folder runs. Give another person's results/{plan.config.name}.")
    there = {run_id: read_run(folder) for run_id, folder in find(source, "runs").items()}
    same = {found.summary.fingerprint: found for found in there.values() if found.summary}
    placed = Placed()
    for run in plan.runs:
        found = there.get(run.id)
        if found is None or not _is_of(found, run):
            found = same.get(run.fingerprint, found)
        if found and (found.summary or found.damage):
            _offer(found, run, results, placed, dry_run=dry_run)
    return placed


def _offer(found: FoundRun, run: Run, results: Path, placed: Placed, *, dry_run: bool) -> None:
    destination = results / "runs" / run.id
    reason = complaint(found, run)
    if reason is None and not is_free(destination):
        reason = _disagreement(read_run(destination), found, run)
        if reason is None:
            placed.already.append(run.id)
            return
    if reason is None and not dry_run:
        try:
            results.mkdir(parents=True, exist_ok=True)
            copy_run(found.folder, destination, results)
        except OSError as error:
            reason = f"it cannot be copied: {error.strerror or error}"
    if reason is None:
        placed.taken.append(run.id)
    else:
        placed.refused[run.id] = reason


def _is_of(found: FoundRun, run: Run) -> bool:
    return found.summary is not None and found.summary.fingerprint == run.fingerprint


def _disagreement(here: FoundRun, there: FoundRun, run: Run) -> str | None:
    """What keeps two folders from holding the same finished run with the same numbers; seconds may differ."""
    if is_locked(here.folder):
        return "it is being trained here"
    reason = complaint(here, run)
    if reason or here.summary is None or there.summary is None:
        return f"{here.folder} is in its way ({reason}); remove that to take it"
    if _numbers(here) != _numbers(there):
        return (
            f"it was trained here as well, with other numbers ({_accuracy(here.summary)} here, "
            f"{_accuracy(there.summary)} there); the one here stays"
        )
    return None


def _numbers(found: FoundRun) -> tuple[object, ...]:
    summary = found.summary
    scores = summary and (summary.status, summary.final_test_accuracy, summary.best_test_accuracy, summary.nonzeros)
    return scores, (found.folder / METRICS).read_bytes()


def _accuracy(summary: RunSummary) -> str:
    return summary.status if summary.final_test_accuracy is None else f"{summary.final_test_accuracy:.2f} %"
