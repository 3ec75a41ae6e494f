"""`east new`: files to begin with, for every kind of the registry, whose tests pass."""

import subprocess
import sys

import pytest
import yaml

from east.config import make_plan, read_config
from east.config.choices import is_plugins
from east.errors import EastError
from east.methods import KINDS
from east.operations import new_files
from east.operations.new_files import TEMPLATES, write_new
from east.plugins import declared
from tests.conftest import ROOT
from tests.unit.in_process import east
from tests.unit.test_extending import place as place


def test_what_is_written_passes_its_own_test(tmp_path, monkeypatch):
    for decorator, kind in KINDS.items():
        written = write_new(kind.word, f"my_{decorator}", tmp_path)
        (entry,) = declared(written.source)
        assert (entry.kind, entry.name) == (kind, f"my_{decorator}")
    monkeypatch.setattr(new_files, "TEMPLATES", {})
    for decorator in KINDS.keys() - {"claim_form"}:  # of the project's forms each needs a parameter
        write_new(decorator, f"other_{decorator}", tmp_path)
    with pytest.raises(EastError, match="no claim form to begin with"):
        write_new("claim_form", "other", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.parametrize("decorator", TEMPLATES)
def test_the_lines_that_name_it_are_a_configuration(decorator, place, monkeypatch):
    monkeypatch.chdir(place)
    written = write_new(decorator, "mine", place)
    (place / "mine.yaml").write_text(f"name: mine\nplugins: [{written.source.name}]\n{written.use}\n")
    plan = make_plan(read_config("mine.yaml"))
    assert any(run.spec.plugins for run in plan.runs) or any(is_plugins(claim.form) for claim in plan.claims)


def test_the_lines_that_name_it_can_be_copied_as_they_are_printed(place):
    done = east("new", "datasets", "my_data", folder=place)
    _, lines = done.stdout.split("In a configuration beside it:\n")
    assert [*yaml.safe_load(lines)] == ["plugins", "datasets", "tables"]


def test_nothing_is_written_over(place):
    done = east("new", "growth", "my_rule", folder=place)
    assert done.returncode == 0, done.stderr
    assert "plugins: [my_rule.py]" in done.stdout
    for kept, other in (("my_rule.py", "test_my_rule.py"), ("test_my_rule.py", "my_rule.py")):
        (place / kept).write_text("mine")
        (place / other).unlink()
        again = east("new", "growth", "my_rule", folder=place)
        assert again.returncode == 1
        assert f"{kept} is there already" in again.stderr
        assert ((place / kept).read_text(), (place / other).exists()) == ("mine", False)
        (place / other).touch()


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("growths", "mine", "Choose one of"),
        ("growth", "random", "the project's own"),
        ("growth", "My-Rule", "must be small letters"),
        ("growth", "class", "must be small letters"),
        ("growth", "torch", "an installed module"),
    ],
)
def test_a_name_that_cannot_be_is_refused(kind, name, said, place):
    done = east("new", kind, name, folder=place)
    assert done.returncode == 1
    assert said in done.stderr
    assert not list(place.glob("*.py"))
