"""Which device computes, and what of a process's memory the system says."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from east.errors import EastError
from east.training import device
from east.training.device import choose_device, forget_peak, keep_freed_memory, peak_memory_mb, resident_memory_mb

CPU = torch.device("cpu")


@pytest.fixture
def status(tmp_path, monkeypatch):
    """Stands for a file of /proc."""
    monkeypatch.setattr(device, "Path", lambda _: tmp_path / "status")
    return tmp_path / "status"


@pytest.mark.parametrize(("has_gpu", "chosen"), [(False, "cpu"), (True, "cuda")])
def test_auto_is_the_gpu_where_there_is_one(monkeypatch, has_gpu, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device("auto").type == chosen
    assert choose_device("cpu").type == "cpu"
    if has_gpu:
        assert choose_device("cuda").type == "cuda"
    else:
        with pytest.raises(EastError, match="finds no GPU"):
            choose_device("cuda")


def test_memory_is_what_the_system_says(status):
    status.write_text("Name:\tpython\nVmHWM:\t    3072 kB\nVmRSS:\t    1024 kB\n")
    assert (peak_memory_mb(CPU), resident_memory_mb()) == (3.0, 1.0)


@pytest.mark.parametrize("content", [None, "Name:\tpython\n"])
@pytest.mark.parametrize(("platform", "mb"), [("linux", 2048.0), ("darwin", 2.0)])
def test_where_the_system_does_not_say_it_is_the_peak_in_units_of_its_own(status, monkeypatch, content, platform, mb):
    if content is not None:
        status.write_text(content)
    monkeypatch.setattr(device.sys, "platform", platform)
    monkeypatch.setattr(device.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=2**21))
    assert peak_memory_mb(CPU) == resident_memory_mb() == mb


def test_memory_of_a_gpu_is_what_pytorch_had_of_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 3 * 2**20)
    assert peak_memory_mb(torch.device("cuda")) == 3.0


def test_the_peak_is_forgotten_by_a_five(status):
    forget_peak()
    assert status.read_text() == "5"
    status.unlink()
    status.mkdir()
    forget_peak()  # a system that cannot: nothing happens


def test_freed_memory_is_kept_up_to_a_gigabyte(monkeypatch):
    calls = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda *given: calls.append(given)))
    keep_freed_memory()
    assert sorted(calls) == [(-3, 2**30), (-1, 2**30)]
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    keep_freed_memory()  # another C library: nothing happens
