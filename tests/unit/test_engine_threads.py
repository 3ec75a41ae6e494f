"""The threads of the kernels: by OpenMP, and by the pool that takes its place where there is none."""

import ctypes
import dataclasses
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from east.engine.cpu import library

SOURCE = """
#include "threads.h"

#include <mutex>
#include <set>
#include <thread>
#include <vector>

using namespace east;

// How often each task of three loops was done, the second of which needs the first one whole.
extern "C" int32_t loops(int32_t count, int32_t* done) {
    std::mutex mutex;
    std::set<std::thread::id> threads;
    std::vector<int32_t> first(count);
    in_parallel([&](const Thread& thread) {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            threads.insert(std::this_thread::get_id());
        }
        thread.share(count, [&](int64_t k) { ++first[k]; });
        thread.share(count, [&](int64_t k) { done[k] += first[count - 1 - k]; });
        thread.divide(count, [&](int64_t k) { first[k] = 10; });
        thread.wait();
        thread.divide(count, [&](int64_t k) { done[k] += first[count - 1 - k]; });
    });
    return int32_t(threads.size());
}
"""


@pytest.fixture(scope="module", params=["OpenMP", "own"])
def kernels(request, tmp_path_factory):
    """The library, and how it is told its number of threads."""
    folder = tmp_path_factory.mktemp("threads")
    for name in ("arithmetic.h", "threads.h", "threads.cpp"):
        shutil.copy(library.SOURCES / name, folder)
    (folder / "loops.cpp").write_text(SOURCE)
    toolchain = library.find_toolchain()
    if request.param == "OpenMP" and toolchain.openmp is None:
        pytest.skip("this compiler cannot use PyTorch's OpenMP")
    if request.param == "own":
        toolchain = dataclasses.replace(toolchain, openmp=None)
    built = library.build(folder, folder / "cache", toolchain).library
    before = torch.get_num_threads()
    yield built, torch.set_num_threads if request.param == "OpenMP" else built.east_use_threads
    torch.set_num_threads(before)


def loops(built, count):
    done = (ctypes.c_int32 * count)()
    return built.loops(count, done), list(done)


@pytest.mark.parametrize("threads", [3, 1, 2, 5])
def test_every_task_is_done_once_by_as_many_threads_as_asked_for(kernels, threads):
    built, use_threads = kernels
    use_threads(threads)
    for count in [0, 1, 2, 7, 100] * 40:
        assert loops(built, count) == (threads, [11] * count)


def test_two_callers_at_once_do_not_disturb_each_other(kernels):
    built, use_threads = kernels
    use_threads(3)
    with ThreadPoolExecutor(4) as callers:
        assert all(done == [11] * 50 for _, done in callers.map(lambda _: loops(built, 50), range(400)))


def test_a_fork_gets_threads_of_its_own(kernels):
    built, use_threads = kernels
    if use_threads is torch.set_num_threads:
        pytest.skip("GNU's OpenMP does not outlive a fork")
    use_threads(3)
    loops(built, 10)
    child = os.fork()
    if not child:
        built.east_use_threads(2)
        os._exit(0 if loops(built, 10) == (2, [11] * 10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loops(built, 10) == (3, [11] * 10)
