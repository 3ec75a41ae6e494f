"""What the doctor asks of other processes, and what a probe finds out there."""

import functools
import os
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
import torchvision

from east.engine.base import KernelsUnavailable
from east.operations.doctor import probe
from east.operations.doctor.ask import Answer, Asker


@pytest.fixture
def ask(tmp_path):
    """Runs a script as the command `show`, the only one there is; with its arguments."""

    def run(script, *arguments, shebang="#!/bin/sh\n"):
        (tmp_path / "show").write_text(f"{shebang}{script}\n")
        (tmp_path / "show").chmod(0o755)
        return Asker({"PATH": str(tmp_path), "MARK": "x"}, tmp_path).run(["show", *arguments], 20)

    return run


@pytest.fixture
def typed():
    """A line that waits on this process's standard input."""
    read, write = os.pipe()
    os.write(write, b"typed\n")
    os.close(write)
    before = os.dup(0)
    os.dup2(read, 0)
    yield
    os.dup2(before, 0)
    os.close(before)
    os.close(read)


def test_a_command_has_its_arguments_folder_and_environment_and_nothing_to_read(ask, tmp_path, typed):
    answer = ask('echo "$@"; pwd; echo $MARK $HOME; printf "\\377\\n"; echo aside >&2; read line || echo end', "a", "b")
    assert answer == Answer(f"a b\n{tmp_path}\nx\n\ufffd\nend\n")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo out; exit 3", "out"),
        ("echo out; echo first >&2; printf 'last\\033[31m\\n\\n' >&2; exit 1", "last"),
        ("exit 3", "it ended with status 3"),
        ("kill -9 $$", "it was ended by SIGKILL"),
    ],
)
def test_a_command_that_fails_says_why_in_its_last_line_or_else_by_its_status(ask, script, problem):
    answer = ask(script)
    assert answer == Answer("out\n" if "out" in script else "", problem)


def test_a_command_that_is_missing_or_does_not_start_is_named(ask, tmp_path):
    assert Asker({}, tmp_path).run(["show"], 20).problem == "there is no command show"
    assert ask("", shebang="#!/nowhere/sh\n").problem == "show does not start: No such file or directory"


class Recorder(Asker):
    """Answers every command at once, and keeps it."""

    def __init__(self, folder, *answers):
        super().__init__({}, folder)
        self.asked, self.answers = [], iter(answers)

    def run(self, command, seconds):
        self.asked.append((command, seconds))
        return next(self.answers)


