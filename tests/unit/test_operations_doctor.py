"""Checks of `east doctor`, each in surroundings that are made up for it."""

import os
import shutil
from hashlib import md5, sha256
from importlib import metadata
from pathlib import Path

import pytest

from east.config import make_plan, read_config
from east.operations.disk import disk_need
from east.operations.doctor import data, gpu, machine, packages, plan, results, slurm
from east.operations.doctor.ask import Asker
from east.operations.doctor.checks import can_run, run
from east.operations.doctor.probe import probe_glyphs, probe_kernels
from east.operations.doctor.surroundings import Surroundings
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
MEMORY = {f"root/{name}": text for name, text in GRANTED.items()}
TWO_RUNS = {"runs_per_gpu": 2}


@pytest.mark.parametrize(
    ("check", "given", "level", "words"),
    [
        (packages.python, {"python_version": "3.12.1"}, "ok", "3.12.1"),
        (packages.python, {"python_version": "3.9.18"}, "error", "3.9.18 <3.14"),
        (packages.torch, {"facts": {}}, "ok", "2.13.0+cu130"),
        (packages.torch, {"facts": no_torch()}, "error", "SIGSEGV"),
        (packages.torchvision, {"facts": no_torch(torchvision={"problem": "ImportError"})}, "note", "PyTorch"),
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
        (gpu.gpus, {"facts": {}, "commands": {}, "execution": {"device": "cuda"}}, "error", "device: cpu"),
        (gpu.gpus, {"facts": {}, "commands": SBATCH, "execution": {"device": "cuda"}}, "warning", "srun --gpus=1"),
        (gpu.gpus, {"facts": {}}, "note", "no GPU"),
        (gpu.gpus, {"facts": {}, "plan": SMALL}, "ok", "execution.device"),
        (gpu.triton, {"facts": {}}, "ok", "not needed"),
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
        (machine.cores, {"execution": {"threads": 2}, "cores": 2}, "ok", "2 cores"),
        (machine.cores, {"execution": {"threads": 2}, "cores": 1}, "warning", "1 core, threads: 1"),
        (machine.cores, {"cores": 1}, "ok", ""),
        (machine.memory, {}, None, ""),
        (machine.memory, {"files": MEMORY, "cores": 2}, "warning", "execution.memory_mb"),
        (machine.memory, {"files": MEMORY, "cores": 4, "plan": SMALL}, "ok", "4,000"),
        (machine.memory, {"files": MEMORY, "cores": 8, "plan": SMALL}, "note", "--resources mem_mb=4000"),
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


# Python and packages


def test_the_commands_of_the_workflow_must_lie_beside_its_python(surroundings, tmp_path):
    here = surroundings(commands={"snakemake": "exit"}, python=tmp_path / "bin/python")
    finding = only(packages.commands(here))
    assert finding.level == "error"
    assert f"east in {tmp_path}/bin" in finding.found
    assert list(packages.commands(surroundings(commands={"east": "exit"}, python=tmp_path / "bin/python"))) == []


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
    installed = without(**{package: version}) if version else without(package)
    finding = only(f for f in packages.requirements(surroundings(installed=installed)) if f.level != "ok")
    assert (finding.level, finding.found.startswith(f"{package} {version or ''}")) == (level, True)


@pytest.mark.parametrize("tracking", ["none", "tensorboard"])
def test_tensorboard_is_needed_only_by_a_plan_that_tracks(surroundings, tracking):
    here = surroundings(installed=without("tensorboard"), execution={"tracking": tracking})
    assert can_run({"": list(packages.requirements(here))}) == (tracking == "none")


def test_versions_other_than_the_locked_ones_are_a_note(surroundings, tmp_path):
    lock = (
        "numpy==2.4.6 \\\n    --hash=sha256:00\ntorch==2.13.0 \\\n    --hash=sha256:00\n"
        "scipy==1.17.1 \\\ncolorama==0.4.6 ; sys_platform == 'win32' \\\n"
    )
    versions = {"numpy": "2.4.5", "torch": "2.13.0+cpu"}
    here = surroundings(project=tmp_path, installed=versions.get, files={"requirements/lock.txt": lock})
    finding = only(packages.lock(here))
    assert finding.level == "note"
    assert all(word in finding.found for word in ("2 of 3", "numpy 2.4.5 (2.4.6)", "scipy missing (1.17.1)"))
    versions |= {"numpy": "2.4.6", "scipy": "1.17.1"}
    assert only(packages.lock(here)).level == "ok"


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
    assert other.reinstall(everything=True) == (
        f"cd {ROOT} && /opt/python -m pip install --force-reinstall --require-hashes -r requirements/lock.txt"
    )


# GPU and kernels


def test_a_pytorch_that_compiles_nothing_is_a_warning(surroundings):
    facts = ON_GPU | {"step": {"kind": "compiled", "compile_problem": "no C++ compiler"}}
    warning, ok = gpu.steps(surroundings(PAPER, facts=facts))
    assert (warning.level, "no C++ compiler" in warning.found) == ("warning", True)
    assert (ok.level, "compiled" in ok.found, "captured" in ok.found) == ("ok", False, True)


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


def test_files_that_the_plan_will_make_must_fit_the_file_system(surroundings):
    assert list(machine.inodes(surroundings(free_inodes=lambda folder: None))) == []
    assert list(machine.inodes(surroundings(free_inodes=lambda folder: 10**6))) == []
    finding = only(machine.inodes(surroundings(free_inodes=lambda folder: 10)))
    assert (finding.level, "df -i" in finding.fix) == ("error", True)


# The plan


def test_a_plan_that_can_run_is_told_with_what_may_surprise(surroundings):
    noted = make_plan(read_config(ROOT / "config/demo.yaml"))
    ok, *notes = plan.runs(surroundings(noted))
    assert (ok.level, [note.level for note in notes]) == ("ok", ["note"] * len(noted.notes))
    assert only(plan.report_files(surroundings())).level == "ok"


@pytest.mark.parametrize("place", ["results", "cache dir/x", "data"])
def test_a_file_where_a_folder_must_be_stops_the_plan(surroundings, tmp_path, place):
    here = surroundings(environment={"HOME": tmp_path, "XDG_CACHE_HOME": tmp_path / "cache dir/x"})
    assert list(plan.folders(here)) == []
    write(tmp_path / place, "")
    finding = only(plan.folders(here))
    assert (finding.level, place in finding.found) == ("error", True)


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
    if content is None:
        for name in archive["members"]:
            write(tmp_path / "data/raw/unpacked" / name, "whole")
        assert next(data.datasets(surroundings(PAPER, facts=facts))).level == "ok"
        write(tmp_path / "data/raw/unpacked/two", "other")
        finding = next(data.datasets(surroundings(PAPER, facts=facts)))
        assert (finding.level, "unpacked/two" in finding.found) == ("error", True)
        assert finding.fix.startswith("rm -r data/raw/unpacked && ")


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


# Results and Slurm


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
    ],
)
def test_locks_that_hold_within_one_machine_are_a_warning(surroundings, tmp_path, mounts, level):
    here = surroundings(files={"root/proc/self/mounts": mounts.format(here=tmp_path)})
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
SQUEUE = {"profiles/slurm/profile.yaml": "slurm-status-command: squeue\n"}


