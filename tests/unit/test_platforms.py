"""What other systems than this one need of the project, as far as it can be checked from here."""

import os
import re
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "lock.txt"
PLATFORMS = {
    "macOS on Apple's processors": ("aarch64-apple-darwin", {"sys_platform": "darwin", "platform_machine": "arm64"}),
    "Linux on ARM64": ("aarch64-unknown-linux-gnu", {"sys_platform": "linux", "platform_machine": "aarch64"}),
    "Linux on x86-64": ("x86_64-unknown-linux-gnu", {"sys_platform": "linux", "platform_machine": "x86_64"}),
}
PYTHONS = ("3.11", "3.12", "3.13")
OLDEST_MACOS = "14.0"
"""What PyTorch's packages are built for."""

UNREACHABLE = re.compile("(?i)failed to fetch|dns error|connect|timed out|network|offline")


def environment(facts: dict[str, str], python: str) -> dict[str, str]:
    """What markers are evaluated with, on another system."""
    system = {"darwin": "Darwin", "linux": "Linux"}[facts["sys_platform"]]
    own = {"platform_system": system, "os_name": "posix", "implementation_name": "cpython", "extra": ""}
    return own | facts | {"python_version": python, "python_full_version": f"{python}.0"}


def locked(facts: dict[str, str]) -> dict[str, str]:
    """The packages and versions that the lock holds for an environment; none twice."""
    lines = [Requirement(line.rstrip(" \\")) for line in LOCK.read_text().splitlines() if line[:1].isalnum()]
    there = [line for line in lines if line.marker is None or line.marker.evaluate(facts)]
    assert max(Counter(line.name for line in there).values()) == 1
    return {canonicalize_name(line.name): next(iter(line.specifier)).version for line in there}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_lock_holds_all_that_its_packages_need(platform, python):
    facts = environment(PLATFORMS[platform][1], python)
    versions = locked(facts)
    looked_at = 0
    for name, version in versions.items():
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # it belongs to another system
        if package.version.partition("+")[0] != version:
            continue  # another version for this Python
        looked_at += 1
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate(facts):
                found = versions.get(canonicalize_name(needed.name))
                assert found is not None, f"{name} needs {needed}"
                assert needed.specifier.contains(found, prereleases=True), f"{name} needs {needed}; locked is {found}"
    assert looked_at > 60


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_lock_resolves(platform, tmp_path):
    """Every package is published for the system, by its hash. Needs the registry."""
    for python in PYTHONS:
        command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-deps", "--require-hashes"]
        command += ["--python-platform", PLATFORMS[platform][0], "--python-version", python]
        command += ["--target", str(tmp_path), "-r", str(LOCK)]
        newest = os.environ | {"MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS}
        done = subprocess.run(command, capture_output=True, text=True, env=newest)
        if done.returncode != 0 and UNREACHABLE.search(done.stderr):
            pytest.skip("the package registry cannot be reached")
        assert done.returncode == 0, done.stderr
        assert " + torch==" in done.stderr


def test_no_two_files_have_one_name_where_case_does_not_count():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [name for name, count in Counter(file.casefold() for file in files).items() if count > 1] == []
