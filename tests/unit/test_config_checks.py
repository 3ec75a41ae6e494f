"""What a plan refuses where it is made, what it only notes, and where it says that a mistake was written."""

import os
from pathlib import Path
from unittest import mock

import pytest

from benchmarks.faults import configurations
from east.config import load_plan, make_plan, read_config, validate
from east.config.files import base_config
from east.config.places import MOST_SHOWN, Mistake, Origins
from east.config.yaml_file import read_yaml
from east.errors import EastError
from east.operations.doctor.ask import Asker
from east.operations.ready import REPORT_FILES, check_ready, lacking
from tests.conftest import ROOT

RECIPE = "recipes.resnet34-cifar"


def refusal(file):
    with pytest.raises(EastError) as error:
        load_plan(file)
    return str(error.value)


def of_recipe(text):
    return f"recipes: {{resnet34-cifar: {{{text}}}}}"


def of_row(text):
    return f"tables: {{table2: {{rows: [{text}]}}}}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (of_recipe("lr_drop_epochs: [75, 250]"), f"{RECIPE}.lr_drop_epochs"),
        (of_recipe("lr_drop_epochs: [75, 75]"), f"{RECIPE}.lr_drop_epochs"),
        (of_recipe("lr_drop_epochs: [150, 75]"), f"{RECIPE}.lr_drop_epochs"),
        (of_recipe("lr_drop_factor: 1"), f"{RECIPE}.lr_drop_factor"),
        (of_recipe("lr_drop_epochs: [], lr_drop_factor: 0.5"), f"{RECIPE}.lr_drop_factor"),
        ("{readings: {lr_drops: as_coded}, " + of_recipe("epochs: 2") + "}", f"{RECIPE}.epochs"),
        (of_recipe("update_period: 88000"), f"{RECIPE}.update_period"),
        (of_recipe("cyclic: {update_period: 100000}"), "tables.table2.rows.1"),
        (of_recipe("cyclic: {cycle_length: 1.0e-300}"), "tables.table2.rows.1"),
        (of_recipe("cyclic: {cycles: 100000000}"), f"{RECIPE}.cyclic.cycles"),
        (of_row("{pattern: cosine, multiplier: 1.000001, cycles: 1}"), "tables.table2.rows.0"),
        (
            of_row("{pattern: cosine, multiplier: 3, cycles: 1000, length_multiplier: 1000, fit: rescale}"),
            "table2.rows.0",
        ),
        (of_row("{pattern: cosine, multiplier: 3, cycles: 2, length_multiplier: []}"), "tables.table2.rows.0"),
        (of_row(""), "tables.table2.rows"),
        (of_recipe("optimizer: {name: adam}"), f"{RECIPE}.optimizer"),
        (of_recipe("optimizer: {momentum: 0}"), f"{RECIPE}.optimizer.nesterov"),
        (of_recipe("components: {sharing_ratio: 6}"), f"{RECIPE}.components.sharing_ratio"),
        ("tables: {table2: {components: {sharing_ratio: 9}}}", "tables.table2.components.sharing_ratio"),
        ("methods: {rows: {EAST w/ WS: {sharing_ratio: 7}}}", "EAST w/ WS.sharing_ratio"),
        ("methods: {rows: {RigL: {measured_at_beta: 0}}}", "methods.rows.RigL.measured_at_beta"),
        ("readings: {drop_fraction_end: 0.51}", "readings.drop_fraction_end"),
        ("{readings: {numerics: bf16}, execution: {device: cpu, engine: dense}}", "readings.numerics"),
        ("{readings: {numerics: bf16}, execution: {device: cpu}}", "readings.numerics"),
        ("{readings: {accuracy: best_validation}, datasets: {cifar10: {validation: 0}}}", "readings.accuracy"),
        ("datasets: {cifar10: {validation: 50000}}", "datasets.cifar10.validation"),
        ("datasets: {cifar10: {margin: 32}}", "datasets.cifar10.margin"),
        ("datasets: {imagenet: {margin: 4}}", "datasets.imagenet.margin"),
        ("datasets: {digits: {folder: /images}}", "datasets.digits.folder"),
        ("datasets: {imagenet: {folder: /images, validation: 9}}", "datasets.imagenet.validation_choice"),
        (of_recipe("batch_size: 45001"), f"{RECIPE}.batch_size"),
        ("density: 1.0e-7", "density"),
        (of_row("{static: true, density: 1.0e-7}"), "tables.table2.rows.0.density"),
        (of_row("{static: true, density: 1.0e-7, distribution: erk_as_coded}"), "tables.table2.rows.0.density"),
        (of_row("{static: true, density: 1.0e-7, distribution: uniform}"), "tables.table2.rows.0.density"),
        ("tables: {table2: {components: {sharing_ratio: 2}, rows: [{static: true, density: 0.9}]}}", "rows.0.density"),
        ("cost: {density: 1.0e-7}", "cost.density"),
        ("seeds: [true]", "seeds.0"),
        ("seeds: [17.0]", "seeds.0"),
        (f"seeds: [1{18 * '0'}]", "seeds.0"),
        ("density: true", "density"),
        ("comparison: {level: true}", "comparison.level"),
        ("methods: {rows: {A b: {}, a/B: {dct: true}}}", "methods.rows.a/B"),
        ("methods: {systems: [resnet50-cifar-dct, resnet50-cifar-dct]}", "methods.systems"),
        *(
            (f"tables: {{{name}: {{recipe: resnet34-cifar, dataset: cifar10, rows: [{{static: true}}]}}}}", name)
            for name in ("table6", "tableB1", "tablemethods", "TABLE2", "tAblE6")
        ),
        (f"title: '{1001 * 'x'}'", "title"),
        ('title: " "', "title"),
        ('title: "a\\e[2J"', "title"),
        ('title: "a\\0"', "title"),
        ('recipes: {resnet34-cifar: {system: "a\\u202Eb"}}', f"{RECIPE}.system"),
        ('tables: {table2: {rows: [{static: true, label: "a\\u200B"}]}}', "label"),
        ('tables: {table2: {rows: [{static: true, footnote: "a\\uD800"}]}}', "footnote"),
        ('tables: {table2: {published: "a\\nb"}}', "tables.table2.published"),
        ('execution: {data_dir: ""}', "execution.data_dir"),
        ("execution: {data_dir: $EAST_NOT_SET/data}", "execution.data_dir"),
        ("execution: {data_dir: ~nobody-of-this-name/data}", "execution.data_dir"),
        ("execution: {data_dir: 'a{b}'}", "execution.data_dir"),
        (of_recipe("gradient_clip: none"), f"{RECIPE}.gradient_clip"),
        (
            "{tables: {table2: null, table3: null, table4: null, table5: null}, methods: {recipes: "
            "{cifar10: null, cifar100: null}, systems: []}}",
            "tables",
        ),
    ],
)
def test_what_cannot_run_or_would_be_something_else_is_refused_with_its_key_and_line(overlay, text, key):
    file = overlay(text)
    first = refusal(file).splitlines()[0]
    assert f"{key}: " in first
    assert first.startswith((f"{file}:1: ", "config.yaml:"))


