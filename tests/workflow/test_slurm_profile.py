"""The plan on Slurm, as far as it can be tried without Slurm. The rest is in tests/slurm."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, TEST_CONFIG
from tests.workflow.dag import cluster_rules

pytestmark = pytest.mark.workflow


def test_only_trainings_and_measurements_leave_the_login_node(tmp_path: Path):
    assert cluster_rules(tmp_path, TEST_CONFIG) == {"train", "measure_cost"}


def test_the_profile_says_what_a_training_asks_for(tmp_path: Path):
    command = [sys.executable, "-m", "snakemake", "-n", "--profile", ROOT / "profiles" / "slurm", "--until", "train"]
    command += ["--directory", tmp_path, "--configfile", TEST_CONFIG]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    resources = re.findall(r"^ +resources: (.*mem_mb=8000\b.*)$", done.stdout, re.MULTILINE)
    assert len(resources) == 6
    assert all("runtime=720" in line for line in resources)
