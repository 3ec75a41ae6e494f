"""What engines know of this machine, and the memory that they keep."""

import atexit
import ctypes
import platform
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from east.engine import machine
from east.engine.graph import memory
from east.engine.graph.memory import HUGE_PAGE, Arena, Buffer, numbers_needed
from east.engine.machine import folder_of_process, processor_name


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("processor: 0\nmodel name\t: A: fast one \nmodel name\t: another\n", "A: fast one"),
        ("processor: 0\n", "by Python"),
        (None, "by Python"),
    ],
)
def test_a_processor_is_called_what_linux_calls_it(monkeypatch, tmp_path, content, name):
    if content is not None:
        (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / Path(path).name)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(platform, "processor", lambda: "by Python")
    assert processor_name() == name


def test_a_processor_without_a_name_has_that_of_its_architecture(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / "nothing")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert processor_name() == "arm64"


@pytest.mark.parametrize(("told", "name"), [("Apple M2\n", "Apple M2"), ("", "arm64")])
def test_a_processor_is_called_what_macos_calls_it(monkeypatch, told, name):
    def run(command, **settings):
        assert command[-1] == "machdep.cpu.brand_string"
        assert settings == {"capture_output": True, "text": True, "check": False}
        return SimpleNamespace(stdout=told)

    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert processor_name() == name


def test_a_folder_of_the_process_ends_with_it(monkeypatch):
    ends = []
    monkeypatch.setattr(atexit, "register", lambda *given, **keys: ends.append((given, keys)))
    folder = folder_of_process()
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.name.startswith("east-")
    (((act, place), keys),) = ends
    assert (act, place, keys) == (shutil.rmtree, folder, {"ignore_errors": True})
    act(place, **keys)
    assert not folder.exists()


# Memory for activations


@pytest.mark.parametrize(("dtype", "line"), [(torch.float32, 16), (torch.float64, 8), (torch.bfloat16, 32)])
def test_tensors_of_an_arena_begin_at_cache_lines_one_behind_the_other(dtype, line):
    shapes = {"a": (3, 5), "b": (line,), "c": (1,), "d": (2, line)}
    lengths = [-(-15 // line) * line, line, line, 2 * line]
    assert numbers_needed(shapes.values(), dtype) == sum(lengths)
    arena = Arena(dtype)
    assert (arena.room, arena.dtype) == (0, dtype)
    arena.reserve(sum(lengths))
    taken = arena.take(shapes)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in taken.items()} == {
        name: (shape, dtype) for name, shape in shapes.items()
    }
    begins = [(tensor.data_ptr() - taken["a"].data_ptr()) // dtype.itemsize for tensor in taken.values()]
    assert begins == [sum(lengths[:number]) for number in range(4)]


def test_an_arena_gets_other_memory_only_where_there_is_no_room():
    arena, places = Arena(torch.float32, torch.device("cpu")), []
    for count in (100, 50, 100, 101):
        arena.reserve(count)
        places.append((arena.room, arena.take({"a": (1,)})["a"].data_ptr()))
    assert [room for room, _ in places] == [100, 100, 100, 101]
    assert len({place for _, place in places[:3]}) == 1
    with torch.device("meta"):
        assert Arena(torch.float32, torch.device("cpu")).take({"a": (0,)})["a"].device.type == "cpu"


@pytest.mark.parametrize(
    ("begin", "size", "asked"),
    [
        (HUGE_PAGE, 3 * HUGE_PAGE, [(HUGE_PAGE, 3 * HUGE_PAGE, 14)]),
        (HUGE_PAGE + 1, 3 * HUGE_PAGE, [(2 * HUGE_PAGE, 2 * HUGE_PAGE, 14)]),
        (HUGE_PAGE - 4, HUGE_PAGE + 8, [(HUGE_PAGE, HUGE_PAGE, 14)]),
        (HUGE_PAGE + 4, HUGE_PAGE, []),
    ],
)
def test_large_pages_are_asked_for_where_memory_has_whole_ones(monkeypatch, begin, size, asked):
    calls = []

    def madvise(start, length, advice):
        calls.append((start.value, length.value, advice))

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(madvise=madvise))
    tensor = SimpleNamespace(data_ptr=lambda: begin, numel=lambda: size // 4, element_size=lambda: 4)
    memory._ask_for_huge_pages(tensor)
    assert calls == asked
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    memory._ask_for_huge_pages(tensor)
    assert calls == asked


def test_an_arena_asks_for_large_pages_and_does_without(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "_ask_for_huge_pages", lambda tensor: asked.append(len(tensor)))
    Arena(torch.float32).reserve(10)
    Arena(torch.float32, torch.device("meta")).reserve(10)
    assert asked == [10]
    monkeypatch.undo()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    Arena(torch.float32).reserve(2 * HUGE_PAGE // 4)


def test_a_gradient_that_is_not_stored_is_not_found():
    with pytest.raises(RuntimeError, match="not stored"):
        _ = Buffer(None).gradient_memory
    buffer = Buffer(torch.ones(2))
    assert buffer.gradient_memory.tolist() == [1, 1]
    assert not buffer.has_gradient