def test_a_last_batch_of_one_image_is_refused_where_the_network_leaves_one_position(overlay):
    text = (
        "{recipes: {resnet34-cifar: {model: resnet50_imagenet, batch_size: %d, update_period: 9, density: 0.01}}, "
        "datasets: {digits: {validation: 157}}, tables: {table2: {dataset: digits, rows: [{static: true}]}}}"
    )
    assert f"{RECIPE}.batch_size: " in refusal(overlay(text % 128))
    load_plan(overlay(text % 127))
    load_plan(overlay((text % 128).replace("resnet50_imagenet", "resnet50")))


def test_null_is_no_clip_and_a_key_that_is_absent_is_the_readings(overlay):
    def clips(text):
        return {run.spec.training.gradient_clip for run in load_plan(overlay(text)) if run.recipe == "resnet34-cifar"}

    default = clips("title: As it is")
    assert len(default) == 1
    assert None not in default
    assert clips(of_recipe("gradient_clip: readings")) == default
    assert clips(of_recipe("gradient_clip: null")) == {None}
    assert clips("{readings: {gradient_clip: null}}") == {None}


def test_methods_in_any_script_have_ids_of_their_own(overlay):
    rows = "{方法: {}, 別の方法: {dct: true}, É: {sharing_ratio: 2}, Ê: {sharing_ratio: 3}, '+': {sharing_ratio: 4}}"
    runs = load_plan(overlay(f"methods: {{rows: {rows}}}"))
    assert len({run.id for run in runs}) == len(runs)
    assert all(run.id.isascii() for run in runs)


def test_words_are_one_line_however_they_are_folded(overlay):
    assert read_config(overlay("title: |\n  Of two\n  lines\n")).title == "Of two lines"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("~/data/", "{home}/data"), ("$EAST_PLACE/x//", "/place/x"), ("${EAST_PLACE}/x", "/place/x"), ("./a$1/", "a$1")],
)
def test_folders_mean_what_they_mean_in_a_shell(overlay, monkeypatch, written, meant):
    monkeypatch.setenv("EAST_PLACE", "/place")
    config = read_config(
        overlay(f"{{execution: {{data_dir: '{written}'}}, datasets: {{imagenet: {{folder: '{written}'}}}}}}")
    )
    meant = meant.format(home=Path.home())
    assert (config.execution.data_dir, config.datasets["imagenet"].folder) == (meant, meant)


