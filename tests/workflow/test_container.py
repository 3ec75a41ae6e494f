"""The image that the Containerfile describes, where something can build it."""

import shutil
import subprocess

import pytest

from tests.conftest import ROOT


def builder() -> str | None:
    """A command that builds images and can be reached."""
    for name in ("podman", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return name
    return None


def test_the_image_is_made_of_the_lock_and_its_folder_holds_no_results():
    lines = (ROOT / "Containerfile").read_text()
    assert "--require-hashes -r requirements/lock.txt" in lines
    assert {".venv", "results", "data"} <= set((ROOT / ".dockerignore").read_text().split())


@pytest.mark.slow
@pytest.mark.workflow
def test_the_demo_is_planned_and_examined_in_the_image():
    command = builder()
    if command is None:
        pytest.skip("nothing here builds images")
    tag = "east-test"
    subprocess.run([command, "build", "-q", "-f", "Containerfile", "-t", tag, "."], cwd=ROOT, check=True)
    try:
        for inside in (
            ["snakemake", "-n", "--cores", "2", "--configfile", "config/demo.yaml"],
            ["east", "doctor", "--configfile", "config/demo.yaml"],
        ):
            done = subprocess.run([command, "run", "--rm", tag, *inside], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        subprocess.run([command, "rmi", tag], capture_output=True, check=False)
