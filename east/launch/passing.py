"""Jobs that need not import everything: a workflow's `east train` and `east make` are forks of one process that has.

`start` begins this process, the server, which calls `serve`. A job's own process passes its command on with `pass_on`:
its words, environment, folder, umask, and standard streams. It stays until the fork has ended, passes on the signals
that it gets, and ends as the fork did. If one of the two is killed, so is the other. Where there is no server, or the
sources have changed since it began, the job's process runs the command itself.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from east.shown import tell

SERVER = "EAST_SERVER"
"""The variable with the path of the server's socket; set by a user, even to nothing, it keeps `start` from another."""

COMMANDS = ("train", "make")
"""What is passed on: many jobs of seconds. What measures (`east cost`) has a process of its own."""

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)

STREAMS = 3
LENGTH_BYTES = 4
REQUEST_SECONDS = 10.0
"""A job sends its request in one go, so one that takes longer is not a job's."""


def start(log: Path) -> subprocess.Popen[bytes] | None:
    """Begin a server for the jobs that this process will start. It ends after this process and the last of its forks.

    Args:
        log: a file that takes what goes wrong in the server itself.

    Returns:
        The server, to be kept as long as there are jobs; None where the user wants none, or it cannot be.
    """
    if SERVER in os.environ:
        return None
    log.parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="east-")) / "server"  # nobody else may enter this folder
    with socket.socket(socket.AF_UNIX) as listener, log.open("wb") as output:
        try:
            listener.bind(str(path))
        except OSError:  # the path is too long for a socket, or the file system has none
            path.parent.rmdir()
            return None
        # From now on jobs may call; they wait until the server is ready.
        listener.listen(128)
        os.environ[SERVER] = str(path)
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "east.cli.server", str(path), str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # signals to the workflow's group reach the jobs' processes, which pass them on
        )


def pass_on(words: Sequence[str]) -> int | None:
    """Have the server run a command, in this process's name.

    Args:
        words: what follows `east`.

    Returns:
        The exit status, or None if the command did not begin; then this process may run it.
    """
    path = os.environ.pop(SERVER, "")
    if not path or not words or words[0] not in COMMANDS:
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
            _send_request(server, words)
        except OSError:
            return None
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            if before[number] != signal.SIG_IGN:
                signal.signal(number, lambda number, _: _send_signal(server, number))
        try:
            return _wait_for_end(server)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _send_request(server: socket.socket, words: Sequence[str]) -> None:
    umask = os.umask(0)
    os.umask(umask)
    content = json.dumps({"words": list(words), "environment": dict(os.environ), "umask": umask}).encode()
    folder = os.open(".", os.O_RDONLY)
    try:
        socket.send_fds(server, [len(content).to_bytes(LENGTH_BYTES, "big")], [*range(STREAMS), folder])
    finally:
        os.close(folder)
    server.sendall(content)


def _send_signal(server: socket.socket, number: int) -> None:
    with suppress(OSError):  # it has ended
        server.sendall(bytes([number]))


def _wait_for_end(server: socket.socket) -> int | None:
    fork = 0
    with server.makefile("r", encoding="ascii") as answers, suppress(OSError):
        for answer in answers:
            what, number = answer.split()
            if what == "ended":
                return _end_like(int(number))
            fork = int(number)
    if not fork:
        return None
    with suppress(ProcessLookupError):
        os.kill(fork, signal.SIGTERM)
    tell(
        f"error: the process that this job was a fork of has ended. Type the same command again; with {SERVER}= before"
    )
    tell("it, each job begins by itself.")
    return 1


def _end_like(status: int) -> int:
    """The exit status of a fork; where a signal ended it, this process is ended by the same."""
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status if status >= 0 else 128 - status


