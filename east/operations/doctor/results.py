"""Checks of the folder of results and of the workflow's own records there."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

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


def writing(here: Surroundings) -> Iterator[Finding]:
    """Results can be written, and locks keep two jobs from training the same run."""
    folder = existing(here.results).resolve()
    try:
        with (
            tempfile.NamedTemporaryFile(dir=folder, prefix=".east-doctor-") as file,
            Path(file.name).open("r+") as other,
        ):
            excludes = take(file) and not take(other)
    except OSError as error:
        yield Finding(
            "error",
            f"nothing can be written and locked in {folder}: {error.strerror}",
            why="Every run writes its results there, under a lock.",
            fix=f"ls -ld {folder} && findmnt -T {folder}",
        )
        return
    kind = _local_locks(folder, here.root / "proc/self/mounts")
    if not excludes:
        yield Finding("warning", f"locks have no effect in {folder}", TWICE, f"findmnt -T {folder}")
    elif kind:
        yield Finding(
            "warning",
            f"locks in {folder} hold within one machine only ({kind})",
            why=f"{TWICE} Restart a workflow only when the jobs of the last one have ended.",
            fix=f"findmnt -T {folder}",
        )
    else:
        yield Finding("ok", f"results can be written and locked in {folder}")


def workflow_lock(here: Surroundings) -> Iterator[Finding]:
    """No Snakemake has left its lock behind."""
    if any((here.folder / ".snakemake" / "locks").glob("*.lock")):
        yield Finding(
            "warning",
            "Snakemake's lock lies in this folder",
            why="Either a workflow is running here, or one was killed, and no other starts until the lock is gone.",
            fix=f"{here.snakemake('--unlock')}   # only if none is running",
        )


def stale(here: Surroundings) -> Iterator[Finding]:
    """Folders of runs that the plan does not name."""
    found = find(here.results, "runs").keys() - {run.id for run in here.plan.runs}
    if found:
        yield Finding(
            "note",
            f"{len(found)} folder{'s' * (len(found) > 1)} of runs that this plan does not name, such as {min(found)}",
            why="No table shows them, and they take space.",
            fix=here.east("prune"),
        )


def commit(here: Surroundings) -> Iterator[Finding]:
    """The commit that every summary records."""
    if here.project is None or here.ask.run(["git", "-C", str(here.project), "rev-parse", "HEAD"], 10).problem:
        yield Finding(
            "note",
            "the code is in no git repository that can be read",
            why="Summaries will not tell which commit trained them; they do tell a digest of the code.",
            fix="git status",
        )
        return
    changes = ["git", "-C", str(here.project), "status", "--porcelain", "--untracked-files=no"]
    if here.ask.run(changes, 30).output.strip():
        yield Finding(
            "note",
            "the code has changes that are in no commit",
            why="Summaries will name the commit with `+changes`, which nobody can check out.",
            fix="git commit -a",
        )


def _local_locks(folder: Path, mounts: Path) -> str:
    """File system and mount option by which locks in a folder hold within one machine alone; empty if there is none."""
    best, answer = 0, ""
    for line in mounts.read_text().splitlines() if mounts.is_file() else ():
        _, point, kind, options, *_ = line.split(" ")
        mounted = Path(point.encode().decode("unicode_escape"))
        if folder.is_relative_to(mounted) and len(mounted.parts) >= best:
            local = LOCAL_LOCKS.get(kind, set()) & set(options.split(","))
            best, answer = len(mounted.parts), f"{kind}, {min(local)}" if local else ""
    return answer
