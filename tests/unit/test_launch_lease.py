"""GPUs leased by file locks: pretend devices, real processes."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import pytest

from east.errors import EastError
from east.launch.lease import Lease, gpu_alone, installed_gpus, leased_gpu, listed_gpus, mps_runs, visible_gpus
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("own_machine")


# Which GPUs there are to choose from


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({"EAST_GPUS": "0,1"}, ("0", "1")),
        ({"EAST_GPUS": " 2 , 3,2", "CUDA_VISIBLE_DEVICES": "0"}, ("2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f7a,MIG-1/2/0"}, ("GPU-8f7a", "MIG-1/2/0")),
        ({"CUDA_VISIBLE_DEVICES": "3", "EAST_GPUS": ""}, ("3",)),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "3", "EAST_GPUS": "0,1"}, ("3",)),
        ({"SLURM_JOB_ID": "7"}, ()),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "4,5"}, ("4", "5")),
    ],
    ids=lambda value: " ".join(f"{key}={content}" for key, content in value.items()) if isinstance(value, dict) else "",
)
def test_what_is_set_decides_which_gpus_there_are(environment, gpus):
    assert visible_gpus(environment) == gpus


def test_gpus_of_the_machine_are_numbers_and_divided_ones_are_their_parts():
    listing = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-aaaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22222222-bbbb)
  MIG 3g.20gb     Device  0: (UUID: MIG-33333333-cccc)
  MIG 3g.20gb     Device  1: (UUID: MIG-44444444-dddd)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-55555555-eeee)
"""
    assert listed_gpus(listing) == ("0", "MIG-33333333-cccc", "MIG-44444444-dddd", "2")
    assert listed_gpus("No devices found.\n") == ()


@pytest.mark.parametrize(
    ("status", "gpus"), [(0, ("0", "1")), (9, ("0", "1", "2"))], ids=["its tool lists", "its device files stand for"]
)
def test_gpus_of_the_machine_are_those_that(tmp_path, monkeypatch, status, gpus):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho 'GPU 1: B (UUID: GPU-2)'\nexit {status}\n")
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert installed_gpus(tmp_path) == gpus


# Leases within this process


def test_the_leased_gpu_is_the_only_visible_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f7a,MIG-1/2/0")
    with leased_gpu(2) as first, leased_gpu(2) as second:
        assert [first, second] == [Lease("GPU-8f7a", 2), Lease("GPU-8f7a", 2)]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-8f7a"
    monkeypatch.setenv("EAST_GPUS", "MIG-1/2/0")
    with leased_gpu(1) as lease:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == lease.gpu == "MIG-1/2/0"


def test_without_a_choice_nothing_is_leased_and_nothing_changes(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with leased_gpu(1) as first, leased_gpu(1) as second:
        assert first == second == Lease(None, 1)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(
    ("variable", "value", "runs"),
    [
        ("SLURM_SHARDS_ON_NODE", "1", 2),
        ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "50", 2),
        ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "100", 1),
    ],
)
def test_a_part_of_a_gpu_that_slurm_gives_counts_as_shared(monkeypatch, variable, value, runs):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv(variable, value)
    with gpu_alone(1, wait=True) as outside_slurm:
        assert not outside_slurm.is_shared
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for lease in (leased_gpu(1), gpu_alone(1, wait=True)):
        with lease as found:
            assert (found.runs, found.is_shared) == (runs, runs > 1)


