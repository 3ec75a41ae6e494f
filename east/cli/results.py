"""Commands for results that are there: compare, verify, lock, archive, take over from others, prune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from east.cli.common import ConfigFiles, Results, read_plan_and_results
from east.errors import EastError
from east.files import write_atomically
from east.shown import say

if TYPE_CHECKING:
    from east.operations.merge import Placed

RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")]
Archive = Annotated[Path, typer.Argument(help="An archive of results, .tar.gz.")]


def compare(run_a: RunFolder, run_b: RunFolder) -> None:
    """Compare the traces of two trainings and name the first step at which their states differ, and in what."""
    from east.training.folder import TRACE
    from east.training.trace import compare_traces, read_trace

    one, other = (read_trace(folder / TRACE) for folder in (run_a, run_b))
    found = compare_traces(one, other)
    if found.difference is not None:
        same = one[found.rows - 1].step if found.rows else None
        say(f"first difference: {found.difference}" + ("" if same is None else f"; the same to step {same}"))
        raise EastError("the two runs are not the same from there on.")
    if len(one) == len(other):
        say(f"the same in all {found.rows} rows, to step {one[-1].step}.")
    else:
        shorter = min((one, run_a), (other, run_b), key=lambda each: len(each[0]))
        say(f"the same to step {shorter[0][-1].step}, where {shorter[1]} ends.")


def prune(
    configfile: ConfigFiles = None,
    results: Results = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; otherwise it is only listed.")] = False,
) -> None:
    """List what the results hold that the plan of this configuration has no use for, and remove it with --delete."""
    from rich.filesize import decimal

    from east.operations.prune import leftovers, remove

    plan, folder = read_plan_and_results(configfile, results)
    found = leftovers(plan, folder)
    kept = [leftover.name for leftover in found if delete and not remove(leftover, folder)]
    kind = None
    for leftover in found:
        if leftover.kind != kind:
            kind = leftover.kind
            say(f"{kind}:")
        in_use = "  (a training runs there: it stays)" if leftover.in_use or leftover.name in kept else ""
        say(f"  {leftover.name}  {decimal(leftover.size)}{in_use}")
    total = decimal(sum(leftover.size for leftover in found))
    if not found:
        say(f"Nothing in {folder} is of no use to the plan.")
    elif delete:
        say(f"{len(found) - len(kept)} of {len(found)} removed.")
    else:
        say(f"{len(found)} with {total}; nothing was removed. With --delete it will be.")
    if kept:
        raise typer.Exit(1)


def lock(
    configfile: ConfigFiles = None,
    results: Results = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; results.lock.json in the folder of the results if absent.")
    ] = None,
) -> None:
    """Write the identity, checksums and origin of every finished run into one small file to publish."""
    from east.operations.results_lock import LOCK_FILE, make_lock

    plan, folder = read_plan_and_results(configfile, results)
    made = make_lock(plan, folder)
    target = out or folder / LOCK_FILE
    write_atomically(target, made.json_text())
    say(f"{target}: {_count(len(made.runs), made.planned)}")


def archive(
    out: Archive,
    configfile: ConfigFiles = None,
    results: Results = None,
) -> None:
    """Pack the small files of every finished run and their lock; the tables can be made again from that alone."""
    from rich.filesize import decimal

    from east.operations.archive import write_archive
    from east.operations.results_lock import make_lock

    plan, folder = read_plan_and_results(configfile, results)
    made = make_lock(plan, folder)
    write_archive(made, folder, out)
    say(f"{out}: {_count(len(made.runs), made.planned)}, {decimal(out.stat().st_size)}")


def verify(
    lock: Annotated[Path, typer.Argument(help="A results.lock.json.")],
    against: Annotated[
        Path | None, typer.Argument(help="A folder of results, or an archive; results/<name> of the lock if absent.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Take the locked files only: no run may have been trained again.")
    ] = False,
) -> None:
    """Compare runs, costs and tables with a lock, and name each that is not as locked.

    A run that was trained again is compared to the bit where its class of reproducibility allows it; where not, the
    difference in accuracy is printed with the reason.
    """
    from east.operations.archive import read_archive
    from east.operations.results_lock import folder_contents, read_lock
    from east.operations.trained_again import compare as compare_results

    locked = read_lock(lock)
    source = against or Path("results") / locked.name
    if not source.exists():
        raise EastError(f"there is no {source} to compare with {lock}.")
    contents = read_archive(source)[0] if source.is_file() else folder_contents(locked, source)
    found = compare_results(locked, contents, exact=exact)
    for line in (*found.wrong, *found.differing):
        say(line)
    if found.passed_over:
        say(f"not compared: {', '.join(found.passed_over)}")
    if found.wrong:
        raise EastError(f"{len(found.wrong)} of {found.files} files of {source} are not as {lock} says.")
    repeated = f"; {found.repeated} runs were trained again, to the same bytes" if found.repeated else ""
    differing = ", as far as their classes promise the same bytes" if found.differing else ""
    say(f"{found.files} files of {len(locked.runs)} runs in {source} are as {lock} says{differing}{repeated}.")


def restore(archive: Archive, results: Results = None) -> None:
    """Unpack an archive of results beside what is there, each run whole or not at all; nothing is written over."""
    from east.operations.archive import restore as restore_archive

    folder, placed = restore_archive(archive, results)
    _tell(placed, folder, "taken")


def merge(
    source: Annotated[Path, typer.Argument(help="Another person's results/<name>.")],
    configfile: ConfigFiles = None,
    results: Results = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken.")] = False,
) -> None:
    """Take over the finished runs of the plan from another folder of results; what does not fit is refused by name."""
    from east.operations.merge import merge as merge_runs

    plan, folder = read_plan_and_results(configfile, results)
    placed = merge_runs(plan, source, folder, dry_run=dry_run)
    _tell(placed, folder, "to take" if dry_run else "taken")


def _tell(placed: "Placed", folder: Path, taken: str) -> None:
    """Print what became of runs; status 1 if any was refused."""
    for name, reason in placed.refused.items():
        say(f"refused {name}: {reason}.")
    say(f"{folder}: {len(placed.taken)} {taken}, {len(placed.already)} there already, {len(placed.refused)} refused.")
    if placed.refused:
        raise typer.Exit(1)


def _count(done: int, planned: int) -> str:
    missing = f"; {planned - done} are missing or of other settings (`east plan --changed`)" if done < planned else ""
    return f"{done} of {planned} runs{missing}"
