"""Asks other processes: commands of the system, and Python where an import may fail or take the process with it."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from east.operations.log_tail import printable


class Answer(NamedTuple):
    """What a command printed, or why it failed.

    Attributes:
        output: its standard output.
        problem: why it failed, in one line; empty if it did not.
    """

    output: str = ""
    problem: str = ""


class Asker:
    """Runs commands, and each probe once, several at a time.

    Args:
        environment: the environment variables of the processes; commands are looked for on its PATH.
        folder: where they work.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self._pool = ThreadPoolExecutor()
        self._probes: dict[tuple[str, ...], Future[Answer]] = {}

    def which(self, command: str) -> str | None:
        """The full path of a command, None where there is none."""
        # An empty string is no PATH at all, while None would stand for that of this process.
        return shutil.which(command, path=self.environment.get("PATH", ""))

    def run(self, command: Sequence[str], seconds: float) -> Answer:
        """Run a command to its end, or for this long."""
        found = self.which(command[0])
        if found is None:
            return Answer(problem=f"there is no command {command[0]}")
        try:
            done = subprocess.run(  # noqa: S603
                [found, *command[1:]],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return Answer(problem=f"{command[0]} gives no answer within {seconds:g} s")
        except OSError as error:
            return Answer(problem=f"{command[0]} does not start: {error.strerror}")
        if done.returncode < 0:
            return Answer(done.stdout, f"it was ended by {signal.Signals(-done.returncode).name}")
        if done.returncode == 0:
            return Answer(done.stdout)
        lines = [line for text in (done.stdout, done.stderr) for line in text.splitlines() if line.strip()]
        return Answer(done.stdout, printable(lines[-1]) if lines else f"it ended with status {done.returncode}")

    def start(self, *probe: str) -> Future[Answer]:
        """Begin a probe (`probe.py`), unless it was begun before."""
        if probe not in self._probes:
            command = [sys.executable, "-m", "east.operations.doctor.probe", *probe]
            # The first one compiles the kernels.
            self._probes[probe] = self._pool.submit(self.run, command, seconds=600)
        return self._probes[probe]

    def probe(self, *probe: str) -> dict[str, Any]:
        """What a probe found out, with the key `problem` if it ended without an answer."""
        answer = self.start(*probe).result()
        if answer.problem:
            return {"problem": answer.problem}
        facts: dict[str, Any] = json.loads(answer.output.splitlines()[-1])
        return facts
