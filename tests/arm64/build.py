"""Compiles the kernels and the player of tapes into one program, for this processor or another."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from east.engine.cpu.library import SOURCES

HERE = Path(__file__).parent

OF_BOTH_TYPES = {"vectors.cpp"}
"""The sources whose kernels a training in float32 uses in float64 as well."""


def build(command: Sequence[str], cache: Path, sources: Path = SOURCES) -> Path:
    """The player, statically linked; what the cache holds is not compiled again.

    Args:
        command: the compiler and its flags.
        cache: a folder for the program and its parts, each under a name that changes with all that decides it.
        sources: the kernels.

    Raises:
        AssertionError: something does not compile; the message has the compiler's output.
    """
    files = [HERE / "player.cpp", *sources.glob("*.cpp")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # The largest first, since it takes longest.
        largest_first = sorted(files, key=lambda file: -file.stat().st_size)
        objects = sorted(pool.map(lambda file: _compiled(file, command, cache, sources), largest_first))
    program = cache / f"player-{_digest(path.name.encode() for path in objects)}"
    return _made(program, [*command, "-static", *map(str, objects)])


def _compiled(file: Path, command: Sequence[str], cache: Path, sources: Path) -> Path:
    flags = [*command, "-Wno-unknown-pragmas"] + ["-DTABLE_OF_BOTH_TYPES"] * (file.name in OF_BOTH_TYPES)
    version = subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout
    texts = [path.read_bytes() for path in (file, *sorted(HERE.glob("*.h")), *sorted(sources.glob("*.h")))]
    name = f"{file.stem}-{_digest([*(flag.encode() for flag in flags), version, *texts])}.o"
    table = ["-I", str(sources), "-include", str(HERE / "kernel_table.h")]
    return _made(cache / name, [*flags, *table, "-c", str(file)])


def _made(path: Path, command: Sequence[str]) -> Path:
    """A file that a command writes, where it is not there yet."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            target = Path(folder, path.name)
            output = ["-o", str(target)]
            done = subprocess.run([*command, *output], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
            target.rename(path)
    return path


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()[:16]
