"""Runs the compiler, several times at once, and ends it at once where the process that waits for it is stopped."""

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress


class Running:
    """Commands that are being run, all of which can be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._ended = False

    @contextmanager
    def started(self, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """Start a command; it is ended if the block does not wait for its end.

        Raises:
            OSError: it cannot be started, or all have been ended.
        """
        with self._lock:
            if self._ended:
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED), command[0])
            process = subprocess.Popen(  # noqa: S603
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
                env=os.environ | {"LC_ALL": "C"},
                process_group=0,  # a compiler starts others
            )
            self._processes.append(process)
        with process:
            try:
                yield process
            except BaseException:
                _end(process)
                raise

    def end(self) -> None:
        """End what runs, and start nothing any more."""
        with self._lock:
            self._ended = True
            for process in self._processes:
                _end(process)


def run_all(commands: Sequence[Sequence[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Run commands side by side, see `run`; what interrupts this, a signal say, ends them at once."""
    running = Running()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        finished = [pool.submit(run, command, running) for command in commands]
        try:
            return [future.result() for future in finished]
        except BaseException:
            running.end()
            raise


def run(command: Sequence[str], running: Running | None = None) -> subprocess.CompletedProcess[str]:
    """A finished command with its whole output, messages in English."""
    running = running or Running()
    try:
        with running.started(command) as process:
            output, _ = process.communicate()
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, stdout=str(error))
    return subprocess.CompletedProcess(command, process.returncode, stdout=output)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