def test_what_is_legal_and_may_surprise_is_noted(overlay):
    assert make_plan(read_config()).notes == ()
    notes = " ".join(make_plan(read_config(ROOT / "config" / "demo.yaml")).notes)
    assert "resnet34-digits" in notes
    assert "ReLU" in notes
    text = (
        "{execution: {device: cpu, step: captured, runs_per_gpu: 2}, "
        "readings: {drop_fraction: 0, drop_fraction_end: 0, phasing_freeze: true}}"
    )
    keys = ["execution.step", "execution.runs_per_gpu", "readings.drop_fraction", "readings.phasing_freeze"]
    notes = " ".join(make_plan(read_config(overlay(text))).notes)
    assert [key for key in keys if key not in notes] == []


# Files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: &a [*a]", ":1"),
        ("x0: &x0 [1]\n" + "".join(f"x{i + 1}: &x{i + 1} [{9 * f'*x{i}, '}]\n" for i in range(9)), "values"),
        ("seeds: [017]", "octal"),
        ("seeds: [1:20]", "sexagesimal"),
        ("density: 1:20.5", "sexagesimal"),
        ("1: 2", ":1"),
        ("yes: 2", ":1"),
        ("? [1]\n: 2", ":1"),
        ("<<: 3", ":1"),
        ("title: !!python/object:os.system x", ":1"),
        ("title: 2020-01-01", "title"),
        ("a: 1\nb: [", ":2"),
        (5000 * "[", "deep"),
        (b"title: \xff", "UTF-8"),
        (b"\xff\xfet\x00", "UTF-8"),
        ("title: a\0", "YAML"),
        ("# " + 10**6 * "x", "bytes"),
        ("a: 1\nb: !!float x", "YAML"),
        ("", "mapping"),
    ],
)
def test_odd_yaml_is_refused_in_a_sentence_that_names_the_file(tmp_path, content, said):
    file = tmp_path / "odd.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    text = refusal(file)
    assert str(file) in text
    assert said in text
    assert len(text) < 400


@pytest.mark.parametrize(("more", "is_refused"), [(0, False), (1, True)])
def test_aliases_count_as_all_that_they_stand_for(tmp_path, more, is_refused):
    file, items = tmp_path / "long.yaml", ", ".join
    file.write_text(f"a: &a [{items('x' * 99)}]\nb: [{items(990 * ['*a'])}]\nc: [{items('x' * (894 + more))}]")
    if is_refused:
        with pytest.raises(EastError, match="100,000 values"):
            read_yaml(file)
    else:
        assert len(read_yaml(file)["b"]) == 990


def test_a_name_that_no_file_can_have_is_named(tmp_path):
    assert refusal(tmp_path / (300 * "x")).endswith("cannot be read: File name too long.")


def test_without_the_projects_configuration_the_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("east.config.files.__file__", str(tmp_path / "lib" / "east" / "config" / "files.py"))
    with pytest.raises(EastError, match=f"config.yaml in {tmp_path}"):
        base_config()


def test_the_projects_configuration_is_read_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert base_config() == ROOT / "config.yaml"
    (tmp_path / "config.yaml").write_text("")
    assert base_config() == tmp_path / "config.yaml"


