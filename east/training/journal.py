"""The attempts at a run as they began: `attempts.json` in its folder, written before an attempt computes anything.

A checkpoint knows only the attempts that led to it. Without this file, one that was killed before its first checkpoint,
or had nothing left to compute, would be nowhere.
"""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from east.config.run import Frozen
from east.files import read_regular, write_atomically
from east.training.folder import ATTEMPTS


class Beginning(Frozen):
    """An attempt at a run, as it began.

    Attributes:
        attempt: which one, counted from 1.
        started: when, in UTC.
        choice: the engine that was asked for.
        threads: CPU threads of PyTorch.
        device: name of the processor or GPU.
        plugins: SHA-256 of each plugin that the run uses.
        commit: of the code; this and the rest as in `east.training.provenance.Origin`.
    """

    attempt: int
    started: str
    choice: str
    threads: int
    device: str
    plugins: tuple[str, ...] = ()
    commit: str | None
    changes: tuple[str, ...]
    checkout: str
    code_digest: str
    versions: dict[str, str]
    platform: str


class _Journal(Frozen):
    fingerprint: str
    attempts: tuple[Beginning, ...]


def attempts_begun(folder: Path, fingerprint: str) -> tuple[Beginning, ...]:
    """The attempts at this very run that are known to have begun; none where the file is another run's, or damaged."""
    try:
        journal = _Journal.model_validate_json(read_regular(folder / ATTEMPTS))
    except (OSError, ValidationError):
        return ()
    return journal.attempts if journal.fingerprint == fingerprint else ()


def note_beginning(folder: Path, fingerprint: str, attempts: tuple[Beginning, ...]) -> None:
    """Write down all attempts that have begun, the last of which begins now."""
    journal = _Journal(fingerprint=fingerprint, attempts=attempts)
    write_atomically(folder / ATTEMPTS, journal.model_dump_json(indent=2) + "\n")


def now_text() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
