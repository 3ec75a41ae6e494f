"""Checks of the plan itself: what it needs at its end, and what of it may surprise."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from east.operations.doctor.surroundings import Finding, Surroundings, existing
from east.operations.ready import lacking, unwritable


def runs(here: Surroundings) -> Iterator[Finding]:
    """The plan is one that can be trained: whatever made it has refused any other."""
    yield Finding(
        "ok", f"{len(here.plan.runs)} runs in {len(here.plan.tables)} tables; every one of them can be trained"
    )
    for note in here.plan.notes:
        yield Finding("note", note, "It is legal, and may not be what was meant.")


def report_files(here: Surroundings) -> Iterator[Finding]:
    """What tables and report are made with is there, the paper's numbers among it."""
    problems = lacking(here.plan)
    for problem in problems:
        key = ".".join(map(str, problem.location))
        fix = f"Correct the file, or {key} in the configuration." if key else here.restore_report()
        why = "All would be trained, and then no table or report be made."
        yield Finding("error", f"{key}: {problem.sentence}" if key else problem.sentence, why, fix)
    if not problems:
        yield Finding("ok", "templates and published numbers are there and can be read")


def folders(here: Surroundings) -> Iterator[Finding]:
    """The folders that the plan writes to can be written."""
    for problem in unwritable(here.plan, here.ask.folder):
        yield Finding("error", problem, "The plan writes there.", f"ls -ld {shlex.quote(str(here.ask.folder))}")
    for what, folder in _own_folders(here):
        there = existing(folder)
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            found = f"{what} cannot be written: {folder}"
            variable = "TMPDIR" if what.startswith("temporary") else "XDG_CACHE_HOME"
            fix = f'mkdir -p "$PWD/.cache" && export {variable}="$PWD/.cache"'
            yield Finding("error", found, "Snakemake would end there before it begins.", fix)


def fonts(here: Surroundings) -> Iterator[Finding]:
    """Names that figures print have letters that their font has."""
    names = "".join(row.method for table in here.plan.tables for row in table.rows)
    unusual = "".join(sorted({letter for letter in names if not letter.isascii()}))
    if unusual and (absent := here.ask.probe("glyphs", unusual).get("absent")):
        found = f"the figures' font has no sign for {absent}"
        why = "Tables and report show it; figures show an empty box, and LaTeX its number."
        yield Finding("note", found, why, "Rename the method, or leave it so.")


def _own_folders(here: Surroundings) -> Iterator[tuple[str, Path]]:
    environment = here.ask.environment
    home = Path(environment.get("HOME", "~")).expanduser()
    yield "Snakemake's cache", Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    yield "temporary files", Path(environment.get("TMPDIR") or "/tmp")  # noqa: S108 - named, not written
    yield "Snakemake's records", here.ask.folder / ".snakemake"
