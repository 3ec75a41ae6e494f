"""What the commands that do the work ask of the package, by their options, the environment and what is on disk."""

import json
import os
import sys
from contextlib import contextmanager

import pytest

from east.analysis.sources import Request, Sources
from east.checkout import sources
from east.cli.common import CORES
from east.config import read_config
from east.config.plan import cost_plan
from east.cost.timing import Conditions
from east.launch.lease import Lease
from east.operations.estimate import Cost, Estimate, Parallelism
from east.training.interrupt import Interruption
from east.training.records import read_summary
from east.training.run import Resources
from tests.unit.cli_views import on_a_terminal
from tests.unit.cost_specs import make_spec
from tests.unit.fake_runs import PLAN, TEST_CONFIG, write_planned_run
from tests.unit.in_process import east

pytestmark = pytest.mark.usefixtures("own_machine")

RUN = PLAN["table2/static/seed1"]
CONFIGURED = ("--configfile", TEST_CONFIG)


@pytest.fixture
def prepared(monkeypatch):
    """The data sets that were asked for, each as it was."""
    asked = []

    def prepare(images, data_dir, *, folder, plugins):
        asked.append((images.name, data_dir, folder))
        return "done"

    monkeypatch.setattr("east.data.prepare.prepare", prepare)
    return asked


@pytest.fixture
def trained(monkeypatch, tmp_path, prepared):
    """The trainings that were asked for; each leaves the summary of the same run."""
    asked = []

    def train(*arguments, began):
        asked.append((*arguments, began))
        return read_summary(write_planned_run(tmp_path / "left", RUN) / "summary.json")

    monkeypatch.setattr("east.training.run.train", train)
    return asked


