"""What the runs behind the tables have left: their summaries and their learning curves."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from east.analysis.curves import Curve, read_curve
from east.analysis.provenance import Provenance, provenance_of
from east.config.run import Frozen
from east.training.records import RunSummary, read_summary, summary_path


class RunOutcome(Frozen):
    """What there is of a run; a run that has not finished may have a curve, and one without epochs has none."""

    summary: RunSummary | None
    curve: Curve | None


def read_runs(run_ids: Iterable[str], runs_dir: Path) -> dict[str, RunOutcome]:
    """Read what there is of some runs.

    Args:
        run_ids: Runs of the plan; a run that is named twice is read once.
        runs_dir: The folder in which each run has a folder named by its id.

    Raises:
        EastError: A file is there and cannot be read.
    """
    return {run: _read_run(runs_dir, run) for run in dict.fromkeys(run_ids)}


def provenance(outcomes: Mapping[str, RunOutcome]) -> Provenance:
    """Say what trained these runs."""
    return provenance_of([outcome.summary for outcome in outcomes.values() if outcome.summary])


def _read_run(runs_dir: Path, run: str) -> RunOutcome:
    path = summary_path(runs_dir, run)
    return RunOutcome(
        summary=read_summary(path) if path.exists() else None, curve=read_curve(path.parent / "metrics.csv")
    )
