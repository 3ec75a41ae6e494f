import copy
import hashlib
import json
from functools import cache, reduce
from operator import getitem
from pathlib import Path

import pytest

from east import REVISION
from east.analysis.published import read_published_grid
from east.config import RunSpec, load_plan, make_plan, read_config
from east.config.plan import cost_plan
from east.config.run import canonical_json, fingerprint_of, fingerprint_of_content, with_defaults
from east.errors import EastError


@cache
def paper():
    return make_plan(read_config())


def ids(*overlays):
    return {run.id: run.fingerprint for run in (load_plan(*overlays) if overlays else paper().runs)}


def edited(base, **sections):
    spec = base.model_dump()
    for section, changes in sections.items():
        spec[section].update(changes)
    return RunSpec.model_validate(spec)


PLANS = {
    "config.yaml": (
        "9c93d551f385f78ebb85349e74dcb31ddd5d2b8a40eef52564329f418c230f2f",
        "49cc8d834dd6957cac6eedba23b42d9053e78cbf01f61a59f2851b63501e3cf4",
    ),
    "config/demo.yaml": (
        "a2b61ac7c641f1a7414998881f24582cb1c433dabeca6aec21a29b6d41ef3138",
        "7676f1681342a2d36cb9ea80f73080a2901ac305f14eb847684a7537ad82a12d",
    ),
    "config/test.yaml": (
        "817c06e6083a102143d59f2424a74ca864fec64078593f5274847d319ffd840a",
        "05ed96074cfce120ad64799c7f882cee35fa7dcc322a9e0ba199d408268af95c",
    ),
    "config/as_coded.yaml": (
        "b82576e0ba13db7b80b0c0130b3755946eba6da59cb6ae07de1cc4c09a8dbdaa",
        "c7903cfb74ec38f6881cfffc3f3a8f3ce89964a23f7787ad6a0b7ee0d22578a6",
    ),
    "config/alternatives.yaml": (
        "b4bfa17d717b7ea9bd3f25dccc4e3ea6c5a29b9ce58ea3bfbe3d4d55198c634d",
        "f1bd9c347594a1557a6a606c0a60e784281080bf214da72c9ead5f8fb01062f2",
    ),
}
"""SHA-256 of the plan of each configuration and of its Table 6: sorted lines of name and fingerprint."""


@pytest.mark.parametrize("file", PLANS)
def test_every_run_of_every_configuration_keeps_its_name_and_identity(file):
    config = read_config(file)
    runs = [f"{run.id} {run.fingerprint}" for run in make_plan(config).runs]
    costs = [f"{entry.method} {entry.spec.fingerprint}" for entry in cost_plan(config).entries]
    digests = (hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()) for lines in (runs, costs))
    assert tuple(digest.hexdigest() for digest in digests) == PLANS[file]


def test_the_paper_has_204_runs_in_tables_2_to_5_and_30_more_in_the_methods_table():
    runs = paper().runs
    counts = {table: sum(run.table == table for run in runs) for table in {run.table for run in runs}}
    assert counts == {"table2": 51, "table3": 51, "table4": 51, "table5": 51, "tablemethods": 30}
    assert len({run.id for run in runs}) == len({run.fingerprint for run in runs}) == 234


def test_the_published_rows_are_the_planned_rows_in_order():
    for table in paper().tables[:4]:
        printed = read_published_grid(Path("report/published") / table.published).rows
        planned = [(row.pattern, row.multiplier, row.cycles, row.length_multiplier) for row in table.rows]
        assert planned == [row.key for row in printed]


def test_a_run_that_two_tables_show_is_trained_once():
    plan = paper()
    methods = {row.id: row for row in plan.tables[-1].rows}
    assert methods["rigl-resnet34-cifar10"].runs[0].id == "table2/static/seed17"
    assert methods["east-w-cyclic-resnet34-cifar100"].runs[0].id == "table3/cosine-m10-n2-g1/seed17"


