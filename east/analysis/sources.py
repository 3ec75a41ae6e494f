"""What a step of the workflow reads, each file once and verified; and what it writes, with what that was made from.

Beside the files that steps derive, in `made_from/` of the results, lie records: what a step was asked for, the digests
of all that it read, and those of the files that it made. By them whoever reads such a file knows whether it is the
plan's, still stands on the runs that are there, and is whole.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, ValidationError

from east.config.run import Frozen
from east.errors import EastError
from east.files import read_regular, sha256_of, temporaries, write_atomically
from east.training.folder import WEIGHTS, read_weights
from east.training.records import (
    FILES,
    EpochRecord,
    Meaning,
    R,
    Records,
    RunSummary,
    UpdateRecord,
    read_records,
    read_summary,
    sealed_json,
    summary_path,
    unsealed,
)

RECORDS = "made_from"
"""The folder of the records: of `tables/table2.csv` it is `made_from/tables/table2.json`."""

AGAIN = "The same `snakemake` command makes it again."


class MadeFrom(Frozen):
    """What some files of one name, which differ in their endings, were made from."""

    request: Annotated[str, Meaning("SHA-256 of what the step was asked for: its part of the plan")]
    runs: Annotated[dict[str, str], Meaning("digest of each run's summary.json, its last key, by run id")]
    results: Annotated[dict[str, str], Meaning("SHA-256 of each derived file that was read, by its path")]
    published: Annotated[dict[str, str], Meaning("SHA-256 of each file of report/published that was read, by its name")]
    files: Annotated[dict[str, str], Meaning("SHA-256 of each of these files, by its name")]
    sha256: Annotated[str, Meaning("of all other keys, as in summary.json")] = ""


class Request(Frozen):
    """What a step is asked for: its part of the plan, and what the files that it reads must have been asked for."""

    step: str = Field(description="its name, such as `tables/table2`")
    of: Any = Field(default=None, description="what the step alone understands")
    expected: dict[str, str] = Field(default_factory=dict, description="file without ending -> digest of its request")

    @cached_property
    def text(self) -> str:
        """The request as JSON, in one way only."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return sha256_of(self.text.encode())


def name_of(path: Path, results: Path) -> str:
    """A derived file by its place in the results, without ending: `tables/table2`."""
    return path.relative_to(results).with_suffix("").as_posix()


def record_path(results: Path, name: str) -> Path:
    """Where the record of a derived file lies."""
    return results / RECORDS / f"{name}.json"


def read_made_from(results: Path, name: str) -> MadeFrom:
    """The record of a derived file.

    Raises:
        EastError: there is none, or it is damaged.
    """
    path = record_path(results, name)
    try:
        return MadeFrom.model_validate(unsealed(read_regular(path)))
    except FileNotFoundError:
        problem = "nothing says what it was made from"
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    except (ValidationError, ValueError, RecursionError):
        problem = f"{path} is damaged"
    raise EastError(f"{results / name} cannot be used: {problem}. {AGAIN}")


