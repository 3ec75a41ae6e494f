"""Runs the `east` command in processes whose calls of the C library can be made to fail, and that start quickly."""

import multiprocessing
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 300
CONTEXT = multiprocessing.get_context("forkserver")
"""Its processes are forked from one that has imported everything."""


@dataclass(frozen=True)
class Done:
    """A command that has ended: its status, negative where a signal ended it, and what it said."""

    status: int
    output: str
    errors: str


@contextmanager
def prepared(folder: Path) -> Iterator[None]:
    """Within a block, processes obey the variables of `interpose.c`, which is compiled into a folder."""
    library = folder / "interpose.so"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    source = Path(__file__).with_name("interpose.c")
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    before = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = str(library)
    CONTEXT.set_forkserver_preload(["east.cli", "east.training.run", "east.training.progress", "east.data.prepare"])
    try:
        yield
    finally:
        os.environ.pop("LD_PRELOAD")
        if before is not None:
            os.environ["LD_PRELOAD"] = before


def run_east(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    limits: Mapping[int, int] | None = None,
    fresh: bool = False,
    stdout: str | None = None,
    stderr: str | None = None,
    after_first_line: Callable[[], None] | None = None,
    end_after_first_line: bool = False,
) -> Done:
    """Run a command to its end.

    Args:
        command: `east` and its arguments.
        folder: where it works.
        environment: variables that are set.
        limits: of the process.
        fresh: in a new interpreter.
        stdout: a file that takes the output; it is collected if absent.
        stderr: the same for errors.
        after_first_line: called when something stands on standard error.
        end_after_first_line: send SIGTERM then.
    """
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("EAST_", "LC_", "LANG"))}
    variables |= {"PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"} | dict(environment or {})
    with tempfile.TemporaryDirectory() as scratch:
        paths = [stdout or f"{scratch}/out", stderr or f"{scratch}/err"]
        streams = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in paths]
        for stream in streams:
            os.set_inheritable(stream, True)
        arguments = (list(command), variables, dict(limits or {}), str(folder), paths)
        process = CONTEXT.Process(target=_fresh if fresh else _forked, args=arguments)
        process.start()
        end = time.monotonic() + SECONDS
        waiting = after_first_line is not None or end_after_first_line
        while waiting and process.is_alive() and time.monotonic() < end:
            if Path(paths[1]).stat().st_size:
                waiting = False
                if after_first_line:
                    after_first_line()
                if end_after_first_line and process.pid:
                    os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.01)
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
        texts = [Path(path).read_text(encoding="utf-8", errors="replace") for path in paths if path.startswith(scratch)]
        output = "" if stdout else texts.pop(0)
        errors = "" if stderr else texts.pop(0)
        for stream in streams:
            os.close(stream)
        return Done(process.exitcode or 0, output, errors)


def _prepare(variables: Mapping[str, str], limits: Mapping[int, int], folder: str, paths: Sequence[str]) -> None:
    os.chdir(folder)
    for number, path in enumerate(paths, start=1):
        stream = os.open(path, os.O_WRONLY)
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(variables)
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _forked(
    command: list[str], variables: Mapping[str, str], limits: Mapping[int, int], folder: str, paths: list[str]
) -> None:
    from east.cli import main

    _prepare(variables, limits, folder, paths)
    sys.argv = command
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def _fresh(
    command: list[str], variables: Mapping[str, str], limits: Mapping[int, int], folder: str, paths: list[str]
) -> None:
    _prepare(variables, limits, folder, paths)
    os.execv(sys.executable, [sys.executable, "-m", *command])
