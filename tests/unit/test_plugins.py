"""Files outside the project: read without being executed, loaded by their digest, blamed for what they do."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from east import plugins
from east.config import RunSpec, make_plan, read_config
from east.config.choices import Choice, TopologyChoice, TopologySpec, bound, read_choice
from east.config.run import CycleSpec
from east.errors import EastError
from east.plugins import Catalogue, declared, digest_of, load, load_needed, locate
from east.seeding import generator
from east.sparse.kinds import distribution, drop_rule, growth_rule
from east.sparse.schedule import CyclicDensity, Schedule
from east.sparse.topology import Rule, grow
from east.sparse.view import Layer
from tests.unit.cost_specs import make_spec
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

    def __init__(self, *, decay: "Fraction" = 0.9, depth: int | None = None, at: tuple[int, ...] = (1, 2)):
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


def test_what_is_read_and_not_loaded_is_neither_called_nor_found(write):
    path = write(MIXED)
    with pytest.raises(ValueError, match="was read and not loaded"):
        declared(path)[0].bind({})
    with pytest.raises(EastError, match="not loaded here"):
        growth_rule.find("mixed", digest_of(write(f"{MIXED}# never loaded\n")))


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
        (
            f"{HEAD}@growth_rule\ndef rule(layer, *, share: tuple[int] = 1):\n    pass\n",
            6,
            "the type of parameter 'share'",
        ),
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


def test_what_is_no_plugin_is_passed_over_where_one_is_looked_for(write):
    write("not Python", "other.py")
    path = write(MIXED)
    digest = digest_of(path)
    path.write_text("not Python either")
    with pytest.raises(EastError, match="which is not here") as refused:
        locate({digest: "growth rule 'mixed'"}, [path.parent])
    assert "Another content" not in str(refused.value)


@pytest.mark.parametrize(
    ("raised", "found"),
    [("MemoryError", MemoryError), ("__import__('east.errors').errors.EastError('said')", EastError)],
)
def test_want_of_memory_and_a_sentence_for_people_are_no_fault_of_a_plugin(write, raised, found):
    path = write(f"raise {raised}\n")
    with pytest.raises(found, match=r"^(said)?$"):
        load(path, digest_of(path))


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


def test_a_path_that_no_list_of_paths_can_hold_is_refused(write):
    with pytest.raises(EastError, match=rf"plugins\.0: .*must not contain '{os.pathsep}'"):
        plan(write(MIXED, f"a{os.pathsep}b/mine.py"), [{"static": True}])


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


@pytest.fixture
def package(write, monkeypatch):
    """An installed package of two files, the second with rules, and an entry point for it and for what is gone."""
    folder = write("from offering import rules\n", "offering/__init__.py").parent
    write(MIXED, "offering/rules.py")
    monkeypatch.syspath_prepend(str(folder.parent))
    points = [importlib.metadata.EntryPoint(name, name, plugins.GROUP) for name in ("gone.rules", "offering")]
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: points if group == plugins.GROUP else [])
    yield folder
    for name in ("offering", "offering.rules"):
        sys.modules.pop(name, None)


def test_a_package_is_a_plugin_of_all_its_sources(package, tmp_path):
    assert plugins.installed() == {"offering": package}
    digest = digest_of(package)
    assert load_needed({digest: "growth rule 'mixed'"}, [tmp_path]) == {digest: package}
    assert growth_rule.find("mixed", digest).plugin.path == str(package)
    (package / "notes.txt").write_text("not a source")
    assert digest_of(package) == digest
    (package / "rules.py").rename(package / "other.py")
    renamed = digest_of(package)
    (package / "other.py").write_text(f"{MIXED}# changed\n")
    assert len({digest, renamed, digest_of(package)}) == 3


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


def scheduled_by(write, kind, arguments, given):
    """A schedule whose density or rate a plugin gives, and the plugin."""
    path = write(f"from east.methods import {kind}\n\n\n@{kind}\ndef own({arguments}):\n    return {given}\n")
    load(path, digest_of(path))
    own, dumped = {"name": "own", "plugin": digest_of(path)}, make_spec().model_dump()
    changes = {"density_schedule": own} if kind == "density_schedule" else {}
    changes |= {"training": dumped["training"] | {"lr_schedule": own}} if kind == "learning_rate" else {}
    return Schedule.of(RunSpec.model_validate(dumped | changes), 20), path


@pytest.mark.parametrize(("given", "is_density"), [("0", False), ("1", True), ("1.01", False), ("float('nan')", False)])
def test_a_density_that_a_plugin_gives_is_above_0_and_at_most_1(write, given, is_density):
    schedule, path = scheduled_by(write, "density_schedule", "moment, target", given)
    if is_density:
        assert schedule.density(3) == 1
    else:
        with pytest.raises(EastError, match=f"{path}:4: density schedule 'own' .*after step 3"):
            schedule.density(3)


@pytest.mark.parametrize(("given", "is_rate"), [("-1e-9", False), ("0", True), ("float('inf')", False)])
def test_a_learning_rate_that_a_plugin_gives_is_a_number_of_at_least_0(write, given, is_rate):
    schedule, path = scheduled_by(write, "learning_rate", "moment, lr", given)
    if is_rate:
        assert schedule.learning_rate(4) == 0
    else:
        with pytest.raises(EastError, match=f"{path}:4: learning-rate schedule 'own' .*after step 3"):
            schedule.learning_rate(4)


# A choice


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"plugin": "0" * 63}, "SHA-256"),
        ({"plugin": "A" * 64}, "SHA-256"),
        ({"plugin": 7}, "SHA-256"),
        ({"plugin": "0" * 64, "share": {"of": 1}}, "'share'"),
    ],
)
def test_a_description_names_a_plugin_by_its_digest_and_parameters_that_are_plain(more, said):
    with pytest.raises(ValidationError, match=said):
        read_choice(growth_rule, {"name": "mine", **more})
    assert read_choice(growth_rule, {"name": "mine", "plugin": "0" * 64, "to": [1, [2]]}).parameters == (
        ("to", (1, (2,))),
    )


def test_a_parameter_that_an_entry_does_not_take_is_refused_with_the_place_of_the_entry():
    with pytest.raises(EastError, match=r"drop\.py:\d+: .*'below'"):
        bound(drop_rule, Choice(name="threshold", parameters=(("below", -1.0),)))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("rigel", "Did you mean 'rigl'"),
        ("x", "never change"),
        ({"dropp": "magnitude"}, "no key 'dropp'"),
        ({"grow": "gradients"}, "grow: .*Did you mean 'gradient'"),
    ],
)
def test_a_topology_that_cannot_be_is_refused_with_what_can(written, said):
    with pytest.raises(ValidationError, match=said) as refused:
        TypeAdapter(Annotated[str | TopologySpec, TopologyChoice()]).validate_python(written)
    assert ("Did you mean" in str(refused.value)) == ("Did you mean" in said)


def test_a_topology_is_shown_by_its_rules():
    shown = [str(TopologySpec(drop="threshold", grow="random", initial=one)) for one in ("zero", "uniform")]
    assert all("threshold" in text and "random" in text for text in shown)
    assert ["zero" in shown[0], "uniform" in shown[1]] == [False, True]
