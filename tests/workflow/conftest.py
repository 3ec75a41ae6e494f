"""One real run of the smallest plan, shared by all tests of the workflow."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from east.locks import locked

ROOT = Path(__file__).parents[2]
TEST_CONFIG = ROOT / "config" / "test.yaml"
RUNS = [
    f"{row}/seed{seed}"
    for row in ("table2/cosine-m3-n1", "table2/static", "table3/triangular-m3-n1")
    for seed in (1, 2)
]


def snakemake(workdir: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Snakemake as a user does, in a working directory of its own."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", ROOT / "Snakefile"]
    command += ["--directory", workdir, "--workflow-profile", ROOT / "profiles" / "default", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)


def configured(*configfiles: Path) -> list[str | Path]:
    """Options of `east` that name these files."""
    return [word for file in configfiles for word in ("--configfile", file)]


def east(workdir: Path, *arguments: str | Path) -> str:
    """Run the command in a working directory; what it prints."""
    command = [sys.executable, "-m", "east", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def would_train(workdir: Path, *configfiles: Path) -> list[str]:
    """The runs that `east plan --changed` expects to train."""
    changes = json.loads(east(workdir, "plan", "--changed", "--json", *configured(*configfiles)))
    return sorted(run["id"] for run in changes["runs"] if run["status"] != "same")


def trained(jobs: list[tuple[str, str]]) -> list[str]:
    """The runs among the jobs that Snakemake would run."""
    return [re.sub(r"results/test/runs/(.*)/summary.json", r"\1", output) for rule, output in jobs if rule == "train"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A working directory, with a space in its name, in which the whole workflow has run. Tests must not change it.

    All processes of pytest share it; what Snakemake has printed is in `stdout` beside it.
    """
    base = tmp_path_factory.getbasetemp()
    workdir = (base if worker_id == "master" else base.parent) / "workflow" / "a folder"
    printed = workdir.parent / "stdout"
    workdir.mkdir(parents=True, exist_ok=True)
    with locked(workdir.parent / "lock"):
        if not printed.exists():
            done = snakemake(workdir, "--configfile", TEST_CONFIG, "--quiet", "all")
            assert done.returncode == 0, done.stderr
            printed.write_text(done.stdout)
    return workdir


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of that directory, Snakemake's records included, that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "a copy"))


@pytest.fixture
def with_data(tmp_path: Path, data_dir: Path) -> Path:
    """A working directory with nothing but prepared data."""
    shutil.copytree(data_dir, tmp_path / "work" / "data")
    return tmp_path / "work"