def test_a_job_of_slurm_without_a_gpu_shares_none(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_SHARDS_ON_NODE", "1")
    for lease in (leased_gpu(1), gpu_alone(1, wait=True)):
        with lease as found:
            assert found == Lease(None, 1)


def test_trainings_that_share_the_one_gpu_of_a_slurm_job_have_a_place_each(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with leased_gpu(2) as first, leased_gpu(2) as second:
        assert first == second == Lease("0", 2)
        with gpu_alone(2, wait=False) as third:
            assert third == Lease("0", 3)


# A GPU to itself


def test_what_is_timed_takes_a_gpu_that_is_free_and_lets_no_training_in(monkeypatch):
    monkeypatch.setenv("EAST_GPUS", "a,b")
    with leased_gpu(2) as training, gpu_alone(2, wait=True) as timed, leased_gpu(2) as other:
        assert (training.gpu, timed, other.gpu) == ("a", Lease("b", 1), "a")
    with leased_gpu(2) as first, leased_gpu(2) as second:
        assert {first.gpu, second.gpu} == {"a", "b"}


def test_where_no_gpu_is_free_and_none_is_waited_for_it_says_so(monkeypatch):
    monkeypatch.setenv("EAST_GPUS", "a,b")
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(leased_gpu(2))
        with gpu_alone(2, wait=False) as timed:
            assert timed == Lease("b", 2)


def test_trainings_with_another_number_of_runs_a_gpu_are_seen(monkeypatch):
    monkeypatch.setenv("EAST_GPUS", "a")
    with leased_gpu(2), leased_gpu(2), gpu_alone(1, wait=False) as timed:
        assert timed == Lease("a", 3)


def test_gpus_are_filled_breadth_first(monkeypatch):
    monkeypatch.setenv("EAST_GPUS", "a,b,c")
    with ExitStack() as all_of_them:
        taken = [all_of_them.enter_context(leased_gpu(2)).gpu for _ in range(6)]
        assert Counter(taken[:3]) == Counter("abc")
        assert Counter(taken[3:]) == Counter("abc")


def test_a_gpu_that_became_free_is_filled_before_another_gets_more(monkeypatch):
    monkeypatch.setenv("EAST_GPUS", "a,b")
    leases = [leased_gpu(3) for _ in range(4)]
    taken = [lease.__enter__().gpu for lease in leases]
    assert taken == ["a", "b", "a", "b"]
    for number in (1, 3):
        leases[number].__exit__(None, None, None)
    with leased_gpu(3) as third, leased_gpu(3) as fourth:
        assert [third.gpu, fourth.gpu] == ["b", "b"]
    for number in (0, 2):
        leases[number].__exit__(None, None, None)


def test_jobs_of_slurm_do_not_wait_for_each_other(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with ExitStack() as held:
        for job in ("7", "8"):
            monkeypatch.setenv("SLURM_JOB_ID", job)
            found = set()
            for _ in range(2):
                monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
                found.add(held.enter_context(leased_gpu(1)).gpu)
            assert found == {"0", "1"}


def test_the_folder_of_locks_is_for_one_user_only(tmp_path, monkeypatch):
    monkeypatch.setenv("EAST_GPUS", "0")
    with leased_gpu(1):
        folder = tmp_path / f"east-gpus-{os.getuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("how", ["open to others", "a link", "a file", "somebody else's"])
def test_a_folder_of_locks_that_cannot_be_trusted_is_refused(tmp_path, monkeypatch, how):
    folder = tmp_path / f"east-gpus-{os.getuid()}"
    if how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif how == "a file":
        folder.touch(mode=0o700)
    else:
        folder.mkdir(mode=0o755 if how == "open to others" else 0o700)
    if how == "somebody else's":
        user = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
        folder.rename(tmp_path / f"east-gpus-{user + 1}")
    monkeypatch.setenv("EAST_GPUS", "0")
    with pytest.raises(EastError, match=r"GPUs are leased by locks in .*TMPDIR"), leased_gpu(1):
        pass


# Processes

HOLDER = """
import os, sys, time
from east.launch.lease import leased_gpu
from east.log import configure_logging
configure_logging()
with leased_gpu(int(sys.argv[1])) as lease:
    print(lease.gpu, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    exec(sys.argv[2])
assert "torch" not in sys.modules
"""


def holder(runs_per_gpu, then, gpus="0"):
    command = [sys.executable, "-c", HOLDER, str(runs_per_gpu), then]
    environment = os.environ | {"EAST_GPUS": gpus}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )


@pytest.mark.parametrize("runs_per_gpu", [1, 2])
def test_eight_processes_never_hold_more_places_than_there_are(tmp_path, runs_per_gpu):
    events = tmp_path / "events"
    # A line that is appended at once never mixes with another one.
    then = f"""
import json
def note(change):
    with open({str(events)!r}, "ab", buffering=0) as stream:
        stream.write(json.dumps([lease.gpu, change]).encode() + b"\\n")
note(1); time.sleep(0.2); note(-1)"""
    processes = [holder(runs_per_gpu, then, gpus="0,1") for _ in range(8)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        gpu, visible = output.split()
        assert gpu == visible in ("0", "1")
    holding, most = Counter(), Counter()
    for line in events.read_text().splitlines():
        gpu, change = json.loads(line)
        holding[gpu] += change
        most[gpu] = max(most[gpu], holding[gpu])
    assert most == {"0": runs_per_gpu, "1": runs_per_gpu}
    assert not any(holding.values())


@pytest.fixture
def endless():
    """A process that holds the only GPU until it is killed."""
    process = holder(1, "sys.stdin.read()")
    assert process.stdout.readline() == "0 0\n"
    yield process
    process.kill()
    process.communicate()


def test_a_process_waits_in_words_and_gets_the_place_of_a_killed_holder(endless):
    waiting = holder(1, "pass")
    assert waiting.stderr.readline() == "all places for trainings are taken (1 each on GPU 0); waiting for one.\n"
    endless.send_signal(signal.SIGKILL)
    output, errors = waiting.communicate(timeout=10)
    assert output == "0 0\n"
    assert errors == "leased GPU 0 of 0\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_a_gpu_stops_at_once(endless, tmp_path, tiny_spec, number):
    command = [sys.executable, "-m", "east", "train", "--run", tiny_spec.canonical_json(), "--out", str(tmp_path)]
    environment = os.environ | {"EAST_GPUS": "0"}
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    assert "waiting for one" in waiting.stderr.readline()
    waiting.send_signal(number)
    _, errors = waiting.communicate(timeout=5)
    assert waiting.returncode == 128 + number
    assert errors == f"stopped by {number.name}; the same command goes on from here.\n"


def test_what_is_timed_waits_for_the_trainings_that_are_there_and_for_no_other(endless):
    code = """
from east.launch.lease import gpu_alone
from east.log import configure_logging
configure_logging()
with gpu_alone(1, wait=True) as lease:
    print(lease.gpu, lease.runs, flush=True)
"""
    environment = os.environ | {"EAST_GPUS": "0"}
    command = [sys.executable, "-c", code]
    waiting = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    assert waiting.stderr.readline() == "waiting for the trainings on GPU 0 to end.\n"
    endless.send_signal(signal.SIGKILL)
    output, errors = waiting.communicate(timeout=10)
    assert output == "0 1\n"
    assert errors == "leased GPU 0 of 0\n"


# MPS


@pytest.mark.parametrize("chosen", [True, False], ids=["a folder of one's own", "the usual folder"])
def test_mps_is_found_by_its_living_daemon(tmp_path, chosen):
    folder = tmp_path / ("mine" if chosen else "tmp/nvidia-mps")
    folder.mkdir(parents=True)
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(folder)} if chosen else {}
    assert not mps_runs(environment, tmp_path)
    (folder / "nvidia-cuda-mps-control.pid").write_text("123\n")
    assert not mps_runs(environment, tmp_path)
    (tmp_path / "proc/123").mkdir(parents=True)
    assert mps_runs(environment, tmp_path)
    assert not mps_runs({"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}, tmp_path)


CHILDREN = {
    "a program": "import subprocess; child = subprocess.Popen(['sleep', '60'], close_fds=False).pid",
    "a fork": "child = os.fork()\nif not child: time.sleep(60); os._exit(0)",
}


@pytest.mark.parametrize("kind", CHILDREN)
def test_a_child_that_outlives_its_parent_does_not_keep_the_gpu(kind):
    parent = holder(1, f"{CHILDREN[kind]}\nprint(child, flush=True)\nsys.stdin.read()")
    parent.stdout.readline()
    child = int(parent.stdout.readline())
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert holder(1, "pass").communicate(timeout=10)[0] == "0 0\n"
        os.kill(child, 0)  # it is there still
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate()
