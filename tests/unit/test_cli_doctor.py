import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

DEMO = ROOT / "config/demo.yaml"


def doctor(folder, *arguments, first=()):
    """The command in a folder; of modules, those in the folders `first` are taken before all others."""
    command = [sys.executable, "-m", "east", "doctor", "--configfile", str(DEMO), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*first, ROOT)))}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.slow
def test_a_machine_on_which_the_demo_runs_is_told_so(tmp_path):
    done = doctor(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "Python and packages"
    assert lines[-1].startswith("The plan 'demo' can run: 0 errors")
    assert all(len(line) <= 100 for line in lines if "-> " not in line)
    assert "  ok       Digits: will be made from scikit-learn's digits" in lines
    assert any(line.startswith("  ok       kernels made by ") for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def without_torch(tmp_path):
    """Folders of modules with which PyTorch cannot be imported."""
    (tmp_path / "site/torch").mkdir(parents=True)
    (tmp_path / "site/torch/__init__.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object')")
    return [tmp_path / "site"]


def test_a_broken_torch_is_told_with_everything_else(tmp_path, without_torch):
    done = doctor(tmp_path, "--json", first=without_torch)
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    assert (report["plan"], report["can_run"]) == ("demo", False)
    assert all(finding.keys() == {"subject", "level", "found", "why", "fix"} for finding in report["findings"])
    errors = [finding for finding in report["findings"] if finding["level"] == "error"]
    assert len(errors) == 1
    assert "libtorch_cpu.so: cannot open shared object" in errors[0]["found"]
    assert errors[0]["fix"]
    assert {finding["subject"] for finding in report["findings"]} > {"Disk", "Data", "Results", "Slurm", "Machine"}


def test_what_stops_the_plan_is_printed_with_reason_and_fix(tmp_path, without_torch):
    (tmp_path / "data/digits").mkdir(parents=True)
    (tmp_path / "data/digits/manifest.json").write_text("{}")
    done = doctor(tmp_path, first=without_torch)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  error    Digits: "))
    block = " ".join(line.strip() for line in lines[at : at + 4])
    assert "Every run on it would stop" in block
    assert "-> east prepare digits --data-dir data" in block
    assert lines[-1].startswith("The plan 'demo' cannot run: 2 errors")
    assert "Traceback" not in done.stdout + done.stderr