@dataclass(frozen=True)
class Request:
    """What a job's process asks for: words of a command, and the surroundings that it has there."""

    words: list[str]
    environment: dict[str, str]
    umask: int
    descriptors: list[int]

    @classmethod
    def received(cls, job: socket.socket) -> "Request":
        """Read one.

        Raises:
            OSError, ValueError: none has come.
        """
        job.settimeout(REQUEST_SECONDS)
        head, descriptors, _, _ = socket.recv_fds(job, LENGTH_BYTES, STREAMS + 1)
        if len(descriptors) != STREAMS + 1:
            raise ValueError("it comes without its streams")
        left, content = int.from_bytes(head, "big"), b""
        while len(content) < left:
            part = job.recv(left - len(content))
            if not part:
                raise ValueError("it is not whole")
            content += part
        return cls(descriptors=descriptors, **json.loads(content))

    def take_place(self) -> list[str]:
        """Make this process's surroundings those of the job; the command's words."""
        *streams, folder = self.descriptors
        os.fchdir(folder)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        self.close()
        os.environ.clear()
        os.environ.update(self.environment)
        os.umask(self.umask)
        # The server's own objects still take its streams for files.
        sys.stdin = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)  # noqa: SIM115
        for name, number in (("stdout", 1), ("stderr", 2)):
            old = getattr(sys, name)
            buffering = 1 if number == 2 or os.isatty(number) else -1
            settings = {"encoding": old.encoding, "errors": old.errors, "closefd": False}
            setattr(sys, name, open(number, "w", buffering, **settings))  # noqa: PTH123, SIM115
        return self.words

    def close(self) -> None:
        """Leave the job's streams and folder."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def serve(listener: socket.socket, prepare: Callable[[str], bool]) -> list[str] | None:
    """Fork for each job that calls, until standard input ends and all forks have ended.

    Args:
        listener: where jobs call.
        prepare: imports what a command needs; whether a fork of this process may run it.

    Returns:
        In a fork, the words of its command, which it has to run. In the server None, in the end.
    """
    jobs: dict[int, socket.socket] = {}
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.SelectSelector() as calls:  # nothing of it is shared with a fork
        for source in (listener, sys.stdin.fileno(), ended):
            calls.register(source, selectors.EVENT_READ)
        is_open = True
        while is_open or jobs:
            for key, _ in calls.select():
                if key.fileobj == ended:
                    os.read(ended, 4096)
                    _report_ended(jobs, calls)
                elif key.fileobj == listener:
                    job, _ = listener.accept()
                    request = _accepted(job, prepare)
                    if request is None:
                        continue
                    try:
                        fork = os.fork()
                    except OSError:  # no memory, too many processes
                        request.close()
                        job.close()
                        continue
                    if fork == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        # By the fork itself: a job that has not heard of it runs the command, which must not run twice.
                        _answer(job, "began", os.getpid())
                        for one in (listener, job, *jobs.values()):
                            one.close()
                        os.close(ended)
                        os.close(wake)
                        return request.take_place()
                    request.close()
                    jobs[fork] = job
                    calls.register(job, selectors.EVENT_READ, fork)
                elif key.fileobj == sys.stdin.fileno():
                    is_open = False
                    calls.unregister(sys.stdin.fileno())
                elif key.data in jobs:
                    _obey(key.data, jobs[key.data], calls)
    return None


def _accepted(job: socket.socket, prepare: Callable[[str], bool]) -> Request | None:
    """The request of a job, which is left to itself where it has none that can be met."""
    try:
        request = Request.received(job)
        if prepare(request.words[0]):
            return request
        request.close()
    except Exception:  # whatever it is, the job's process will say it as its own
        traceback.print_exc()
    job.close()
    return None


def _obey(fork: int, job: socket.socket, calls: selectors.BaseSelector) -> None:
    """Pass the signals on that a job's process has got; its own end is one that cannot be obeyed."""
    try:
        signals = job.recv(64)
    except OSError:
        signals = b""
    if not signals:
        calls.unregister(job)
    for number in signals or [signal.SIGKILL]:
        with suppress(ProcessLookupError):
            os.kill(fork, number)


def _report_ended(jobs: dict[int, socket.socket], calls: selectors.BaseSelector) -> None:
    for fork, status in _ended(list(jobs)):
        job = jobs.pop(fork)
        if job in {key.fileobj for key in calls.get_map().values()}:
            calls.unregister(job)
        _answer(job, "ended", status)
        job.close()


def _ended(forks: Sequence[int]) -> Iterator[tuple[int, int]]:
    for fork in forks:
        found, status = os.waitpid(fork, os.WNOHANG)
        if found:
            yield fork, os.waitstatus_to_exitcode(status)


def _answer(job: socket.socket, what: str, number: int) -> None:
    with suppress(OSError):  # the job's process was killed
        job.sendall(f"{what} {number}\n".encode())
