"""Only ordinary files are read: nothing else is waited for, and nothing is read without end."""

import os
import socket
import time
from pathlib import Path

import pytest

from east.errors import EastError
from east.files import end_the_future, parse_json, read_csv, read_regular


def test_an_ordinary_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", at_most=7) == read_regular(tmp_path / "link") == b"content"


def test_a_table_that_is_no_file_is_named(tmp_path: Path) -> None:
    found = read_csv(tmp_path)
    assert found.problem is not None
    assert found.problem.startswith(f"{tmp_path} cannot be read: ")


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as stream:
        stream.truncate(8)
    with pytest.raises(OSError, match="8 bytes"):
        read_regular(tmp_path / "file", at_most=7)


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        # A socket's name may have some 100 bytes.
        monkeypatch.chdir(tmp_path)
        unix.bind("socket")
        for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), Path("/dev/null")):
            with pytest.raises(OSError, match="not an ordinary file"):
                read_regular(path)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nothing")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_a_file_of_unknown_length_is_refused() -> None:
    with pytest.raises(OSError, match="changes"):
        read_regular(Path("/proc/self/status"))


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic link"):
        read_regular(tmp_path / "link", follow=False)
    with pytest.raises(OSError, match="link"):
        read_regular(tmp_path / "loop")


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "1", "{", "[" * 100_000, '{"a":' * 100_000, "\udcff"])
def test_json_without_keys_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_json(text)


def test_times_of_the_future_become_now_and_no_others(tmp_path: Path) -> None:
    for name, when in {"a/future": 4e9, "a/past": 1e9, "outside": 4e9}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (when, when))
    (tmp_path / "a/link").symlink_to(tmp_path / "outside")
    before = time.time()
    end_the_future([tmp_path / "a", tmp_path / "absent"])
    assert before - 1 <= (tmp_path / "a/future").stat().st_mtime <= time.time()
    assert [(tmp_path / name).stat().st_mtime for name in ("a/past", "outside")] == [1e9, 4e9]


def test_a_time_of_the_future_that_cannot_be_set_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    os.utime(tmp_path / "file", (4e9, 4e9))
    monkeypatch.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    with pytest.raises(EastError, match=r"file has a time in the future.*not permitted"):
        end_the_future([tmp_path])