def test_imagenet_is_planned_only_where_a_folder_is_configured(overlay):
    row = paper().tables[-1].rows[-1]
    assert row.dataset == "imagenet"
    assert row.runs == ()
    assert "datasets.imagenet.folder" in row.note
    configured = make_plan(read_config(overlay("datasets: {imagenet: {folder: /images}}")))
    assert len(configured.tables[-1].rows[-1].runs) == 3


def test_cycles_that_do_not_fit_are_rescaled_with_a_footnote():
    rows = {row.id: row for row in paper().tables[3].rows}
    assert "35.7, 71.4, 142.9 epochs" in rows["cosine-m30-n3-g2"].footnote
    assert rows["cosine-m30-n3-g1"].footnote is None


def test_equal_specs_have_equal_canonical_json_however_they_are_written():
    spec = paper().runs[5].spec
    text = spec.canonical_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    shuffled = dict(reversed(list(json.loads(text).items())))
    shuffled["cycle"]["multiplier"] = 3.0
    shuffled["cycle"]["length_multiplier"] = 1
    shuffled["training"]["epochs"] = 250.0
    shuffled["training"]["lr_drop_epochs"] = [75, 150]
    assert RunSpec.model_validate(shuffled).fingerprint == spec.fingerprint


FULL = {
    "revision": 3,
    "seed": 17,
    "dataset": {
        "name": "cifar10",
        "margin": 4,
        "padding": "reflect",
        "flip": True,
        "validation": 5000,
        "validation_choice": "last",
        "augment_validation": True,
    },
    "model": {"name": "resnet34", "width": 64, "activation": "dyrelu", "sharing_ratio": 2, "dct": True},
    "sparsity": {
        "density": 0.0005,
        "distribution": "erk",
        "topology": "rigl",
        "drop_fraction": 0.5,
        "drop_fraction_end": 0.005,
        "update_period": 4000,
        "update_on_last_step": True,
    },
    "cycle": {
        "pattern": "cosine",
        "multiplier": 10.0,
        "cycles": 2,
        "cycle_length": 50.0,
        "length_multiplier": 1.5,
        "update_period": 350,
        "end": "as_coded",
    },
    "phasing": {"start": 62.5, "end": 124.0, "freeze": True},
    "training": {
        "epochs": 250,
        "batch_size": 128,
        "lr": 0.1,
        "lr_drop_epochs": [75, 150],
        "lr_drop_factor": 0.1,
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True},
        "weight_decay": 0.0001,
        "gradient_clip": {"norm": 1.0, "scope": "dense", "estimator": "exact", "probes": 1, "every": 2},
        "numerics": "tf32",
    },
}
"""A run in which nearly every option differs from its default."""

DEFAULTS = {
    "model.activation": "relu",
    "model.sharing_ratio": None,
    "model.dct": False,
    "sparsity.update_on_last_step": False,
    "cycle.length_multiplier": 1.0,
    "cycle.end": "target",
    "phasing.freeze": False,
    "training.optimizer.momentum": 0.0,
    "training.optimizer.nesterov": False,
    "training.gradient_clip.estimator": "sketch",
    "training.gradient_clip.probes": 1,
    "training.gradient_clip.every": 1,
}
"""What is left out of an identity; an option may be added here, and none of these ever changes."""


def with_defaults_of_options(content, *, written):
    """A run whose options have their defaults, which are written or left out."""
    content = copy.deepcopy(content)
    for path, value in DEFAULTS.items():
        *sections, option = path.split(".")
        section = reduce(getitem, sections, content)
        del section[option]
        if written:
            section[option] = value
    return content


PLAIN, WRITTEN = (with_defaults_of_options(FULL, written=written) for written in (False, True))


