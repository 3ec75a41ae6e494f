"""Whole training steps by the kernels compiled for another architecture, without PyTorch: the same bytes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from east.engine.cpu.library import FLAGS, SOURCES, VECTOR_FLAGS, supported_levels
from tests.arm64.build import build
from tests.arm64.trainings import record

pytestmark = pytest.mark.slow

ARM64_COMPILER = shutil.which("aarch64-linux-gnu-g++")
ARM64_EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
ARM64 = [ARM64_COMPILER, *FLAGS, "-fopenmp"]

needs_arm64 = pytest.mark.skipif(
    not (ARM64_COMPILER and ARM64_EMULATOR),
    reason="compiling for AArch64 and running that needs Debian's g++-aarch64-linux-gnu and qemu-user",
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, tiny_spec):
    """The tape's path, and what recorded it."""
    path = tmp_path_factory.mktemp("tape") / "tape"
    return path, record(path, tiny_spec)


@pytest.fixture(scope="module")
def tape(recorded):
    return recorded[0]


@pytest.fixture(scope="module")
def programs(request, tmp_path_factory):
    """A folder for compiled programs: pytest's cache, where it has one."""
    cache = getattr(request.config, "cache", None)
    return tmp_path_factory.mktemp("programs") if cache is None else cache.mkdir("arm64-programs")


def play(command, tape, **environment):
    """The exit status of the player and what it said."""
    done = subprocess.run([*map(str, command), str(tape)], stdout=subprocess.PIPE, text=True, env=environment)
    return done.returncode, done.stdout


def test_the_tape_has_every_kernel(recorded):
    _, recorder = recorded
    sources = "".join(path.read_text() for path in SOURCES.glob("*.cpp"))
    of_activations, of_values = (
        set(re.findall(rf"^{macro}\((\w+),", sources, re.MULTILINE))
        for macro in ("EAST_KERNEL", "EAST_KERNEL_OF_VALUES")
    )
    named = {name.rpartition("_")[::2] for name in recorder.names}
    assert {name for name, _ in named} == of_activations | of_values
    assert {name for name, number in named if number == "bf16"} == of_activations


def test_the_tape_leaves_the_numbers_to_the_kernels(recorded):
    """Little is written on it of what Python did between two calls."""
    _, recorder = recorded
    assert recorder.written < 0.15 * recorder.computed


@needs_arm64
def test_another_architecture_trains_with_the_same_numbers(recorded, programs):
    tape, recorder = recorded
    program = build(ARM64, programs)
    for threads, poison in ("1", "7fc00000"), ("3", "4b000000"):
        status, said = play([ARM64_EMULATOR, program], tape, OMP_NUM_THREADS=threads, TAPE_POISON=poison)
        assert (status, said.split(",")[0]) == (0, f"{recorder.calls} calls"), said


def test_the_kernels_own_threads_compute_the_same_numbers(recorded, programs):
    """As on a Mac, whose compiler has no OpenMP."""
    tape, recorder = recorded
    program = build(["c++", *FLAGS, "-O1", "-pthread", *VECTOR_FLAGS[supported_levels()[0]]], programs)
    for threads in "1", "3":
        status, said = play([program], tape, TAPE_THREADS=threads)
        assert (status, said.split(",")[0]) == (0, f"{recorder.calls} calls"), said


@needs_arm64
@pytest.mark.parametrize(
    ("file", "order", "another", "kernel"),
    [
        (
            "vectors.cpp",
            "for (int32_t half = lanes / 2; half > 0; half /= 2) {\n"
            "        for (int32_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];\n    }",
            "for (int32_t lane = 1; lane < lanes; ++lane) sums[0] += sums[lane];",
            "dot_f32",
        ),
        (
            "linear.cpp",
            "for (int64_t k = 0; k < terms; ++k) {",
            "for (int64_t k = terms - 1; k >= 0; --k) {",
            "linear_f32",
        ),
    ],
)
def test_another_order_of_one_sum_is_noticed(tape, programs, tmp_path, file, order, another, kernel):
    sources = Path(shutil.copytree(SOURCES, tmp_path / "kernels"))
    text = (sources / file).read_text()
    assert text.count(order) == 1
    (sources / file).write_text(text.replace(order, another))
    status, said = play([ARM64_EMULATOR, build(ARM64, programs, sources)], tape)
    assert status == 1
    assert re.fullmatch(rf"ResNet-34 .*, step \d, call \d+: {kernel} \(.*\) leaves other numbers in \w+\n", said)


@pytest.mark.skipif(shutil.which("clang++") is None, reason="clang++ is not installed")
@pytest.mark.parametrize("vector", dict.fromkeys((supported_levels()[0], "baseline")))
def test_another_compiler_computes_the_same_numbers(tape, programs, vector):
    # Optimised in another way than the kernels that Python loads, and compiled in half the time.
    program = build(["clang++", *FLAGS, "-O1", "-pthread", *VECTOR_FLAGS[vector]], programs)
    status, said = play([program], tape)
    assert status == 0, said
