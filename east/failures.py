"""What failures of the surroundings mean to people: disk, permissions, memory, mounts; a sentence or two by kind.

Commands meet them anywhere, so that they are explained where a command ends, and not where they occur.
"""

import errno
import os
import pwd
from pathlib import Path

GOES_ON = "The same command goes on from where this one ended."

_REASONS: dict[int, tuple[str, str]] = {
    errno.EDQUOT: ("your quota on its disk is used up", f"Free some space. {GOES_ON}"),
    errno.EFBIG: (
        "the file would be larger than its file system or a limit of this process allows",
        f"Look at `ulimit -f`. {GOES_ON}",
    ),
    errno.EROFS: ("its file system is read-only", "Mount it for writing, or name another folder."),
    errno.EISDIR: ("a folder is there, where a file should be", "Move it away, or name another place."),
    errno.ELOOP: (
        "it is a link, where none is followed, or links that lead in a circle",
        "Remove it if it is not yours, or name another place.",
    ),
    errno.ENAMETOOLONG: ("the name is longer than its file system allows", "Choose a shorter one."),
    errno.ENOENT: ("there is no such file or folder", "Look whether it was moved or removed."),
    errno.ENOTEMPTY: ("the folder is not empty", "Look whether another process works there, and begin again."),
    errno.ENOLCK: (
        "its file system has no locks, without which two processes would write the same files",
        "Mount it with locks, or name a folder on another disk.",
    ),
    errno.EMFILE: ("this process may open no more files", f"Raise the limit (`ulimit -n 4096`). {GOES_ON}"),
    errno.ENFILE: ("this machine can open no more files", f"End other programs. {GOES_ON}"),
    errno.ENOMEM: ("there is not enough memory", f"Let fewer programs or trainings run at once. {GOES_ON}"),
    errno.EAGAIN: (
        "this user may start no more processes or threads",
        f"End other programs, or raise the limit (`ulimit -u`). {GOES_ON}",
    ),
    errno.ETXTBSY: ("another process uses it", "Begin again when that has ended."),
    errno.EBUSY: ("another process uses it", "Begin again when that has ended."),
    errno.ENXIO: ("it is not a file", "Remove it, or name another place."),
}
"""Number of an error -> what is wrong with a path, and the mend."""

_NOT_THERE = {
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ETIMEDOUT", "ENODEV", "EREMOTEIO")
    if hasattr(errno, name)
}
"""Errors of disks and mounts that are no longer there; each system lacks some."""

_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
_SHARED_MEMORY = ("shared memory", "unable to open file </torch", "unable to mmap", "unable to write to file </torch")


def explained(error: BaseException) -> str | None:
    """A failure of the surroundings in a sentence or two, with the path where there is one; None for any other."""
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error, error.errno)
    if isinstance(error, MemoryError):
        return _without_memory()
    if isinstance(error, RecursionError):
        return "Something that was read is nested too deeply. Look at the files and options that were given."
    if isinstance(error, UnicodeEncodeError | UnicodeDecodeError):
        shown = error.object if isinstance(error.object, str) else bytes(error.object[:80])
        return f"A text or a name of a file is not valid UTF-8: {shown!r:.100}. Rename it, or save the file as UTF-8."
    if isinstance(error, ImportError) and "failed to map segment" in str(error):
        return _without_memory()
    if isinstance(error, ImportError) and not (error.name or "").startswith("east"):
        return f"A package cannot be imported ({error}). Mend the environment with `make setup`."
    return _of_libraries(error) if isinstance(error, RuntimeError) else None


def _of_system(error: OSError, number: int) -> str:
    path = _path(error)
    if error.strerror not in (None, os.strerror(number)):
        return f"{path or 'A file'}: {error.strerror}."  # said by us, in words of its own
    if number == errno.ENOSPC:
        what, mend = _full(path)
    elif number in (errno.EACCES, errno.EPERM):
        what, mend = _forbidden(path)
    elif number in (errno.ENOTDIR, errno.EEXIST):
        what, mend = _in_the_way(path)
    elif number in _NOT_THERE:
        what = f"its disk or mount does not answer ({os.strerror(number)})"
        mend = f"Look at the mount and at the system's log. {GOES_ON}"
    else:
        what, mend = _REASONS.get(number, (error.strerror or os.strerror(number), GOES_ON))
    return f"{path or 'The system'}: {what}. {mend}"


def _path(error: OSError) -> Path | None:
    """The path that an error is about; of an operation with two paths the second, which is to be made."""
    name = error.filename2 if error.filename2 is not None else error.filename
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) else None


def _full(path: Path | None) -> tuple[str, str]:
    """No room for more bytes, or for more files."""
    try:
        found = os.statvfs(_existing(path)) if path else None
    except OSError:
        found = None
    if found and found.f_files and not found.f_favail:
        return "its disk can hold no more files (no inode is free)", f"Remove some files there. {GOES_ON}"
    return "its disk is full", f"Free some space. {GOES_ON}"


def _forbidden(path: Path | None) -> tuple[str, str]:
    what = "this user may not read or write it"
    try:
        there = _existing(path) if path else None
        if there is not None and there.lstat().st_uid != os.getuid():
            what += f"; {there} belongs to {_user(there.lstat().st_uid)}"
    except OSError:
        pass
    return what, "Change its permissions, ask its owner to remove it, or name another place."


def _in_the_way(path: Path | None) -> tuple[str, str]:
    try:
        for part in [path, *path.parents] if path else []:
            if os.path.lexists(part) and not part.is_dir():
                return f"{part} is there and is not a folder", "Move it away, or name another place."
    except OSError:
        pass
    return "something is in the way there", "Move it away, or name another place."


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next((part for part in (path, *path.absolute().parents) if os.path.lexists(part)), Path("/"))


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _without_memory() -> str:
    return f"There is not enough memory. Let fewer programs or trainings run at once. {GOES_ON}"


def _of_libraries(error: RuntimeError) -> str | None:
    """What PyTorch and Python say of memory, threads, worker processes and the GPU, of which they make no kinds."""
    text = str(error)
    first = text.partition("\n")[0].strip()
    lower = text.lower()
    if "CUDA out of memory" in text or ("CUDA" in text and "out of memory" in lower):
        return (
            f"The GPU has not enough memory ({first:.150}). End other programs on it, or lower "
            f"`execution.runs_per_gpu`. {GOES_ON}"
        )
    if any(words in lower for words in _SHARED_MEMORY):
        return f"There is no room in shared memory ({first:.150}). Enlarge /dev/shm. {GOES_ON}"
    if any(words in lower for words in _MEMORY):
        return _without_memory()
    if "can't start new thread" in text:
        return f"This user may start no more threads. End other programs, or raise the limit (`ulimit -u`). {GOES_ON}"
    if "DataLoader worker" in text:
        return f"A process that reads images was ended ({first:.150}), for want of memory perhaps. {GOES_ON}"
    if "Too many open files" in text or "ancdata" in text:
        return f"This process may open no more files. Raise the limit (`ulimit -n 4096`). {GOES_ON}"
    if text.startswith("CUDA error") or "CUDA driver" in text or type(error).__name__ == "AcceleratorError":
        return f"The GPU failed ({first:.150}). Look at `nvidia-smi` and the system's log. {GOES_ON}"
    return None
