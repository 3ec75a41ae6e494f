"""TensorBoard event files of a run, for those who ask for them; off by default."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from east.errors import EastError
from east.training.assembly import Training
from east.training.folder import METRICS, TIMING
from east.training.hooks import Hook
from east.training.records import EpochRecord, TimingRecord, read_records

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""In the folder of a run."""

TAGS = {
    "accuracy/train": "train_acc",
    "accuracy/validation": "val_acc",
    "accuracy/test": "test_acc",
    "loss/train": "train_loss",
    "schedule/lr": "lr",
    "schedule/density": "density",
    "schedule/drop_fraction": "drop_fraction",
    "schedule/beta": "beta",
    "sparsity/nonzeros": "nonzeros",
    "sparsity/live_channels": "live_channels",
}
"""Name in TensorBoard -> column of metrics.csv. Accuracies are percentages."""


@contextmanager
def epoch_tracker(tracking: str, folder: Path) -> Iterator[Hook]:
    """Adds every finished epoch, while the run's lock is held and after metrics.csv is written.

    Raises:
        EastError: there is no such tracking, or the package that it needs is not installed.
    """
    if tracking == "none":
        yield Hook()
        return
    if tracking != "tensorboard":
        raise EastError(f"execution.tracking: there is no '{tracking}'. Choose none or tensorboard.")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise EastError(
            f"execution.tracking: tensorboard needs the package tensorboard, which cannot be imported ({error}). "
            f"Install it by `{sys.executable} -m pip install tensorboard`, or set the key to none."
        ) from None
    events = _EventFiles(folder, SummaryWriter)
    try:
        yield events
    finally:
        if events.writer is not None:
            events.writer.close()


class _EventFiles(Hook):
    """The event files of a run, in which TensorBoard finds each of its epochs once, in order.

    What a killed attempt left may lack its last epochs or hold some that are trained again. So every attempt takes
    back all that was written before it and starts over from metrics.csv, which is whole.
    """

    def __init__(self, folder: Path, make_writer: "type[SummaryWriter]") -> None:
        self.folder = folder
        self.make_writer = make_writer
        self.writer: SummaryWriter | None = None

    def after_epoch(self, training: Training, record: EpochRecord) -> None:
        """Add an epoch that is done."""
        if self.writer is None:
            self.writer = self._begin(record.epoch)
        _add_scalars(self.writer, record, time.time())
        self.writer.flush()

    def _begin(self, epoch: int) -> "SummaryWriter":
        """A new file with the epochs before this one."""
        # Readers drop what older files hold. The files stay: a TensorBoard that is watching one waits for it forever.
        writer = self.make_writer(str(self.folder / FOLDER), purge_step=0)
        # Times as if the training had never been interrupted, so that the axis of time is one of training.
        times = read_records(self.folder / TIMING, TimingRecord).checked()
        # Epoch -> seconds of training up to its end.
        done = {row.epoch: total for row, total in zip(times, accumulate(row.seconds for row in times), strict=True)}
        now, total = time.time(), max(done.values(), default=0.0)
        for row in read_records(self.folder / METRICS, EpochRecord).checked():
            if row.epoch < epoch:
                _add_scalars(writer, row, now - total + done.get(row.epoch, total))
        return writer


def _add_scalars(writer: "SummaryWriter", row: EpochRecord, when: float) -> None:
    for tag, column in TAGS.items():
        value = getattr(row, column)
        if value is not None:
            writer.add_scalar(tag, value, row.step, when)
