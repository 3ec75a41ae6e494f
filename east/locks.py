"""Locks between processes: flock on a file, which the kernel releases when its holder ends, however it ends.

No marker is left behind by a process that was killed. On NFS, Linux passes these locks on to the server, so that they
hold between machines, unless the mount says otherwise (`east doctor` looks); for that an exclusive lock needs a file
that is open for writing.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import IO


@contextmanager
def locked(file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock on a file, which is made if needed.

    Args:
        file: what is locked; its content does not matter and stays.
        waiting: called once where another process holds the lock, before it is waited for.
    """
    with file.open("a") as stream:
        if not take(stream):
            waiting()
            take(stream, wait=True)
        yield


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Hold the lock on a file if no other process does.

    Yields:
        Whether no other process does. Of an absent file, which is not made, that is true; where the lock cannot be
        asked for, it is taken to be false.
    """
    with ExitStack() as opened:
        try:
            free = take(opened.enter_context(file.open("r+")))
        except FileNotFoundError:
            free = True
        except OSError:
            free = False
        yield free


def take(stream: IO[str] | IO[bytes] | FileIO, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed, unless another process holds it; whether it is locked now.

    Args:
        stream: the file, open for writing unless the lock is shared.
        shared: beside others that share it.
        wait: until no other process holds it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
