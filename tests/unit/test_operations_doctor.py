"""Checks of `east doctor`, each in surroundings that are made up for it."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from east.config import make_plan, read_config
from east.operations.doctor import data, devices, disk, kernels, machine, packages, results, slurm
from east.operations.doctor.ask import Asker
from east.operations.doctor.examine import can_run, run
from east.operations.doctor.limits import usable_cores, usable_memory
from east.operations.doctor.surroundings import Surroundings
from east.training.describe import describe_network
from tests.conftest import ROOT

PAPER = make_plan(read_config())
SMALL = make_plan(read_config(ROOT / "config/test.yaml"))
"""A plan on the digits, for the CPU."""

TORCH = {"version": "2.13.0+cu130", "cuda": "13.0", "gpus": []}
GPU = {"name": "H100", "memory_mb": 81920}
ON_GPU = {
    "torch": TORCH | {"gpus": [GPU]},
    "triton": {"version": "3.7.1", "available": True, "reason": ""},
    "step": {"kind": "compiled"},
}
ARCHIVE = {"file": "cifar-10-python.tar.gz", "md5": "d41d8cd98f00b204e9800998ecf8427e", "url": "https://host.org/c"}


class ToldAsker(Asker):
    """Knows what probes find out; runs every other command for real."""

    def __init__(self, environment, folder, facts):
        super().__init__(environment, folder)
        self.facts = {"torch": TORCH, "torchvision": {"torchvision": "0.28.0"}, "kernels": {"cache": None}} | facts

    def probe(self, *probe):
        return self.facts[probe[0]]


@dataclass
class FakeUsage:
    free: int


@pytest.fixture
def surroundings(tmp_path):
    """Makes surroundings in an empty folder, in which only what a test asks for is unusual."""

    def make(plan=SMALL, environment=None, facts=None, execution=None, **changes):
        if execution:
            config = plan.config.model_copy(update={"execution": plan.config.execution.model_copy(update=execution)})
            plan = type(plan)(config, plan.runs, plan.tables)
        environment = {"PATH": os.environ["PATH"]} | (environment or {})
        ask = Asker(environment, tmp_path) if facts is None else ToldAsker(environment, tmp_path, facts)
        return Surroundings(
            plan, ask, tmp_path / "results" / plan.config.name, **{"root": tmp_path / "root", **changes}
        )

    return make


def only(findings):
    (finding,) = findings
    return finding


def write(file, text, mode=0o644):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def command(folder, name, script):
    """A command of this name in a folder that stands on PATH."""
    return write(folder / "bin" / name, f"#!/bin/sh\n{script}\n", 0o755)


def on_path(folder):
    return {"PATH": f"{folder}/bin"}


# Python and packages


def test_python_out_of_range_stops_the_plan(surroundings):
    assert only(packages.python(surroundings(python_version="3.12.1"))).level == "ok"
    old = only(packages.python(surroundings(python_version="3.9.18")))
    assert (old.level, "3.9.18" in old.found, "<3.14" in old.found) == ("error", True, True)


def test_the_commands_of_the_workflow_must_lie_beside_its_python(surroundings, tmp_path):
    command(tmp_path, "snakemake", "exit")
    finding = only(packages.commands(surroundings(python=tmp_path / "bin/python")))
    assert (finding.level, finding.found) == ("error", f"no command east in {tmp_path}/bin")
    command(tmp_path, "east", "exit")
    assert list(packages.commands(surroundings(python=tmp_path / "bin/python"))) == []


@pytest.mark.parametrize(
    ("package", "version", "level"),
    [
        ("numpy", None, "error"),
        ("snakemake", "8.30.0", "error"),
        ("torch", "2.1.0+cpu", "warning"),
        ("snakemake-executor-plugin-slurm", None, "warning"),
    ],
)
def test_packages_that_are_missing_or_out_of_range_are_named(surroundings, package, version, level):
    def installed(name):
        return version if name == package else packages.metadata.version(name)

    found = [f for f in packages.requirements(surroundings(installed=installed)) if f.level != "ok"]
    assert (only(found).level, only(found).found.startswith(f"{package} {version or 'is not installed'}")) == (
        level,
        True,
    )


def test_tensorboard_is_needed_only_by_a_plan_that_tracks(surroundings):
    def installed(name):
        return None if name == "tensorboard" else packages.metadata.version(name)

    assert can_run({"": list(packages.requirements(surroundings(installed=installed)))})
    tracking = surroundings(installed=installed, execution={"tracking": "tensorboard"})
    assert not can_run({"": list(packages.requirements(tracking))})


def test_versions_other_than_the_locked_ones_are_a_note(surroundings, tmp_path):
    write(
        tmp_path / "requirements/lock.txt",
        "numpy==2.4.6 \\\n    --hash=sha256:00\ntorch==2.13.0 \\\n    --hash=sha256:00\n"
        "scipy==1.17.1 \\\ncolorama==0.4.6 ; sys_platform == 'win32' \\\n",
    )
    versions = {"numpy": "2.4.5", "torch": "2.13.0+cpu"}
    finding = only(packages.lock(surroundings(project=tmp_path, installed=versions.get)))
    assert finding.level == "note"
    assert finding.found == "2 of 3 packages are not as locked: numpy 2.4.5 (2.4.6), scipy missing (1.17.1)"
    versions |= {"numpy": "2.4.6", "scipy": "1.17.1"}
    assert only(packages.lock(surroundings(project=tmp_path, installed=versions.get))).level == "ok"


@pytest.fixture
def mismatched(tmp_path):
    """PyTorch for the CPU and a torchvision for CUDA, as far as an import goes."""
    for package, build, import_ends in (
        ("torch", "2.13.0+cpu", ""),
        ("torchvision", "0.28.0+cu130", "raise RuntimeError('operator torchvision::nms does not exist')"),
    ):
        write(tmp_path / "site" / package / "version.py", f"from typing import Optional\n__version__ = '{build}'\n")
        write(tmp_path / "site" / package / "__init__.py", import_ends)
    write(
        tmp_path / "site/torch/__init__.py",
        "from types import SimpleNamespace as N\nfrom .version import __version__\nversion = N(cuda=None, hip=None)\n"
        "cuda = N(is_available=lambda: False, device_count=lambda: 0)\nzeros = lambda *a, **k: None\n",
    )
    return {"PYTHONPATH": str(tmp_path / "site")}


def test_a_torchvision_of_another_build_is_named_with_its_mend(surroundings, mismatched):
    finding = only(packages.torchvision(surroundings(PAPER, mismatched)))
    assert finding.level == "error"
    assert "torchvision 0.28.0+cu130 does not work beside PyTorch 2.13.0+cpu" in finding.found
    assert "operator torchvision::nms does not exist" in finding.found
    assert "cifar10, cifar100" in finding.why
    assert "make setup" in finding.mend or "--force-reinstall" in finding.mend


def test_a_plan_that_reads_nothing_through_torchvision_runs_without_it(surroundings, mismatched):
    assert only(packages.torchvision(surroundings(SMALL, mismatched))).level == "warning"


def test_a_torch_that_kills_its_process_does_not_kill_the_doctor(surroundings, tmp_path):
    write(tmp_path / "torch/__init__.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    here = surroundings(PAPER, {"PYTHONPATH": str(tmp_path)})
    finding = only(packages.torch(here))
    assert (finding.level, finding.found) == ("error", "PyTorch cannot be imported: it was ended by SIGSEGV")
    assert only(packages.torchvision(here)).level == "note"
    assert only(devices.gpus(here)).level == "note"
    assert only(kernels.kernels(surroundings(SMALL, {"PYTHONPATH": str(tmp_path)}))).level == "note"


def test_what_installs_depends_on_whose_python_it_is(surroundings, tmp_path):
    own = surroundings(project=tmp_path, python=tmp_path / ".venv/bin/python")
    assert own.reinstall(afresh=True) == "rm -r .venv && make setup"
    assert own.reinstall(afresh=False) == "rm -f .venv/run.stamp && make setup"
    other = surroundings(project=ROOT, python=Path("/opt/python"))
    assert other.reinstall(afresh=True) == (
        f"cd {ROOT} && /opt/python -m pip install --force-reinstall --require-hashes -r requirements/lock.txt"
    )


# GPU


def driver(folder):
    write(folder / "root/proc/driver/nvidia/version", "NVRM")


def test_gpus_are_counted(surroundings):
    here = surroundings(PAPER, facts={"torch": TORCH | {"gpus": [GPU, GPU]}})
    assert (only(devices.gpus(here)).level, only(devices.gpus(here)).found) == ("ok", "2 x H100 (80 GiB)")


def test_a_gpu_that_cannot_compute_stops_the_plan(surroundings):
    facts = {"torch": TORCH | {"gpus": [GPU], "gpu_problem": "no kernel image is available"}}
    finding = only(devices.gpus(surroundings(PAPER, facts=facts)))
    assert (finding.level, "no kernel image is available" in finding.found) == ("error", True)


def test_a_cpu_build_beside_a_driver_is_told(surroundings, tmp_path):
    driver(tmp_path)
    facts = {"torch": TORCH | {"version": "2.13.0+cpu", "cuda": None}}
    finding = only(devices.gpus(surroundings(PAPER, facts=facts)))
    assert (finding.level, "2.13.0+cpu is a build for the CPU" in finding.found) == ("warning", True)


def test_hidden_gpus_are_told_with_the_command_that_shows_them(surroundings, tmp_path):
    driver(tmp_path)
    finding = only(devices.gpus(surroundings(PAPER, {"CUDA_VISIBLE_DEVICES": ""}, {})))
    assert (finding.level, finding.mend) == ("warning", "unset CUDA_VISIBLE_DEVICES")


def test_a_plan_that_wants_cuda_stops_without_a_gpu_but_not_on_a_login_node(surroundings, tmp_path):
    cuda = {"device": "cuda"}
    assert only(devices.gpus(surroundings(PAPER, on_path(tmp_path), {}, cuda))).level == "error"
    command(tmp_path, "sbatch", "exit")
    assert only(devices.gpus(surroundings(PAPER, on_path(tmp_path), {}, cuda))).level == "warning"


def test_no_gpu_is_a_note_where_the_plan_takes_what_there_is(surroundings):
    assert only(devices.gpus(surroundings(PAPER, facts={}))).level == "note"
    assert only(devices.gpus(surroundings(SMALL, facts={}))).level == "ok"


def test_triton_matters_with_a_gpu_only(surroundings):
    broken = {"triton": {"problem": "ImportError: libtriton.so"}}
    assert only(devices.triton(surroundings(PAPER, facts=broken))).level == "ok"
    finding = only(devices.triton(surroundings(PAPER, facts=ON_GPU | broken)))
    assert (finding.level, "libtriton.so" in finding.found) == ("warning", True)


def test_a_triton_that_finds_no_compiler_is_told_with_what_to_install(surroundings):
    reason = "Triton 3.7.1 cannot run a kernel: RuntimeError: Failed to find C compiler."
    facts = ON_GPU | {"triton": {"version": "3.7.1", "available": False, "reason": reason}}
    finding = only(devices.triton(surroundings(PAPER, facts=facts)))
    assert (finding.level, finding.found, finding.mend) == ("warning", reason, "apt install gcc python3-dev")
    assert only(devices.triton(surroundings(PAPER, facts=ON_GPU))).found == "Triton 3.7.1 compiles and runs kernels"


@pytest.mark.parametrize(
    ("execution", "triton", "words"),
    [
        ({}, True, "engine auto: sparse or dense, for each layer whichever costs less"),
        ({}, False, "engine auto: dense, as Triton runs no kernels; step auto"),
        ({"engine": "sparse"}, True, "engine sparse: sparse wherever it can be"),
        ({"engine": "dense"}, False, "engine dense: dense; step auto: captured in CUDA graphs, and"),
    ],
)
def test_what_executes_a_step_on_a_gpu_is_told(surroundings, execution, triton, words):
    facts = ON_GPU | {"triton": {"version": "3.7.1", "available": triton, "reason": "none"}}
    finding = only(devices.steps(surroundings(PAPER, facts=facts, execution=execution)))
    assert (finding.level, finding.found.startswith(words)) == ("ok", True), finding.found


def test_a_pytorch_that_compiles_nothing_is_a_warning(surroundings):
    facts = ON_GPU | {"step": {"kind": "compiled", "compile_problem": "no C++ compiler"}}
    warning, ok = devices.steps(surroundings(PAPER, facts=facts))
    assert (warning.level, "no C++ compiler" in warning.found) == ("warning", True)
    assert ok.found.endswith("step auto: captured in CUDA graphs")


def test_without_a_gpu_nothing_is_said_of_its_steps(surroundings):
    here = surroundings(PAPER, facts={}, execution={"runs_per_gpu": 2})
    assert [*devices.steps(here), *devices.sharing(here)] == []


def test_trainings_that_share_a_gpu_are_told_to_use_mps(surroundings, tmp_path):
    two = {"runs_per_gpu": 2}
    assert list(devices.sharing(surroundings(PAPER, facts=ON_GPU))) == []
    finding = only(devices.sharing(surroundings(PAPER, on_path(tmp_path), ON_GPU, two)))
    assert (finding.level, "docs/workstation.md" in finding.mend) == ("note", True)
    command(tmp_path, "nvidia-cuda-mps-control", "exit")
    finding = only(devices.sharing(surroundings(PAPER, on_path(tmp_path), ON_GPU, two)))
    assert finding.mend.endswith("nvidia-cuda-mps-control -d")
    assert finding.mend.split(" && ")[1].removeprefix("export ") in (ROOT / "docs/workstation.md").read_text()
    write(tmp_path / "mps/nvidia-cuda-mps-control.pid", "7")
    write(tmp_path / "root/proc/7/stat", "")
    environment = on_path(tmp_path) | {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "mps")}
    assert only(devices.sharing(surroundings(PAPER, environment, ON_GPU, two))).level == "ok"


# Kernels


def test_a_compiler_that_is_not_there_is_a_warning(surroundings, tmp_path):
    here = surroundings(SMALL, {"CXX": "/nowhere/c++", "EAST_CACHE_DIR": str(tmp_path / "cache")})
    finding = only(kernels.kernels(here))
    assert (finding.level, finding.mend) == ("warning", "unset CXX")
    assert "/nowhere/c++" in finding.found


@pytest.mark.parametrize(("variable", "value"), [("EAST_VECTOR", "mmx"), ("EAST_KERNEL_FLAGS", "-ffast-math")])
def test_what_no_training_would_accept_stops_the_plan(surroundings, variable, value):
    finding = only(kernels.kernels(surroundings(SMALL, {variable: value})))
    assert (finding.level, finding.mend) == ("error", f"unset {variable}")
    assert value in finding.found


def test_kernels_that_cannot_be_kept_are_a_warning(surroundings):
    facts = {
        "cache": "/read/only",
        "available": True,
        "reason": "",
        "compiler": "c++",
        "vector": "avx2",
        "cached": False,
    }
    ok, warning = kernels.kernels(surroundings(facts={"kernels": facts}))
    assert (ok.level, ok.found) == ("ok", "kernels made by c++ for avx2")
    assert (warning.level, "/read/only" in warning.found) == ("warning", True)


def test_kernels_are_not_asked_for_where_none_are_needed(surroundings):
    assert only(kernels.kernels(surroundings(execution={"engine": "dense"}, facts={"kernels": {}}))).level == "ok"
    on_gpu = {"torch": TORCH | {"gpus": [GPU]}, "kernels": {}}
    assert only(kernels.kernels(surroundings(PAPER, facts=on_gpu))).level == "ok"


# Disk


@pytest.mark.parametrize(("free", "level"), [(0, "error"), (27 * 10**9, "warning"), (10**12, "ok")])
def test_space_is_compared_with_what_the_plan_will_write(surroundings, free, level):
    here = surroundings(PAPER, facts={}, disk_usage=lambda folder: FakeUsage(free))
    finding = only(disk.space(here))
    assert finding.level == level
    assert "the plan may need 26." in finding.found


def test_runs_that_are_done_need_no_more_space(surroundings):
    here = surroundings(facts={})
    before = disk.results_need(here)
    write(here.results / "runs" / SMALL.runs[0].id / "summary.json", "{}")
    assert disk.results_need(here) == before - disk.run_bytes(SMALL.runs[0].spec)


def test_weights_are_counted_as_the_network_has_them():
    specs = {(run.spec.model, run.spec.dataset.name): run.spec for run in PAPER.runs}
    assert len(specs) > 6
    for spec in specs.values():
        classes = disk.DATASETS[spec.dataset.name].num_classes
        assert disk.stored_weights(spec.model, classes) == describe_network(spec)["totals"]["stored_weights"]


def test_numerics_that_a_cpu_lacks_are_seen_before_every_training_refuses(surroundings, tmp_path):
    bf16 = PAPER.config.readings.model_copy(update={"numerics": "bf16"})
    plan = type(PAPER)(PAPER.config.model_copy(update={"readings": bf16}), PAPER.runs, PAPER.tables)
    assert only(devices.numerics(surroundings(plan, on_path(tmp_path), {}))).level == "error"
    command(tmp_path, "sbatch", "exit")
    assert only(devices.numerics(surroundings(plan, on_path(tmp_path), {}))).level == "warning"
    assert not list(devices.numerics(surroundings(plan, facts={"torch": TORCH | {"gpus": [GPU]}})))
    assert not list(devices.numerics(surroundings(PAPER, facts={})))


# Data


@pytest.fixture
def digits(surroundings, data_dir, tmp_path):
    """Surroundings with prepared digits of their own, to be damaged."""
    shutil.copytree(data_dir / "digits", tmp_path / "data/digits")
    return surroundings(facts={})


def test_prepared_data_are_well_until_a_byte_is_lost(digits):
    assert only(data.datasets(digits)).level == "ok"
    file = digits.data / "digits/images.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    finding = only(data.datasets(digits))
    assert (finding.level, finding.mend) == ("error", "east prepare digits --data-dir data")


def test_a_changed_byte_is_seen_by_the_checksum(digits, surroundings):
    file = digits.data / "digits/images.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert only(data.datasets(digits)).level == "ok"
    assert only(data.datasets(surroundings(facts={}, thorough=True))).level == "error"


def test_a_damaged_manifest_stops_the_plan(digits):
    (digits.data / "digits/manifest.json").write_text("{}")
    assert only(data.datasets(digits)).level == "error"


@pytest.mark.parametrize(
    ("content", "thorough", "level"),
    [(None, False, "note"), (b"<html>", False, "error"), (b"\x1f\x8b", False, "ok"), (b"\x1f\x8b", True, "error")],
)
def test_an_archive_is_looked_at_before_it_is_needed(surroundings, tmp_path, content, thorough, level):
    if content is not None:
        (tmp_path / "data/raw").mkdir(parents=True)
        (tmp_path / "data/raw" / ARCHIVE["file"]).write_bytes(content)
    archives = {"cifar10": ARCHIVE, "cifar100": ARCHIVE | {"file": "other"}}
    facts = {"torchvision": {"archives": archives}}
    first, second = data.datasets(surroundings(PAPER, facts=facts, thorough=thorough))
    assert (first.level, second.level) == (level, "note")
    assert "host.org" in second.found


def imagenet(folder):
    run = PAPER.runs[0]
    spec = run.spec.model_copy(update={"dataset": run.spec.dataset.model_copy(update={"name": "imagenet"})})
    datasets = PAPER.config.datasets
    entry = datasets["imagenet"].model_copy(update={"folder": folder})
    config = PAPER.config.model_copy(update={"datasets": datasets | {"imagenet": entry}})
    return type(PAPER)(config, (run.model_copy(update={"spec": spec}),), ())


def test_an_image_folder_must_be_named_and_whole(surroundings, tmp_path):
    assert "no image folder is named" in only(data.datasets(surroundings(imagenet(None), facts={}))).found
    here = surroundings(imagenet("images"), facts={})
    assert "images/train is missing" in only(data.datasets(here)).found
    for part in ("train", "val"):
        for label in range(999):
            (tmp_path / "images" / part / f"n{label:04}").mkdir(parents=True)
    assert "train has 999 classes, not 1,000" in only(data.datasets(here)).found
    for part in ("train", "val"):
        (tmp_path / "images" / part / "n0999").mkdir()
    assert only(data.datasets(here)).level == "ok"


# Results


def test_results_that_cannot_be_written_stop_the_plan(surroundings, tmp_path):
    assert only(results.writing(surroundings())).level == "ok"
    write(tmp_path / "results", "a file")
    assert only(results.writing(surroundings())).level == "error"


def test_locks_that_hold_within_one_machine_are_a_warning(surroundings, tmp_path):
    mounts = tmp_path / "root/proc/self/mounts"
    write(mounts, f"a / ext4 rw 0 0\nb {tmp_path} nfs4 rw,local_lock=all 0 0\n")
    finding = only(results.writing(surroundings()))
    assert (finding.level, "nfs4, local_lock=all" in finding.found) == ("warning", True)
    write(mounts, f"b {tmp_path} nfs4 rw,local_lock=none 0 0\nc /elsewhere nfs4 rw,local_lock=all 0 0\n")
    assert only(results.writing(surroundings())).level == "ok"


def test_a_lock_that_snakemake_left_is_told_with_the_way_out(surroundings, tmp_path):
    assert list(results.workflow_lock(surroundings())) == []
    write(tmp_path / ".snakemake/locks/0.input.lock", "file")
    finding = only(results.workflow_lock(surroundings(configfiles=(Path("config/demo.yaml"),))))
    assert (finding.level, finding.mend.split("   ")[0]) == (
        "warning",
        "snakemake --unlock --configfile config/demo.yaml",
    )


def test_runs_that_the_plan_does_not_name_are_a_note(surroundings):
    here = surroundings()
    (here.results / "runs" / SMALL.runs[0].id).mkdir(parents=True)
    assert list(results.stale(here)) == []
    (here.results / "runs/table9/old/seed1").mkdir(parents=True)
    finding = only(results.stale(here))
    assert (finding.level, finding.mend, "table9/old/seed1" in finding.found) == ("note", "east prune", True)


def test_code_outside_git_is_a_note(surroundings, tmp_path):
    assert only(results.commit(surroundings(project=tmp_path))).level == "note"


# Slurm


def cluster(folder, **scripts):
    """Commands of a Slurm that works, but for those that a test writes."""
    working = {"sbatch": "exit", "squeue": "exit", "sinfo": "echo 'gpu*|up|gpu:a100:4'", "sacct": "exit"}
    for name, script in {**working, **scripts}.items():
        command(folder, name, script)
    return on_path(folder)


def test_a_machine_without_slurm_is_well(surroundings, tmp_path):
    (tmp_path / "bin").mkdir()
    here = surroundings(PAPER, {"PATH": f"{tmp_path}/bin"})
    assert [finding.level for finding in (*slurm.controller(here), *slurm.accounting(here))] == ["ok"]


def test_a_slurm_that_works_is_well(surroundings, tmp_path):
    here = surroundings(PAPER, cluster(tmp_path))
    assert only(slurm.controller(here)).found == "Slurm answers; partitions that are up: gpu*"
    assert only(slurm.accounting(here)).level == "ok"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1", "Unable to contact"),
        ("echo 'cpu|up|(null)'; echo 'gpu|down|gpu:4'", "offers GPUs (cpu)"),
        ("echo 'gpu|down|gpu:4'", "no partition of Slurm is up"),
    ],
)
def test_a_slurm_that_would_start_no_training_is_a_warning(surroundings, tmp_path, script, words):
    finding = only(slurm.controller(surroundings(PAPER, cluster(tmp_path, sinfo=script))))
    assert (finding.level, words in finding.found) == ("warning", True)


def test_a_controller_that_keeps_silent_is_not_waited_for(surroundings, tmp_path):
    answer = surroundings(PAPER, cluster(tmp_path, sinfo="exec /bin/sleep 60")).ask.run(["sinfo"], 0.2)
    assert answer.problem == "sinfo gives no answer within 0.2 s"


def test_without_accounting_the_profile_must_ask_squeue(surroundings, tmp_path):
    disabled = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
    path = cluster(tmp_path, sacct=disabled, scontrol="echo 'MinJobAge               = 300 sec'")
    here = surroundings(PAPER, path, project=tmp_path)
    finding = only(slurm.accounting(here))
    assert finding.level == "warning"
    assert "slurm-status-command: squeue" in finding.mend
    assert "slurm-no-account: true" in finding.mend
    write(tmp_path / "profiles/slurm/profile.yaml", "slurm-status-command: squeue\n")
    assert only(slurm.accounting(here)).level == "ok"
    command(tmp_path, "scontrol", "echo 'MinJobAge               = 10 sec'")
    assert "forgets ended jobs after 10 s" in only(slurm.accounting(here)).found


# Machine


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a/job\n", "sys/fs/cgroup/a/cpu.max": "350000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
    ],
)
def test_cores_are_those_that_a_control_group_grants(tmp_path, files, cores):
    for name, text in files.items():
        write(tmp_path / name, text)
    assert usable_cores(8, tmp_path) == cores


def test_memory_is_what_a_control_group_grants(tmp_path):
    assert usable_memory(tmp_path) is None
    write(tmp_path / "proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    assert usable_memory(tmp_path) == 16 << 30
    write(tmp_path / "proc/self/cgroup", "0::/job\n")
    write(tmp_path / "sys/fs/cgroup/memory.max", f"{4 << 30}\n")
    assert usable_memory(tmp_path) == 4 << 30


def test_fewer_cores_than_threads_are_a_warning(surroundings):
    two = {"threads": 2}
    assert only(machine.cores(surroundings(PAPER, execution=two, cores=2))).level == "ok"
    finding = only(machine.cores(surroundings(PAPER, execution=two, cores=1)))
    assert (finding.level, "threads: 1" in finding.mend) == ("warning", True)
    assert only(machine.cores(surroundings(PAPER, cores=1))).level == "ok"


def test_less_memory_than_a_training_declares_is_a_warning(surroundings, tmp_path):
    write(tmp_path / "root/proc/meminfo", f"MemTotal: {4000 * 1024} kB\n")
    assert only(machine.memory(surroundings(PAPER, cores=2))).level == "warning"
    assert only(machine.memory(surroundings(SMALL, cores=4))).level == "ok"
    finding = only(machine.memory(surroundings(SMALL, cores=8)))
    assert (finding.level, "--resources mem_mb=4000" in finding.mend) == ("note", True)


# All together


def test_a_check_that_fails_says_so_and_stops_no_other(surroundings):
    def impossible(here):
        raise ZeroDivisionError("division by zero\nin two lines")

    finding = only(run(impossible, surroundings()))
    assert finding.level == "warning"
    assert finding.found == "the check `impossible` failed: ZeroDivisionError: division by zero in two lines"


def test_a_probe_prints_one_line_of_json():
    done = Asker(os.environ, ROOT).run([sys.executable, "-m", "east.operations.doctor.probe", "triton"], 60)
    assert set(json.loads(done.output.splitlines()[-1])) == {"version"}
