"""The same bytes with every vector width and number of threads, with any cache: those committed in same_bits.json."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from east.engine.cpu import library
from tests.unit.same_bits import CHECKSUMS, specs, train_all

COMMITTED = json.loads(CHECKSUMS.read_text())
ROOT = Path(__file__).parents[2]

ANOTHER_MACHINE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "MKL_CBWR": "COMPATIBLE",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA",
}
"""Has libraries believe in a processor without wide vectors."""


def trained(data_dir, folder, threads, **environment):
    """The checksums found by a process of its own."""
    runs = [f"{name}={count}" for name, count in threads.items()]
    finished = subprocess.run(
        [sys.executable, "-m", "tests.unit.same_bits", str(data_dir), str(folder), *runs],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def committed(names):
    return {name: COMMITTED[name] for name in names}


def test_each_run_has_a_committed_checksum():
    assert COMMITTED.keys() == specs().keys()
    assert len(set(COMMITTED.values())) == len(COMMITTED)


@pytest.mark.usefixtures("one_thread")
def test_the_widest_vectors_and_any_number_of_threads(data_dir, tmp_path):
    threads = dict(zip(COMMITTED, (1, 7, 2, 3, 3, 1, 7, 2, 3, 7), strict=True))
    assert train_all(threads, tmp_path, data_dir) == COMMITTED


def test_avx2_and_libraries_that_believe_in_less(data_dir, tmp_path):
    if "avx2" not in library.supported_levels():
        pytest.skip("this processor has no AVX2")
    threads = {"east-sketch": 1, "resnet50-sketch": 3, "rigl-exact": 1, "adam-exact": 3, "bf16-sketch": 2}
    environment = ANOTHER_MACHINE | {"EAST_VECTOR": "avx2"}
    assert trained(data_dir, tmp_path, threads, **environment) == committed(threads)


def test_no_vectors_and_an_empty_cache(data_dir, tmp_path):
    """One run must do: without a fused multiply-add of the processor, kernels take ten times as long."""
    environment = {"EAST_VECTOR": "baseline", "EAST_CACHE_DIR": str(tmp_path / "cache"), "EAST_KERNEL_FLAGS": "-O1"}
    assert trained(data_dir, tmp_path, {"resnet50-exact": 2}, **environment) == committed(["resnet50-exact"])


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_another_order_of_one_sum_is_noticed(data_dir, tmp_path, monkeypatch):
    sources = shutil.copytree(library.SOURCES, tmp_path / "kernels")
    text, order, another = (sources / "arithmetic.h").read_text(), "segment_positions = 64", "segment_positions = 48"
    assert order in text
    (sources / "arithmetic.h").write_text(text.replace(order, another))
    monkeypatch.setattr(library, "SOURCES", sources)
    monkeypatch.setattr(library, "_load_once", library._load_once.__wrapped__)
    monkeypatch.setenv("EAST_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("EAST_KERNEL_FLAGS", "-O0")
    found = train_all({"rigl-sketch": 1}, tmp_path, data_dir)
    assert found != committed(found)
