"""The same bits everywhere, in its long form: `python -m benchmarks.same_bits`.

One run of 200 steps is trained again and again: from two clones, by every vector width, compiler and PyTorch that is
here, with libraries made to believe in other processors, beside busy loops. Its trace must be the same each time.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results import RESULTS_FOLDER, ROOT, demo_run, markdown, run_command
from east.config.run import RunSpec
from east.data.prepare import prepare
from east.engine.cpu.library import COMPILERS, supported_levels
from east.errors import EastError
from east.files import write_atomically
from east.training.folder import METRICS, TRACE, UPDATES

RUN_ID = "tablemethods/east-combined-resnet34-digits/seed1"
EPOCHS, STEPS_AN_EPOCH = 34, 6
"""204 steps, two cycles of the density among them."""

COMPARED = (METRICS, UPDATES, TRACE)


@dataclass(frozen=True)
class Variant:
    """One way to train_variant the run.

    `busy` loops run beside it.
    """

    label: str
    clone: Path
    python: Path
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    busy: int = 0


def spec() -> RunSpec:
    """EAST on ResNet-34: DyReLU that fades, shared weights, two density cycles, a sketched clip, validation."""
    content = demo_run(RUN_ID).model_dump()
    content["cycle"] |= {"cycle_length": 12.0, "cycles": 2}
    content["phasing"] |= {"start": 8.0, "end": 24.0}
    content["training"] |= {"epochs": EPOCHS, "batch_size": 250, "lr_drop_epochs": [20, 28]}
    return RunSpec.model_validate(content)


def variants(first: Path, second: Path, others: Sequence[Path]) -> list[Variant]:
    """All that can be tried on this machine; the first is what the rest is compared with.

    The second clone is run by its own environment if it has one, and the first by the other interpreters as well.
    """
    here = Path(sys.executable)
    own = second / ".venv" / "bin" / "python"
    found = [
        Variant("this environment, 1 thread", first, here),
        Variant("another clone, its own environment", second, own)
        if own.exists()
        else Variant("another clone", second, here),
        *(Variant(f"{count} threads", first, here, count) for count in (2, 3, 7)),
        Variant("beside four busy loops, 2 threads", first, here, 2, busy=4),
    ]
    variables = [(f"vectors: {level}", "EAST_VECTOR", level) for level in supported_levels()]
    libraries = {
        "ATEN_CPU_CAPABILITY": ("default", "avx2", "avx512"),
        "ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX2"),
        "MKL_ENABLE_INSTRUCTIONS": ("SSE4_2", "AVX2"),
        "MKL_CBWR": ("COMPATIBLE",),
        "GLIBC_TUNABLES": ("glibc.cpu.hwcaps=-AVX2,-FMA",),
    }
    variables += [(f"{name}={value}", name, value) for name, values in libraries.items() for value in values]
    names = [*COMPILERS, *(f"{kind}-{version}" for kind in ("g++", "clang++") for version in range(9, 22))]
    compilers = dict.fromkeys(filter(None, map(shutil.which, names)))
    variables += [(f"CXX={Path(path).name}", "CXX", path) for path in compilers]
    if subprocess.run([here, "-m", "ziglang", "version"], capture_output=True, check=False).returncode == 0:
        variables.append(("zig c++", "CXX", f"{here} -m ziglang c++"))
    found += [Variant(label, first, here, environment={name: value}) for label, name, value in variables]
    return found + [Variant(_versions(python), first, python) for python in others]


def train_variant(variant: Variant, run: Path, folder: Path, data_dir: Path) -> tuple[str, float]:
    """The digest of what a variant leaves, and its seconds.

    Raises:
        EastError: the training failed.
    """
    command = [str(variant.python), "-m", "east", "train", "--run", str(run), "--out", str(folder)]
    command += ["--threads", str(variant.threads), "--data-dir", str(data_dir), "--device", "cpu", "--engine", "sparse"]
    environment = {**os.environ, "EAST_CACHE_DIR": str(folder.parent / "cache"), **variant.environment}
    started = time.perf_counter()
    with _busy(variant.busy):
        finished = subprocess.run(
            command,
            cwd=variant.clone,
            env=environment | {"PYTHONPATH": str(variant.clone)},
            capture_output=True,
            text=True,
            check=False,
        )
    if finished.returncode != 0:
        raise EastError(f"'{variant.label}' did not train_variant: {finished.stderr.strip().splitlines()[-1]}")
    if "falls back to dense" in finished.stderr:
        raise EastError(f"'{variant.label}' trained densely: {finished.stderr.strip().splitlines()[-1]}")
    seconds = time.perf_counter() - started
    content = b"".join((folder / name).read_bytes() for name in COMPARED)
    return hashlib.sha256(content).hexdigest(), seconds


def render(rows: Sequence[tuple[str, str, float]]) -> str:
    """The table in Markdown: a row a variant, its digest, whether that is the first one's, and seconds."""
    cells = [
        (label, f"`{digest[:16]}`", "yes" if digest == rows[0][1] else "**no**", f"{seconds:.0f}")
        for label, digest, seconds in rows
    ]
    return markdown(["variant", "digest", "same bytes", "seconds"], cells) + "\n"


def _versions(python: Path) -> str:
    code = "import platform, torch; print('Python', platform.python_version() + ', PyTorch', torch.__version__)"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise EastError(f"{python} has no PyTorch: {found.stderr.strip().splitlines()[-1]}")
    return found.stdout.strip()


@contextmanager
def _busy(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main(
    python: Annotated[
        list[Path] | None, typer.Option(help="Another interpreter, whose PyTorch is tried as well; may be repeated.")
    ] = None,
    setup: Annotated[bool, typer.Option(help="Give the second clone an environment of its own.")] = True,
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = RESULTS_FOLDER / "same-bits.md",
) -> None:
    """Train one run in every way that this machine has, and compare what it leaves byte by byte."""
    with tempfile.TemporaryDirectory(prefix="east-same-bits-") as temporary:
        folder = Path(temporary)
        data_dir, run = folder / "data", folder / "run.json"
        prepare("digits", data_dir)
        write_atomically(run, json.dumps(spec().model_dump(mode="json")) + "\n")
        first, second = folder / "first", folder / "second"
        for clone in (first, second):
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        if setup:
            subprocess.run(["make", "--silent", "setup"], cwd=second, check=True)
        rows: list[tuple[str, str, float]] = []
        for place, variant in enumerate(variants(first, second, python or [])):
            rows.append((variant.label, *train_variant(variant, run, folder / "runs" / str(place), data_dir)))
            print(f"{rows[-1][0]}: {rows[-1][1][:16]}, {rows[-1][2]:.0f} s", flush=True)
    different = [label for label, digest, _ in rows if digest != rows[0][1]]
    write_atomically(out, render(rows))
    print(f"{len(rows) - len(different)} of {len(rows)} left the same bytes. Written to {out}.")
    if different:
        raise EastError(f"other bytes: {'; '.join(different)}.")


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
