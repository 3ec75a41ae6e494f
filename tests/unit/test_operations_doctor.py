"""Checks of `east doctor`, each in surroundings that are made up for it."""

import json
import os
import re
import shutil
import tomllib
from dataclasses import replace
from email.message import Message
from hashlib import md5, sha256
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from east.config import make_plan, read_config
from east.config.places import Mistake
from east.data.catalog import DATASETS
from east.data.idx_files import IdxSet
from east.data.prepare import prepare
from east.operations.disk import DiskNeed, disk_need
from east.operations.doctor import checks, data, gpu, machine, packages, plan, results, slurm
from east.operations.doctor.ask import Answer, Asker
from east.operations.doctor.checks import can_run, run
from east.operations.doctor.probe import probe_glyphs, probe_kernels
from east.operations.doctor.surroundings import Finding, Surroundings, free_inodes_of, installed_version
from tests.conftest import ROOT

PAPER = make_plan(read_config())
SMALL = make_plan(read_config(ROOT / "config/test.yaml"))
"""A plan on the digits, for the CPU."""

TORCH = {"version": "2.13.0+cu130", "cuda": "13.0", "gpus": []}
GPU = {"name": "H100", "memory_mb": 81920}
TRITON = {"version": "3.7.1", "available": True, "reason": ""}
ON_GPU = {"torch": TORCH | {"gpus": [GPU]}, "triton": TRITON, "step": {"kind": "compiled"}}
KERNELS = {"available": True, "reason": "", "compiler": "c++", "vector": "avx2", "cached": True, "cache": "/kept"}
DRIVER = {"root/proc/driver/nvidia/version": "NVRM"}
SBATCH = {"sbatch": "exit"}


class PreparedAsker(Asker):
    """Knows what probes find out; runs every other command for real."""

    def __init__(self, environment, folder, facts):
        super().__init__(environment, folder)
        self.facts = {"torch": TORCH, "torchvision": {"torchvision": "0.28.0"}, "kernels": {"cache": None}} | facts

    def probe(self, *probe):
        return self.facts[probe[0]]


def write(file, text, mode=0o644):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.fixture
def surroundings(tmp_path):
    """Makes surroundings in an empty folder, in which only what a test asks for is unusual.

    `facts` are what probes find out (None: they run), `commands` the only ones on PATH (None: those of this machine).
    """

    def make(plan=SMALL, environment=(), facts=None, execution=None, readings=None, commands=None, files=(), **changes):
        for part, keys in {"execution": execution, "readings": readings}.items():
            if keys:
                section = getattr(plan.config, part).model_copy(update=keys)
                plan = type(plan)(plan.config.model_copy(update={part: section}), plan.runs, plan.tables)
        for name, text in dict(files).items():
            write(tmp_path / name, text)
        for name, script in (commands or {}).items():
            write(tmp_path / "bin" / name, f"#!/bin/sh\n{script}\n", 0o755)
        path = os.environ["PATH"] if commands is None else f"{tmp_path}/bin"
        environment = {"PATH": path} | {name: str(value) for name, value in dict(environment).items()}
        ask = Asker(environment, tmp_path) if facts is None else PreparedAsker(environment, tmp_path, facts)
        place = tmp_path / "results" / plan.config.name
        return Surroundings(plan, ask, place, **{"root": tmp_path / "root", **changes})

    return make


def only(findings):
    (finding,) = findings
    return finding


def without(*missing, **versions):
    """The installed packages, but for these."""
    return lambda name: None if name in missing else versions.get(name) or metadata.version(name)


def no_torch(**facts):
    return {"torch": {"problem": "it was ended by SIGSEGV"}, **facts}


GRANTED = {"proc/meminfo": f"MemTotal: {4000 * 1024} kB\n"}
CIFAR = ("cifar10", "cifar100")
NO_TORCHVISION = {"torchvision": None, "torch": "2.13.0+cu130", "problem": "ModuleNotFoundError"}
NO_KERNELS = KERNELS | {"available": False, "reason": "broken"}
MEMORY = {f"root/{name}": text for name, text in GRANTED.items()}
TWO_RUNS = {"runs_per_gpu": 2}