@pytest.mark.parametrize(
    ("check", "scripts", "files", "level", "words"),
    [
        (slurm.controller, {}, {}, "ok", ["gpu*"]),
        (slurm.controller, {"sinfo": "echo 'Unable to contact' >&2; exit 1"}, {}, "warning", ["Unable to contact"]),
        (slurm.controller, {"sinfo": "echo 'cpu|up|(null)'; echo 'gpu|down|gpu:4'"}, {}, "warning", ["(cpu)", "GPU"]),
        (slurm.controller, {"sinfo": "echo 'gpu|down|gpu:4'"}, {}, "warning", ["no partition"]),
        (slurm.accounting, {}, {}, "ok", ["sacct"]),
        (slurm.accounting, DISABLED, {}, "warning", ["slurm-status-command: squeue", "slurm-no-account: true"]),
        (slurm.accounting, DISABLED | {"scontrol": "echo 'MinJobAge = 120 sec'"}, SQUEUE, "ok", ["squeue"]),
        (slurm.accounting, DISABLED | {"scontrol": "echo 'MinJobAge = 119 sec'"}, SQUEUE, "warning", ["119 s"]),
    ],
)
def test_a_slurm_that_would_lose_or_start_no_training_is_a_warning(
    surroundings, tmp_path, check, scripts, files, level, words
):
    finding = only(check(surroundings(PAPER, commands=WORKING | scripts, files=files, project=tmp_path)))
    text = f"{finding.found} {finding.why} {finding.fix}"
    assert (finding.level, [word for word in words if word not in text]) == (level, [])


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
        write(tmp_path / name, text)
    assert machine.usable_cores(8, tmp_path) == cores


def test_memory_is_what_a_control_group_grants(tmp_path):
    assert machine.usable_memory(tmp_path) is None
    write(tmp_path / "proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    assert machine.usable_memory(tmp_path) == 16 << 30
    write(tmp_path / "proc/self/cgroup", "0::/job\n")
    write(tmp_path / "sys/fs/cgroup/memory.max", f"{4 << 30}\n")
    assert machine.usable_memory(tmp_path) == 4 << 30


# All together


def test_a_check_that_fails_says_so_and_stops_no_other(surroundings):
    def impossible(here):
        raise ZeroDivisionError("division by zero\nin two lines")

    finding = only(run(impossible, surroundings()))
    assert finding.level == "warning"
    assert all(word in finding.found for word in ("`impossible`", "ZeroDivisionError: division by zero in two lines"))
