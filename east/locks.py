"""Locks between processes: flock on a file, which the kernel releases when its holder ends, however it ends.

No marker is left behind by a process that was killed. On NFS, Linux passes these locks on to the server, so that they
hold between machines, unless the mount says otherwise (`east doctor` looks); for that an exclusive lock needs a file
that is open for writing.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import IO

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems answer that have no locks."""


@contextmanager
def locked(file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator["HeldLock"]:
    """Hold the lock on a file, which is made if needed.

    Args:
        file: what is locked; its content does not matter and stays. A link is not followed.
        waiting: called once where another process holds the lock, before it is waited for.

    Raises:
        OSError: the file cannot be made, is a link or no file, or its file system has no locks.
    """
    called = False
    while True:
        with open_lock(file, create=True) as stream:
            if not take(stream):
                if not called:
                    waiting()
                called = True
                take(stream, wait=True)
            held = HeldLock(file, stream)
            # Whoever held it may have removed it: others lock another file of that name by now.
            if held.is_there():
                yield held
                return


class HeldLock:
    """A lock that this process holds."""

    def __init__(self, file: Path, stream: FileIO) -> None:
        self.file = file
        self._stream = stream

    def is_there(self) -> bool:
        """Whether the file that is locked is still the one of its name, so that the lock keeps others away.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            there = self.file.lstat()
        except FileNotFoundError:
            return False
        own = os.fstat(self._stream.fileno())
        return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Hold the lock on a file if no other process does.

    Yields:
        Whether no other process does. Of an absent file, which is not made, that is true; where the lock cannot be
        asked for, it is taken to be false.
    """
    with ExitStack() as opened:
        try:
            free = take(opened.enter_context(open_lock(file)))
        except FileNotFoundError:
            free = True
        except OSError:
            free = False
        yield free


def open_lock(file: Path, *, create: bool = False, shared: bool = False) -> FileIO:
    """Open a file to be locked. Others may write to its folder: no link is followed, and nothing but a file is opened.

    Args:
        file: programs that this process starts do not get it.
        create: make it if it is not there.
        shared: open it for reading alone, which suffices for a shared lock.

    Raises:
        OSError: it cannot be opened, or is something else than a file.
    """
    flags = (os.O_RDONLY if shared else os.O_RDWR | os.O_APPEND) | (os.O_CREAT if create else 0)

    def opened(name: str, _: int) -> int:
        # A pipe is opened without waiting for its other end.
        number = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), name)
        return number

    return FileIO(str(file), "r" if shared else "r+", opener=opened)


def take(stream: IO[str] | IO[bytes] | FileIO, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed, unless another process holds it; whether it is locked now.

    Args:
        stream: the file, open for writing unless the lock is shared.
        shared: beside others that share it.
        wait: until no other process holds it.

    Raises:
        OSError: `ENOLCK`, where the file system has no locks; another one where it does not answer.
    """
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        number = errno.ENOLCK if error.errno in _NO_LOCKS else error.errno
        raise OSError(number, os.strerror(number or 0), stream.name) from error
    return True
