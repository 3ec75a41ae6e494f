"""`east try`: one run by its names, and the entry of a configuration that makes it a row."""

import pytest
import yaml

from east.config import load_plan, make_plan, read_config
from east.config.run import CycleSpec, ModelSpec
from east.operations.trial import make_trial, methods, settings_of_runs
from tests.unit.in_process import east
from tests.unit.test_extending import place as place

OTHERS = "tables: {table2: null, table3: null, table4: null, table5: null}\n"
"""The paper's tables, of which these tests need none."""

SHORT = ("training.epochs=3",)


def planned(trial, folder):
    """What the configuration plans under the entry, as it is printed."""
    (folder / "others.yaml").write_text(OTHERS)
    (folder / "entry.yaml").write_text(f"name: mine\n{trial.text()}")
    return make_plan(read_config(folder / "others.yaml", folder / "entry.yaml"))


@pytest.mark.parametrize("method", ["east", "rigl", "set", "set-itop", "gradual-pruning", "granet"])
def test_the_entry_plans_the_run_that_is_tried(method, tmp_path):
    trial = make_trial("resnet34", "digits", method, density=0.01, settings=SHORT)
    rows = [run for run in planned(trial, tmp_path).runs if run.table == trial.run.table]
    assert trial.run.fingerprint in [run.fingerprint for run in rows]
    assert {run.label for run in rows} == {trial.run.label}


def test_a_seed_of_ones_own_is_in_the_entry(tmp_path):
    trial = make_trial("resnet34", "digits", "rigl", density=0.01, settings=SHORT, seed=5)
    assert trial.run.spec.seed == 5
    assert trial.run.fingerprint in [run.fingerprint for run in planned(trial, tmp_path).runs]
    known = make_trial("resnet34", "digits", "rigl", density=0.01, settings=SHORT, seed=41)
    assert (known.run.spec.seed, "seeds" in known.entry) == (41, False)


def test_the_papers_system_has_all_its_parts():
    spec = make_trial("resnet34", "digits", "east", density=0.001, settings=SHORT).run.spec
    assert spec.model == ModelSpec(name="resnet34", width=64, activation="dyrelu", sharing_ratio=2)
    assert spec.cycle == CycleSpec(
        pattern="cosine", multiplier=10, cycles=2, cycle_length=0.6, update_period=spec.cycle.update_period
    )
    assert spec.sparsity.density == 0.001


def test_the_recipe_is_that_of_the_network_and_data_and_keeps_its_proportions():
    paper = next(run.spec for run in load_plan() if run.id == "table2/static/seed17")
    like_it = make_trial("resnet34", "cifar10", "rigl").run.spec
    assert (like_it.training, like_it.model, like_it.dataset) == (paper.training, paper.model, paper.dataset)
    assert like_it.sparsity.update_period == paper.sparsity.update_period
    half = make_trial("resnet34", "cifar10", "east", settings=["training.epochs=125"]).run.spec
    assert half.training.lr_drop_epochs == (38, 75)
    assert (half.cycle.cycle_length, half.cycle.update_period) == (25, 350)
    assert half.training.batch_size == 128
    short = make_trial("resnet34", "digits", "rigl", density=0.01, settings=SHORT).run.spec
    assert short.training.batch_size == 32
    assert short.sparsity.update_period == 12
    assert (
        make_trial("resnet50", "digits", "rigl", settings=SHORT, density=0.01).run.spec.training.optimizer.name == "sgd"
    )


@pytest.mark.parametrize(("epochs", "drops"), [(1, ()), (2, (1,)), (250, (75, 150))])
def test_drops_of_the_rate_lie_within_however_short_a_training(epochs, drops):
    settings = [f"training.epochs={epochs}"]
    spec = make_trial("resnet34", "digits", "rigl", density=0.01, settings=settings).run.spec
    assert spec.training.lr_drop_epochs == drops


@pytest.mark.parametrize(("held_out", "batch"), [(157, 32), (189, 32), (190, 16), (1300, 16)])
def test_batches_are_halved_until_an_epoch_has_enough_steps_or_they_are_small(held_out, batch):
    settings = [*SHORT, f"dataset.validation={held_out}"]
    spec = make_trial("resnet34", "digits", "rigl", density=0.01, settings=settings).run.spec
    assert spec.training.batch_size == batch


