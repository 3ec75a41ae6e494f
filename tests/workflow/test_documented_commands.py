"""Every command of the documentation, typed in a fresh clone in the state in which it is told.

Its paper and demo are the smallest plan, under their names and with the ids that the pages name: what takes days
there takes seconds here.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.unit.in_process import east
from tests.workflow.documented import ROOT, commands

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

RUN = "table2/static/seed17"
RUNS = f"results/paper/runs/{RUN}"
SUBSTITUTED = {
    "RUN": RUN,
    "NETWORK DATASET": "resnet34 digits --dry-run",
    "DATASET": "digits",
    "LOCK DIR": "results/paper/results.lock.json results/paper",
    "LOCK ARCHIVE": "results/paper/results.lock.json paper-results.tar.gz",
    "LOCK": "results/paper/results.lock.json",
    "ARCHIVE": "paper-results.tar.gz",
    "KIND NAME": "drop another_rule",
    "FOLDER": "my_images",
    "FILE --out DIR": f"{RUNS}/run.json --out {RUNS}",
    "DIR DIR": f"{RUNS} {RUNS}",
    "[--watch]": "--watch",
    "[--delete]": "--delete",
}
"""What stands for words in capitals, and for what is optional."""

BEFORE = """
east plan
east plan --json
east plan --changed
east inspect RUN
east schedule RUN
east schedule table2/triangular-m10-n2-g1/seed17
east list
east list datasets
east doctor
east cost
east cost --model resnet50 --dataset cifar100 --no-measure
east status
east status --json
snakemake -n
east plan --configfile config/mine.yaml
east plan --changed --configfile config/mine.yaml
east plan --configfile config/as_coded.yaml --configfile config/mine.yaml
east prepare DATASET
east new KIND NAME
east new growth my_rule
east try NETWORK DATASET
make setup
"""
TRAINED = """
snakemake --cores 1 data
snakemake --cores all results/paper/tables/table2.csv
snakemake --cores all tables
. .venv/bin/activate && snakemake --cores all
snakemake --cores all
snakemake --report report.html
east status --watch
east status [--watch]
east show RUN
east export RUN
east export results/paper/runs/table2/static/seed17 --as nonzeros --out network.safetensors
east predict RUN FOLDER
east predict results/paper/runs/table2/static/seed17 my_images --csv classes.csv
east try resnet34 digits --method rigl --plugin my_rule.py --set sparsity.topology.grow=my_rule --set training.epochs=3
east lock
east archive FILE
east archive paper-results.tar.gz
east verify LOCK
east verify LOCK DIR
east verify LOCK ARCHIVE
east compare DIR DIR
east prune
east prune [--delete]
east prune --delete
east train --run FILE --out DIR
snakemake --workflow-profile profiles/workstation
snakemake --cores all --configfile config/mine.yaml
snakemake --cores all --configfile config/as_coded.yaml config/mine.yaml
.venv/bin/python -m pip install tensorboard --dry-run
snakemake --cores all --config execution='{tracking: tensorboard}'
snakemake --cores all --config execution='{partial: true}'
snakemake --cores all tables --config execution='{partial: true}'
make demo
snakemake tables --cores 2 --configfile config/demo.yaml
east status --configfile config/demo.yaml --watch
east compare results/demo/runs/table2/static/seed17 /elsewhere/results/demo/runs/table2/static/seed17
east merge /elsewhere/results/paper --dry-run
east merge /elsewhere/results/paper
east merge DIR
"""
RESTORED = """
east restore ARCHIVE
east restore paper-results.tar.gz
east verify results.lock.json --exact
snakemake --cores all tables
east verify results.lock.json
"""
PLANNED = """
snakemake --profile profiles/slurm
snakemake --profile profiles/slurm --configfile config/demo.yaml
snakemake --profile profiles/slurm --workflow-profile ~/my-cluster
snakemake --profile profiles/slurm --groups train=several --group-components several=4 --resources gpu=1
snakemake --workflow-profile profiles/workstation --config execution='{runs_per_gpu: 2}' --resources gpu=8
"""
"""Planned only (`-n`): they need a cluster or GPUs. tests/slurm runs the profile on a real Slurm."""

ELSEWHERE = {
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "make test-slurm": ".ci/run",
    "make test-fast": "Makefile",
    "make format": "Makefile",
    "make docs": "Makefile",
    "make lock": "Makefile",
    "east estimate": "tests/workflow/test_estimate.py",
    "make bench": "tests/unit/test_benchmarks.py",
    "python -m benchmarks.gpu": "tests/unit/test_benchmarks_gpu.py",
    "python -m benchmarks.paired": "tests/unit/test_benchmarks.py",
    "python -m benchmarks.chaos": "tests/unit/test_benchmarks.py",
    "python -m benchmarks.screening": "tests/unit/test_benchmarks.py",
    "snakemake --cores all --configfile config/test.yaml mine.yaml": "tests/workflow/test_plugin.py",
    "snakemake -s CHECKOUT/Snakefile --cores all": "tests/workflow/test_tutorial.py",
    "podman ": "tests/workflow/test_container.py",
    "docker ": "tests/workflow/test_container.py",
}
"""How a command begins -> the file that runs it, or what it runs."""

NOT_RUN = {
    "apptainer": "no package of Debian's has it",
    "sbatch": "of a cluster",
    "squeue": "of a cluster",
    "scancel": "of a cluster",
    "scontrol": "of a cluster",
    "mkdir -p -m 700 /tmp/mps": "of NVIDIA's driver",
    "export CUDA_MPS": "of NVIDIA's driver",
    "nvidia-cuda-mps-control": "of NVIDIA's driver",
    "echo quit |": "of NVIDIA's driver",
    "pip install ziglang": "installs",
    ".venv/bin/python -m pip install": "installs; tried with --dry-run above",
    ".venv/bin/tensorboard": "serves until it is stopped",
}
"""How a command begins -> why nothing here runs it."""

NAMES_ONLY = ("east train", "east train --run", "east train --run JSON --out DIR", "east compare", "east verify")
NAMES_ONLY += ("east show", "east inspect", "east schedule", "east schedule --configfile config/as_coded.yaml")
NAMES_ONLY += ("east make", "east new", "east archive", "east prepare", "east try", "east export", "east predict")
"""Commands that the pages only speak of, without their arguments."""


def lines(text: str) -> list[str]:
    return text.split("\n")[1:-1]


def test_every_documented_command_is_run_here_or_elsewhere():
    here = {*lines(BEFORE), *lines(TRAINED), *lines(RESTORED), *lines(PLANNED), *NAMES_ONLY}
    for command, page in commands().items():
        told = command in here or command.startswith((*ELSEWHERE, *NOT_RUN))
        assert told, f"{page} has `{command}`: add it to the state in which it is told"


class Clone:
    """A fresh clone of the working tree, with commands that run its code."""

    def __init__(self, place: Path) -> None:
        self.place = place
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, place / name)
        self._shrink()
        self._pretend_setup()
        git = ["git", "-c", "user.name=a", "-c", "user.email=b"]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "clone"]):
            subprocess.run([*git, *words], cwd=place, check=True, capture_output=True)

    def _shrink(self) -> None:
        """Let the paper and the demo be the smallest plan."""
        paper = yaml.safe_load((self.place / "config.yaml").read_text())
        small = yaml.safe_load((self.place / "config" / "test.yaml").read_text())
        small |= {"seeds": [17], "name": "paper"}
        small["tables"]["table2"]["rows"].append({"pattern": "triangular", "multiplier": 10, "cycles": 2})
        small["recipes"]["resnet34-digits"]["cyclic"] |= {"cycle_length": 0.5, "update_period": 1}
        merged = merge(paper, small)
        (self.place / "config.yaml").write_text(yaml.safe_dump(merged, sort_keys=False))
        (self.place / "config" / "demo.yaml").write_text("name: demo\ntables: {table3: null}\n")
        (self.place / "config" / "as_coded.yaml").write_text("readings: {spread: population}\n")
        (self.place / "config" / "mine.yaml").write_text("name: mine\ntables: {table3: null}\n")
        (self.place / "my_images").mkdir()
        Image.new("RGB", (20, 12), "white").save(self.place / "my_images" / "white.png")

    def _pretend_setup(self) -> None:
        """Commands in .venv that run this clone's code by the Python of the tests, and the stamp of a set-up."""
        folder = self.place / ".venv" / "bin"
        folder.mkdir(parents=True)
        modules = {"python": "", "snakemake": "-m snakemake", "east": "-m east"}
        for name, module in modules.items():
            start = f'exec env PYTHONPATH="{self.place}" "{sys.executable}" {module} "$@"\n'
            (folder / name).write_text(f"#!/bin/sh\n{start}")
            (folder / name).chmod(0o755)
        (folder / "activate").write_text(f'PATH="{folder}:$PATH"\n')
        spec = importlib.util.spec_from_file_location("set_up", self.place / "requirements" / "set_up.py")
        set_up = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(set_up)
        (self.place / ".venv" / "run.stamp").write_text(set_up.mark("lock.txt"))

    def type(self, command: str, *more: str) -> None:
        """Type a command in the clone's folder, in a shell in which its .venv is activated."""
        for word, value in SUBSTITUTED.items():
            command = command.replace(word, value) if command.startswith("east") else command
        command = command.replace("FILE", "other.tar.gz").replace("merge DIR", "merge /elsewhere/results/paper")
        command = " ".join([command.replace("/elsewhere", str(self.place.parent / "elsewhere")), *more])
        if command.startswith("east "):
            done = east(*shlex.split(command)[1:], folder=self.place)
        else:
            done = self._in_a_shell(command)
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr, f"$ {command}\n{done.stderr}"

    def _in_a_shell(self, command: str) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {"PATH": f"{self.place / '.venv' / 'bin'}:{os.environ['PATH']}", "EAST_GPUS": ""}
        return subprocess.run(["bash", "-c", command], cwd=self.place, capture_output=True, text=True, env=variables)