def test_a_probe_runs_once_in_a_python_of_its_own_and_its_last_line_counts(tmp_path):
    ask = Recorder(tmp_path, Answer('a word before\n{"a": 1}\n'), Answer("", "it was ended by SIGSEGV"))
    assert [ask.probe("step", "auto"), ask.probe("step", "auto")] == [{"a": 1}] * 2
    assert ask.probe("torch") == {"problem": "it was ended by SIGSEGV"}
    module = [sys.executable, "-m", "east.operations.doctor.probe"]
    assert ask.asked == [([*module, "step", "auto"], 600), ([*module, "torch"], 600)]


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, as far as the probes look at them: what is made there, and what each is asked for."""
    found = SimpleNamespace(count=2, made=[])

    def ones(size, device):
        found.made.append((size, str(device)))
        return torch.full((size,), 1.0)

    def properties(index):
        return SimpleNamespace(name=f"GPU {index}", total_memory=(index + 1) << 30)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: found.count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found.count)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch, "zeros", lambda size, device: found.made.append((size, device)))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return found


def test_pytorch_computes_on_every_gpu(gpus, monkeypatch):
    memory = [{"name": "GPU 0", "memory_mb": 1024}, {"name": "GPU 1", "memory_mb": 2048}]
    assert probe.probe_torch() == {"version": torch.__version__, "cuda": "13.0", "gpus": memory}
    assert gpus.made == [(8, "cuda:0"), (8, "cuda:1")]
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.4", raising=False)
    assert probe.probe_torch()["cuda"] == "6.4"
    gpus.count = 0
    gpus.made.clear()
    assert probe.probe_torch()["gpus"] == []
    assert gpus.made == [(0, "cuda")], "so that PyTorch says why there is none"


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (RuntimeError("no kernel image\nfor this device"), "no kernel image"),
        (AssertionError(), "AssertionError()"),
    ],
)
def test_a_gpu_that_cannot_compute_is_listed_with_the_problem(gpus, monkeypatch, error, problem):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "ones", fail)
    found = probe.probe_torch()
    assert (found["gpu_problem"], [gpu["name"] for gpu in found["gpus"]]) == (problem, ["GPU 0"])
    gpus.count = 0
    monkeypatch.setattr(torch, "zeros", fail)
    assert probe.probe_torch() == {"version": torch.__version__, "cuda": "13.0", "gpus": [], "gpu_problem": problem}


def test_torchvision_says_where_cifar_is(monkeypatch):
    found = probe.probe_torchvision()
    assert (found["torch"], found["torchvision"]) == (torch.__version__, torchvision.__version__)
    archive = found["archives"]["cifar100"]
    members = archive.pop("members")
    assert archive == {
        "file": "cifar-100-python.tar.gz",
        "md5": "eb9058c3a382ffc7106e4002c42a8d85",
        "url": "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "folder": "cifar-100-python",
    }
    assert members.keys() == {"train", "test", "meta"}
    assert found["archives"]["cifar10"]["folder"] == "cifar-10-batches-py"
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    found = probe.probe_torchvision()
    assert "archives" not in found
    assert found["problem"].startswith("ModuleNotFoundError: import of torchvision.datasets halted")


def test_triton_is_tried_where_there_is_a_gpu(gpus, monkeypatch):
    status, devices = SimpleNamespace(available=False, reason="no compiler"), []
    monkeypatch.setattr("east.engine.cuda.available.triton_status", lambda device: devices.append(device) or status)
    modules = {"triton": SimpleNamespace(__version__="3")}
    monkeypatch.setattr(probe.importlib, "import_module", modules.__getitem__)
    assert probe.probe_triton() == {"version": "3", "available": False, "reason": "no compiler"}
    assert devices == [torch.device("cuda")]
    gpus.count = 0
    assert probe.probe_triton() == {"version": "3"}


def broken(function):
    raise ImportError("no compiler\nat all")


@pytest.mark.parametrize(
    ("kind", "compiled", "facts"),
    [
        ("captured", broken, {}),
        ("compiled", lambda function: function, {}),
        (
            *("compiled", lambda function: lambda x: function(x) + x),
            {"compile_problem": "it computes something else than it should"},
        ),
        ("compiled", broken, {"compile_problem": "ImportError: no compiler"}),
    ],
)
def test_a_step_that_is_compiled_is_tried_on_a_little(gpus, monkeypatch, kind, compiled, facts):
    kinds = {("auto", torch.device("cuda")): kind}
    monkeypatch.setattr("east.training.captured.choose_step", lambda *asked: kinds[asked])
    monkeypatch.setattr(torch, "compile", compiled)
    assert probe.probe_step("auto") == {"kind": kind} | facts
    assert gpus.made == ([] if kind == "captured" or compiled is broken else [(8, "cuda")])


def test_kernels_are_those_that_are_available_and_kept(monkeypatch, tmp_path):
    library = import_module("east.engine.cpu.library")

    def unavailable():
        raise KernelsUnavailable("no compiler")

    # What is found is kept for the process: not what this test makes of it.
    monkeypatch.setattr(library, "_load_once", functools.cache(library._load_once.__wrapped__))
    monkeypatch.setattr(library, "find_toolchain", unavailable)
    monkeypatch.setattr("east.engine.machine.cache_folder", lambda: tmp_path / "kept")
    found = probe.probe_kernels()
    assert (found["cache"], set(found)) == (
        f"{tmp_path}/kept",
        {"cache", "available", "reason", "compiler", "vector", "cached"},
    )
    monkeypatch.setattr("east.engine.machine.cache_folder", lambda: None)
    assert probe.probe_kernels()["cache"] is None


def test_the_build_of_a_package_is_read_without_importing_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("built", "unnamed", "folder_only"):
        (tmp_path / name).mkdir()
    (tmp_path / "built/__init__.py").write_text("raise ImportError")
    (tmp_path / "built/version.py").write_bytes(b"# \xff\n__version__: str = '2.13.0+cpu'\n")
    (tmp_path / "unnamed/__init__.py").write_text("raise ImportError")
    names = ("built", "unnamed", "folder_only", "no_such_package")
    assert [probe.installed_build(name) for name in names] == ["2.13.0+cpu", "of unknown version", None, None]


def test_letters_that_the_font_of_figures_lacks_are_named():
    assert probe.probe_glyphs("Aé方文") == {"absent": "U+65B9 U+6587"}


def test_the_font_is_the_one_that_figures_have(monkeypatch):
    assert probe.probe_glyphs("Ǆ") == {"absent": ""}
    monkeypatch.setattr("matplotlib.rc_params_from_file", lambda file: {"font.family": ["DejaVu Sans Mono"]})
    assert probe.probe_glyphs("Ǆ") == {"absent": "U+01C4"}
