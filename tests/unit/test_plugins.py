"""Files outside the project: read without being executed, loaded by their digest, blamed for what they do."""

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest
import torch

from east import plugins
from east.config import RunSpec, make_plan, read_config
from east.config.choices import Choice
from east.config.run import CycleSpec
from east.errors import EastError
from east.plugins import Catalogue, declared, digest_of, load, load_needed, locate
from east.seeding import generator
from east.sparse.kinds import distribution, growth_rule
from east.sparse.schedule import CyclicDensity
from east.sparse.topology import Rule, grow
from east.sparse.view import Layer
from tests.unit.fake_runs import TEST_CONFIG

MIXED = '''
from typing import Literal

from east.methods import Fraction, growth_rule


@growth_rule(gradient="updates", paper="a paper")
def mixed(layer, *, share: Fraction = 0.5, by: Literal["gradient", "weight"] = "gradient"):
    """Some by gradient, the rest at random.

    Args:
        layer: at the update.
        share: of the weights that grow by gradient.
    """
    return layer.gradient.abs() * share


@growth_rule
class Remembering:
    """Keeps something."""

    def __init__(self, *, decay: "Fraction" = 0.9, depth: int | None = None):
        self.decay = decay

    def __call__(self, layer):
        return layer.gradient
'''


@pytest.fixture
def write(tmp_path):
    """Writes a plugin."""

    def written(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return written


def described(entry):
    return (entry.kind, entry.name, entry.summary, entry.paper, entry.facts, entry.parameters)


def test_what_is_read_from_a_source_is_what_executing_it_registers(write):
    path = write(MIXED)
    read = declared(path)
    load(path, digest_of(path))
    executed = [growth_rule.find(entry.name, digest_of(path)) for entry in read]
    assert [entry.name for entry in read] == ["mixed", "remembering"]
    assert list(map(described, read)) == list(map(described, executed))
    assert [entry.plugin.digest for entry in executed] == [digest_of(path)] * 2
    assert "mixed" not in [entry.name for entry in growth_rule], "it is the plugin's and not the project's"


def test_reading_executes_nothing(write):
    path = write(f"raise SystemExit('executed')\n{MIXED}")
    assert len(declared(path)) == 2


@pytest.mark.parametrize(
    "imports",
    [
        "from east.methods import growth_rule as g\n\n\n@g",
        "import east.methods\n\n\n@east.methods.growth_rule",
        "import east.methods as m\n\n\n@m.growth_rule()",
        "from east import methods\n\n\n@methods.growth_rule",
    ],
)
def test_a_decorator_may_be_imported_in_any_way(write, imports):
    (entry,) = declared(write(f"{imports}\ndef rule(layer):\n    return None\n"))
    assert (entry.kind, entry.name) == (growth_rule, "rule")


HEAD = "from east.methods import growth_rule\nimport random\n\n\n"


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("def broken(:\n", 1, "not valid Python"),
        (f"{HEAD}@growth_rule\ndef rule(layer, weight):\n    pass\n", 5, "is called with (layer)"),
        (f"{HEAD}@growth_rule\ndef rule(layer, *, share: list = 1):\n    pass\n", 6, "the type of parameter 'share'"),
        (f"{HEAD}@growth_rule\ndef rule(layer, *, share):\n    pass\n", 6, "the type of parameter 'share'"),
        (f"{HEAD}@growth_rule\ndef rule(layer, *, n: int = random.random()):\n    pass\n", 6, "written out"),
        (f"{HEAD}@growth_rule(gradient='now')\ndef rule(layer):\n    pass\n", 5, "gradient"),
        (f"{HEAD}@growth_rule(name='gradient')\ndef rule(layer):\n    pass\n", 5, "the project's own"),
        (f"{HEAD}@growth_rule\nclass Rule:\n    pass\n", 5, "is called with (layer)"),
    ],
)
def test_a_source_that_declares_nothing_usable_is_refused_with_file_and_line(write, source, line, said):
    path = write(source)
    with pytest.raises(EastError) as refused:
        Catalogue.of([path])
    assert str(refused.value).startswith(f"{path}:{line}: ")
    assert said in str(refused.value)


