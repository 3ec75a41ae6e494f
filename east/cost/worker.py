"""Processes that work for this one, which end with it at Ctrl-C. It imports nothing heavy, so that this holds early."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import ParamSpec, TypeVar

from east.log import configure_logging

P = ParamSpec("P")
T = TypeVar("T")


class Workers(ProcessPoolExecutor):
    """Processes that are started, one by one as work comes, while Ctrl-C waits."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """As in every pool; from the main thread only.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed meanwhile.
        """
        with interrupts_wait():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def workers(count: int, context: BaseContext) -> Iterator[Workers]:
    """Processes that end at once and without a word when this one is interrupted."""
    with Workers(count, context, _begin) as processes:
        try:
            yield processes
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C wait to the end of the block, and in processes that it starts until they are ready to end in silence.

    A process that it reached while its interpreter starts, or whose pipes were gone by then, would complain at length.
    Only for the main thread.

    Raises:
        KeyboardInterrupt: at the end of the block, if Ctrl-C was pressed meanwhile.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    # The mask is inherited by processes. It does not keep the signal from other threads of this one, hence the handler.
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        raise KeyboardInterrupt


def _begin() -> None:
    """Log as the command does, and end at Ctrl-C, which reaches the other process as well: that one reports it."""
    configure_logging()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