def test_the_identity_of_a_run_never_changes():
    """Another digest here makes every result of every user one of another run."""
    spec = RunSpec.model_validate(FULL)
    assert spec.fingerprint == "5f780955c8cdee423d9e22bc5b295c86adafee488a601fc95b36f05143da5aaf"
    plain = RunSpec.model_validate(PLAIN)
    assert plain.fingerprint == "6cca53cbd83aa95f891089e701be6f3911e9eda79464cd5bf4c2c81c2faba3f9"
    least = RunSpec.model_validate({key: part for key, part in FULL.items() if key not in ("cycle", "phasing")})
    assert least.fingerprint == "c53a703bec037082177c318b89cf29799ebe5d99118bb922a6c8fcf5e0b90ea1"


def test_the_defaults_of_a_run_never_change():
    assert RunSpec.model_validate(PLAIN).model_dump(mode="json") == WRITTEN


def test_what_has_its_default_is_left_out_of_the_identity_and_the_revision_never():
    spec = RunSpec.model_validate(WRITTEN)
    content = json.loads(spec.canonical_json())
    assert content == PLAIN  # Python takes 1 and 1.0 for equal
    assert content["revision"] == REVISION
    assert RunSpec.model_validate(content) == spec


def test_reading_the_identity_gives_the_run_again():
    for spec in (RunSpec.model_validate(FULL), *(run.spec for run in paper().runs[::10])):
        assert RunSpec.model_validate_json(spec.canonical_json()) == spec
        assert with_defaults(json.loads(spec.canonical_json())) == spec.model_dump(mode="json")
        assert fingerprint_of_content(spec.model_dump(mode="json")) == spec.fingerprint


def test_numbers_are_written_in_one_way():
    assert canonical_json({"b": [1.0, -0.0, 0.5, 1e300], "a": {"x": 2.0, "y": True}}) == (
        '{"a":{"x":2,"y":true},"b":[1,0,0.5,1e+300]}'
    )
    assert canonical_json({"a": [2.0**53 - 1, 2.0**53]}) == '{"a":[9007199254740991,9007199254740992.0]}'


def test_what_this_version_cannot_read_is_compared_as_it_is():
    content = {"seed": 9, "of_another_time": 1.0}
    assert with_defaults(content) == content
    assert fingerprint_of_content(content) == fingerprint_of(canonical_json(content))


def test_any_change_of_the_science_changes_the_fingerprint():
    spec = paper().runs[5].spec
    variants = [
        edited(spec, sparsity={"density": 0.001}),
        edited(spec, cycle={"multiplier": 4}),
        edited(spec, training={"lr": 0.2}),
        edited(spec, training={"numerics": "bf16"}),
        edited(spec, training={"gradient_clip": None}),
        *(
            edited(spec, training={"gradient_clip": {"norm": 1.0} | clip})
            for clip in (
                {"scope": "active"},
                {"scope": "dense", "estimator": "exact"},
                {"scope": "dense", "probes": 2},
                {"scope": "dense", "every": 2},
                {"scope": "dense", "estimator": "exact", "every": 2},
            )
        ),
        edited(spec, dataset={"margin": 2}),
        spec.model_copy(update={"seed": 99}),
        spec.model_copy(update={"revision": spec.revision + 1}),
    ]
    assert len({variant.fingerprint for variant in [spec, *variants]}) == len(variants) + 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"scope": "dense"}, {"scope": "dense", "estimator": "sketch", "probes": 1, "every": 1}),
        ({"scope": "active"}, {"scope": "active", "estimator": "sketch"}),
        ({"scope": "active"}, {"scope": "active", "estimator": "exact", "probes": 1}),
    ],
)
def test_clips_that_mean_the_same_are_the_same_run(one, other):
    spec = paper().runs[5].spec
    first, second = (edited(spec, training={"gradient_clip": {"norm": 1.0} | clip}) for clip in (one, other))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    "text",
    [
        "title: Another title",
        "execution: {device: cpu, step: eager, threads: 7, data_dir: elsewhere}",
        "readings: {spread: population, accuracy: best_validation}",
        "recipes: {resnet34-cifar: {system: Renamed}}",
        "comparison: {margin: 1.5, published_spread: population}",
    ],
)
def test_labels_paths_devices_and_statistics_leave_every_run_as_it_is(overlay, text):
    assert ids(overlay(text)) == ids()


