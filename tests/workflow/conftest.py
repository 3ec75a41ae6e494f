"""One real run of the smallest plan, shared by all tests of the workflow."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST_CONFIG = ROOT / "config" / "test.yaml"


def snakemake(workdir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake as a user does, in a working directory of its own."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(workdir), "--workflow-profile", str(ROOT / "profiles" / "default"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory, with a space in its name, in which the whole workflow has run. Tests must not change it."""
    workdir = tmp_path_factory.mktemp("workflow") / "a folder"
    workdir.mkdir()
    done = snakemake(workdir, "--configfile", str(TEST_CONFIG))
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of that directory, Snakemake's records included, that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "a copy"))
