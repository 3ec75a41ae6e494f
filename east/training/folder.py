"""The folder of a run: one process at a time works in it."""

import fcntl
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SUMMARY = "summary.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's lock. The kernel releases it when the process ends, however it ends.

    A second trainer of the same run (a workflow restarted beside an orphaned job) waits here until the first is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process trains {folder}; waiting for it to end.", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def finished_summary(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The summary in a run's folder if it is whole and of this very run, else None."""
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if summary.get("fingerprint") == fingerprint else None