def test_a_data_set_is_prepared_where_it_is_wanted(prepared, tmp_path, monkeypatch):
    assert east("prepare", "digits").stdout == "done\n"
    monkeypatch.setenv("EAST_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("EAST_IMAGE_FOLDER", str(tmp_path / "images"))
    east("prepare", "imagenet")
    east("prepare", "fashion_mnist")
    east("prepare", "fashion_mnist", "--folder", tmp_path / "own")
    assert [tuple(map(str, one)) for one in prepared] == [
        ("digits", "data", "None"),
        ("imagenet", str(tmp_path), str(tmp_path / "images")),
        ("fashion_mnist", str(tmp_path), "None"),
        ("fashion_mnist", str(tmp_path), str(tmp_path / "own")),
    ]


def test_a_training_has_what_options_and_environment_say(trained, prepared, tmp_path, monkeypatch):
    run, out = tmp_path / "run.json", tmp_path / "results" / "runs" / "table2" / "static" / "seed1"
    run.write_text(RUN.spec.canonical_json())
    folders = json.dumps({"digits": {"images": {"name": "digits"}, "folder": f"{tmp_path}/images"}})
    environment = {"DATA_DIR": tmp_path / "data", "DATASETS": folders, "DEVICE": "cuda", "GPUS": "7"}
    environment |= {"ENGINE": "dense", "STEP": "captured", "RUNS_PER_GPU": "2", "PLANNED_RUNS": "9"}
    for name, value in environment.items():
        monkeypatch.setenv(f"EAST_{name}", str(value))
    with on_a_terminal(columns=120):
        done = east("train", "--run", run, "--out", out, "--threads", "3")
    assert done.returncode == 0
    ((spec, folder, resources, hooks, began),) = trained
    assert (spec, folder, began) == (RUN.spec, out, sources())
    assert resources == Resources(
        "cuda", "dense", 3, tmp_path / "data", tmp_path / "images", "7", 2, "captured", (tmp_path,)
    )
    assert isinstance(hooks[-1], Interruption)
    assert prepared == [("digits", tmp_path / "data", tmp_path / "images")]
    assert "table2/static/seed1" in done.stderr
    assert "runs/table2/static/seed1" not in done.stderr
    assert f"0/{RUN.spec.training.epochs}" in done.stderr  # epochs of a bar
    assert done.stdout.startswith(RUN.id)
    assert done.stdout.endswith("  [0/9]\n")


def test_a_finished_run_needs_no_gpu_and_neither_does_a_cpu(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("EAST_GPUS", "7")
    asked = ("train", "--run", RUN.spec.canonical_json(), "--data-dir", tmp_path)
    east(*asked, "--out", tmp_path / "new")
    east(*asked, "--out", tmp_path / "new", "--device", "cpu")
    east(*asked, "--out", write_planned_run(tmp_path, RUN, 50.0, fingerprint="of another run"))
    east(*asked, "--out", write_planned_run(tmp_path, RUN))
    assert [(one[2].gpu, one[2].runs_per_device) for one in trained] == [("7", 1), (None, 1), ("7", 1), (None, 1)]


@pytest.mark.parametrize(
    ("dataset", "is_there", "looked_at"),
    [("digits", True, True), ("digits", False, True), ("imagenet", True, False), ("imagenet", False, True)],
)
def test_data_are_looked_at_first_unless_that_takes_minutes(trained, prepared, tmp_path, dataset, is_there, looked_at):
    (tmp_path / dataset).mkdir()
    if is_there:
        (tmp_path / dataset / "manifest.json").touch()
    spec = make_spec(dataset=dataset).canonical_json()
    east("train", "--run", spec, "--out", tmp_path / "out", "--data-dir", tmp_path, "--device", "cpu")
    assert (len(trained), prepared) == (1, [(dataset, tmp_path, None)] * looked_at)


# east cost

ROWS = [
    {"method": "RigL", "param_size_mb": 1.0, "est_total_mb": 2.345, "trainable_parameters": 5, "nonzeros": 3}
    | {"seconds_per_step": 0.25, "measured_on": "a machine"}
]


COST_PLAN = cost_plan(read_config(TEST_CONFIG))
REQUEST = Request(step="cost", of={"cost_plan": COST_PLAN.model_dump(mode="json")})
ASKED = ("cost", "--request", REQUEST.text)


@pytest.fixture
def costs(monkeypatch):
    """What was to be measured, and how."""
    asked = []
    monkeypatch.setattr("east.cost.table6.measured_cost", lambda what, **how: asked.append((what, how)) or ROWS)
    return asked


def test_costs_are_measured_as_options_say(costs):
    east("cost", *CONFIGURED)
    options = ("--device", "cpu", "--engine", "dense", "--step", "eager", "--threads", "1", "--no-measure")
    east("cost", *CONFIGURED, *options, "--model", "resnet50", "--dataset", "digit_pairs")
    how = {"device": "auto", "engine": "auto", "step": "auto", "threads": CORES, "measure": True}
    other = {"device": "cpu", "engine": "dense", "step": "eager", "threads": 1, "measure": False}
    assert costs == [(COST_PLAN, how), (cost_plan(read_config(TEST_CONFIG), "resnet50", "digit_pairs"), other)]


def test_costs_are_printed_or_written(costs, tmp_path, monkeypatch):
    monkeypatch.setenv("EAST_RESULTS", str(tmp_path / "results"))  # which counts for the workflow's requests alone
    assert east("cost", *CONFIGURED).stdout.splitlines() == [
        "method  param_size_mb  est_total_mb  trainable_parameters  nonzeros  seconds_per_step",
        "RigL    1.00           2.35          5                     3         0.25",
    ]
    monkeypatch.delenv("EAST_RESULTS")
    assert json.loads(east(*ASKED, "--json").stdout) == ROWS
    assert east(*ASKED, "--out", tmp_path / "costs.json").stdout == ""
    assert json.loads((tmp_path / "costs.json").read_text()) == ROWS


def test_the_workflow_asks_for_costs_by_its_plan(costs, tmp_path, monkeypatch):
    monkeypatch.setenv("EAST_RESULTS", str(tmp_path))
    done = east(*ASKED)
    assert (done.returncode, done.stdout) == (0, "")
    written = Sources(tmp_path, {"cost/cost": REQUEST.digest}).derived(tmp_path / "cost" / "cost.json")
    assert json.loads(written) == ROWS
    assert [what for what, _ in costs] == [COST_PLAN]


def gpu_alone(asked, lease):
    """In place of the function of this name: notes how it was asked."""

    @contextmanager
    def take(runs_per_gpu, *, wait):
        asked.append((runs_per_gpu, wait))
        yield lease

    return take


@pytest.mark.parametrize(
    ("options", "taken"),
    [((), [(1, True)]), (("--runs-per-gpu", "3"), [(3, True)]), (("--device", "cpu"), []), (("--no-measure",), [])],
)
def test_a_gpu_is_taken_only_where_something_is_timed_there(costs, monkeypatch, options, taken):
    monkeypatch.setattr("east.cli.runs.gpu_alone", gpu_alone(asked := [], Lease("0")))
    done = east(*ASKED, *options)
    assert (asked, done.stderr) == (taken, "")


def test_on_a_part_of_a_gpu_nothing_is_timed(costs, monkeypatch):
    monkeypatch.setattr("east.cli.runs.gpu_alone", gpu_alone([], Lease("0", runs=2)))
    assert "no steps are timed" in east(*ASKED).stderr
    assert costs[0][1]["measure"] is False


# east estimate

FOUND = Estimate({}, Cost(runs=1, left=1, seconds=1.0, wall_seconds=1.0, disk_bytes=1))


@pytest.fixture
def estimated(monkeypatch):
    """Function from options to: how a GPU was taken, what runs at once were found from, how steps were to be timed."""
    gpus, parallel, timed = [], [], []

    def estimate(plan, folder, conditions, at_once, report):
        report("timing something")
        timed.append((plan.config.name, str(folder), conditions, at_once))
        return FOUND

    at_once = Parallelism(runs=4, unit="GPU", units_per_run=0.5, sharing=2)

    def find(device, **how):
        parallel.append((device, how))
        return at_once

    module = sys.modules["east.cli.estimate"]  # whose name in its package is the command's
    monkeypatch.setattr(module, "gpu_alone", gpu_alone(gpus, Lease("0", runs=2)))
    monkeypatch.setattr("east.operations.estimate.find_parallelism", find)
    monkeypatch.setattr("east.operations.estimate.estimate", estimate)
    monkeypatch.setattr("east.training.device.choose_device", lambda name: name)
    monkeypatch.setattr("east.training.provenance.device_name", lambda device: f"the {device} of this machine")
    monkeypatch.setenv("EAST_GPUS", "0,1")

    def ask(*options):
        for asked in (gpus, parallel, timed):
            asked.clear()
        done = east("estimate", *CONFIGURED, *options)
        assert done.returncode == 0, done.stderr
        assert [one[-1] for one in timed] == [at_once]
        return done, gpus, parallel, [one[:-1] for one in timed]

    return ask


def test_an_estimate_is_of_the_configuration_or_of_what_options_say(estimated, overlay, tmp_path):
    execution = "{device: auto, engine: dense, threads: auto, runs_per_gpu: 3, step: eager}"
    configured = ("--configfile", overlay(f"execution: {execution}"))
    _, gpus, parallel, timed = estimated(*configured, "--cores", "4")
    assert gpus == [(3, False)]
    # Six dense runs on four cores end soonest with two threads each.
    assert parallel == [("auto", {"cores": 4, "threads": 2, "gpus": 2, "runs_per_gpu": 3, "jobs": None})]
    assert timed == [("test", "results/test", Conditions("auto", "dense", 2, 2, 3.0, "eager"))]

    options = ("--device", "cuda", "--engine", "sparse", "--step", "captured", "--threads", "1", "--gpus", "5")
    options += ("--runs-per-gpu", "6", "--jobs", "7", "--seconds", "0.5", "--results", str(tmp_path))
    _, gpus, parallel, timed = estimated(*configured, *options, "--cores", "8")
    assert gpus == [(6, False)]
    assert parallel == [("cuda", {"cores": 8, "threads": 1, "gpus": 5, "runs_per_gpu": 6, "jobs": 7})]
    assert timed == [("test", str(tmp_path), Conditions("cuda", "sparse", 1, 2, 0.5, "captured"))]


def test_an_estimate_for_cpus_takes_no_gpu(estimated, monkeypatch):
    monkeypatch.setenv("EAST_GPUS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done, gpus, ((device, asked),), _ = estimated("--cores", "2", "--json")
    assert (device, gpus, asked["gpus"], json.loads(done.stdout)["disturbed"]) == ("cpu", [], None, False)


def test_an_estimate_beside_others_on_a_gpu_says_so(estimated):
    with on_a_terminal(columns=100):
        done, *_ = estimated("--device", "auto")
    assert "No GPU was free" in done.stdout
    assert "timing something" in done.stderr
    assert "on the auto of this machine" in " ".join(done.stdout.split())
    assert json.loads(estimated("--device", "auto", "--json")[0].stdout)["disturbed"] is True


def test_what_is_looked_at_by_the_doctor_is_what_options_say(monkeypatch, tmp_path):
    looked_at = []
    monkeypatch.setattr("east.operations.doctor.checks.examine", lambda here: looked_at.append(here) or {})
    east("doctor", *CONFIGURED, folder=tmp_path)
    east("doctor", *CONFIGURED, "--thorough", "--results", tmp_path / "results")
    assert [(here.plan.config.name, here.configfiles) for here in looked_at] == [("test", (TEST_CONFIG,))] * 2
    assert [here.thorough for here in looked_at] == [False, True]
    assert [str(here.results) for here in looked_at] == ["results/test", str(tmp_path / "results")]
    assert (looked_at[0].ask.folder, looked_at[0].ask.environment) == (tmp_path, os.environ)