def merge(base: dict, overlay: dict) -> dict:
    """As configurations merge; null takes away."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return {key: value for key, value in merged.items() if value is not None or key in ("recipe", "published")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    return Clone(tmp_path_factory.mktemp("documented") / "clone")


@pytest.mark.campaign
def test_the_documented_commands_work_from_a_fresh_clone_on(clone, tmp_path):
    for command in lines(BEFORE):
        clone.type(command)
    elsewhere = clone.place.parent / "elsewhere"
    for command in lines(TRAINED):
        clone.type(command)
        if command == "make demo":
            shutil.copytree(clone.place / "results", elsewhere / "results")
    restored = Clone(tmp_path / "restored")
    for file in ("results/paper/results.lock.json", "paper-results.tar.gz"):
        shutil.copy(clone.place / file, restored.place)
    for command in lines(RESTORED):
        restored.type(command)


@pytest.mark.parametrize("command", lines(PLANNED))
def test_commands_for_clusters_and_gpus_can_be_planned(clone, command, tmp_path, monkeypatch):
    (tmp_path / "my-cluster").mkdir()
    (tmp_path / "my-cluster" / "profile.yaml").write_text("jobs: 7\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    clone.type(command, "-n")


def test_the_help_of_make_names_every_target():
    text = (ROOT / "Makefile").read_text()
    (phony,) = [line.split()[1:] for line in text.splitlines() if line.startswith(".PHONY")]
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {f"make {target}" for target in phony} - {"make help", "make setup-dev", "make test-fast"} <= {
        line[: line.index("  ")] if "  " in line else " ".join(line.split()[:2]) for line in told.splitlines()
    }
    for target in phony:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