def test_two_plugins_of_one_name_are_refused(write):
    with pytest.raises(EastError, match="Rename one of them"):
        Catalogue.of([write(MIXED), write(MIXED, "other.py")])


def test_a_file_that_is_named_in_two_ways_is_one_plugin(write, monkeypatch):
    path = write(MIXED)
    monkeypatch.chdir(path.parent)
    catalogues = Catalogue.of([path, Path(path.name)]), Catalogue.of([path])
    twice, once = ([one.title for one in catalogue.entries] for catalogue in catalogues)
    assert twice == once


def test_what_a_kind_cannot_declare_is_answered_with_what_it_can(write):
    path = write("from east.methods import optimizer\n\n\n@optimizer(count=True)\ndef mine(step):\n    pass\n")
    with pytest.raises(EastError, match=r"optimizer declares nothing that is called 'count'.*, state, counts_steps"):
        declared(path)


def test_only_the_content_that_a_run_was_planned_with_is_executed(write):
    path = write(MIXED)
    digest = digest_of(path)
    path.write_text(f"{MIXED}# changed\n")
    with pytest.raises(EastError, match="was changed"):
        load(path, digest)
    with pytest.raises(EastError, match="Another content of it is in") as refused:
        locate({digest: "growth rule 'mixed'"}, [path.parent])
    assert digest[:12] in str(refused.value)
    path.write_text(MIXED)
    assert locate({digest: "growth rule 'mixed'"}, [path.parent]) == {digest: path}
    assert load_needed({}, []) == {}


def test_a_plugin_that_cannot_be_executed_is_named_with_its_line(write):
    path = write("import no_such_module\n")
    with pytest.raises(EastError, match=f"{path}:1: .*no_such_module"):
        load(path, digest_of(path))
    path = write("x = 1\n\ny = x / 0\n")
    with pytest.raises(EastError, match=f"{path}:3: .*ZeroDivisionError"):
        load(path, digest_of(path))


RULES = """
import torch

from east.methods import growth_rule


@growth_rule
def raising(layer):
    return layer.no_such_thing


@growth_rule
def flat(layer):
    return layer.weight.flatten()


@growth_rule
def texts(layer):
    return "weights"


@growth_rule
def everything(layer):
    return layer.candidates


@growth_rule
def active(layer):
    return layer.mask
"""


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("raising", 9, "AttributeError"),
        ("flat", 12, "shape (16,)"),
        ("texts", 17, "str"),
        ("everything", 22, "a mask of 12"),
        ("active", 27, "4 of them no candidates"),
    ],
)
def test_a_rule_that_gives_something_else_is_named_with_its_line_the_layer_and_what_was_expected(
    write, name, line, said
):
    path = write(RULES)
    load(path, digest_of(path))
    rule = Rule.of(growth_rule, name, plugin=digest_of(path))
    mask = torch.arange(16).view(4, 4) < 4
    layer = Layer("conv1", torch.zeros(4, 4), torch.zeros(4, 4), mask, step=400)
    with pytest.raises(EastError) as refused:
        grow(rule, layer, ~mask, 3, generator(0, "ties"))
    for part in (f"{path}:{line}: ", said, "conv1", "step 400", growth_rule.gives):
        assert part in str(refused.value)


# In a configuration


def plan(path, rows, name="overlay.yaml"):
    overlay = path.parent / name
    overlay.write_text(f"plugins: [{path.name}]\ntables: {{table2: {{rows: {json.dumps(rows)}}}, table3: null}}\n")
    return make_plan(read_config(TEST_CONFIG, overlay))


def grown_by(**choice):
    return [{"static": True}, {"static": True, "topology": {"grow": choice}}]


