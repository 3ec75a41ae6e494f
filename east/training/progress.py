"""How a training shows where it is: a bar on a terminal, a line an epoch in a log, one line at the end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from east.training.folder import SUMMARY
from east.training.records import EpochRecord, RunSummary

Report = Callable[[EpochRecord], None]


@contextmanager
def epoch_reporter(title: str, epochs: int) -> Iterator[Report]:
    """A function to call with every finished epoch; it draws a bar on a terminal and writes lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda record: print(_epoch_line(record, epochs), file=sys.stderr, flush=True)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("test {task.fields[accuracy]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=epochs, accuracy="")
        yield lambda record: progress.update(task, completed=record.epoch, accuracy=f"{record.test_acc:.2f} %")


def finished_line(summary: RunSummary, folder: Path, total: int | None) -> str:
    """One readable line about a run that has ended, with the share of the plan that is done.

    Args:
        summary: of the run.
        folder: of the run: results/<name>/runs/<table>/<row>/<seed>.
        total: runs of the whole plan, if known.
    """
    accuracy = summary.final_test_accuracy
    result = "diverged" if accuracy is None else f"test {accuracy:6.2f} %"
    runs = summary.runs_per_device or 1
    shared = f" ({runs} trainings a GPU)" if runs > 1 else ""
    line = f"{summary.id:<52} {result}  {summary.seconds or 0:7.1f} s{shared}"
    if total is None:
        return line
    done = len(list(folder.absolute().parents[2].glob(f"*/*/*/{SUMMARY}")))
    return f"{line}  [{done}/{total}]"


def _epoch_line(record: EpochRecord, epochs: int) -> str:
    validation = "" if record.val_acc is None else f"  val {record.val_acc:.2f}"
    return (
        f"epoch {record.epoch}/{epochs}  loss {record.train_loss:.4f}  train {record.train_acc:.2f}{validation}"
        f"  test {record.test_acc:.2f}  non-zeros {record.nonzeros}  lr {record.lr:g}  beta {record.beta:g}"
    )
