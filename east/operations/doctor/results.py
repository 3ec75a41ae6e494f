"""Checks of the folder of results and of the workflow's own records there."""

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from east import checkout
from east.locks import take
from east.operations.doctor.surroundings import Finding, Surroundings, existing
from east.operations.on_disk import find

LOCAL_LOCKS = {
    "nfs": {"nolock", "local_lock=flock", "local_lock=all"},
    "nfs4": {"nolock", "local_lock=flock", "local_lock=all"},
    "lustre": {"localflock"},
}
"""File system -> the mount options by which a lock holds within one machine alone."""

TWICE = "Two jobs could train the same run at once and spoil its files."


def writing(here: Surroundings) -> list[Finding]:
    """Results can be written, and locks keep two jobs from training the same run."""
    folder = existing(here.results).resolve()
    where = shlex.quote(str(folder))
    fix = f"findmnt -T {where}"
    try:
        with (
            tempfile.NamedTemporaryFile(dir=folder, prefix=".east-doctor-") as file,
            Path(file.name).open("r+") as other,
        ):
            excludes = take(file) and not take(other)
    except OSError as error:
        found, fix = f"nothing can be written and locked in {folder}: {error.strerror}", f"ls -ld {where} && {fix}"
        return [Finding("error", found, "Every run writes its results there, under a lock.", fix)]
    kind = _local_locks(folder, here.root / "proc/self/mounts")
    if not excludes:
        return [Finding("warning", f"locks have no effect in {folder}", TWICE, fix)]
    if kind:
        why = f"{TWICE} Restart a workflow only when the jobs of the last one have ended."
        return [Finding("warning", f"locks in {folder} hold within one machine only ({kind})", why, fix)]
    return [Finding("ok", f"results can be written and locked in {folder}")]


def stale(here: Surroundings) -> Iterator[Finding]:
    """Folders of runs that the plan does not name."""
    found = find(here.results, "runs").keys() - {run.id for run in here.plan.runs}
    if found:
        what = f"{len(found)} folder{'s' * (len(found) > 1)} of runs that this plan does not name"
        why = "No table shows them, and they take space."
        yield Finding("note", f"{what}, such as {min(found)}", why, here.east("prune"))


def commit(here: Surroundings) -> Iterator[Finding]:
    """The commit that every summary records."""
    found = here.project and checkout.commit(here.project / "east")
    if not found:
        why = "Summaries will not name the commit that trained them, only a digest of the code."
        yield Finding("note", "the code is in no git repository that can be read", why, "git status")
    elif found.endswith("+changes"):
        why = "Summaries will name the commit with `+changes`, which nobody can check out."
        yield Finding("note", "the code has changes that are in no commit", why, "git commit -a")


def _local_locks(folder: Path, mounts: Path) -> str:
    """File system and mount option by which locks in a folder hold within one machine alone; empty if there is none."""
    best, answer = 0, ""
    for line in mounts.read_bytes().splitlines() if mounts.is_file() else ():
        point, kind, options = map(os.fsdecode, line.split(b" ")[1:4])
        # Spaces and the like are written as three octal digits.
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point))
        if folder.is_relative_to(mounted) and len(mounted.parts) >= best:
            local = LOCAL_LOCKS.get(kind, set()) & set(options.split(","))
            best, answer = len(mounted.parts), f"{kind}, {min(local)}" if local else ""
    return answer
