"""The same bytes with every vector width and number of threads, with any cache: those committed in same_bits.json."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from east.engine.sparse import library
from tests.unit.same_bits import CHECKSUMS, specs

COMMITTED = json.loads(CHECKSUMS.read_text())
ROOT = Path(__file__).parents[2]
TRAIN = "from tests.unit import same_bits; import runpy; runpy.run_module('tests.unit.same_bits', run_name='__main__')"
WITHOUT_VECTORS = ("east-sketch", "resnet50-exact")
"""Without a fused multiply-add of the processor, kernels take ten times as long."""

ANOTHER_MACHINE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "MKL_CBWR": "COMPATIBLE",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA",
}
"""Has libraries believe in a processor without wide vectors."""


def trained(code, data_dir, folder, runs, threads, **environment):
    arguments = [str(data_dir), str(folder), ",".join(runs), *map(str, threads)]
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def expected(runs, threads):
    return {name: {str(count): COMMITTED[name] for count in threads} for name in runs}


def require(level):
    if level not in library.supported_levels():
        pytest.skip(f"this processor has no {level}")


def test_each_run_has_a_committed_checksum():
    assert COMMITTED.keys() == specs().keys()
    assert len(set(COMMITTED.values())) == len(COMMITTED)


@pytest.mark.parametrize("threads", [(1, 2), (3, 7)], ids=str)
def test_the_widest_vectors_and_any_number_of_threads(threads, data_dir, tmp_path):
    runs = list(COMMITTED)
    assert trained(TRAIN, data_dir, tmp_path, runs, threads) == expected(runs, threads)


@pytest.mark.parametrize("runs", [list(COMMITTED)[:4], list(COMMITTED)[4:]], ids=",".join)
def test_avx2_and_libraries_that_believe_in_less(runs, data_dir, tmp_path):
    require("avx2")
    assert trained(TRAIN, data_dir, tmp_path, runs, [2], EAST_VECTOR="avx2", **ANOTHER_MACHINE) == expected(runs, [2])


@pytest.mark.parametrize("run", WITHOUT_VECTORS)
def test_no_vectors_and_an_empty_cache(run, data_dir, tmp_path):
    cache = {"EAST_VECTOR": "baseline", "EAST_CACHE_DIR": str(tmp_path / "cache")}
    assert trained(TRAIN, data_dir, tmp_path, [run], [2], **cache) == expected([run], [2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "order", "another"),
    [
        ("arithmetic.h", "half = V::count / 2; half > 0; half /= 2", "half = V::count - 1; half > 0; --half"),
        ("linear.cpp", "for (int64_t k = 0; k < terms; ++k) {", "for (int64_t k = terms - 1; k >= 0; --k) {"),
    ],
)
def test_another_order_of_one_sum_is_noticed(file, order, another, data_dir, tmp_path):
    sources = shutil.copytree(library.SOURCES, tmp_path / "kernels")
    text = (sources / file).read_text()
    assert order in text
    (sources / file).write_text(text.replace(order, another))
    code = f"from pathlib import Path; from east.engine.sparse import library; library.SOURCES = Path({str(sources)!r})"
    # The widest registers hold half a group, and two of them have one order only.
    level = {"EAST_VECTOR": "avx2"} if "avx2" in library.supported_levels() else {}
    cache = {"EAST_CACHE_DIR": str(tmp_path / "cache")}
    found = trained(f"{code}; {TRAIN}", data_dir, tmp_path, ["east-sketch"], [1], **cache, **level)
    assert found["east-sketch"]["1"] != COMMITTED["east-sketch"]