@pytest.mark.parametrize(
    ("text", "targets", "of_table_6"),
    [
        ("density: 0.001", {0.001}, 0.001),
        ("cost: {density: 0.001}", {0.0005}, 0.001),
        ("{density: 0.001, cost: {density: 0.002}}", {0.001}, 0.002),
        ("{density: 0.001, cost: {density: null}}", {0.001}, 0.001),
        ("recipes: {resnet34-cifar: {density: 0.002}}", {0.002, 0.0005}, 0.002),
    ],
)
def test_table_6_follows_the_density_of_the_plan_unless_it_has_its_own(overlay, text, targets, of_table_6):
    config = read_config(overlay(text))
    assert {run.spec.sparsity.density for run in make_plan(config).runs} == targets
    assert {entry.spec.sparsity.density for entry in cost_plan(config).entries} == {of_table_6}


def test_table_6_is_of_the_recipes_network_unless_it_names_another(overlay):
    plan = cost_plan(read_config(overlay("recipes: {resnet34-cifar: {model: resnet50}}")))
    assert {plan.model, *(entry.spec.model.name for entry in plan.entries)} == {"resnet50"}
    plan = cost_plan(read_config(overlay("cost: {model: resnet50, dataset: cifar10}")), "resnet34", "digits")
    assert {(entry.spec.model.name, entry.spec.dataset.name) for entry in plan.entries} == {("resnet34", "digits")}


@pytest.mark.parametrize(
    ("text", "comparable"),
    [
        ("title: As printed", True),
        ("recipes: {resnet34-cifar: {width: 32}}", False),
        ("cost: {model: resnet50}", False),
        ("cost: {dataset: cifar10}", False),
    ],
)
def test_table_6_is_set_beside_the_papers_only_where_it_measures_the_same(overlay, text, comparable):
    assert cost_plan(read_config(overlay(text))).comparable == comparable


@pytest.mark.parametrize(
    ("text", "comparable"),
    [
        ("title: As printed", True),
        ("recipes: {resnet34-cifar: {width: 32}}", False),
        ("recipes: {resnet34-cifar: {density: 0.001}}", False),
        ("density: 0.001", False),
        ("tables: {table2: {model: resnet50}}", False),
        ("tables: {table2: {dataset: cifar100}}", False),
        ("tables: {table2: {published: table3.csv}}", False),
        ("tables: {table2: {published: null}}", False),
    ],
)
def test_a_grid_is_compared_with_the_paper_only_where_it_trained_the_same(overlay, text, comparable):
    (table, *_) = make_plan(read_config(overlay(text))).tables
    assert table.comparable == comparable


def test_readings_of_static_rows_and_of_all_others_stand_apart(overlay):
    def topologies(text):
        plan = make_plan(read_config(overlay(text)))
        runs = ("table2/static/seed17", "table2/cosine-m10-n2-g1/seed17", "tablemethods/dctps-resnet34-cifar10/seed17")
        return [plan.run(run).spec.sparsity.topology for run in runs]

    assert topologies("readings: {static_topology: fixed}") == ["fixed", "rigl", "rigl"]
    assert topologies("readings: {topology: set}") == ["rigl", "set", "set"]


@pytest.mark.parametrize(
    ("row", "run_id", "section", "key", "value"),
    [
        ("{static: true, topology: set}", "static-set", "sparsity", "topology", "set"),
        ("{static: true, distribution: uniform}", "static-uniform", "sparsity", "distribution", "uniform"),
        ("{static: true, density: 0.25}", "static-d0.25", "sparsity", "density", 0.25),
        ("{static: true, density: 2.0e-4}", "static-d2e-4", "sparsity", "density", 0.0002),
        (
            "{pattern: cosine, multiplier: 2.5, cycles: 2, cycle_length: 12.5}",
            "cosine-m2.5-n2-g1-l12.5",
            "cycle",
            "cycle_length",
            12.5,
        ),
        (
            "{pattern: cosine, multiplier: 3, cycles: 1, topology: set}",
            "cosine-m3-n1-set",
            "sparsity",
            "topology",
            "set",
        ),
    ],
)
def test_what_a_row_sets_itself_is_in_its_name_and_its_run_and_not_printed(overlay, row, run_id, section, key, value):
    plan = make_plan(read_config(overlay(f"tables: {{table2: {{rows: [{row}]}}}}")))
    spec = plan.run(f"table2/{run_id}/seed17").spec
    assert getattr(getattr(spec, section), key) == value
    assert [row.printed for row in plan.tables[0].rows] == [False]
    assert paper().tables[0].rows[0].printed