class Sources:
    """The files that a step reads, verified, and remembered as what it was made from.

    Args:
        results: results/<name>.
        expected: file without ending -> digest of what it must have been asked for; others are taken as they are.
    """

    def __init__(self, results: Path, expected: Mapping[str, str] = MappingProxyType({})) -> None:
        self.results, self.runs = results, results / "runs"
        self._expected = expected
        self._summaries: dict[str, RunSummary | None] = {}
        self._results: dict[str, bytes] = {}
        self._published: dict[str, bytes] = {}

    def derived(self, path: Path) -> bytes:
        """A file that another step derived.

        Raises:
            EastError: it is not there, not whole, was made for another plan, or from runs that are no longer there.
        """
        place = path.relative_to(self.results).as_posix()
        if place in self._results:
            return self._results[place]
        name = name_of(path, self.results)
        record = read_made_from(self.results, name)
        try:
            content = read_regular(path)
        except OSError as error:
            raise EastError(f"{path} cannot be read: {error.strerror}. {AGAIN}") from error
        if problem := self._problem(name, path.name, content, record):
            raise EastError(f"{path} cannot be used: {problem}. {AGAIN}")
        self._results[place] = content
        return content

    def published(self, path: Path) -> bytes:
        """A file of the paper's numbers.

        Raises:
            EastError: it cannot be read.
        """
        if path.name not in self._published:
            try:
                self._published[path.name] = read_regular(path)
            except OSError as error:
                raise EastError(f"The published numbers in {path} cannot be used: {error.strerror}.") from error
        return self._published[path.name]

    def summary(self, run: str) -> RunSummary | None:
        """The summary of a run, None as long as it has not ended.

        Raises:
            EastError: it is damaged, and so is its copy.
        """
        if run not in self._summaries:
            path = summary_path(self.runs, run)
            self._summaries[run] = read_summary(path) if path.exists() else None
        return self._summaries[run]

    def rows(self, run: str, kind: type[R]) -> Records[R]:
        """The records of a run, as far as they are whole; of one that has ended only if its summary knows them."""
        try:
            return read_records(self.runs / run / FILES[kind], kind, self._digest(run, FILES[kind]))
        except EastError as error:  # of the summary: nothing vouches for the records
            return Records(problem=str(error))

    def weights(self, run: str) -> bytes | None:
        """The weights of a finished run, None where they are not on disk.

        Raises:
            EastError: they are damaged.
        """
        return read_weights(self.runs / run, self._digest(run, WEIGHTS))

    def write(self, request: Request, contents: Mapping[Path, str | bytes]) -> None:
        """Write derived files of one name, and the record of what has been read until now."""
        encoded = {path: text.encode() if isinstance(text, str) else text for path, text in contents.items()}
        for path, content in encoded.items():
            for left in temporaries(path.parent, [path.name]):
                left.unlink(missing_ok=True)
            write_atomically(path, content)
        (name,) = {name_of(path, self.results) for path in encoded}
        record = MadeFrom(
            request=request.digest,
            runs={run: found.sha256 for run, found in sorted(self._summaries.items()) if found},
            results={place: sha256_of(content) for place, content in sorted(self._results.items())},
            published={name: sha256_of(content) for name, content in sorted(self._published.items())},
            files={path.name: sha256_of(content) for path, content in sorted(encoded.items())},
        )
        write_atomically(record_path(self.results, name), sealed_json(record.model_dump(mode="json")))

    def _problem(self, name: str, file: str, content: bytes, record: MadeFrom) -> str | None:
        """Why a derived file is not to be used; None if it is."""
        if record.files.get(file) != sha256_of(content):
            return "it is damaged, or was changed by hand"
        if name in self._expected and self._expected[name] != record.request:
            return "it was made for other settings than the plan's"
        for run, digest in record.runs.items():
            if (found := self.summary(run)) is None or found.sha256 != digest:
                return f"run {run} is no longer the one that it was made from"
        return None

    def _digest(self, run: str, file: str) -> str | None:
        summary = self.summary(run)
        return None if summary is None else summary.files.get(file, "")


@dataclass(frozen=True)
class RunRecord:
    """What a run has left, which may be unfinished, damaged or not there at all."""

    epochs: tuple[EpochRecord, ...]
    updates: tuple[UpdateRecord, ...]
    summary: RunSummary | None
    problems: tuple[str, ...]


def read_run_record(sources: Sources, run: str) -> RunRecord:
    """Read the folder of a run as far as it is whole."""
    epochs, updates, summary = sources.rows(run, EpochRecord), sources.rows(run, UpdateRecord), None
    problems = [found.problem for found in (epochs, updates) if found.problem]
    with suppress(EastError):  # which is among the problems then
        summary = sources.summary(run)
    return RunRecord(epochs.rows, updates.rows, summary, tuple(dict.fromkeys(problems)))
