"""docs/tutorial.md does what it says, block by block; what trains is in tests/workflow/test_tutorial.py."""

import re
import shlex
import subprocess
import sys

from tests.conftest import ROOT
from tests.unit.in_process import east
from tests.unit.test_extending import BLOCK, NAMED
from tests.unit.test_extending import place as place

TEXT = (ROOT / "docs" / "tutorial.md").read_text()
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
TRAINS = ("east try", "snakemake")


def write(content, folder):
    """Write a block that is a file."""
    (folder / NAMED.match(content)[1]).write_text(content)


def typed(command, folder):
    """What a command prints."""
    program, *words = shlex.split(command)
    if program == "east":
        done = east(*words, folder=folder)
    else:
        assert program == "python"
        done = subprocess.run(
            [sys.executable, *words, "-p", "no:cacheprovider"],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.replace(f"{folder}/", "")


def test_every_block_gives_what_is_shown(place):
    for kind, _, content in BLOCK.findall(TEXT):
        if kind != "console":
            write(content, place)
            continue
        for command, wanted in COMMAND.findall(content):
            if command.startswith(TRAINS):
                continue
            found = typed(command, place)
            shown, *rest = wanted.split("...\n")
            assert found.startswith(shown), command
            assert rest or not shown or found == shown, command


def test_each_file_is_one_that_the_page_shows_whole():
    assert [NAMED.match(content)[1] for kind, _, content in BLOCK.findall(TEXT) if kind != "console"] == [
        "acdc.py",
        "test_acdc.py",
        "acdc.yaml",
    ]