def test_one_cycle_has_no_length_multiplier(overlay):
    row = "tables: {table2: {rows: [{pattern: cosine, multiplier: 3, cycles: 1, length_multiplier: 9}]}}"
    assert ids(overlay(row))["table2/cosine-m3-n1/seed17"] == ids()["table2/cosine-m3-n1/seed17"]


def test_a_recipes_clip_stands_in_place_of_the_readings(overlay):
    text = "{readings: {gradient_clip: null}, recipes: {resnet50-cifar-dct: {gradient_clip: {norm: 3, scope: active}}}}"
    plan = make_plan(read_config(overlay(text)))
    clips = {run.recipe: run.spec.training.gradient_clip for run in plan.runs}
    assert clips["resnet34-cifar"] is None
    assert (clips["resnet50-cifar-dct"].norm, clips["resnet50-cifar-dct"].scope) == (3, "active")


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("{tables: {table5: null}}", lambda config: "table5" not in config.tables),
        ("{methods: {rows: {DCTpS: null}}}", lambda config: "DCTpS" not in config.methods.rows),
        ("{methods: {recipes: {cifar10: null}}}", lambda config: "cifar10" not in config.methods.recipes),
        ("{datasets: {digits: null}}", lambda config: "digits" not in config.datasets),
        (
            "{recipes: {resnet50-imagenet: null}, methods: {systems: []}}",
            lambda config: "resnet50-imagenet" not in config.recipes,
        ),
    ],
)
def test_null_takes_an_entry_away(overlay, text, gone):
    assert gone(read_config(overlay(text)))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "readings:\n  cycle_end: exactly",
            ["overlay.yaml:2", "readings.cycle_end", "target", "as_coded", "'exactly'"],
        ),
        ("recipes:\n  resnet34-cifar:\n    epoch: 3", ["overlay.yaml:3", "recipes.resnet34-cifar.epoch", "'epochs'"]),
        ("recipes: {resnet34-cifar: {lr: -1}}", ["recipes.resnet34-cifar.lr", "greater than 0", "-1"]),
        ("recipes: {resnet34-cifar: {datasets: [cifar10, cifer100]}}", ["resnet34-cifar.datasets.1", "'cifar100'"]),
        ("datasets: {cifr10: {flip: true}}", ["overlay.yaml:1", "datasets.cifr10", "digit_pairs", "'cifar10'"]),
        ("execution: {threads: 0}", ["execution.threads", "auto", "0"]),
        ("execution: {engine: fast}", ["execution.engine", "auto", "dense", "sparse", "'fast'"]),
        ("methods: {rows: {RigL: {measured_at_beta: 2}}}", ["methods.rows.RigL.measured_at_beta", "0", "1", "2"]),
        ("density: 1.5", ["density", "less than or equal to 1"]),
        ("density: .nan", ["density", "finite"]),
        ("cost: {densty: 0.1}", ["cost.densty", "'density'"]),
        ("seeds: [1, 1]", ["seeds", "[1, 1]"]),
        ("seeds: []", ["seeds"]),
        ("name: ../up", ["name", "'../up'"]),
        ("recipes: {resnet34-cifar: null}", ["tables.table2.recipe", "'resnet34-cifar'", "resnet50-cifar-dct"]),
        ("tables: {table2: {recipe: none}}", ["tables.table2.recipe", "'none'", "resnet34-cifar"]),
        ("tables: {table2: {rows: [{pattern: cosine, multiplier: 3}]}}", ["pattern, multiplier and cycles"]),
        ("tables: {table2: {rows: [{static: true, cycles: 2}]}}", ["static", "cycles"]),
        ("tables: {table2: {rows: [{static: true, cycle_length: 9}]}}", ["static", "cycle_length"]),
        (
            "tables: {table2: {rows: [{static: true, fit: rescale, length_multiplier: 2}]}}",
            ["fit", "length_multiplier"],
        ),
        ("tables: {table2: {rows: [{pattern: cosinus, multiplier: 3, cycles: 1}]}}", ["rows.0.pattern", "'cosine'"]),
        ("tables: {table2: {rows: [{static: true}, {static: true}]}}", ["tables.table2.rows.1", "'static'"]),
        ("tables: {table2: {rows: [{pattern: cosine, multiplier: 3000, cycles: 1}]}}", ["3000", "1.5"]),
        ("tables: {table2: {rows: [{pattern: cosine, multiplier: 3, cycles: 1, density: 0.5}]}}", ["rows.0", "1.5"]),
        ("{density: 0.5, cost: {density: 0.01}}", ["tables.table2.rows.1", "1.5"]),
        ("tables: {table2: {rows: [{pattern: cosine, multiplier: 3, cycles: 9}]}}", ["table2.rows.0", "450", "250"]),
        (
            "tables: {table2: {rows: [{pattern: cosine, multiplier: 3, cycles: 1, topology: fixed}]}}",
            ["tables.table2.rows.0", "fixed"],
        ),
        ("readings: {topology: fixed}", ["tables.table2.rows.1", "fixed"]),
        ("recipes: {resnet34-cifar: {cyclic: null}}", ["tables.table2.rows.1", "cyclic"]),
        ("{recipes: {resnet34-cifar: {cyclic: null}}, tables: null}", ["tables"]),
        ("comparison: {margin: 0}", ["comparison.margin"]),
        ("comparison: {level: 1}", ["comparison.level"]),
        ("comparison: {published_seeds: 0}", ["comparison.published_seeds"]),
        ("comparison: {spread: sample}", ["comparison.spread"]),
        ("datasets: {cifar10: null}", ["datasets", "'cifar10'"]),
        ("datasets: {cifar100: null, cifar10: null}", ["datasets", "'cifar10'"]),
        ("title: a\ntitle: b", ["overlay.yaml:2", "'title'", "line 1"]),
        ("[1, 2", ["overlay.yaml", "YAML"]),
        ("- 1", ["overlay.yaml", "mapping"]),
        ("readings: {gradient_clip: {estimator: exact, probes: 2}}", ["readings.gradient_clip", "probes"]),
        ("readings: {gradient_clip: {scope: active, probes: 2}}", ["readings.gradient_clip", "probes"]),
        ("readings: {gradient_clip: {probes: 0}}", ["readings.gradient_clip.probes"]),
        ("readings: {gradient_clip: {every: 0}}", ["readings.gradient_clip.every"]),
        ("readings: {gradient_clip: {estimator: guess}}", ["readings.gradient_clip.estimator", "sketch", "exact"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(overlay, text, named):
    with pytest.raises(EastError) as error:
        load_plan(overlay(text))
    assert [name for name in named if name not in str(error.value)] == []


def test_all_mistakes_are_named_at_once(overlay):
    with pytest.raises(EastError) as error:
        load_plan(overlay("density: 7\nreadings: {spread: wide}"))
    assert len(str(error.value).splitlines()) == 2


def test_an_unknown_run_is_refused_with_examples():
    with pytest.raises(EastError, match=r"table2/nothing/seed1.*table2/static/seed17"):
        paper().run("table2/nothing/seed1")
    with pytest.raises(EastError) as error:
        paper().run("nothing")
    assert "example" not in str(error.value)
