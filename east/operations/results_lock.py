"""results.lock.json: for every finished run its identity, its files' checksums, and what trained it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from east.config import Plan, Run
from east.config.run import Frozen
from east.errors import EastError
from east.files import parse_json, read_regular, sha256_of
from east.operations.changes import complaint
from east.operations.on_disk import SMALL_FILES, read_run
from east.operations.steps import Steps
from east.reproducibility import Reproducibility
from east.training.folder import plugin_copy, repeatable_summary
from east.training.records import SUMMARY, RunSummary, describe

LOCK_FILE = "results.lock.json"
FORMAT: Final = 2
COST = "cost/cost.json"
COST_RECORD = "made_from/cost/cost.json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^table[A-Za-z0-9]+/[A-Za-z0-9][A-Za-z0-9.-]*/seed[0-9]+$")]
RunFile = Annotated[str, Field(pattern=rf"^({'|'.join(map(re.escape, SMALL_FILES))}|{plugin_copy('[0-9a-f]{16}')})$")]
OtherFile = Annotated[str, Field(pattern=r"^((made_from/)?cost/cost\.json|tables/table[A-Za-z0-9]+\.csv)$")]


class LockedRun(Frozen):
    """A finished run: what its summary says that a reader wants to know, and the checksums of its files.

    Attributes:
        repeatable: digest of what its summary has in common with that of any other training of the run to the same
            bytes.
    """

    fingerprint: Sha256
    status: Literal["finished", "diverged"]
    final_test_accuracy: float | None
    device: str | None
    engine: str | None
    instruction_set: str | None
    threads: int | None
    reproducibility: Reproducibility | None
    versions: dict[str, str | None]
    commit: str | None
    code_digest: str | None
    repeatable: Sha256
    files: Annotated[dict[RunFile, Sha256], Field(min_length=len(SMALL_FILES))]


class ResultsLock(Frozen):
    """The finished runs of a plan. Equal results give equal locks: they hold no time and no path."""

    format: Literal[2] = FORMAT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="of the configuration")]
    planned: int = Field(ge=0, description="runs of the plan")
    missing: tuple[RunId, ...] = Field(description="runs of the plan that are not finished")
    runs: dict[RunId, LockedRun]
    files: dict[OtherFile, Sha256] = Field(description="measured costs, and the tables as CSV")

    def checksums(self) -> dict[str, str]:
        """The checksum of every file, by its path in the results folder."""
        runs = {f"runs/{run}/{name}": sha for run, entry in self.runs.items() for name, sha in entry.files.items()}
        return runs | self.files

    def json_text(self) -> str:
        """The file's content."""
        return json.dumps(self.model_dump(), indent=2, sort_keys=True) + "\n"


def make_lock(plan: Plan, results: Path) -> ResultsLock:
    """Lock the finished runs of a plan, the measured costs, and the tables made from them.

    A table, or measured costs, that something else was made from than what is there now are left out.

    Raises:
        EastError: no run is finished, or files of a finished run are missing or contradict each other.
    """
    found = {run: read_run(results / "runs" / run.id) for run in plan.runs}
    done = {run: f for run, f in found.items() if f.summary and f.summary.fingerprint == run.fingerprint}
    if not done:
        raise EastError(f"none of the plan's {len(plan.runs)} runs is finished in {results}.")
    wrong = {run.id: reason for run, f in done.items() if (reason := complaint(f, run))}
    if wrong:
        listed = "; ".join(f"{run}: {reason}" for run, reason in wrong.items())
        raise EastError(f"not all finished runs are whole, so no lock is made. {listed}. Delete these folders.")
    return ResultsLock(
        name=plan.config.name,
        planned=len(plan.runs),
        missing=tuple(sorted(run.id for run in plan.runs if run not in done)),
        runs={
            run.id: LockedRun.model_validate(
                locked_keys(f.summary)
                | {"files": {name: sha256_of(read_regular(f.folder / name)) for name in _small_files(run, f.folder)}}
            )
            for run, f in done.items()
            if f.summary
        },
        files=_other_files(plan, results),
    )


