"""docs/extending.md does what it says: its files are written, its commands run, and its methods train."""

import re
import shutil

import pytest

from east.config import RunSpec, make_plan, read_config
from east.data.prepare import prepare
from east.training.loop import run_loop
from east.training.run import Resources, open_and_begin
from tests.conftest import ROOT
from tests.unit.in_process import east
from tests.unit.sparse_engines import CPU

TEXT = (ROOT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")
OVERLAY = "mine.yaml"


def examples():
    """The blocks that belong together: files, their configuration, and commands, up to the next file."""
    found = []
    for kind, content in BLOCK.findall(TEXT):
        named = NAMED.match(content)
        if named and named[1].endswith(".py"):
            found.append({"files": {}, "commands": ""})
        if named and found:
            found[-1]["files"][named[1]] = content
        elif kind == "console":
            found[-1]["commands"] += content
    return [example for example in found if OVERLAY in example["files"]]


EXAMPLES = examples()


@pytest.fixture
def place(tmp_path):
    """A folder with the project's configuration, as a user works in."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


@pytest.fixture(params=EXAMPLES, ids=lambda example: next(iter(example["files"])))
def example(request, place, monkeypatch):
    for name, content in request.param["files"].items():
        (place / name).write_text(content)
    monkeypatch.chdir(place)
    return request.param


def test_there_is_an_example_of_every_kind_that_a_plugin_may_add():
    from east.methods import KINDS

    shown = "".join(content for example in EXAMPLES for content in example["files"].values())
    assert [name for name in KINDS if f"@{name}" not in shown] == []


def test_each_is_one_file_and_at_most_three_lines_of_configuration(example):
    assert len(example["files"]) == 2
    lines = [line for line in example["files"][OVERLAY].splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 3


def test_commands_print_what_is_shown(example, place):
    for command, wanted in re.findall(r"^\$ east (.*)\n((?:(?!\$ ).*\n)*)", example["commands"], re.MULTILINE):
        done = east(*command.split(), folder=place)
        assert done.returncode == 0, done.stderr
        shown, *rest = wanted.split("...\n")
        assert done.stdout.replace(f"{place}/", "").startswith(shown)
        assert rest or done.stdout == shown


@pytest.mark.usefixtures("one_thread")
def test_what_is_written_trains(example, data_dir):
    plan = make_plan(read_config("config/test.yaml", OVERLAY))
    using = {run.row: run.spec for run in plan.runs if run.spec.plugins and run.table != "tablemethods"}
    assert using
    places = tuple(plan.config.catalogue.paths.values())
    for spec in using.values():
        described = RunSpec.model_validate_json(spec.canonical_json())
        prepare(described.dataset.images, data_dir, plugins=places)
        training = open_and_begin(described, Resources(device="cpu", data_dir=data_dir, plugins=places), CPU)
        assert run_loop(training) == "finished"
        assert training.updates[-1].nonzeros == training.updates[0].nonzeros or spec.density_schedule
