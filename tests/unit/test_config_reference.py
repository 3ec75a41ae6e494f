import copy
import json
import typing
from pathlib import Path

import jsonschema
import pytest
import yaml

from east.config import make_plan, read_config, reference
from east.config.reference import documents, json_schema, keys, open_matters
from east.config.vocabulary import Choices, metadata_of
from east.errors import EastError
from east.render.contents import readings

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]
ALL_KEYS = list(keys())
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def content(file):
    return yaml.safe_load(file.read_text())


def literals(annotation):
    if typing.get_origin(annotation) is typing.Literal:
        yield tuple(map(str, typing.get_args(annotation)))
        return
    for part in typing.get_args(annotation):
        yield from literals(part)


def with_wrong_key(node, key="mispelt"):
    """The content with a key that nothing knows, in each mapping of the sections in turn."""
    for path in places(node):
        changed = copy.deepcopy(node)
        inner = changed
        for part in path:
            inner = inner[part]
        inner[key] = 1
        yield path, changed


def places(node, path=()):
    if isinstance(node, dict):
        yield path
        for key, part in node.items():
            yield from places(part, (*path, key))
    if isinstance(node, list):
        for i, part in enumerate(node):
            yield from places(part, (*path, i))


def test_what_is_generated_is_fresh():
    stale = [str(file) for file, text in documents().items() if file.read_text() != text]
    assert stale == [], "run `make docs`"


def test_what_is_out_of_date_is_written_and_named_and_no_other_file_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "stale").write_text("old")
    (tmp_path / "fresh").write_text("fresh")
    (tmp_path / "fresh").chmod(0o444)
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    texts = {tmp_path / name: name for name in ("stale", "fresh", "missing")}
    monkeypatch.setattr(reference, "documents", lambda: texts)
    before = (tmp_path / "fresh").stat().st_mtime_ns
    assert reference.main() == 0
    assert capsys.readouterr().out == "stale written\nmissing written\n"
    assert {file: file.read_text() for file in texts} == texts
    assert (tmp_path / "fresh").stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["", "<!-- keys: written by make docs -->\n", "<!-- keys: end -->"])
def test_a_document_without_a_place_for_a_part_is_named(text):
    with pytest.raises(EastError, match=r"README\.md has no part 'keys'"):
        reference._with_part(text, Path("README.md"), "keys", "text")


@pytest.mark.parametrize("key", ALL_KEYS, ids=lambda key: key.path)
def test_every_key_says_what_it_means_and_what_each_of_its_names_stands_for(key):
    assert key.meaning or key.field.annotation.__doc__
    choices = [found for found in metadata_of(key.field) if isinstance(found, Choices)]
    named = set(literals(key.field.annotation)) - {("auto",), ("cpu", "cuda")}
    assert {tuple(found.meanings) for found in choices} == named


@pytest.mark.parametrize("section", ["execution", "readings", "comparison"])
def test_config_yaml_says_what_the_schema_has_for_defaults(section):
    config = read_config()
    defaults = type(config).model_fields[section].default
    assert getattr(config, section) == defaults
    written = content(FILES[0])[section]
    assert set(written) == set(defaults.model_dump())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_first_line_of_a_configuration_leads_an_editor_to_the_schema_that_it_meets(file):
    first = file.read_text().splitlines()[0]
    named = file.parent / first.removeprefix("# yaml-language-server: $schema=")
    jsonschema.validate(content(file), json.loads(named.read_text()), jsonschema.Draft202012Validator)


def test_the_schema_refuses_a_misspelt_key_in_every_section():
    wrong = list(with_wrong_key(content(FILES[0])))
    assert len(wrong) > 70
    assert [path for path, changed in wrong if VALIDATOR.is_valid(changed)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"densty": 0.1},
        {"density": 0},
        {"density": "dense"},
        {"datasets": {"cifar10": {"flips": True}}},
        {"tables": {"mine": {"recipe": "resnet34-cifar"}}},
        {"readings": {"cycle_end": "exactly"}},
        {"readings": {"gradient_clip": {"every": 0}}},
        {"execution": {"threads": "some"}},
        {"tables": {"table2": {"rows": [{"pattern": ["cosine", {"name": "cosine", "height": 2}]}]}}},
        {"execution": None},
    ],
)
def test_the_schema_refuses_what_the_configuration_refuses(wrong):
    assert not VALIDATOR.is_valid(wrong)


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"cost": {"density": None}, "readings": {"gradient_clip": None}},
        {"recipes": {"mine": None}, "datasets": {"digits": None}, "tables": {"table5": None}},
        {"methods": {"rows": {"RigL": None}, "recipes": {"cifar10": None}}},
        {"tables": {"tableMine": {"rows": [{"pattern": "cosine", "multiplier": [3, 10], "cycles": 2}]}}},
    ],
)
def test_the_schema_takes_an_overlay_that_says_only_what_it_changes(right):
    VALIDATOR.validate(right)


def test_the_readings_are_numbered_and_each_has_its_section_in_the_notes():
    numbers = [about.number for _, about in open_matters()]
    assert numbers == list(range(1, len(numbers) + 1))
    notes = (ROOT / "docs" / "reproduction-notes.md").read_text()
    assert [number for number in numbers if f"\n**{number}. " not in notes] == []


@pytest.mark.parametrize("name", ["as_coded", "alternatives"])
def test_an_overlay_sets_the_readings_that_name_it_and_no_others(name):
    in_force = readings(make_plan(read_config(ROOT / "config" / f"{name}.yaml")))
    changed = {reading.matter for reading in in_force if reading.changed}
    assert changed == {about.matter for _, about in open_matters() if name in about.overlays}