def read_lock(path: Path) -> ResultsLock:
    """Read a lock.

    Raises:
        EastError: it cannot be read, or is not a lock.
    """
    try:
        return parse_lock(read_regular(path), str(path))
    except OSError as error:
        raise EastError(f"{path} cannot be read: {error.strerror}.") from error


def parse_lock(content: bytes, name: str) -> ResultsLock:
    """A lock from what its file holds; `name` is said where that is none.

    Raises:
        EastError: it is not a lock, or one of another version of this program.
    """
    try:
        found = parse_json(content).get("format")
    except ValueError:
        found = None
    if isinstance(found, int) and found != FORMAT:
        raise EastError(
            f"{name} was made by another version of this program: its format is {found}, and {FORMAT} is "
            "read here. Compare it at the commit that it names, or make it again with `east lock`."
        )
    try:
        return ResultsLock.model_validate_json(content)
    except ValidationError as error:
        raise EastError(f"{name} is not a {LOCK_FILE}: {describe(error)}.") from error


def verify(lock: ResultsLock, contents: Mapping[str, bytes]) -> tuple[list[str], list[str]]:
    """Compare files with a lock, byte by byte: whether they are the very files that were locked.

    Args:
        lock: the lock.
        contents: path in the results folder and content of every file there is; those that are not locked are
            passed over.

    Returns:
        Each file or key that is not as locked, in a sentence; and the tables that are missing, as they can be made
        again.
    """
    wrong, unrendered = [], []
    for name, checksum in lock.checksums().items():
        if name not in contents:
            if name.startswith("tables/"):
                unrendered.append(name)
            else:
                wrong.append(f"{name} is missing")
        elif sha256_of(contents[name]) != checksum:
            wrong.append(f"{name} is not the locked file")
        elif name.endswith(SUMMARY):
            wrong += _contradictions(name, contents[name], lock)
    return sorted(wrong), unrendered


def folder_contents(lock: ResultsLock, results: Path) -> dict[str, bytes]:
    """The locked files that a results folder holds, for `verify`."""
    return {name: read_regular(results / name) for name in lock.checksums() if (results / name).is_file()}


def locked_keys(summary: RunSummary) -> dict[str, object]:
    """What a lock takes from a summary."""
    text = json.dumps(repeatable_summary(summary), sort_keys=True, separators=(",", ":"))
    return {
        **summary.model_dump(include=set(LockedRun.model_fields) - {"files", "repeatable"}),
        "repeatable": sha256_of(text.encode()),
    }


def _contradictions(name: str, content: bytes, lock: ResultsLock) -> list[str]:
    """Keys of a lock that are not what the summary, whose checksum is right, says."""
    try:
        said = locked_keys(RunSummary.model_validate_json(content))
    except ValidationError as error:
        return [f"{name} is not a summary: {describe(error)}"]
    locked = lock.runs[name.removeprefix("runs/").removesuffix(f"/{SUMMARY}")].model_dump()
    return [f"{name} says {key} {value}, the lock {locked[key]}" for key, value in said.items() if locked[key] != value]


def _small_files(run: Run, folder: Path) -> tuple[str, ...]:
    """What is locked of a run: with what it leaves, the copies of the plugins without which it cannot be repeated."""
    copies = ((plugin_copy(digest), digest) for digest in sorted(run.spec.plugins))
    whole = [
        name
        for name, digest in copies
        if (folder / name).is_file() and sha256_of(read_regular(folder / name)) == digest
    ]
    return (*SMALL_FILES, *whole)


def _other_files(plan: Plan, results: Path) -> dict[str, str]:
    """The checksums of the measured costs, with their record, and of the tables, as far as they are right."""
    steps = Steps(plan, results, [])
    files = {f"tables/{table}.csv": f"tables/{table}" for table in (*(table.id for table in plan.tables), "tableB1")}
    files |= {"tables/table6.csv": "tables/table6", COST: "cost", COST_RECORD: "cost"}
    return {name: sha256_of(read_regular(results / name)) for name, step in files.items() if steps.is_right(step)}
