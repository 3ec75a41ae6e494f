"""docs/extending.md does what it says: its files are written, its commands run, and its methods train."""

import re
import shutil

import pytest

from east.analysis.claims import check_claims
from east.config import RunSpec, make_plan, read_config
from east.data.prepare import prepare
from east.plugins import load_needed
from east.training.loop import run_loop
from east.training.run import Resources, open_and_begin
from tests.conftest import ROOT
from tests.unit.fake_tables import papers
from tests.unit.in_process import east
from tests.unit.sparse_engines import CPU

TEXT = (ROOT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")
OVERLAY = "mine.yaml"


def examples():
    """The blocks that belong together: files, their configuration, and commands, up to the next file."""
    found = []
    for kind, given, content in BLOCK.findall(TEXT):
        named = NAMED.match(content)
        name = given or (named[1] if named else "")
        if name.endswith((".py", ".csv")):
            found.append({"files": {}, "commands": ""})
        if name and found:
            found[-1]["files"][name] = content
        elif kind == "console":
            found[-1]["commands"] += content
    return [example for example in found if OVERLAY in example["files"]]


EXAMPLES = examples()
OF_PLUGINS = [example for example in EXAMPLES if any(name.endswith(".py") for name in example["files"])]
OF_FORMS = [example for example in OF_PLUGINS if "@claim_form" in "".join(example["files"].values())]


@pytest.fixture
def place(tmp_path):
    """A folder with the project's configuration, as a user works in."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def name_of(example):
    return next(iter(example["files"]))


@pytest.fixture
def example(request, place, monkeypatch):
    for name, content in request.param["files"].items():
        (place / name).write_text(content)
    monkeypatch.chdir(place)
    return request.param


all_examples = pytest.mark.parametrize("example", EXAMPLES, ids=name_of, indirect=True)
plugins = pytest.mark.parametrize("example", OF_PLUGINS, ids=name_of, indirect=True)
methods = pytest.mark.parametrize(
    "example", [one for one in OF_PLUGINS if one not in OF_FORMS], ids=name_of, indirect=True
)


def test_there_is_an_example_of_every_kind_that_a_plugin_may_add():
    from east.methods import KINDS

    shown = "".join(content for example in EXAMPLES for content in example["files"].values())
    assert [name for name in KINDS if f"@{name}" not in shown] == []


@plugins
def test_each_is_one_file_and_at_most_three_lines_of_configuration(example):
    assert len(example["files"]) == 2
    lines = [line for line in example["files"][OVERLAY].splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 3


@all_examples
def test_commands_print_what_is_shown(example, place):
    for command, wanted in re.findall(r"^\$ east (.*)\n((?:(?!\$ ).*\n)*)", example["commands"], re.MULTILINE):
        done = east(*command.split(), folder=place)
        assert done.returncode == 0, done.stderr
        shown, *rest = wanted.split("...\n")
        assert done.stdout.replace(f"{place}/", "").startswith(shown)
        assert rest or done.stdout == shown


@methods
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


@pytest.mark.parametrize("example", OF_FORMS, ids=name_of, indirect=True)
def test_a_form_that_is_written_is_tested_on_the_papers_tables(example):
    plan = make_plan(read_config("config/test.yaml", OVERLAY))
    claim = next(claim for claim in plan.claims if claim.form.plugin)
    load_needed({claim.form.plugin: "it"}, tuple(plan.config.catalogue.paths.values()))
    (found,) = check_claims([claim], papers(), [], plan.config.comparison)
    assert {pair.higher.split(", ")[1] for pair in found.published.pairs} == {"10×"}
    assert len(found.published.pairs) == 4 * 6 * 10


def test_the_example_of_a_table_is_set_beside_its_source(place, monkeypatch):
    """As docs/extending.md has it; what then becomes of it is in tests of the parts."""
    example = next(one for one in EXAMPLES if one not in OF_PLUGINS)
    for name, content in example["files"].items():
        (place / name).write_text(content)
    monkeypatch.chdir(place)
    (table, *_) = make_plan(read_config("config/test.yaml", OVERLAY)).tables
    printed = {(row.method, row.values["density"]): row.published and row.published.mean for row in table.rows}
    assert printed["EAST", 0.01] == 88.0
    assert printed["RigL", 0.01] is None
