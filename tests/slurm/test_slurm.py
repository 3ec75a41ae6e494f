"""The test-size plan on a real Slurm: three of its six trainings are cut off, each in another way."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from east.training.state import STATE, RunState
from tests.slurm.conftest import ROOT, Workflow

pytestmark = pytest.mark.slurm

RUNS = [
    f"{row}/seed{seed}"
    for row in ("table2/cosine-m3-n1", "table2/static", "table3/triangular-m3-n1")
    for seed in (1, 2)
]
TABLES = ("table2", "table3", "tablemethods", "tableB1")
SECONDS = 600

# Runs long enough to be caught after their first epoch, and one engine, because `auto` follows the clock.
LONGER = "recipes: {resnet34-digits: {epochs: 4}}\nexecution: {engine: dense}\n"

SLURM = ROOT / "profiles" / "slurm"


def read_state(folder: Path) -> RunState | None:
    path = folder / STATE
    return RunState.model_validate_json(path.read_bytes()) if path.exists() else None


def scontrol(*arguments: str) -> None:
    subprocess.run(["scontrol", *arguments], check=True)


# How Slurm ends a job that hangs. Nothing has to be done for the time limit, a minute.
ENDS: dict[str, Callable[[str], object]] = {
    "TIMEOUT": lambda job: None,
    "CANCELLED": lambda job: subprocess.run(["scancel", job], check=True),
    "requeued": lambda job: scontrol("requeue", job),
}


@dataclass
class CutOff:
    """A workflow whose first trainings hang after an epoch, until Slurm ends them.

    Attributes:
        victims: how each of them ends, with its state before.
        last_words: the last state of each run's first process.
    """

    workflow: Workflow
    ends: dict[str, Callable[[str], object]]
    victims: dict[str, tuple[str, RunState]] = field(default_factory=dict)
    last_words: dict[str, RunState] = field(default_factory=dict)

    def watch(self) -> None:
        """Cut off trainings until the workflow ends."""
        deadline = time.monotonic() + SECONDS
        pending = list(self.ends)
        while self.workflow.process.poll() is None:
            assert time.monotonic() < deadline, self.workflow.log
            for run in RUNS:
                state = read_state(self.workflow.run_folder(run))
                if state is None or state.pid != self.last_words.get(run, state).pid:
                    continue
                self.last_words[run] = state
                if pending and run not in self.victims and state.state == "running" and state.epoch > 0:
                    end = pending.pop(0)
                    # Slurm wakes the process before it asks it to end.
                    os.kill(state.pid, signal.SIGSTOP)
                    self.victims[run] = end, state
                    self.ends[end](str(state.job))
            time.sleep(0.05)

    def victim(self, end: str) -> tuple[str, RunState]:
        return next((run, state) for run, (how, state) in self.victims.items() if how == end)


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "longer.yaml"
    path.write_text(LONGER)
    return path


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, overlay: Path) -> Iterator[Workflow]:
    """The same plan without Slurm; it may be still running."""
    arguments = ("--cores", "2", "--configfile", ROOT / "config" / "test.yaml", overlay, "--", "tables")
    workflow = Workflow.start(tmp_path_factory.mktemp("local") / "results", *map(str, arguments))
    yield workflow
    workflow.stop()


@pytest.fixture(scope="module")
def cut_off(slurm: None, tmp_path_factory: pytest.TempPathFactory, overlay: Path, local: Workflow) -> Iterator[CutOff]:
    """The plan on Slurm, finished in spite of everything."""
    arguments = ["--profile", SLURM, "--workflow-profile", ROOT / "tests" / "slurm" / "profile"]
    arguments += ["--configfile", ROOT / "config" / "test.yaml", overlay]
    workflow = Workflow.start(tmp_path_factory.mktemp("slurm") / "a folder", *map(str, arguments))
    trouble = CutOff(workflow, ENDS)
    try:
        trouble.watch()
        assert workflow.process.returncode == 0, workflow.log
        assert local.process.wait(SECONDS) == 0, local.log
        yield trouble
    finally:
        workflow.stop()


def summary(workflow: Workflow, run: str) -> dict[str, object]:
    return json.loads((workflow.run_folder(run) / "summary.json").read_text())


def metrics(workflow: Workflow, run: str) -> bytes:
    return (workflow.run_folder(run) / "metrics.csv").read_bytes()


def test_every_training_saw_one_of_the_two_gpus(cut_off: CutOff):
    seen = cut_off.workflow.seen_gpus
    assert {devices for _, devices in seen} == {"0", "1"}
    assert {job for job, _ in seen} == {
        job for job, (_, comment, _) in cut_off.workflow.jobs.items() if comment.startswith("rule_train")
    }


def test_squeue_tells_whose_jobs_they_are_and_which_run_each_is(cut_off: CutOff):
    jobs = cut_off.workflow.jobs.values()
    assert all(name.startswith("east_") for name, _, _ in jobs)
    wanted = {f"rule_train_wildcards_{run.replace('/seed', '_').replace('/', '_')}" for run in RUNS}
    assert {comment for _, comment, _ in jobs} == {*wanted, "rule_measure_cost"}


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_slurm_ends_or_puts_back_into_its_queue_resumes(cut_off: CutOff, end: str):
    run, first = cut_off.victim(end)
    last = read_state(cut_off.workflow.run_folder(run))
    assert last is not None
    assert (last.job == first.job) == (end == "requeued")
    assert end == "requeued" or cut_off.workflow.jobs[str(first.job)][2] == end
    assert summary(cut_off.workflow, run)["attempts"] == 2


def test_whoever_is_ended_saves_its_state_first(cut_off: CutOff):
    assert len(cut_off.victims) == len(ENDS)
    assert {cut_off.last_words[run].state for run in cut_off.victims} == {"stopped"}


def test_what_is_cut_off_ends_as_if_nothing_had_happened(cut_off: CutOff, local: Workflow):
    for run in RUNS:
        assert metrics(cut_off.workflow, run) == metrics(local, run)


def test_the_tables_equal_those_of_a_local_run(cut_off: CutOff, local: Workflow):
    for table in TABLES:
        file = Path("results") / "test" / "tables" / f"{table}.csv"
        assert (cut_off.workflow.folder / file).read_bytes() == (local.folder / file).read_bytes()


def test_trainings_in_an_array(slurm: None, tmp_path: Path, overlay: Path, local: Workflow):
    """With the settings that the profile has in comments, and nothing in place of profiles/default, which is loaded as
    well: its single GPU must not hold Slurm's jobs up."""
    profile = tmp_path / "profile" / "profile.yaml"
    profile.parent.mkdir()
    commented = (SLURM / "profile.yaml").read_text()
    profile.write_text(re.sub("^#(?=slurm-|max-jobs-)", "", commented, flags=re.MULTILINE))
    one_seed = tmp_path / "one_seed.yaml"
    one_seed.write_text("seeds: [1]")
    arguments = ["--profile", profile.parent, "--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10"]
    arguments += ["--set-resources", "train:gpu=1", "train:mem_mb=1000", "train:runtime=10"]
    arguments += ["--configfile", ROOT / "config" / "test.yaml", overlay, one_seed, "--until", "train"]
    workflow = Workflow.start(tmp_path / "array", *map(str, arguments))
    trouble = CutOff(workflow, {"CANCELLED": ENDS["CANCELLED"]})
    try:
        trouble.watch()
        assert workflow.process.returncode == 0, workflow.log
    finally:
        workflow.stop()
    runs = [run for run in RUNS if run.endswith("/seed1")]
    assert sorted(trouble.last_words) == runs
    assert len({str(state.job).partition("_")[0] for state in trouble.last_words.values()}) == 1
    assert {devices for _, devices in workflow.seen_gpus} == {"0", "1"}
    run, first = trouble.victim("CANCELLED")
    assert workflow.jobs[str(first.job)][2] == "CANCELLED"
    assert trouble.last_words[run].state == "stopped"
    assert summary(workflow, run)["attempts"] == 2
    assert local.process.wait(SECONDS) == 0, local.log
    for each in runs:
        assert metrics(workflow, each) == metrics(local, each)
