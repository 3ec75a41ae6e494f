"""Whether a folder holds the whole of a planned run: every file, of this very run, and all telling the same story."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from east.config import Run
from east.config.run import of_another_revision, with_defaults
from east.operations.changes import differences
from east.operations.on_disk import SMALL_FILES, FoundRun
from east.training.folder import METRICS, WEIGHTS
from east.training.records import EpochRecord, RunSummary, read_records


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
