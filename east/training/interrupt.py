"""Signals that stop a training: at once before it begins, after the step in hand once it has."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from east.training.hooks import Ending, Hook

if TYPE_CHECKING:
    from east.training.assembly import Training

LOG = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""Ctrl-C; the end of a job's time, its cancellation or preemption; the end of a terminal; a scheduler's warnings before
the end; the end of the processor time that a process may take."""

ECHO_SECONDS = 1.0
"""What comes within this time after the first signal is not a second request: launchers pass on what everyone has
received, and service managers send several kinds at once."""

_NOHUP = (signal.SIGHUP, signal.SIG_IGN)

_END = 0
"""Ends the watching thread; no signal has this number."""


class Stopped(SystemExit):
    """The process was asked to end. Its exit status, 128 + the signal's number, says by which signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class Interruption(Hook):
    """What signals ask of this process.

    The first one raises `Stopped` in the main thread: at once, or within the training loop before the next batch. A
    second one ends the process at once, whatever it is doing. Signals are obeyed only while it is `listening`.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._requested: int | None = None
        self._in_loop = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Obey the signals within a block, which must run in the main thread."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        watching = threading.Thread(target=_end_at_second_signal, args=(reader,), daemon=True)
        watching.start()
        # `nohup` has a process ignore the end of its terminal, and so it stays.
        obeyed = [number for number in SIGNALS if (number, signal.getsignal(number)) != _NOHUP]
        before = {number: signal.signal(number, self._receive) for number in obeyed}
        woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield
        except Stopped as stopped:
            LOG.info("stopped by %s; the same command goes on from here.", stopped.signal.name)
            raise
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.write(writer, bytes([_END]))
            watching.join()
            os.close(reader)
            os.close(writer)

    def on_begin(self, training: "Training") -> None:
        """From now on a request waits for the next batch."""
        self._in_loop = True

    def before_batch(self, training: "Training") -> None:
        """Obey a request."""
        if self._requested is not None:
            raise Stopped(self._requested)

    def on_end(self, training: "Training", ending: Ending) -> None:
        """A request that came too late to stop anything is not obeyed."""
        self._in_loop = False

    def request(self, number: int) -> None:
        """Ask for a stop, as a signal of this number does; later requests change nothing.

        Raises:
            Stopped: outside of the loop.
        """
        if self._requested is None:
            self._requested = number
            if not self._in_loop:
                raise Stopped(number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # Processes that load data are forked from this one and have its handlers. They end when it does.
        if os.getpid() == self._process:
            self.request(number)


def _end_at_second_signal(reader: int) -> None:
    """End this process when a second signal arrives.

    Python runs its handlers between two instructions of the main thread, which may be far apart: a backward pass is
    one of them. The number of every signal, though, is written into the pipe at once.
    """
    first: float | None = None
    while True:
        for number in os.read(reader, 64):
            if number == _END:
                return
            if number not in SIGNALS:
                continue
            now = time.monotonic()
            if first is None:
                first = now
            # The system repeats the last one with every second of processor time.
            elif now - first > ECHO_SECONDS and number != signal.SIGXCPU:
                os._exit(128 + number)