@pytest.mark.parametrize(
    ("check", "given", "level", "words"),
    [
        (packages.python, {"python_version": "3.12.1"}, "ok", "3.12.1"),
        (packages.python, {"python_version": "3.9.18"}, "error", "3.9.18 <3.14"),
        (packages.python, {"python_version": "3.13.0rc1"}, "ok", "3.13.0rc1"),
        (packages.torch, {"facts": {}}, "ok", "2.13.0+cu130"),
        (packages.torch, {"facts": no_torch()}, "error", "SIGSEGV"),
        (packages.torchvision, {"facts": no_torch(torchvision={"problem": "ImportError"})}, "note", "PyTorch"),
        (packages.torchvision, {"facts": {}}, "ok", "torchvision 0.28.0"),
        (
            packages.torchvision,
            {"files": {f"data/{name}/manifest.json": "" for name in CIFAR}, "facts": {"torchvision": NO_TORCHVISION}},
            "warning",
            "(missing) +cu130 CIFAR ImageNet",
        ),
        (packages.lock, {"project": None}, None, ""),
        (packages.lock, {"project": Path("/")}, None, ""),
        (gpu.gpus, {"facts": {"torch": TORCH | {"gpus": [GPU, GPU]}}}, "ok", "2 x H100 (80 GiB)"),
        (gpu.gpus, {"facts": {"torch": TORCH | {"gpus": [GPU], "gpu_problem": "no image"}}}, "error", "no image"),
        (gpu.gpus, {"facts": no_torch()}, "note", "PyTorch"),
        (
            gpu.gpus,
            {
                "files": DRIVER,
                "facts": {"torch": TORCH | {"version": "2.13.0+cpu", "cuda": None}},
                "python": Path("/opt/other/bin/python"),
            },
            "warning",
            "2.13.0+cpu --force-reinstall requirements/lock.txt",
        ),
        (gpu.gpus, {"files": DRIVER, "facts": {}, "environment": {"CUDA_VISIBLE_DEVICES": ""}}, "warning", "unset"),
        (gpu.gpus, {"files": DRIVER, "facts": {}}, "warning", "nvidia-smi"),
        (gpu.gpus, {"files": {"root/dev/nvidia0": ""}, "facts": {}}, "warning", "nvidia-smi CPU"),
        (
            gpu.gpus,
            {
                "files": DRIVER,
                "facts": {"torch": TORCH | {"gpu_problem": "driver too old"}},
                "environment": {"CUDA_VISIBLE_DEVICES": "0"},
            },
            "warning",
            "GPU: driver too old nvidia-smi",
        ),
        (
            gpu.gpus,
            {"files": DRIVER, "facts": {}, "commands": {}, "execution": {"device": "cuda"}},
            "error",
            "refuse nvidia-smi",
        ),
        (gpu.gpus, {"facts": {"torch": TORCH | {"gpu_problem": "no driver"}}}, "note", "no GPU"),
        (gpu.gpus, {"facts": {}, "commands": {}, "execution": {"device": "cuda"}}, "error", "device: cpu"),
        (gpu.gpus, {"facts": {}, "commands": SBATCH, "execution": {"device": "cuda"}}, "warning", "srun --gpus=1"),
        (gpu.gpus, {"facts": {}}, "note", "no GPU"),
        (gpu.gpus, {"facts": {}, "plan": SMALL}, "ok", "execution.device"),
        (gpu.triton, {"facts": {}}, "ok", "not needed"),
        (gpu.triton, {"facts": ON_GPU, "plan": SMALL}, "ok", "not needed"),
        (gpu.triton, {"facts": ON_GPU}, "ok", "3.7.1"),
        (gpu.triton, {"facts": ON_GPU | {"triton": {"problem": "libtriton.so"}}}, "warning", "libtriton.so"),
        (
            gpu.triton,
            {"facts": ON_GPU | {"triton": TRITON | {"available": False, "reason": "no C compiler"}}},
            "warning",
            "compiler gcc",
        ),
        (gpu.steps, {"facts": ON_GPU}, "ok", "auto: sparse or dense compiled"),
        (gpu.steps, {"facts": ON_GPU | {"triton": {}}}, "ok", "auto: dense, no kernels"),
        (gpu.steps, {"facts": ON_GPU, "execution": {"engine": "sparse"}}, "ok", "sparse: sparse"),
        (gpu.steps, {"facts": ON_GPU | {"triton": {}}, "execution": {"engine": "dense"}}, "ok", "dense: dense; step"),
        (gpu.steps, {"facts": {}}, None, ""),
        (gpu.sharing, {"facts": {}, "execution": TWO_RUNS}, None, ""),
        (gpu.sharing, {"facts": ON_GPU}, None, ""),
        (gpu.sharing, {"facts": ON_GPU, "execution": TWO_RUNS, "commands": {}}, "note", "docs/workstation.md"),
        (gpu.numerics, {"facts": {}}, None, ""),
        (gpu.numerics, {"facts": ON_GPU, "readings": {"numerics": "bf16"}}, None, ""),
        (gpu.numerics, {"facts": {}, "readings": {"numerics": "bf16"}, "commands": {}}, "error", "DCT tf32"),
        (gpu.numerics, {"facts": {}, "readings": {"numerics": "bf16"}, "commands": SBATCH}, "warning", "login node"),
        (machine.kernels, {"facts": {}, "execution": {"engine": "dense"}}, "ok", "execution.engine"),
        (machine.kernels, {"facts": ON_GPU}, "ok", "on a GPU"),
        (machine.kernels, {"facts": no_torch()}, "note", "PyTorch"),
        (machine.kernels, {"facts": {"kernels": {"problem": "SIGILL"}}}, "error", "SIGILL engine: dense"),
        (machine.kernels, {"facts": {"kernels": KERNELS}}, "ok", "c++ avx2"),
        (
            machine.kernels,
            {"environment": {"CXX": "/nowhere/c++", "EAST_CACHE_DIR": "/nowhere"}},
            "warning",
            "/nowhere/c++ unset CXX",
        ),
        (
            machine.kernels,
            {"facts": {"kernels": NO_KERNELS | {"compiler": None}}, "commands": {}},
            "warning",
            "no kernels: broken apt install g++",
        ),
        (
            machine.kernels,
            {"facts": {"kernels": NO_KERNELS}, "environment": {"CXX": "c++"}},
            "warning",
            "no kernels: broken apt install g++",
        ),
        (machine.cores, {"execution": {"threads": 2}, "cores": 2}, "ok", "2 cores"),
        (
            machine.cores,
            {"execution": {"threads": 2}, "cores": 1, "configfiles": (Path("a b.yaml"), Path("c.yaml"))},
            "warning",
            "snakemake --cores 1 --configfile 'a b.yaml' c.yaml",
        ),
        (machine.cores, {"execution": {"threads": 2}, "cores": 1}, "warning", "1 core, threads: 1"),
        (machine.cores, {"cores": 1}, "ok", ""),
        (machine.cores, {"plan": SMALL, "cores": 4, "execution": {"threads": "auto"}}, "ok", "takes 1"),
        (
            machine.cores,
            {"plan": SMALL, "cores": 4, "execution": {"threads": "auto", "engine": "dense"}},
            "ok",
            "takes 2",
        ),
        (machine.memory, {}, None, ""),
        (machine.memory, {"files": MEMORY, "cores": 2}, "warning", "execution.memory_mb"),
        (machine.memory, {"files": MEMORY, "cores": 4, "plan": SMALL}, "ok", "4,000"),
        (machine.memory, {"files": MEMORY, "cores": 8, "plan": SMALL}, "note", "--resources mem_mb=4000"),
        (machine.memory, {"files": {"root/proc/meminfo": f"MemTotal: {8000 * 1024} kB\n"}, "cores": 64}, "ok", "8,000"),
        (machine.space, {"facts": no_torch()}, "note", "PyTorch"),
        (machine.space, {"facts": {}, "free_bytes": lambda folder: 0}, "error", "0.0 GB results data"),
        (machine.space, {"facts": {}, "free_bytes": lambda folder: 10**12}, "ok", "1000.0 GB"),
        (results.commit, {"project": Path("/")}, "note", "git"),
        (slurm.controller, {"commands": {}}, "ok", "no Slurm"),
        (slurm.controller, {"commands": SBATCH}, "warning", "squeue sinfo"),
        (slurm.accounting, {"commands": {}}, None, ""),
    ],
)
def test_what_a_check_finds(surroundings, check, given, level, words):
    """`words` are in what is found, why it matters, and what fixes it; no level means that nothing is found."""
    if check is not machine.kernels:
        given = {"plan": PAPER} | given
    elif given.get("facts") == ON_GPU:
        given = given | {"plan": PAPER}
    found = list(check(surroundings(**given)))
    assert [finding.level for finding in found] == ([level] if level else [])
    for finding in found:
        text = " ".join((finding.found, finding.why, finding.fix))
        assert all(word in text for word in words.split()), text
        assert bool(finding.why and finding.fix) or level in ("ok", "note")


