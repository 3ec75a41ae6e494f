"""How far a plan is, as JSON for other programs (docs/status.md)."""

from dataclasses import asdict
from typing import Any

from east.operations.run_files import RunStatus
from east.operations.status import PlanStatus, Tally

SCHEMA = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


def status_json(status: PlanStatus) -> dict[str, Any]:
    """Numbers, texts, lists and mappings; what is unknown is None, and no number is infinite."""
    return {
        "schema": SCHEMA,
        "name": status.name,
        "time": status.time.isoformat(),
        "total": _tally(status.total),
        "tables": [{"id": table, **_tally(tally)} for table, tally in status.tables.items()],
        "runs": [_run(run) for run in status.runs],
    }


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "runs": tally.runs,
        **{str(state): count for state, count in tally.counts.items()},
        "eta_seconds": tally.eta.seconds,
        "eta_complete": tally.eta.complete,
    }


def _run(run: RunStatus) -> dict[str, Any]:
    return {**asdict(run), "updated": run.updated and run.updated.isoformat()}
