"""Jobs are forks of a process that has imported everything, and nobody can tell them from processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import east
from east.launch import passing

PACKAGE = Path(east.__file__).parent
SECONDS = 60

Job = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """One that serves a copy of the package."""
    shutil.copytree(PACKAGE, tmp_path / "copy" / "east", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "copy"))
    monkeypatch.delenv(passing.SERVER, raising=False)
    monkeypatch.chdir(tmp_path)
    found = passing.start(tmp_path / "logs" / "server.log")
    assert found is not None
    assert found.stdin is not None
    yield found
    found.stdin.close()
    assert found.wait(SECONDS) == 0
    assert not Path(os.environ[passing.SERVER]).parent.exists()
    assert (tmp_path / "logs" / "server.log").read_text() == ""


@pytest.fixture
def job(server: subprocess.Popen[bytes]) -> Job:
    """Begins `east make`, which reads its request from standard input."""

    def begin(*words: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "east", *(words or ("make", "--results", "results"))]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=os.environ | environment, text=True, **streams)

    return begin


def fork_of(server: subprocess.Popen[bytes], job: subprocess.Popen[str]) -> psutil.Process:
    """The fork that runs a job, once there is one."""
    while job.poll() is None:
        if forks := psutil.Process(server.pid).children():
            return forks[0]
    pytest.fail("the job has ended")


def test_a_job_ends_as_it_does_by_itself(server: subprocess.Popen[bytes], job: Job) -> None:
    passed = job()
    fork_of(server, passed)
    alone = job(**{passing.SERVER: ""})
    said = [one.communicate('{"step": 1}', SECONDS) for one in (passed, alone)]
    assert said[0] == said[1]
    assert "--request" in said[0][1]
    assert passed.returncode == alone.returncode == 1


def test_a_job_has_its_own_surroundings(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "run").write_text("{")
    made = job("train", "--run", "run", "--out", "out", EAST_DEVICE="gpu")
    assert "EAST_DEVICE" in made.communicate(timeout=SECONDS)[1]
    made = job("train", "--run", "run", "--out", "out")
    assert "run" in made.communicate(timeout=SECONDS)[1]


def test_a_signal_reaches_the_fork_and_ends_both(server: subprocess.Popen[bytes], job: Job) -> None:
    made = job()
    fork = fork_of(server, made)
    made.send_signal(signal.SIGTERM)
    assert made.wait(SECONDS) == -signal.SIGTERM
    fork.wait(SECONDS)


def test_a_fork_is_killed_with_its_job(server: subprocess.Popen[bytes], job: Job) -> None:
    made = job()
    fork = fork_of(server, made)
    made.kill()
    fork.wait(SECONDS)


def test_a_job_goes_on_where_its_workflow_was_killed(server: subprocess.Popen[bytes], job: Job) -> None:
    made = job()
    fork_of(server, made)
    assert server.stdin is not None
    server.stdin.close()
    assert "--request" in made.communicate("{}", SECONDS)[1]


def test_a_job_runs_by_itself_where_the_sources_have_changed(
    server: subprocess.Popen[bytes], job: Job, tmp_path: Path
) -> None:
    first = job()
    fork_of(server, first)
    first.kill()
    with (tmp_path / "copy/east/cli/workflow.py").open("a") as stream:
        stream.write("\nraise SystemExit('changed')\n")
    made = job()
    assert made.communicate(timeout=SECONDS) == ("", "changed\n")


def test_a_job_of_a_killed_server_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(passing.SERVER, raising=False)
    server = passing.start(tmp_path / "log")
    assert server is not None
    command = [sys.executable, "-m", "east", "make", "--results", "results"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as made:
        fork = fork_of(server, made)
        server.kill()
        server.wait()
        assert "Type the same command again" in made.communicate(timeout=SECONDS)[1]
        assert made.returncode == 1
    fork.wait(SECONDS)
    assert passing.pass_on(["make"]) is None, "nobody answers there any more"
    shutil.rmtree(Path(os.environ.get(passing.SERVER, tmp_path / "none")).parent, ignore_errors=True)


def test_a_user_may_want_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(passing.SERVER, "")
    assert passing.start(tmp_path / "log") is None
    assert passing.pass_on(["make"]) is None