INSTALL = f"cd {ROOT} && /opt/python -m pip install --require-hashes -r requirements/lock.txt"
AGAIN = INSTALL.replace("pip install", "pip install --force-reinstall")


@pytest.mark.parametrize(
    ("check", "facts", "fix"),
    [
        (packages.commands, {}, INSTALL),
        (packages.requirements, {}, INSTALL),
        (packages.lock, {}, INSTALL),
        (packages.torch, no_torch(), AGAIN),
        (packages.torchvision, {"torchvision": NO_TORCHVISION}, AGAIN),
        (
            gpu.gpus,
            {"torch": TORCH | {"gpus": [GPU], "gpu_problem": "no image"}},
            f"nvidia-smi && {AGAIN}   # if the GPU works but this build does not support it",
        ),
        (gpu.gpus, {"torch": TORCH | {"cuda": None}}, AGAIN),
        (gpu.triton, ON_GPU | {"triton": {"problem": "libtriton.so"}}, INSTALL),
        (gpu.triton, ON_GPU | {"triton": TRITON | {"available": False, "reason": "no libcuda"}}, AGAIN),
        (gpu.steps, ON_GPU | {"step": {"problem": "it was ended by SIGSEGV"}}, AGAIN),
        (
            gpu.steps,
            ON_GPU | {"step": {"kind": "compiled", "compile_problem": "no Triton"}, "triton": {}},
            "Repair what keeps Triton from running kernels.",
        ),
    ],
)
def test_what_is_there_and_does_not_work_is_installed_again_and_what_is_missing_once(surroundings, check, facts, fix):
    unusual = {"python": Path("/opt/python"), "installed": without("numpy"), "files": DRIVER}
    found = list(check(surroundings(PAPER, facts=facts, **unusual)))
    assert next(finding.fix for finding in found if finding.level != "ok") == fix


# Python and packages


def test_the_commands_of_the_workflow_must_lie_beside_its_python(surroundings, tmp_path):
    here = surroundings(commands={"snakemake": "exit"}, python=tmp_path / "bin/python")
    finding = only(packages.commands(here))
    assert finding.level == "error"
    assert f"east in {tmp_path}/bin" in finding.found
    assert list(packages.commands(surroundings(commands={"east": "exit"}, python=tmp_path / "bin/python"))) == []