def test_a_plugins_content_belongs_to_the_runs_that_use_it_and_to_no_others(write):
    path, rows = write(MIXED), grown_by(name="mixed", share=0.25)
    before = {run.id: run.spec for run in plan(path, rows).runs}
    path.write_text(f"{MIXED}# changed\n")
    after = {run.id: run.spec for run in plan(path, rows).runs}
    assert before.keys() == after.keys(), "a folder is not named by the content"
    changed = {name for name in before if before[name].fingerprint != after[name].fingerprint}
    assert changed == {name for name in before if "mixed" in name} != set()
    assert {before[name].kin == after[name].kin for name in changed} == {True}
    spec = after[min(changed)]
    assert spec.plugins == {digest_of(path): "growth rule 'mixed'"}
    assert RunSpec.model_validate_json(spec.canonical_json()) == spec, "the description needs no plugin to be read"
    assert spec.sparsity.topology.grow == Choice(name="mixed", plugin=digest_of(path), parameters=(("share", 0.25),))


def test_a_parameter_that_has_its_default_makes_no_other_run(write):
    path = write(MIXED)
    plain, written = (plan(path, grown_by(name="mixed", **more)).runs[-1] for more in ({}, {"share": 0.5}))
    assert plain.spec == written.spec


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"name": "mixt"}, "Did you mean 'mixed'"),
        ({"name": "mixed", "share": 2}, "share"),
        ({"name": "mixed", "shore": 0.2}, "no parameter 'shore'"),
        ({"name": "mixed", "plugin": "0" * 64}, "no parameter 'plugin'"),
        ({"share": 0.2}, "must be the name"),
    ],
)
def test_a_plan_checks_parameters_of_a_plugin_that_it_has_not_executed(write, choice, said):
    with pytest.raises(EastError) as refused:
        plan(write(f"raise SystemExit\n{MIXED}"), grown_by(**choice))
    assert "table2" in str(refused.value)
    assert said in str(refused.value)


def test_a_plugin_is_looked_for_beside_the_file_that_names_it(write, tmp_path):
    with pytest.raises(EastError, match=r"plugins\.0: there is no file .*nowhere\.py"):
        plan(tmp_path / "nowhere.py", [{"static": True}])


def test_an_installed_package_offers_a_plugin_without_being_imported(write, monkeypatch):
    write(f"raise SystemExit\n{MIXED}", "package/rules.py")
    write("raise SystemExit", "package/__init__.py")
    monkeypatch.syspath_prepend(str(write("").parent))
    points = [importlib.metadata.EntryPoint("offered", "package.rules", "east.plugins")]
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: points if group == "east.plugins" else [])
    path = plugins.find("offered", write("").parent)
    assert path.name == "rules.py"
    assert [entry.name for entry in declared(path)] == ["mixed", "remembering"]
    assert "package" not in sys.modules
    with pytest.raises(EastError, match="offered"):
        plugins.find("other", write("").parent)


def test_a_distribution_that_breaks_the_budget_is_refused(write):
    from east.sparse.masks import Allocation

    path = write(
        "from east.methods import distribution\n\n\n@distribution\ndef ones(shapes, total):\n"
        "    return {name: 1 for name in shapes}\n"
    )
    load(path, digest_of(path))
    choice = Choice(name="ones", plugin=digest_of(path))
    assert distribution.find("ones", digest_of(path)).name == "ones"
    with pytest.raises(EastError, match=f"{path}:4: "):
        Allocation({"a": (3, 3), "b": (2, 2)}, choice, 13).counts(0.5)
    assert Allocation({"a": (3, 3), "b": (2, 2)}, choice, 4).counts(0.5) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("height", "said"),
    [("1 - p", "gave 1 at 0 of a cycle"), ("p", "gave 1 at 1 of a cycle"), ("9 * p * (1 - p)", "gave")],
)
def test_a_cycle_pattern_must_begin_and_end_at_the_target(write, height, said):
    path = write(f"from east.methods import cycle_pattern\n\n\n@cycle_pattern\ndef own(p):\n    return {height}\n")
    load(path, digest_of(path))
    choice = Choice(name="own", plugin=digest_of(path))
    cycle = CycleSpec(pattern=choice, multiplier=3, cycles=1, cycle_length=4, update_period=2)
    with pytest.raises(EastError, match=f"{path}:4: cycle pattern 'own' .*{said}"):
        CyclicDensity(0.1, cycle)(2.0)
