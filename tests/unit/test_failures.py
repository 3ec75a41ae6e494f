"""What failures of the surroundings mean to people, and what of them is no failure."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from east.failures import explained
from east.files import sync, whole_file, write_atomically
from east.locks import locked, open_lock, take
from tests.conftest import ROOT
from tests.unit.in_process import east

PATH = "/nowhere/a/file"


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_of_the_system_is_a_sentence_that_names_the_path(number):
    sentence = explained(OSError(number, os.strerror(number), PATH))
    assert "/nowhere" in sentence
    assert sentence.endswith(".")
    assert sentence.count(". ") <= 2


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), PATH), "full"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), PATH), "read-only"),
        (OSError(errno.EFBIG, "in words of our own", PATH), "words of our own"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "does not answer"),
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "GPU"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "GPU failed"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "reads images"),
        (RuntimeError("unable to mmap 4096 bytes from file </torch_1>"), "/dev/shm"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
        (RuntimeError("Too many open files. Communication with the workers"), "ulimit -n"),
        (RecursionError(), "deeply"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "UTF-8"),
        (ImportError("libgomp.so.1: cannot open", name="torch"), "make setup"),
    ],
)
def test_kinds_of_failure_are_told_apart(error, word):
    assert word in explained(error)


def of_system(number, path):
    return explained(OSError(number, os.strerror(number), str(path)))


def stat_of(files, left):
    return lambda path: SimpleNamespace(f_files=files, f_favail=left)


def failing(path):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("statvfs", "word"),
    [(stat_of(9, 0), "inode"), (stat_of(9, 1), "is full"), (stat_of(0, 0), "is full"), (failing, "is full")],
    ids=["no file left", "a file left", "files are not counted", "nothing known"],
)
def test_a_disk_without_room_for_a_file_is_told_from_one_without_room_for_bytes(tmp_path, monkeypatch, statvfs, word):
    monkeypatch.setattr(os, "statvfs", statvfs)
    assert word in of_system(errno.ENOSPC, tmp_path / "file")


def test_the_owner_of_what_may_not_be_touched_is_named(tmp_path, monkeypatch):
    owner = tmp_path.stat().st_uid
    assert "belongs to" not in of_system(errno.EACCES, tmp_path / "file")
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    monkeypatch.setattr("pwd.getpwuid", lambda number: SimpleNamespace(pw_name=f"name{number}"))
    assert f"{tmp_path} belongs to user name{owner}" in of_system(errno.EACCES, tmp_path / "file")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert f"belongs to user {owner}" in of_system(errno.EPERM, tmp_path / "file")


def test_what_stands_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} is there and is not a folder" in of_system(errno.ENOTDIR, tmp_path / "file" / "below")
    assert "in the way" in of_system(errno.EEXIST, tmp_path)
    (tmp_path / "link").symlink_to(300 * "x")  # which cannot be followed
    assert str(tmp_path / "link") in of_system(errno.EEXIST, tmp_path / "link")


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), RuntimeError("the loop ended"), KeyError("x"), ImportError("x", name="east.x"), OSError("x")],
)
def test_a_mistake_of_the_program_is_not_explained_away(error):
    assert explained(error) is None


def test_a_mistake_of_the_program_shows_where_and_asks_for_a_report(monkeypatch):
    monkeypatch.setattr("east.operations.parts.registered", lambda *asked: 1 / 0)
    done = east("list")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "report" in done.stderr.splitlines()[-1]


def test_what_is_printed_to_a_full_disk_is_a_failure():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "east", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_mean_the_same_in_every_locale(tmp_path):
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "east", "plan", "--configfile", tmp_path / "größe→.yaml"]
    done = subprocess.run(command, env=ascii_only, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert r"gr\xf6\xdfe\u2192.yaml" in done.stderr  # as its output shows letters that it lacks


# Files and locks


def refuse(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_modes_or_syncs_keeps_the_file(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", refuse(number))
    monkeypatch.setattr(os, "chmod", refuse(number))
    write_atomically(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content"


def test_a_file_that_cannot_be_synced_is_not_there_and_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="file") as raised:
        write_atomically(tmp_path / "file", "content")
    assert raised.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.iterdir())
    with (tmp_path / "other").open("wb") as stream, pytest.raises(OSError, match="error"):
        sync(stream)


def test_a_file_is_whole_on_its_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append((os.fstat(number).st_size, *tmp_path.glob("file"))))
    write_atomically(tmp_path / "file", "content")
    assert seen == [(len("content"),)]


def test_a_file_may_be_read_by_whom_the_user_lets_read_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_what_killed_writers_have_left_goes_and_what_others_write_stays(tmp_path):
    old, new, others = (tmp_path / name for name in (".file.aaaaaaaa", ".file.bbbbbbbb", ".other.aaaaaaaa"))
    for path in (old, new, others):
        path.write_text("half")
    os.utime(old, (0, 0))
    os.utime(others, (0, 0))
    with whole_file(tmp_path / "file") as first:
        os.utime(first.fileno(), (0, 0))
        write_atomically(tmp_path / "file", "second")
    assert {path.name for path in tmp_path.iterdir()} == {"file", new.name, others.name}


def link(place):
    (place.parent / "precious").write_text("precious")
    place.symlink_to(place.parent / "precious")


@pytest.mark.parametrize("plant", [link, os.mkfifo, os.mkdir])
def test_a_lock_is_nothing_but_a_file(tmp_path, plant):
    place = tmp_path / ".lock"
    plant(place)
    with pytest.raises(OSError, match="lock") as raised, locked(place):
        pass
    assert str(place) in explained(raised.value)
    with pytest.raises(OSError, match="lock"):
        open_lock(place, shared=True)
    assert not (tmp_path / "precious").exists() or (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    monkeypatch.setattr("fcntl.flock", refuse(number))
    with pytest.raises(OSError, match="lock") as raised, locked(tmp_path / "lock"):
        pass
    assert "has no locks" in explained(raised.value)
    assert str(tmp_path / "lock") in explained(raised.value)


def test_a_lock_whose_file_was_removed_keeps_nobody_away_and_says_so(tmp_path):
    with locked(tmp_path / "lock") as held:
        assert held.is_there()
        (tmp_path / "lock").unlink()
        assert not held.is_there()
        with locked(tmp_path / "lock") as other:
            assert other.is_there()
            assert not held.is_there()
        with open_lock(tmp_path / "lock") as stream:
            assert take(stream)
