import subprocess
import sys

import pytest

from east.locks import claimed, locked, take
from tests.conftest import ROOT

HOLDER = (
    "import sys, pathlib; from east.locks import locked\n"
    "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def held(tmp_path):
    """A file whose lock another process holds, and that process."""
    file = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout.readline() == b"held\n"
        yield file, holder
        holder.kill()


def test_a_lock_that_another_process_holds_is_not_claimed_until_that_process_is_killed(held):
    file, holder = held
    with claimed(file) as free:
        assert not free
    with file.open("rb") as stream:
        assert not take(stream, shared=True)
    holder.kill()
    holder.wait()
    with claimed(file) as free:
        assert free


def test_whoever_waits_says_so_and_gets_the_lock(held):
    file, holder = held
    calls = []

    def waiting():
        calls.append(file)
        holder.kill()

    with locked(file, waiting), claimed(file) as free:
        assert not free
    assert calls == [file]
    with locked(file, waiting):
        assert calls == [file]


def test_locking_keeps_the_content_of_a_file_and_claiming_makes_none(tmp_path):
    file = tmp_path / "lock"
    with claimed(file) as free:
        assert free
    assert not file.exists()
    file.write_text("content")
    with locked(file), file.open() as stream:
        assert stream.read() == "content"


def test_what_cannot_be_locked_is_claimed_by_nobody(tmp_path):
    (tmp_path / "lock").mkdir()
    with claimed(tmp_path / "lock") as free:
        assert not free


def test_shared_locks_stand_beside_each_other(tmp_path):
    file = tmp_path / "lock"
    file.touch()
    with file.open() as one, file.open() as other, claimed(file.with_name("none")):
        assert take(one, shared=True)
        assert take(other, shared=True)
        with claimed(file) as free:
            assert not free
