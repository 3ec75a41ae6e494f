"""Results beside a lock, whoever trained them: to the bit where the classes of both allow it, else by accuracy."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from pydantic import ValidationError

from east.analysis.inference import Sample, holm, welch
from east.files import sha256_of
from east.operations.results_lock import COST, COST_RECORD, LockedRun, ResultsLock, locked_keys
from east.operations.results_lock import verify as verify_files
from east.reproducibility import Reproducibility, weakest
from east.training.folder import REPEATABLE
from east.training.records import SUMMARY, RunSummary

LEVEL = 0.01
"""Rows whose means differ with less than this probability by chance, over all rows together, count as different."""


@dataclass(frozen=True)
class Compared:
    """What a comparison with a lock found.

    Attributes:
        wrong: each file, key or row that is not as locked although it had to be, in a sentence.
        differing: each run and row that differs as its class allows, with the reason.
        passed_over: files that are not there and can be made again, or that follow from times or from what differs.
        files: how many files were compared.
        repeated: runs that are another training's than the locked one's, with the same bytes.
    """

    wrong: tuple[str, ...]
    differing: tuple[str, ...]
    passed_over: tuple[str, ...]
    files: int
    repeated: int


def compare(lock: ResultsLock, contents: Mapping[str, bytes], *, exact: bool = False) -> Compared:
    """Compare results with a lock.

    A run whose summary is not the locked one was trained again. Times and the machine may differ then, and no more
    where `Reproducibility` promises the same bytes.

    Args:
        lock: the lock.
        contents: path in the results folder and content of every file there is; those that are not locked are
            passed over.
        exact: compare byte by byte whatever was trained again.
    """
    found = {name: contents[name] for name in lock.checksums() if name in contents}
    runs = () if exact else lock.runs
    again = {run: summary for run in runs if (summary := _trained_again(run, lock, found))}
    changed = {
        run: [
            name
            for name, checksum in lock.runs[run].files.items()
            if name in REPEATABLE and (file := f"runs/{run}/{name}") in found and sha256_of(found[file]) != checksum
        ]
        for run in again
    }
    other = {
        run: summary
        for run, summary in again.items()
        if changed[run] or locked_keys(summary)["repeatable"] != lock.runs[run].repeatable
    }
    reasons = {run: _why_bits_may_differ(lock.runs[run], summary) for run, summary in other.items()}
    wrong, allowed = [], {run: other[run] for run in sorted(other) if reasons[run]}
    for run, summary in other.items():
        if run not in allowed:
            code = "" if summary.code_digest == lock.runs[run].code_digest else ", by other code"
            wrong.append(
                f"runs/{run} was trained again{code} and is not the same ({', '.join(changed[run]) or SUMMARY}; "
                f"{_accuracies(summary, lock.runs[run])}), although both are reproducible on {summary.reproducibility}"
            )
    rows = dict(_rows(lock, allowed))
    # What is timed need not be as locked where something was trained, nor tables where numbers differ.
    follows = [name for name in lock.files if (again if name in (COST, COST_RECORD, "tables/table6.csv") else allowed)]
    others = {run: entry for run, entry in lock.runs.items() if run not in again}
    files = {name: checksum for name, checksum in lock.files.items() if name not in follows}
    differing, unrendered = verify_files(lock.model_copy(update={"runs": others, "files": files}), found)
    needed = [f"runs/{run}/{name}" for run in again for name in lock.runs[run].files]
    wrong += [line for line, differs in rows.items() if differs]
    wrong += [*differing, *(f"{name} is missing" for name in needed if name not in found)]
    return Compared(
        wrong=tuple(sorted(wrong)),
        differing=(
            *(f"{run}: {_accuracies(allowed[run], lock.runs[run])}; {reasons[run]}" for run in allowed),
            *(line for line, differs in rows.items() if not differs),
        ),
        passed_over=(
            *unrendered,
            *(name for name in follows if name in found and sha256_of(found[name]) != lock.files[name]),
        ),
        files=len(found),
        repeated=len(again) - len(other),
    )


def _trained_again(run: str, lock: ResultsLock, found: Mapping[str, bytes]) -> RunSummary | None:
    """The summary of a run of the same settings that is not the locked file; None where there is none."""
    name = f"runs/{run}/{SUMMARY}"
    locked = lock.runs[run]
    if name not in found or sha256_of(found[name]) == locked.files["summary.json"]:
        return None
    try:
        summary = RunSummary.model_validate_json(found[name])
    except ValidationError:
        return None
    return summary if summary.fingerprint == locked.fingerprint else None


def _why_bits_may_differ(locked: LockedRun, here: RunSummary) -> str | None:
    """What of the classes of two trainings allows other bytes, in words; None where they must be the same."""
    if locked.reproducibility is None or here.reproducibility is None:
        return "not to the bit: a class of reproducibility is not recorded"
    found = weakest([locked.reproducibility, here.reproducibility])
    if found == Reproducibility.ANY_PROCESSOR:
        return None
    if found == Reproducibility.STATISTICAL:
        return f"not to the bit: the {here.engine} engine's run is reproducible statistically only"
    reasons = list(_other_surroundings(locked, here, all_versions=found == Reproducibility.THIS_DEVICE))
    return f"not to the bit: trained {', '.join(reasons)} by the {here.engine} engine" if reasons else None


def _other_surroundings(locked: LockedRun, here: RunSummary, *, all_versions: bool) -> Iterator[str]:
    if here.device != locked.device:
        yield f"on another processor or GPU ({here.device}, not {locked.device})"
    elif here.instruction_set != locked.instruction_set:
        yield f"with {here.instruction_set} instead of {locked.instruction_set}"
    if here.threads != locked.threads:
        yield f"with {here.threads} threads instead of {locked.threads}"
    if here.engine != locked.engine:
        yield f"against the {locked.engine} engine"
    for name in sorted({"torch", *(here.versions if all_versions else ())}):
        if here.versions.get(name) != locked.versions.get(name):
            yield f"with {name} {here.versions.get(name)} instead of {locked.versions.get(name)}"


def _accuracies(here: RunSummary, locked: LockedRun) -> str:
    def result(of: RunSummary | LockedRun) -> str:
        return of.status if of.final_test_accuracy is None else f"{of.final_test_accuracy:.2f} %"

    return f"{result(here)} here, {result(locked)} in the lock"


def _rows(lock: ResultsLock, others: Mapping[str, RunSummary]) -> Iterator[tuple[str, bool]]:
    """For each row with several such runs, what their means are, and whether chance does not explain the difference."""
    tests = []
    for row, members in itertools.groupby(sorted(others), lambda run: run.rpartition("/")[0]):
        runs = list(members)
        here = _sample([others[run].final_test_accuracy for run in runs])
        locked = _sample([lock.runs[run].final_test_accuracy for run in runs])
        test = welch(here, locked, 0.95) if here and locked else None
        if here and locked and test:
            means = f"mean of {here.runs} runs {here.mean:.2f} % here, of {locked.runs} {locked.mean:.2f} % in the lock"
            tests.append((f"{row}: {means}", test.p))
    for (means, _), p in zip(tests, holm([p for _, p in tests]), strict=True):
        differs = p < LEVEL
        verdict = "more than chance explains" if differs else "no more than chance explains"
        yield f"{means}: {verdict} (p = {p:.2g})", differs


def _sample(accuracies: Sequence[float | None]) -> Sample | None:
    values = [value for value in accuracies if value is not None]
    return Sample(mean=fmean(values), std=stdev(values), runs=len(values)) if len(values) > 1 else None