@pytest.mark.parametrize(
    ("package", "version", "level", "why"),
    [
        ("numpy", None, "error", "The plan needs it."),
        ("snakemake", "8.30.0", "error", "The plan needs it."),
        ("torch", "2.1.0+cpu", "warning", "Nothing is tested with that version."),
        ("snakemake-executor-plugin-slurm", None, "warning", "Only `snakemake --profile profiles/slurm` needs it."),
    ],
)
def test_packages_that_are_missing_or_out_of_range_are_named(surroundings, package, version, level, why):
    installed = without(**{package: version}) if version else without(package)
    found, counted = packages.requirements(surroundings(installed=installed))
    assert (found.level, found.why, found.found.startswith(f"{package} {version or ''}")) == (level, why, True)
    number = len(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert counted.found.startswith(f"{number - 1} of {number} packages in their range, snakemake ")
    assert ("plugin-slurm" in counted.found) == (package != "snakemake-executor-plugin-slurm")


def test_a_version_before_its_release_is_in_the_range(surroundings):
    found = only(packages.requirements(surroundings(installed=without(torch="2.14.0rc1"))))
    assert found.level == "ok"


def test_what_the_installed_package_requires_counts_where_there_is_no_checkout(surroundings, monkeypatch):
    about = Message()
    about["Requires-Python"] = ">=3.11"
    versions = {"numpy": "2.0"}
    here = surroundings(project=None, installed=versions.get, python_version="3.10.1")
    monkeypatch.setattr(packages.metadata, "metadata", lambda name: {"east": about}[name])
    assert only(packages.requirements(here)).found == "0 of 0 packages in their range"
    for line in ("numpy>=2", "scipy>=1", 'tensorboard>=2; extra == "tracking"'):
        about["Requires-Dist"] = line
    missing, counted = packages.requirements(here)
    assert (missing.found, counted.found) == ("scipy is not installed", "1 of 2 packages in their range")
    assert only(packages.python(here)).found == "Python 3.10.1, but this project needs >=3.11"


@pytest.mark.parametrize("tracking", ["none", "tensorboard"])
def test_tensorboard_is_needed_only_by_a_plan_that_tracks(surroundings, tracking):
    here = surroundings(installed=without("tensorboard"), execution={"tracking": tracking})
    found = list(packages.requirements(here))
    assert can_run({"": found}) == (tracking == "none")
    assert ("-m pip install tensorboard" in found[0].fix) == (tracking != "none")


def test_versions_other_than_the_locked_ones_are_a_note(surroundings, tmp_path):
    lock = (
        "numpy==2.4.6 \\\n    --hash=sha256:00\ntorch==2.13.0 \\\n    --hash=sha256:00\n"
        "x-y==1.0 \\\nscipy==1.17.1 \\\ncolorama==0.4.6 ; sys_platform == 'win32' \\\n"
    )
    versions = {"numpy": "2.4.5", "torch": "2.13.0+cpu", "x-y": "1.0"}
    here = surroundings(project=tmp_path, installed=versions.get)
    write(tmp_path / "requirements/lock.txt", "").write_bytes(lock.encode() + b"# \xff\n")
    finding = only(packages.lock(here))
    assert finding.level == "note"
    assert finding.found == "2 of 4 packages are not as locked: numpy 2.4.5 (2.4.6), scipy missing (1.17.1)"
    del versions["x-y"]
    assert only(packages.lock(here)).found.endswith("numpy 2.4.5 (2.4.6), x-y missing (1.0), scipy missing (1.17.1)")
    versions["torch"] = "2.12"
    assert only(packages.lock(here)).found == (
        "4 of 4 packages are not as locked: numpy 2.4.5 (2.4.6), torch 2.12 (2.13.0), x-y missing (1.0) and 1 more"
    )
    versions |= {"numpy": "2.4.6", "torch": "2.13.0+cpu", "scipy": "1.17.1", "x-y": "1.0"}
    assert only(packages.lock(here)) == Finding("ok", "4 packages are as locked in requirements/lock.txt")


@pytest.fixture
def mismatched(tmp_path):
    """An environment with PyTorch for the CPU and a torchvision for CUDA, as far as an import goes."""
    torch = (
        "from types import SimpleNamespace as N\nfrom .version import __version__\nversion = N(cuda=None, hip=None)\n"
        "cuda = N(is_available=lambda: False, device_count=lambda: 0)\nzeros = lambda *a, **k: None\n"
    )
    vision = "raise RuntimeError('operator torchvision::nms does not exist')"
    for package, build, code in (("torch", "2.13.0+cpu", torch), ("torchvision", "0.28.0+cu130", vision)):
        write(tmp_path / "site" / package / "version.py", f"from typing import Optional\n__version__ = '{build}'\n")
        write(tmp_path / "site" / package / "__init__.py", code)
    return {"PYTHONPATH": tmp_path / "site"}


def test_a_torchvision_of_another_build_stops_plans_that_read_images_through_it(surroundings, mismatched):
    finding = only(packages.torchvision(surroundings(PAPER, mismatched)))
    text = f"{finding.found} {finding.why} {finding.fix}"
    words = ("0.28.0+cu130", "2.13.0+cpu", "torchvision::nms", "cifar10, cifar100")
    assert (finding.level, [word for word in words if word not in text]) == ("error", [])
    assert "make setup" in finding.fix or "--force-reinstall" in finding.fix
    assert only(packages.torchvision(surroundings(SMALL, mismatched))).level == "warning"


def test_a_torch_that_kills_its_process_does_not_kill_the_doctor(surroundings, tmp_path):
    write(tmp_path / "torch/__init__.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    finding = only(packages.torch(surroundings(PAPER, {"PYTHONPATH": tmp_path})))
    assert (finding.level, "SIGSEGV" in finding.found) == ("error", True)


def test_what_installs_depends_on_whose_python_it_is(surroundings, tmp_path):
    own = surroundings(project=tmp_path, python=tmp_path / ".venv/bin/python")
    assert own.reinstall(everything=True) == "rm -r .venv && make setup"
    assert own.reinstall(everything=False) == "rm -f .venv/run.stamp && make setup"
    other = surroundings(project=ROOT, python=Path("/opt/python"))
    assert (other.reinstall(everything=True), other.reinstall(everything=False)) == (AGAIN, INSTALL)
    assert other.restore_report() == f"git -C {ROOT} checkout -- report"
    nowhere = surroundings(project=None)
    assert "requirements/lock.txt" in nowhere.reinstall(everything=True)
    assert "whole checkout" in nowhere.restore_report()


def test_surroundings_are_those_of_this_process_unless_a_test_says_otherwise(monkeypatch):
    assert (Surroundings.project, Surroundings.cores) == (ROOT, len(os.sched_getaffinity(0)))
    assert installed_version("numpy") == metadata.version("numpy")
    assert installed_version("no-such-package-of-ours") is None
    for inodes, free in ((9, 5), (0, None)):
        found = SimpleNamespace(f_favail=5, f_files=inodes)
        monkeypatch.setattr(os, "statvfs", lambda folder, found=found: found)
        assert free_inodes_of(ROOT) == free


def test_commands_that_are_suggested_are_for_this_very_plan(surroundings):
    assert (surroundings().snakemake("-n"), surroundings().east("prune")) == ("snakemake -n", "east prune")
    here = surroundings(configfiles=(Path("a b.yaml"), Path("c.yaml")))
    assert here.snakemake("-n") == "snakemake -n --configfile 'a b.yaml' c.yaml"
    assert here.east("prune") == "east prune --configfile 'a b.yaml' --configfile c.yaml"


# GPU and kernels


def test_a_pytorch_that_compiles_nothing_is_a_warning(surroundings):
    facts = ON_GPU | {"step": {"kind": "compiled", "compile_problem": "no C++ compiler"}}
    warning, ok = gpu.steps(surroundings(PAPER, facts=facts))
    assert (warning.level, "no C++ compiler" in warning.found) == ("warning", True)
    assert (ok.level, "compiled" in ok.found, "captured" in ok.found) == ("ok", False, True)
    ended = ON_GPU | {"step": {"problem": "it was ended by SIGSEGV"}}
    warning, ok = gpu.steps(surroundings(PAPER, facts=ended))
    assert ("SIGSEGV" in warning.found, "captured" in ok.found) == (True, True)


def test_trainings_that_share_a_gpu_by_mps_are_fine(surroundings, tmp_path):
    here = surroundings(PAPER, facts=ON_GPU, execution=TWO_RUNS, commands={"nvidia-cuda-mps-control": "exit"})
    advice = only(gpu.sharing(here)).fix
    assert "nvidia-cuda-mps-control -d" in advice
    assert advice.split(" && ")[1].removeprefix("export ") in (ROOT / "docs/workstation.md").read_text()
    files = {"mps/nvidia-cuda-mps-control.pid": "7", "root/proc/7/stat": ""}
    environment = {"CUDA_MPS_PIPE_DIRECTORY": tmp_path / "mps"}
    here = surroundings(PAPER, environment, ON_GPU, TWO_RUNS, commands={}, files=files)
    assert only(gpu.sharing(here)).level == "ok"


@pytest.mark.parametrize(("name", "value"), [("EAST_VECTOR", "mmx"), ("EAST_KERNEL_FLAGS", "-ffast-math")])
def test_settings_that_every_training_would_refuse_are_an_error(surroundings, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    finding = only(machine.kernels(surroundings(facts={"kernels": probe_kernels()})))
    assert (finding.level, finding.fix, value in finding.found) == ("error", f"unset {name}", True)


def test_kernels_that_cannot_be_kept_are_a_warning(surroundings):
    facts = {"kernels": KERNELS | {"cached": False, "cache": "/read/only"}}
    ok, warning = machine.kernels(surroundings(facts=facts))
    assert (ok.level, warning.level, "/read/only" in warning.found) == ("ok", "warning", True)
    facts = {"kernels": KERNELS | {"cached": False, "cache": None}}
    assert "no home folder" in list(machine.kernels(surroundings(facts=facts)))[1].found


# Disk


def test_space_is_compared_with_what_runs_that_are_not_done_and_their_data_need(surroundings):
    need = sum(disk_need(SMALL.runs, Path()).runs.values()) + (1_438 + 359) * (3 * 12 * 12 + 8)
    levels = {}
    for free in (need - 1, need, int(need * 1.25) - 1, int(need * 1.25) + 1):
        levels[free] = only(machine.space(surroundings(facts={}, free_bytes=lambda folder, free=free: free))).level
    assert list(levels.values()) == ["error", "warning", "warning", "ok"]
    here = surroundings(facts={}, free_bytes=lambda folder: need - 1)
    write(here.results / "runs" / SMALL.runs[0].id / "summary.json", "{}")
    assert only(machine.space(here)).level != "error"


def test_a_quarter_more_than_the_plan_needs_is_enough_space(surroundings, monkeypatch, tmp_path):
    asked = []

    def need(runs, data):
        asked.append(([run.id for run in runs], data))
        return DiskNeed({"one": 700, "another": 100}, 200)

    def level(free, cache):
        here = surroundings(facts={"kernels": {"cache": cache}}, free_bytes=lambda folder: {tmp_path: free}[folder])
        return only(machine.space(here)).level

    monkeypatch.setattr("east.operations.disk.disk_need", need)
    assert [level(free, None) for free in (999, 1000, 1249, 1250)] == ["error", "warning", "warning", "ok"]
    kernels = 1000 + 50 * 2**20
    assert [level(free, f"{tmp_path}/cache") for free in (kernels - 1, kernels)] == ["error", "warning"]
    assert asked[0] == ([run.id for run in SMALL.runs], tmp_path / "data")


def test_files_that_the_plan_will_make_must_fit_the_file_system(surroundings):
    assert list(machine.inodes(surroundings(free_inodes=lambda folder: None))) == []
    assert list(machine.inodes(surroundings(free_inodes=lambda folder: 10**6))) == []
    assert list(machine.inodes(surroundings(free_inodes=lambda folder: 25 * 6 + 300))) == []
    here = surroundings(free_inodes=lambda folder: 25 * 6 + 300 - 1)
    finding = only(machine.inodes(here))
    assert (finding.level, "df -i" in finding.fix) == ("error", True)
    write(here.results / "runs" / SMALL.runs[0].id / "summary.json", "{}")
    assert list(machine.inodes(here)) == []


# The plan


def test_a_plan_that_can_run_is_told_with_what_may_surprise(surroundings):
    noted = make_plan(read_config(ROOT / "config/demo.yaml"))
    ok, *notes = plan.runs(surroundings(noted))
    assert (ok.level, [note.level for note in notes]) == ("ok", ["note"] * len(noted.notes))
    assert only(plan.report_files(surroundings())).level == "ok"


def test_files_of_the_report_that_are_missing_stop_the_plan(surroundings, monkeypatch):
    missing = [Mistake((), "style.css cannot be read."), Mistake(("cost", "published"), "it has no column.")]
    monkeypatch.setattr(plan, "lacking", lambda of: missing if of is SMALL else [])
    file, key = plan.report_files(surroundings(SMALL, project=ROOT))
    assert (file.level, file.found, file.fix) == (
        *("error", "style.css cannot be read."),
        f"git -C {ROOT} checkout -- report",
    )
    assert (key.level, key.found) == ("error", "cost.published: it has no column.")
    assert key.fix == "Correct the file, or cost.published in the configuration."


HOME = {"HOME": "{here}", "XDG_CACHE_HOME": "", "TMPDIR": ""}


@pytest.mark.parametrize(
    ("place", "variables", "fix"),
    [
        ("results", {}, "ls -ld "),
        ("data", {}, "ls -ld "),
        ("cache dir/x", {"XDG_CACHE_HOME": "{here}/cache dir/x"}, "export XDG_CACHE_HOME="),
        (".cache", {}, "export XDG_CACHE_HOME="),
        ("temporary", {"TMPDIR": "{here}/temporary/x"}, "export TMPDIR="),
        (".snakemake", {}, "mkdir -p "),
    ],
)
def test_a_file_where_a_folder_must_be_stops_the_plan(surroundings, tmp_path, place, variables, fix):
    environment = {name: text.format(here=tmp_path) for name, text in (HOME | variables).items()}
    here = surroundings(environment=environment)
    assert list(plan.folders(here)) == []
    write(tmp_path / place, "", 0o755)
    finding = only(plan.folders(here))
    assert (finding.level, place in finding.found, fix in finding.fix) == ("error", True, True)


def test_temporary_files_of_whoever_names_no_place_are_in_tmp(surroundings, monkeypatch, tmp_path):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and str(path) != "/tmp")
    finding = only(plan.folders(surroundings(environment={"HOME": tmp_path})))
    assert finding.found == "temporary files cannot be written: /tmp"


def test_signs_that_figures_cannot_show_are_noted(surroundings, tmp_path):
    overlay = write(tmp_path / "o.yaml", "methods: {rows: {\u65b9: {dct: true}}}")
    named = make_plan(read_config(overlay))
    assert "U+65B9" in only(plan.fonts(surroundings(named, facts={"glyphs": probe_glyphs("\u65b9é")}))).found
    assert list(plan.fonts(surroundings())) == []


# Data


@pytest.fixture
def digits(surroundings, data_dir, tmp_path):
    """Surroundings with prepared digits of their own, to be damaged."""
    shutil.copytree(data_dir / "digits", tmp_path / "data/digits")
    return surroundings(facts={})


def lose_a_byte(folder):
    file = folder / "images.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def change_a_byte(folder):
    file = folder / "images.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def make_a_pipe(folder):
    (folder / "images.safetensors").unlink()
    os.mkfifo(folder / "images.safetensors")


@pytest.mark.parametrize(
    ("damage", "thorough", "level"),
    [
        (lambda folder: None, False, "ok"),
        (lambda folder: None, True, "ok"),
        (lose_a_byte, False, "error"),
        (change_a_byte, False, "ok"),
        (change_a_byte, True, "error"),
        (lambda folder: (folder / "images.safetensors").unlink(), False, "error"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), False, "error"),
        (make_a_pipe, False, "error"),
    ],
)
def test_prepared_data_are_fine_until_a_byte_is_lost_or_changed(digits, surroundings, damage, thorough, level):
    damage(digits.data / "digits")
    finding = only(data.datasets(surroundings(facts={}, thorough=thorough)))
    assert (finding.level, finding.fix) == (level, "east prepare digits --data-dir data" if level == "error" else "")
    checked = "checksum right" if thorough else "size right; `--thorough` reads it for its checksum"
    right = f"Digits: prepared, {checked}"
    assert finding.found == right if level == "ok" else finding.found.startswith("Digits: ")


def test_what_is_wrong_with_prepared_data_is_told_in_a_sentence_with_the_path_from_here(digits, surroundings):
    manifest = digits.data / "digits/manifest.json"
    facts = json.loads(manifest.read_text())
    facts["shapes"]["test_labels"] = [360]
    manifest.write_text(json.dumps(facts | {"checksum": None}))
    assert only(data.datasets(digits)).found == "Digits: data/digits/images.safetensors is not what its manifest says."
    manifest.write_text("{}")
    assert only(data.datasets(digits)).found == (
        "Digits: data/digits/manifest.json is damaged or was written by another version"
    )
    assert only(data.datasets(surroundings(facts=no_torch(), thorough=True))).level == "error"


@pytest.mark.parametrize(
    ("content", "thorough", "level"),
    [(None, False, "note"), (b"<html>", False, "error"), (b"\x1f\x8b", False, "error"), (b"whole", False, "ok")],
)
def test_an_archive_is_looked_at_before_it_is_needed(surroundings, tmp_path, monkeypatch, content, thorough, level):
    monkeypatch.setitem(data.SHA256, "cifar10", sha256(b"whole").hexdigest())
    whole = md5(b"whole").hexdigest()
    archive = {"file": "archive.gz", "md5": whole, "url": "https://host.org/c", "folder": "unpacked"}
    archive["members"] = {"one": whole, "two": whole}
    if content is not None:
        write(tmp_path / "data/raw/archive.gz", "").write_bytes(content)
    facts = {"torchvision": {"archives": {"cifar10": archive, "cifar100": archive | {"file": "other", "folder": "x"}}}}
    first, second = data.datasets(surroundings(PAPER, facts=facts, thorough=thorough))
    assert (first.level, second.level) == (level, "note")
    assert "host.org" in second.found
    prepare = "east prepare cifar10 --data-dir data"
    fixes = {"ok": "", "note": prepare, "error": f"rm data/raw/archive.gz && {prepare}"}
    assert first.fix == fixes[level]
    assert first.found == "CIFAR-10: its archive is whole, checksums right; not yet prepared" or level != "ok"
    if level == "error":
        (tmp_path / "data/raw/archive.gz").unlink()
        (tmp_path / "data/raw/archive.gz").mkdir()
        finding = next(data.datasets(surroundings(PAPER, facts=facts)))
        assert finding.fix == f"rm -r data/raw/archive.gz && {prepare}"
    if content is None:
        for name in archive["members"]:
            write(tmp_path / "data/raw/unpacked" / name, "whole")
        found = next(data.datasets(surroundings(PAPER, facts=facts))).found
        assert found == "CIFAR-10: data/raw/unpacked is whole, checksums right; not yet prepared"
        write(tmp_path / "data/raw/unpacked/two", "other")
        finding = next(data.datasets(surroundings(PAPER, facts=facts)))
        assert (finding.level, "unpacked/two" in finding.found) == ("error", True)
        assert finding.fix.startswith("rm -r data/raw/unpacked && ")


def test_an_archive_cannot_be_looked_at_without_torchvision(surroundings):
    for finding in data.datasets(surroundings(PAPER, facts={"torchvision": NO_TORCHVISION})):
        assert (finding.level, "without torchvision" in finding.found) == ("note", True)


def planned(tmp_path, described, more=""):
    """A plan whose only data set is this."""
    split = "margin: 1, padding: zero, flip: false, validation: 4, validation_choice: shuffled"
    own = tmp_path / "own.yaml"
    own.write_text(
        f"{more}\ndatasets: {{{described.replace('SPLIT', split)}}}\n"
        f"tables: {{table2: {{dataset: {described.partition(':')[0]}, rows: [{{static: true}}]}}, table3: null}}\n"
        "methods: {recipes: {digits: null}}\nrecipes: {resnet34-digits: {batch_size: 4, update_period: 1}}\n"
    )
    return make_plan(read_config(ROOT / "config/test.yaml", own))


@pytest.mark.parametrize("folder", ["data/raw", "mine"])
def test_files_of_fashion_mnist_are_looked_at_before_they_are_needed(surroundings, tmp_path, monkeypatch, folder):
    names = ("train-images", "test-images")
    whole = {name: sha256(name.encode()).hexdigest() for name in names}
    monkeypatch.setitem(data.IDX_SETS, "fashion_mnist", IdxSet("FashionMNIST", whole))
    named = "" if folder == "data/raw" else f"folder: {tmp_path / folder}, "
    here = surroundings(planned(tmp_path, f"fashion_mnist: {{{named}SPLIT}}"), facts={})
    write(tmp_path / folder / names[0], names[0])
    missing = only(data.datasets(here))
    assert (missing.level, "test-images to be downloaded" in missing.found) == ("note", True)
    write(tmp_path / folder / names[1], "other")
    damaged = only(data.datasets(here))
    assert (damaged.level, "test-images is damaged" in damaged.found) == ("error", True)
    assert damaged.fix.startswith("rm " if folder == "data/raw" else "Replace ")
    write(tmp_path / folder / names[1], names[1])
    assert only(data.datasets(here)).level == "ok"


@pytest.mark.parametrize(
    ("described", "level", "said"),
    [
        ("svhn: {SPLIT}", "note", "svhn|SVHN"),
        ("svhn: {folder: /nowhere, SPLIT}", "error", "no folder /nowhere"),
        (
            "mine: {source: image_folder, classes: 2, train_images: 8, test_images: 4, SPLIT}",
            "error",
            "no image folder",
        ),
        ("stripes: {SPLIT}", "ok", "by the plugin .*stripes.py"),
    ],
)
def test_where_images_will_come_from_is_said(surroundings, tmp_path, described, level, said):
    declared = "classes=2, train_images=8, test_images=4, image_size=(8, 8)"
    text = f"from east.methods import dataset\n@dataset({declared})\ndef stripes(folder): raise SystemError\n"
    write(tmp_path / "stripes.py", text)
    found = only(data.datasets(surroundings(planned(tmp_path, described, "plugins: [stripes.py]"), facts={})))
    assert found.level == level
    assert re.search(said, found.found)


def imagenet(folder):
    run = PAPER.runs[0]
    spec = run.spec.model_copy(update={"dataset": run.spec.dataset.model_copy(update={"name": "imagenet"})})
    datasets = PAPER.config.datasets
    entry = datasets["imagenet"].model_copy(update={"folder": folder})
    config = PAPER.config.model_copy(update={"datasets": datasets | {"imagenet": entry}})
    return type(PAPER)(config, (run.model_copy(update={"spec": spec}),), ())


def test_an_image_folder_must_be_named_and_whole(surroundings, tmp_path):
    assert only(data.datasets(surroundings(imagenet(None), facts={}))).level == "error"
    here = surroundings(imagenet("images"), facts={})
    assert "images/train is missing" in only(data.datasets(here)).found
    for label in range(999):
        for part in ("train", "val"):
            (tmp_path / "images" / part / f"n{label:04}").mkdir(parents=True)
    assert "999" in only(data.datasets(here)).found
    for part in ("train", "val"):
        (tmp_path / "images" / part / "n0999").mkdir()
    assert only(data.datasets(here)).level == "ok"


def test_a_prepared_image_folder_must_be_the_one_that_was_prepared(surroundings, tmp_path, monkeypatch):
    few = {"num_classes": 2, "train_images": 2, "test_images": 2, "train_per_class": None, "test_per_class": None}
    monkeypatch.setitem(DATASETS, "imagenet", replace(DATASETS["imagenet"], **few))
    images = [write(tmp_path / f"my images/{part}/{name}/1.png", "x") for part in ("train", "val") for name in "ab"]
    prepare("imagenet", tmp_path / "data", folder=tmp_path / "my images")

    def found(thorough):
        named = {"EAST_IMAGE_FOLDER": "my images"}
        return only(data.datasets(surroundings(imagenet(None), named, facts={}, thorough=thorough)))

    assert [found(thorough).level for thorough in (False, True)] == ["ok", "ok"]
    images[0].write_text("other")
    assert found(False).level == "ok"
    assert "my images has changed since it was prepared" in found(True).found
    assert found(True).fix == (
        f"east prepare imagenet --data-dir data --image-folder '{tmp_path}/my images'   # when all of it is there"
    )
    images[0].unlink()
    assert found(True).found.startswith("ImageNet: my images/train must hold a sub-folder of images per class")
    for part in ("train", "val"):
        (tmp_path / "my images" / part / "a").rename(tmp_path / "my images" / part / "c")
    assert "has other classes than when it was prepared" in found(False).found


# Results and Slurm


def test_locks_that_exclude_nobody_are_a_warning(surroundings, monkeypatch, tmp_path):
    for answers in ([True, True], [False], [False, True]):
        given, seen = iter(answers), []

        def take(file, given=given, seen=seen):
            seen.append(Path(file.name))
            return next(given)

        monkeypatch.setattr(results, "take", take)
        finding = only(results.writing(surroundings()))
        assert (finding.level, "locks have no effect" in finding.found) == ("warning", True)
        assert {(path.parent, path.name[:13]) for path in seen} == {(tmp_path, ".east-doctor-")}


@pytest.mark.parametrize(
    ("commit", "words"), [(None, "no git repository"), ("c0ffee+changes", "in no commit"), ("c0ffee", "")]
)
def test_code_that_nobody_else_can_check_out_is_a_note(surroundings, monkeypatch, commit, words):
    monkeypatch.setattr(results.checkout, "commit", lambda package: {ROOT / "east": commit}[package])
    found = list(results.commit(surroundings(project=ROOT)))
    assert [finding.level for finding in found] == ["note"] * bool(words)
    assert all(words in finding.found for finding in found)
    assert only(results.commit(surroundings(project=None))).fix == "git status"


def test_results_that_cannot_be_written_stop_the_plan(surroundings, tmp_path):
    assert only(results.writing(surroundings())).level == "ok"
    write(tmp_path / "results", "a file")
    assert only(results.writing(surroundings())).level == "error"


@pytest.mark.parametrize(
    ("mounts", "level"),
    [
        ("a / ext4 rw 0 0\nb {here} nfs4 rw,local_lock=all 0 0\n", "warning"),
        ("b {here} nfs rw,nolock 0 0\n", "warning"),
        ("b {here} nfs4 rw,local_lock=none 0 0\nc /elsewhere nfs4 rw,local_lock=all 0 0\n", "ok"),
        ("a / nfs4 rw,local_lock=all 0 0\nb {here} ext4 rw 0 0\n", "ok"),
        ("b {here} nfs4 rw,local_lock=all 0 0\nc {here} ext4 rw 0 0\n", "ok"),
        ("b {here}/a\\040b nfs rw,nolock 0 0\n", "warning"),
        ("b {here} ext4 rw 0 0\na / nfs4 rw,local_lock=all 0 0\n", "ok"),
    ],
)
def test_locks_that_hold_within_one_machine_are_a_warning(surroundings, tmp_path, mounts, level):
    (tmp_path / "a b").mkdir()
    files = {"root/proc/self/mounts": mounts.format(here=tmp_path)}
    here = replace(surroundings(files=files), results=tmp_path / "a b/results")
    assert only(results.writing(here)).level == level


def test_runs_that_the_plan_does_not_name_are_a_note(surroundings):
    here = surroundings()
    (here.results / "runs" / SMALL.runs[0].id).mkdir(parents=True)
    assert list(results.stale(here)) == []
    (here.results / "runs/table9/old/seed1").mkdir(parents=True)
    finding = only(results.stale(here))
    assert (finding.level, finding.fix, "table9/old/seed1" in finding.found) == ("note", "east prune", True)


WORKING = {"sbatch": "exit", "squeue": "exit", "sinfo": "echo 'gpu*|up|gpu:a100:4'", "sacct": "exit"}
DISABLED = {"sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1"}
PROFILE = "profiles/slurm/profile.yaml"
SQUEUE = {PROFILE: "slurm-status-command: squeue\n"}


@pytest.mark.parametrize(
    ("check", "scripts", "files", "level", "words"),
    [
        (slurm.controller, {}, {}, "ok", ["gpu*"]),
        (slurm.controller, {"sinfo": "echo 'Unable to contact' >&2; exit 1"}, {}, "warning", ["Unable to contact"]),
        (slurm.controller, {"sinfo": "echo 'cpu|up|(null)'; echo 'gpu|down|gpu:4'"}, {}, "warning", ["(cpu)", "GPU"]),
        (slurm.controller, {"sinfo": "echo 'gpu|down|gpu:4'"}, {}, "warning", ["no partition"]),
        (slurm.controller, {"sinfo": "echo 'a | banner'; echo 'gpu|up|gpu:4'"}, {}, "ok", ["up: gpu"]),
        (slurm.accounting, {}, {}, "ok", ["sacct"]),
        (slurm.accounting, DISABLED, {}, "warning", ["slurm-status-command: squeue", "slurm-no-account: true"]),
        (slurm.accounting, DISABLED, {PROFILE: "slurm-status-command: sacct\n"}, "warning", ["squeue"]),
        (slurm.accounting, DISABLED, {PROFILE: "- squeue\n"}, "warning", ["squeue"]),
        (slurm.accounting, DISABLED, SQUEUE, "ok", ["squeue"]),
        (slurm.accounting, DISABLED | {"scontrol": "echo; echo 'MinJobAge = 120 sec'"}, SQUEUE, "ok", ["squeue"]),
        (slurm.accounting, DISABLED | {"scontrol": "echo 'MinJobAge = 119 sec'"}, SQUEUE, "warning", ["119 s"]),
    ],
)
def test_a_slurm_that_would_lose_or_start_no_training_is_a_warning(
    surroundings, tmp_path, check, scripts, files, level, words
):
    finding = only(check(surroundings(PAPER, commands=WORKING | scripts, files=files, project=tmp_path)))
    text = f"{finding.found} {finding.why} {finding.fix}"
    assert (finding.level, [word for word in words if word not in text]) == (level, [])


def test_the_profile_is_that_of_the_checkout_or_else_of_the_folder(surroundings, tmp_path):
    elsewhere = {f"checkout/{PROFILE}": SQUEUE[PROFILE], PROFILE: "slurm-status-command: sacct\n"}
    for project, level in ((tmp_path / "checkout", "ok"), (None, "warning")):
        here = surroundings(PAPER, commands=WORKING | DISABLED, files=elsewhere, project=project)
        assert only(slurm.accounting(here)).level == level


def test_slurm_is_asked_what_it_takes_and_given_twenty_seconds(surroundings):
    asked = []

    class Recorder(Asker):
        def run(self, command, seconds):
            asked.append((*command, seconds))
            return Answer(problem="silence")

    here = surroundings(PAPER, commands=WORKING, files=SQUEUE, project=None)
    here = replace(here, ask=Recorder(here.ask.environment, here.ask.folder))
    assert [*slurm.controller(here), *slurm.accounting(here)]
    assert asked == [
        ("sinfo", "--noheader", "--format=%P|%a|%G", 20.0),
        ("sacct", "--noheader", "--allocations", "--format=JobIDRaw", 20.0),
        ("scontrol", "show", "config", 20.0),
    ]


def test_a_command_that_keeps_silent_is_not_waited_for(surroundings):
    answer = surroundings(commands={"sinfo": "exec /bin/sleep 60"}).ask.run(["sinfo"], 0.2)
    assert "0.2 s" in answer.problem


# Machine


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a/job\n", "sys/fs/cgroup/a/cpu.max": "350000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a:b:c\n", "sys/fs/cgroup/a:b:c/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/x\n", "sys/fs/cgroup/x/cpu.max": "0 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/x\n", "sys/fs/cgroup/x/cpu.max": "1 100000\n"}, 1),
        ({"proc/self/cgroup": b"0::/\xff\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_cores_are_those_that_a_control_group_grants(tmp_path, files, cores):
    for name, text in files.items():
        write(tmp_path / name, "").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert machine.usable_cores(8, tmp_path) == cores


def test_memory_is_what_a_control_group_grants(tmp_path):
    assert machine.usable_memory(tmp_path) is None
    write(tmp_path / "proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    assert machine.usable_memory(tmp_path) == 16 << 30
    write(tmp_path / "proc/self/cgroup", "0::/job\n")
    write(tmp_path / "sys/fs/cgroup/memory.max", f"{4 << 30}\n")
    assert machine.usable_memory(tmp_path) == 4 << 30
    write(tmp_path / "sys/fs/cgroup/memory.max", "max\n")
    assert machine.usable_memory(tmp_path) == 16 << 30
    write(tmp_path / "proc/self/cgroup", "5:memory:/job\n3:cpu:/\n")
    write(tmp_path / "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{2 << 30}\n")
    assert machine.usable_memory(tmp_path) == 2 << 30


# All together


def test_what_takes_long_is_begun_before_the_first_check(surroundings, monkeypatch):
    asked = []

    class Recorder(Asker):
        def start(self, *probe):
            asked.append(probe)

    def check(here):
        asked.append("check")
        yield Finding("ok", "all is well")

    monkeypatch.setattr(checks, "CHECKS", {"A subject": (check, check)})
    here = replace(surroundings(), ask=Recorder({}, ROOT))
    assert checks.examine(here) == {"A subject": [Finding("ok", "all is well")] * 2}
    assert asked == [("torch",), ("torchvision",), ("kernels",), "check", "check"]


def test_a_check_that_fails_says_so_and_stops_no_other(surroundings):
    def impossible(here):
        raise ZeroDivisionError("division by zero\nin two lines")

    finding = only(run(impossible, surroundings()))
    assert finding.level == "warning"
    assert all(word in finding.found for word in ("`impossible`", "ZeroDivisionError: division by zero in two lines"))
