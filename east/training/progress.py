"""How a training shows where it is: a bar on a terminal, a line an epoch in a log, one line at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from east.shown import tell, visible
from east.training.assembly import Training
from east.training.hooks import Hook
from east.training.records import SUMMARY, EpochRecord, RunSummary


class _Lines(Hook):
    """Writes a line for every finished epoch."""

    def after_epoch(self, training: Training, record: EpochRecord) -> None:
        tell(_epoch_line(record, training.schedule.epochs))


class _Bar(Hook):
    """Moves a bar with every finished epoch."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def after_epoch(self, training: Training, record: EpochRecord) -> None:
        self._progress.update(self._task, completed=record.epoch, accuracy=f"{record.test_acc:.2f} %")


@contextmanager
def epoch_reporter(title: str, epochs: int) -> Iterator[Hook]:
    """Shows every finished epoch: by a bar on a terminal, by lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("test {task.fields[accuracy]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, progress.add_task(visible(title), total=epochs, accuracy=""))


def finished_line(summary: RunSummary, folder: Path, total: int | None) -> str:
    """One readable line about a run that has ended, with the share of the plan that is done.

    The folder is results/<name>/runs/<table>/<row>/<seed>.
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
