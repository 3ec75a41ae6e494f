"""profiles/workstation with pretend GPUs, which PyTorch does not find: trainings lease them and compute on the CPU."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from itertools import combinations

import pytest

from tests.workflow.conftest import ROOT, RUNS, TEST_CONFIG, trained
from tests.workflow.dag import planned_jobs

pytestmark = pytest.mark.workflow

GPUS = ("pretend-0", "pretend-1")
LONGER = "recipes: {resnet34-digits: {epochs: 12, lr_drop_epochs: [9]}}"  # so that trainings meet
TWO = [f"results/test/runs/table2/static/seed{seed}/summary.json" for seed in (1, 2)]


def workstation(workdir, *arguments, gpus=GPUS):
    """The command of a user, and the environment of a machine with these GPUs and four cores."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(workdir)]
    command += ["--workflow-profile", str(ROOT / "profiles" / "workstation"), "--cores", "4", "--quiet", "all"]
    command += ["--configfile", str(TEST_CONFIG), *map(str, arguments)]
    return command, os.environ | {"EAST_GPUS": ",".join(gpus), "TMPDIR": str(workdir)}


def train(workdir, *arguments, **settings):
    """The states of the runs after that command."""
    command, environment = workstation(workdir, *arguments, **settings)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return states(workdir)


def states(workdir):
    return {path: json.loads(path.read_text()) for path in (workdir / "results/test/runs").glob("*/*/*/state.json")}


def overlapping(found):
    """How many pairs of trainings went on at the same time, and how many of these on one GPU."""
    moment = datetime.fromisoformat
    spans = [(state["gpu"], moment(state["started"]), moment(state["updated"])) for state in found.values()]
    pairs = [(a, b) for a, b in combinations(spans, 2) if a[1] < b[2] and b[1] < a[2]]
    return len(pairs), sum(a[0] == b[0] for a, b in pairs)


def test_every_training_has_a_gpu_of_its_own(with_data, overlay):
    """Four places are asked for, though there are two GPUs: it is the leases that keep trainings apart."""
    settings = overlay(f"execution: {{device: auto, threads: 1}}\nseeds: [1]\n{LONGER}")
    found = train(with_data, settings, "--resources", "gpu=4", "--until", "train")
    assert len(found) == 3
    assert {state["state"] for state in found.values()} == {"ended"}
    assert {state["gpu"] for state in found.values()} == set(GPUS)
    together, on_one = overlapping(found)
    assert together > 0
    assert on_one == 0
    for path, state in found.items():
        run = path.parent.relative_to(with_data / "results/test/runs")
        log = (with_data / f"results/test/logs/train/{run}.log").read_text()
        assert f"leased GPU {state['gpu']} of {', '.join(GPUS)}" in log
        summary = json.loads((path.parent / "summary.json").read_text())
        assert (summary["status"], summary["runs_per_device"]) == ("finished", 1)


def test_two_trainings_share_a_gpu_where_that_is_allowed(with_data, overlay):
    settings = overlay(f"execution: {{device: auto, threads: 1, runs_per_gpu: 2}}\n{LONGER}")
    found = train(with_data, settings, "--resources", "gpu=2", "--", *TWO, gpus=GPUS[:1])
    assert overlapping(found) == (1, 1)
    for path, state in found.items():
        summary = json.loads((path.parent / "summary.json").read_text())
        assert state["runs_per_device"] == summary["runs_per_device"] == 2
    # How a run was executed is no part of what it is.
    assert trained(planned_jobs(with_data, TEST_CONFIG, overlay(LONGER))) == [
        run for run in RUNS if "static" not in run
    ]


@pytest.mark.parametrize(
    ("execution", "threads"),
    [("device: cpu, threads: auto", 2), ("device: cpu, threads: 3", 3), ("device: auto, threads: auto", 2)],
    ids=["three trainings on eight cores", "a number", "on GPUs"],
)
def test_threads_are_those_with_which_the_plan_ends_soonest_or_a_number(tmp_path, overlay, execution, threads):
    settings = overlay(f"execution: {{{execution}}}\nseeds: [1]")
    command, environment = workstation(tmp_path, settings, "--cores", "8", "--dry-run", "--printshellcmds")
    command = [part for part in command if part not in ("--quiet", "all")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert re.findall(r"east train .* --threads (\d+)", done.stdout) == [str(threads)] * 3, done.stderr


def test_ctrl_c_reaches_the_trainings_and_the_same_command_goes_on(with_data, overlay):
    settings = overlay(f"execution: {{device: auto, threads: 1}}\n{LONGER}")
    command, environment = workstation(with_data, settings, "--", *TWO)
    # A terminal sends the signal to all processes of its foreground group.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
    )
    while not any(state["epoch"] for state in states(with_data).values()):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    stopped = [path for path, state in states(with_data).items() if state["state"] == "stopped"]
    assert stopped
    assert all(list(path.parent.glob("checkpoint-*.pt")) for path in stopped)

    found = train(with_data, settings, "--", *TWO)
    assert {state["state"] for state in found.values()} == {"ended"}
    assert all(found[path]["attempt"] == 2 for path in stopped)