def test_a_file_that_has_changed_since_it_was_read_is_still_named(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("# of\nseeds: [1]\n")
    origins = Origins.of(read_yaml(file), [file])
    assert origins.place(("seeds",)) == f"{file}:2: "
    for content in ("name: x", "[", "{"):
        file.write_text(content)
        assert origins.place(("seeds", 0)) == f"{file}:1: "


def test_a_value_is_placed_by_its_nearest_parent_that_is_written(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("# of\na: {}\n")
    assert Origins.of({"a": {"b": 1}}, []).place(("a", "b")) == ""
    assert Origins.of({"a": {"b": {"c": 1}}}, [file]).place(("a", "b", "d")) == f"{file}:2: "
    assert Origins.of({"a": {"b": {"c": 1}}}, [file]).place(("a", "b", "c")) == "--config: "
    assert Origins.of({}, [file]).place(("x",)) == f"{file}: "
    assert Origins.of({}, []).place(("x",)) == ""


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_is_not_read(tmp_path, kind):
    place = tmp_path / "odd.yaml"
    place.mkdir() if kind == "folder" else os.mkfifo(place)
    assert str(place) in refusal(place)


def test_a_mistake_is_placed_in_the_file_that_holds_the_value_whatever_comes_last(tmp_path):
    base, first, second = (tmp_path / name for name in ("config.yaml", "first.yaml", "second.yaml"))
    base.write_text((ROOT / "config.yaml").read_text())
    first.write_text("name: x\nreadings:\n  spread: wide\n")
    second.write_text("readings:\n  accuracy: final\n")
    merged = read_yaml(base)

    def said(files, **values):
        with pytest.raises(EastError) as error:
            make_plan(validate(merged | values, files))
        return str(error.value)

    wide = {"readings": merged["readings"] | {"spread": "wide", "accuracy": "final"}}
    for files in ([base, first, second], [second, first, base]):
        assert said(files, **wide).startswith(f"{first}:3: readings.spread")
    assert said([first, base], seeds=[1, 1]).startswith("--config: seeds")
    # A mistake that only the plan can see has its place too.
    late = {"datasets": merged["datasets"] | {"cifar10": merged["datasets"]["cifar10"] | {"validation": 50000}}}
    second.write_text("datasets:\n  cifar10:\n    validation: 50000\n")
    assert said([second, base], **late).startswith(f"{second}:3: datasets.cifar10.validation")


@pytest.mark.parametrize(("count", "last"), [(MOST_SHOWN, "no"), (MOST_SHOWN + 2, "and 2 more.")])
def test_as_many_mistakes_are_spelt_out_as_a_person_reads(count, last):
    with pytest.raises(EastError) as error:
        Origins.of({}, []).refuse(Mistake((f"key{number}",), "no") for number in [*range(count), 0])
    lines = str(error.value).splitlines()
    assert len(lines) == min(count, MOST_SHOWN + 1)
    assert lines[-1].endswith(last)


def test_many_mistakes_are_counted_and_not_all_spelt_out(overlay):
    lines = refusal(overlay(of_recipe("cyclic: {update_period: 100000}"))).splitlines()
    assert len(lines) < 10
    assert "more" in lines[-1]


# What is needed at the end


def test_the_files_of_the_report_are_those_that_are_there():
    there = {
        str(file.relative_to(ROOT / "report"))
        for pattern in ("*.css", "*.js", "*.mplstyle", "templates/*", "captions/*")
        for file in (ROOT / "report").glob(pattern)
    }
    assert there == set(REPORT_FILES)
    assert lacking(make_plan(read_config())) == []


@pytest.mark.parametrize("name", ["none.csv", "table6.csv", "tableB1.csv", "../style.css", "."])
@pytest.mark.parametrize("key", ["tables.table2.published", "cost.published"])
def test_published_numbers_that_cannot_be_used_are_refused_before_anything_is_trained(overlay, tmp_path, name, key):
    if (key, name) == ("cost.published", "table6.csv"):
        name = "table2.csv"
    section, *rest = key.split(".")
    text = f"{section}: {{{rest[0]}: {name}}}" if len(rest) == 1 else f"tables: {{table2: {{published: {name}}}}}"
    with pytest.raises(EastError, match=key):
        check_ready(make_plan(read_config(overlay(text))), tmp_path)


def test_a_report_folder_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(EastError, match=r"style\.css"):
        check_ready(make_plan(read_config()), tmp_path, report=tmp_path)


def test_a_file_in_place_of_a_folder_is_refused(overlay, tmp_path):
    plan = make_plan(read_config())
    check_ready(plan, tmp_path)
    (tmp_path / "results").write_text("")
    with pytest.raises(EastError, match="results"):
        check_ready(plan, tmp_path)


def test_data_may_lie_where_nothing_can_be_written_if_they_are_whole(overlay, tmp_path, monkeypatch):
    plan = make_plan(read_config(overlay("execution: {data_dir: shared}")))
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK or Path(path).name != "shared")
    for name in plan.datasets():
        (tmp_path / "shared" / name).mkdir(parents=True)
    for name in plan.datasets():
        with pytest.raises(EastError, match="shared"):
            check_ready(plan, tmp_path)
        (tmp_path / "shared" / name / "manifest.json").write_text("{}")
    check_ready(plan, tmp_path)


class KnowingAsker(Asker):
    """Knows what the probes would find, as they take seconds."""

    def probe(self, *probe):
        return {"version": "2", "cuda": None, "gpus": [], "available": True, "reason": "", "compiler": "c++"} | {
            "vector": "",
            "cached": True,
            "cache": None,
            "torchvision": "1",
        }

    start = probe


def test_plan_dry_run_doctor_and_training_agree():
    """The first of `python -m benchmarks.faults configurations`."""
    with mock.patch.dict(os.environ):  # a dry run in this process leaves what its jobs would be given
        outcomes = list(configurations.cases(3, seed=1, ask=lambda folder: KnowingAsker(os.environ, folder)))
    assert [outcome.failure for outcome in outcomes] == 3 * [""]