SETTINGS = {
    "rigl": {
        "training.lr_drop_epochs=[2]": lambda spec: spec.training.lr_drop_epochs == (2,),
        "training.warmup_epochs=1": lambda spec: spec.training.warmup_epochs == 1,
        "training.lr=0.05": lambda spec: spec.training.lr == 0.05,
        "training.batch_size=128": lambda spec: spec.training.batch_size == 128,
        "training.weight_decay=1e-4": lambda spec: spec.training.weight_decay == 1e-4,
        "training.optimizer={name: adamw}": lambda spec: spec.training.optimizer.name == "adamw",
        "training.gradient_clip=null": lambda spec: spec.training.gradient_clip is None,
        "training.numerics=fp32": lambda spec: spec.training.numerics == "fp32",
        "model.width=4": lambda spec: spec.model.width == 4,
        "model.activation=dyrelu": lambda spec: spec.model.activation == "dyrelu",
        "sparsity.topology.grow=random": lambda spec: spec.sparsity.topology == "set",
        "sparsity.update_period=7": lambda spec: spec.sparsity.update_period == 7,
        "sparsity.update_on_last_step=true": lambda spec: spec.sparsity.update_on_last_step,
        "dataset.flip=true": lambda spec: spec.dataset.flip,
        "dataset.augment_validation=false": lambda spec: not spec.dataset.augment_validation,
    },
    "set-itop": {"sparsity.topology.drop=threshold": lambda spec: spec.sparsity.topology.grow == "random"},
    "set": {"sparsity.distribution=erk": lambda spec: spec.sparsity.distribution == "erk"},
    "gradual-pruning": {"density_schedule=linear": lambda spec: spec.density_schedule == "linear"},
    "east": {
        "cycle.multiplier=3": lambda spec: spec.cycle.multiplier == 3,
        "cycle.cycle_length=1": lambda spec: spec.cycle.cycle_length == 1,
        "cycle.update_period=9": lambda spec: spec.cycle.update_period == 9,
        "cycle.end=as_coded": lambda spec: spec.cycle.end == "as_coded",
        "phasing.freeze=true": lambda spec: spec.phasing.freeze,
    },
}
"""Method -> what is set of it, and whether a run has it."""


@pytest.mark.parametrize("method", SETTINGS)
def test_every_part_of_a_run_can_be_set(method):
    settings = SETTINGS[method]
    spec = make_trial("resnet34", "digits", method, density=0.01, settings=[*SHORT, *settings]).run.spec
    assert [setting for setting, has_it in settings.items() if not has_it(spec)] == []


def test_what_can_be_set_is_what_decides_a_run():
    described = {"training.lr", "model.width", "sparsity.density", "cycle.cycles", "dataset.margin", "phasing.freeze"}
    assert described <= settings_of_runs().keys()
    assert not {"model.name", "dataset.name", "phasing.start", "seed", "revision"} & settings_of_runs().keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resnet43", "digits"], "no network 'resnet43'. Did you mean resnet34?"),
        (["resnet34", "digit"], "no data set 'digit'. Did you mean digits?"),
        (["resnet34", "digits", "--method", "rigel"], "no method 'rigel'. Did you mean rigl?"),
        (["resnet34", "digits", "--set", "training.epoch=3"], "Did you mean training.epochs?"),
        (["resnet34", "digits", "--set", "training.epochs"], "write KEY=VALUE"),
        (["resnet34", "digits", "--set", "dataset.padding={"], "not valid YAML"),
        (["resnet34", "digits", "--set", "training.epochs=none"], "the run that is tried: recipes."),
        (["resnet34", "digits", "--set", "training.epochs=true"], "the run that is tried: recipes."),
        (["resnet34", "digits", "--set", "training.epochs=0"], "the run that is tried: recipes."),
        (["resnet34", "digits", "--density", "1e-7", *("--set", "training.epochs=3")], "Choose at least"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_is_trained(words, said, place):
    done = east("try", *words, folder=place)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert not (place / "results").exists()


def test_methods_are_the_papers_and_those_of_the_example():
    assert next(iter(methods())) == "east"
    assert {"rigl", "set", "snfs", "mest", "granet", "gradual-pruning"} <= methods().keys()


def test_a_rule_of_ones_own_can_be_tried(place, tmp_path):
    east("new", "growth", "my_rule", folder=place)
    words = ("--method", "rigl", "--density", 0.01, "--set", "training.epochs=3", "--plugin", "my_rule.py")
    done = east(
        "try", "resnet34", "digits", *words, "--set", "sparsity.topology.grow=my_rule", "--dry-run", folder=place
    )
    assert done.returncode == 0, done.stderr
    entry = yaml.safe_load(done.stdout)
    assert entry["plugins"] == ["my_rule.py"]
    assert entry["tables"]["tableTry"]["rows"][0]["topology"]["grow"] == "my_rule"


@pytest.mark.slow
@pytest.mark.usefixtures("own_machine")
def test_a_run_is_trained_shown_and_printed_once(place, data_dir):
    words = (
        "try",
        "resnet34",
        "digits",
        "--method",
        "rigl",
        "--density",
        0.05,
        "--data-dir",
        data_dir,
        "--device",
        "cpu",
    )
    words += ("--threads", 1, "--set", "training.epochs=1", "--set", "model.width=4")
    first = east(*words, folder=place)
    assert first.returncode == 0, first.stderr
    view, _, entry = first.stdout.partition("# As a row")
    assert "Test accuracy (%) by epoch" in view
    assert "tableTry" in yaml.safe_load(entry.partition("\n")[2])["tables"]
    (folder,) = (place / "results" / "try" / "runs").glob("resnet34-digits/rigl-*/seed17")
    made = (folder / "summary.json").stat().st_mtime_ns
    again = east(*words, folder=place)
    assert (again.stdout, (folder / "summary.json").stat().st_mtime_ns) == (first.stdout, made)
    assert f"# {folder.relative_to(place)}" in first.stdout


def test_no_weights_are_shared_where_no_block_repeats():
    shared = [make_trial(model, "cifar10", "east").run.spec.model.sharing_ratio for model in ("resnet34", "vgg16")]
    assert shared == [2, None]
