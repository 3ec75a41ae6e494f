"""Compiles the kernels once for this machine and loads them."""

import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from east.engine.base import KernelsUnavailable
from east.engine.cpu.commands import run, run_all
from east.engine.machine import cache_folder, folder_of_process, own_cache
from east.errors import EastError
from east.files import read_regular, write_atomically
from east.trust import distrust_of_file

LOG = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "kernels"
"""The C++ sources of the kernels."""

COMPILERS = ("c++", "g++", "clang++")
"""The compilers that are looked for on PATH, in this order, where `CXX` names none."""

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
"""How every kernel is compiled.

`-ffp-contract=off`: a multiplication and an addition that are written apart are rounded apart. Compilers would else
make one fused operation of them where the processor has one, each in places of its own: numbers would depend on both.
"""

CHANGES_NUMBERS = re.compile(
    r"-Ofast|-f(?:fast-math|unsafe-math-optimizations|associative-math|reciprocal-math|finite-math-only|no-signed-zeros"
    r"|approx-func|single-precision-constant|denormal-fp-math.*|fp-model=.*|fp-contract=(?!off$).*)"
    r"|-mfpmath=.*|-mdaz-ftz|-mrecip.*|-m32|@.*"
)
"""Arguments of a compiler with which the kernels would find other numbers, and files that may hold such."""

VECTOR_FLAGS = {
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2", "-mfma"),
    "baseline": (),
}
"""Vector level -> its compiler flags, the widest vectors first."""

ZIG_FLAGS = ("-mcpu=baseline", "-fno-sanitize=undefined")
"""What Zig needs besides: it compiles for the processor at hand, and with traps, by default."""

VECTOR_NEEDS = {
    "avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl", "fma"},
    "avx2": {"avx2", "fma"},
    "baseline": set[str](),
}
"""Vector level -> the processor's features that it needs, as /proc/cpuinfo names them; on other processors than x86
there is `baseline` alone, which has all that they need."""

X86 = {"x86_64", "amd64", "AMD64"}
"""What `platform.machine()` says of the processors that have vector levels."""

CPUINFO = Path("/proc/cpuinfo")

DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Toolchain:
    """Everything that decides the compiled library except the sources.

    Attributes:
        command: the compiler, with its full path, and the arguments that `CXX` gives it.
        version: what it prints when asked for its version.
        vector: the vector level.
        openmp: the OpenMP runtime to link against, PyTorch's; None gives the kernels threads of their own.
        extra_flags: appended to all other flags.
    """

    command: tuple[str, ...]
    version: str
    vector: str
    openmp: Path | None
    extra_flags: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that compiling and linking share."""
        own = ZIG_FLAGS if "ziglang" in self.command or Path(self.command[0]).name == "zig" else ()
        return FLAGS + own + VECTOR_FLAGS[self.vector] + self.extra_flags


@dataclass(frozen=True)
class Kernels:
    """The kernels as loaded into this process."""

    library: ctypes.CDLL
    path: Path
    toolchain: Toolchain

    @property
    def compiler(self) -> str:
        """The command that compiled it, with the arguments that `CXX` gave it."""
        return shlex.join(self.toolchain.command)

    @property
    def vector(self) -> str:
        """Its vector level."""
        return self.toolchain.vector


@dataclass(frozen=True)
class Availability:
    """Whether the kernels can be used here.

    Attributes:
        available: they are compiled and load.
        reason: why they cannot be used; otherwise empty.
        compiler: the compiler's command, None where there is none.
        vector: the vector level.
        cached: the compiled library is in the cache, so other processes need not compile it.
    """

    available: bool
    reason: str
    compiler: str | None
    vector: str
    cached: bool


def load_kernels() -> Kernels:
    """The kernels, compiled if the cache does not hold them. Success and failure are remembered in this process.

    Raises:
        KernelsUnavailable: they cannot be compiled or loaded here.
        EastError: `EAST_VECTOR` asks for a level that does not exist or that this processor lacks, or the compiler is
            given arguments that would change numbers.
    """
    outcome = _load_once()
    if isinstance(outcome, str):
        raise KernelsUnavailable(outcome)
    return outcome


@cache
def _load_once() -> Kernels | str:
    try:
        kernels = build(SOURCES, cache_folder(), find_toolchain())
        if lacks_fused_operations():
            LOG.info(
                "note: this processor has no fused multiply-add: training gives the same numbers, about 35 times slower"
            )
        return kernels
    except KernelsUnavailable as error:
        return str(error)
    except OSError as error:
        return f"the kernels cannot be written: {error}."


def availability() -> Availability:
    """Whether the kernels can be used here, found out by loading them."""
    try:
        compiler = shlex.join(find_compiler())
    except KernelsUnavailable:
        compiler = None
    try:
        kernels = load_kernels()
    except KernelsUnavailable as error:
        return Availability(False, str(error), compiler, vector_level(), cached=False)
    except EastError as error:
        return Availability(False, str(error), compiler, os.environ.get("EAST_VECTOR", ""), cached=False)
    return Availability(True, "", kernels.compiler, kernels.vector, cached=_is_in(cache_folder(), kernels.path))


def _is_in(folder: Path | None, path: Path) -> bool:
    return folder is not None and path.parent == folder.resolve()


def build(sources: Path, cache_dir: Path | None, toolchain: Toolchain) -> Kernels:
    """The library of all `*.cpp` in a folder, from the cache or compiled into it, loaded.

    Args:
        sources: a folder of `*.cpp` and `*.h` with functions declared `extern "C"`.
        cache_dir: where the library is kept, under a name that changes with the sources and the toolchain. Where it is
            None, cannot be written, or could be written by others, the library is kept in a temporary folder until the
            process ends.
        toolchain: how to compile.

    Raises:
        KernelsUnavailable: the sources do not compile, or the result does not load.
    """
    name = f"kernels-{toolchain.vector}-{_digest(sources, toolchain)}.so"
    cache_dir = own_cache(cache_dir, "the kernels are compiled for this process alone")
    if cache_dir is not None and _is_whole(cache_dir / name):
        try:
            return _load(cache_dir / name, toolchain)
        except OSError:
            # It was made under another system library, as happens in a home folder that several machines share.
            pass
        except KernelsUnavailable as error:
            LOG.warning("%s; they are compiled anew.", error)
    path = _keep(cache_dir, name, _compile(sources, cache_dir, toolchain))
    # Where the user lets a group write to new files, this one is none of the group's.
    path.chmod(0o644)
    try:
        return _load(path, toolchain)
    except OSError as error:
        raise KernelsUnavailable(
            f"the compiled kernels do not load: {error}. If their folder forbids execution, name another one in "
            "the environment variable EAST_CACHE_DIR."
        ) from error


def _load(path: Path, toolchain: Toolchain) -> Kernels:
    """The library in a file, which nobody else can have written."""
    if problem := distrust_of_file(path):
        raise KernelsUnavailable(f"the compiled kernels in {path} are not loaded, since {problem}")
    return Kernels(ctypes.CDLL(str(path)), path, toolchain)


def find_toolchain() -> Toolchain:
    """The toolchain of this machine: `CXX`, `EAST_VECTOR` and `EAST_KERNEL_FLAGS` choose where they are set.

    Raises:
        KernelsUnavailable: there is no compiler, or it does not run.
        EastError: `EAST_VECTOR` asks for a level that does not exist or that this processor lacks, or the compiler is
            given arguments that would change numbers.
    """
    vector = vector_level()
    extra_flags = tuple(_words("EAST_KERNEL_FLAGS"))
    refuse_other_numbers("EAST_KERNEL_FLAGS", extra_flags)
    command = find_compiler()
    refuse_other_numbers("CXX", _words("CXX")[1:])
    version = run([*command, "--version"])
    if version.returncode != 0:
        raise KernelsUnavailable(f"the C++ compiler {shlex.join(command)} does not run: {_first_error(version.stdout)}")
    # PyTorch's threads can serve only code that calls them by the names its runtime has: GNU's or LLVM's.
    entry = "GOMP_parallel" if "Free Software Foundation" in version.stdout else "__kmpc_fork_call"
    return Toolchain(
        command=command,
        version=version.stdout,
        vector=vector,
        openmp=openmp_runtime(entry),
        extra_flags=extra_flags,
    )


def refuse_other_numbers(variable: str, arguments: Sequence[str]) -> None:
    """Raise EastError if a compiler's argument, given in an environment variable, would change the kernels' numbers."""
    for argument in arguments:
        if CHANGES_NUMBERS.fullmatch(argument):
            raise EastError(
                f"{variable} holds {argument}, with which the kernels would find other numbers than on other machines "
                "(docs/arithmetic.md). Leave it out."
            )


def find_compiler() -> tuple[str, ...]:
    """The C++ compiler, with its full path: `CXX` where it is set, else the first of `COMPILERS` on PATH, else Zig's.

    Raises:
        KernelsUnavailable: there is none.
    """
    chosen = _words("CXX")
    for name, *arguments in [chosen] if chosen else [[name] for name in COMPILERS]:
        if path := shutil.which(name):
            return (path, *arguments)
    if not chosen and importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "c++")
    tried = f"CXX names '{chosen[0]}', which is" if chosen else f"{', '.join(COMPILERS)} are"
    raise KernelsUnavailable(
        f"there is no C++ compiler: {tried} not on PATH. Install one (apt install g++, dnf install gcc-c++, "
        "xcode-select --install on a Mac, conda install cxx-compiler; without root: pip install ziglang) or name one "
        "in the environment variable CXX."
    )


def _words(variable: str) -> list[str]:
    """The words of an environment variable, taken apart as a shell does.

    Raises:
        EastError: a quote is not closed in it.
    """
    value = os.environ.get(variable, "")
    try:
        return shlex.split(value)
    except ValueError:
        raise EastError(f"{variable} is {value!r}, in which a quote or a backslash stands alone. Correct it.") from None


def vector_level(cpuinfo: Path = CPUINFO, machine: str | None = None) -> str:
    """The vector level to compile for: what `EAST_VECTOR` asks for, else the widest that this processor has.

    Args:
        cpuinfo: Linux's description of the processor; where there is none, only `baseline` is known to work.
        machine: the processor's architecture; that of this process if None, which may be emulated.

    Raises:
        EastError: `EAST_VECTOR` asks for a level that does not exist or that this processor lacks.
    """
    supported = supported_levels(cpuinfo, machine)
    choice = os.environ.get("EAST_VECTOR") or supported[0]
    if choice not in supported:
        problem = "which this processor lacks" if choice in VECTOR_FLAGS else "which is not a vector level"
        raise EastError(
            f"EAST_VECTOR is '{choice}', {problem}. Choose one of {', '.join(supported)}, or leave it unset."
        )
    return choice


def supported_levels(cpuinfo: Path = CPUINFO, machine: str | None = None) -> list[str]:
    """The vector levels that this processor has, the widest first; see `vector_level` for the arguments."""
    features = _features(cpuinfo, machine)
    return [level for level, needed in VECTOR_NEEDS.items() if needed <= features]


def lacks_fused_operations(cpuinfo: Path = CPUINFO, machine: str | None = None) -> bool:
    """Whether a fused multiply-add takes many instructions on this processor; see `vector_level` for the arguments."""
    features = _features(cpuinfo, machine)
    return bool(features) and "fma" not in features


def _features(cpuinfo: Path, machine: str | None) -> set[str]:
    """What an x86 processor has, as /proc/cpuinfo names it; nothing on others, and where it is not known."""
    if (machine or platform.machine()) not in X86 or not cpuinfo.exists():
        return set()
    found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return set(found[1].split()) if found else set()


def openmp_runtime(entry: str) -> Path | None:
    """The file of the OpenMP runtime that PyTorch uses, if it has the function `entry`; None elsewhere than on Linux.

    A second runtime in the process would bring threads of its own that contend with PyTorch's for the processor.
    Apple's compiler comes without OpenMP.
    """
    if sys.platform != "linux":
        return None
    pytorch = ctypes.CDLL(torch._C.__file__)
    try:
        function = getattr(pytorch, entry)
    except AttributeError:
        return None
    address = ctypes.cast(function, ctypes.c_void_p)
    # The fields of C's Dl_info: file name, base address, symbol name, symbol address.
    found = (ctypes.c_char_p * 4)()
    ctypes.CDLL(None).dladdr(address, ctypes.byref(found))
    return Path(os.fsdecode(found[0])).resolve() if found[0] else None


def _digest(sources: Path, toolchain: Toolchain) -> str:
    """The first 16 hex digits of a SHA-256 of everything that decides the library."""
    parts = [
        part.encode()
        for part in (
            platform.machine(),
            *toolchain.command,
            toolchain.version,
            *toolchain.flags,
            toolchain.vector,
            str(toolchain.openmp),
        )
    ]
    for file in sorted([*sources.glob("*.cpp"), *sources.glob("*.h")]):
        parts += [file.name.encode(), file.read_bytes()]
    # Each part is preceded by its length, so that text cannot move from one to the next unseen.
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()[:16]


def _compile(sources: Path, cache_dir: Path | None, toolchain: Toolchain) -> bytes:
    """The content of the shared library."""
    files = sorted(sources.glob("*.cpp"))
    if not files:
        raise KernelsUnavailable(f"there are no kernel sources in {sources}: the installation of east is incomplete.")
    with tempfile.TemporaryDirectory(prefix="east-build-") as folder:
        objects = [Path(folder, f"{file.stem}.o") for file in files]
        threads = "-fopenmp" if toolchain.openmp else "-pthread"
        commands = [
            [*toolchain.command, *toolchain.flags, threads, "-c", str(file), "-o", str(target)]
            for file, target in zip(files, objects, strict=True)
        ]
        _check(run_all(commands), cache_dir, toolchain)
        # Linked without -fopenmp, which would add the compiler's own runtime to the one that PyTorch has loaded.
        openmp = toolchain.openmp
        runtime = [str(openmp), f"-Wl,-rpath,{openmp.parent}"] if openmp else [threads]
        library = Path(folder, "kernels.so")
        link = [*toolchain.command, *toolchain.flags, "-shared", "-o", str(library), *map(str, objects), *runtime]
        _check([run(link)], cache_dir, toolchain)
        content = library.read_bytes()
    # The loader ignores what follows the last section. Loading a file that was cut short can kill the process.
    return content + hashlib.sha256(content).digest()


def _check(finished: Sequence[subprocess.CompletedProcess[str]], cache_dir: Path | None, toolchain: Toolchain) -> None:
    """Raise KernelsUnavailable if a command failed."""
    failed = [process for process in finished if process.returncode != 0]
    if not failed:
        return
    log = "\n".join(f"{shlex.join(process.args)}\n{process.stdout}" for process in failed)
    path = _keep(cache_dir, "kernels.log", log.encode(), until_exit=False)
    raise KernelsUnavailable(
        f"{shlex.join(toolchain.command)} does not compile the kernels: {_first_error(failed[0].stdout)} "
        f"(full log: {path})"
    )


def _first_error(log: str) -> str:
    """The first line of a compiler's output that reports an error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[0] if lines else "it says nothing")


def _keep(cache_dir: Path | None, name: str, content: bytes, *, until_exit: bool = True) -> Path:
    """Write a file into the cache, or where that is impossible into a temporary folder, removed at exit if wished."""
    if cache_dir is not None:
        try:
            write_atomically(cache_dir / name, content)
            return cache_dir / name
        except OSError:
            pass
    folder = folder_of_process() if until_exit else Path(tempfile.mkdtemp(prefix="east-"))
    write_atomically(folder / name, content)
    return folder / name


def _is_whole(path: Path) -> bool:
    """Whether a library is there and ends with the digest of what precedes."""
    try:
        content = read_regular(path)
    except OSError:
        return False
    return hashlib.sha256(content[:-DIGEST_BYTES]).digest() == content[-DIGEST_BYTES:]
