"""What is compiled is loaded only from where nobody else can have put it."""

import os
from pathlib import Path

import pytest

from east import trust
from east.engine import machine

STRANGER = 12345


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """A file in two folders of this user's."""
    file = tmp_path.resolve() / "above" / "cache" / "kernels.so"
    trust.make_private(file.parent)
    file.write_bytes(b"code")
    file.chmod(0o644)
    return file


def test_a_file_of_this_user_s_is_trusted_and_its_folders_are_made_for_this_user_alone(kernels: Path) -> None:
    assert trust.distrust_of_file(kernels) == ""
    for folder in (kernels.parent, kernels.parents[1]):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o020, 0o002])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_others_may_write_to_is_not_trusted(kernels: Path, level: int, mode: int) -> None:
    place = [kernels, *kernels.parents][level]
    place.chmod(0o700 | mode)
    assert str(place) in trust.distrust_of_file(kernels)
    place.chmod(0o755)
    assert trust.distrust_of_file(kernels) == ""


def test_a_sticky_folder_is_trusted_above_the_cache_and_not_as_the_cache(kernels: Path) -> None:
    kernels.parents[1].chmod(0o1777)
    assert trust.distrust_of_file(kernels) == ""
    kernels.parent.chmod(0o1777)
    assert str(kernels.parent) in trust.distrust_of_file(kernels)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_belongs_to_another_user_is_not_trusted(kernels: Path, level: int) -> None:
    place = [kernels, *kernels.parents][level]
    os.chown(place, STRANGER, -1)
    assert f"{place} belongs to user {STRANGER}" in trust.distrust_of_file(kernels)


def test_what_belongs_to_root_is_trusted_by_everybody(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: STRANGER)
    assert (trust.distrust_of_file(kernels) == "") == (me == 0)


def test_a_cache_that_others_can_write_to_is_done_without_and_said(
    kernels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert machine.own_cache(kernels.parent, "so") == kernels.parent
    (kernels.parents[1] / "link").symlink_to("cache")
    assert machine.own_cache(kernels.parents[1] / "link", "so") == kernels.parent
    assert capfd.readouterr().err == ""
    kernels.parent.chmod(0o777)
    assert machine.own_cache(kernels.parent, "so") is None
    (line,) = capfd.readouterr().err.splitlines()
    assert str(kernels.parent) in line
    assert "EAST_CACHE_DIR" in line
    assert machine.own_cache(kernels / "below a file", "so") is None
    assert machine.own_cache(None, "so") is None
