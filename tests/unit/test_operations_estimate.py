import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from east.config import load_plan, make_plan, read_config
from east.cost.parts import Conditions, KindTimes, PartSeconds, at_density, time_kind
from east.cost.timed_training import TimedTraining
from east.data.catalog import DATASETS, steps_per_epoch
from east.models import build_model
from east.operations import disk
from east.operations.disk import data_bytes, run_bytes
from east.operations.estimate import costs, runs_left
from east.operations.kind_seconds import KindSeconds, timed_densities
from east.operations.kinds import Moment, Work, densities, kind_of, remaining_work
from east.operations.parallelism import find_parallelism, wall_seconds
from east.sparse.schedule import Schedule
from east.sparse.timetable import Timetable
from tests.conftest import ROOT
from tests.unit.cost_specs import make_spec
from tests.unit.fake_runs import write_planned_run
from tests.unit.in_process import east

CPU = torch.device("cpu")
TEST_CONFIG = ROOT / "config" / "test.yaml"
PAPER = load_plan()
PARTS = PartSeconds(step=1.0, dense_gradients=10.0, update=100.0, evaluation=1000.0)


def paper_run(run_id):
    return next(run for run in PAPER if run.id == run_id).spec


def test_the_papers_runs_are_of_seven_kinds():
    names = {}
    for run in PAPER:
        names.setdefault(kind_of(run.spec), []).append(run.id)
    assert sorted(map(len, names.values())) == [6, 6, 6, 6, 6, 102, 102]


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "digits"},
        {"width": 4},
        {"activation": "dyrelu"},
        {"sharing_ratio": 2},
        {"dct": True},
        {"topology": "set"},
        {"batch_size": 32},
    ],
)
def test_what_changes_a_step_makes_another_kind(change):
    assert kind_of(make_spec(dataset="digit_pairs")) != kind_of(make_spec(**{"dataset": "digit_pairs"} | change))


def test_seed_and_schedule_make_no_other_kind():
    one = make_spec(epochs=200, update_period=7, density=0.1)
    assert kind_of(one.model_copy(update={"seed": 5})) == kind_of(make_spec(cyclic=True, epochs=100))


@pytest.mark.parametrize("run", ["table2/static/seed17", "table3/triangular-m30-n2-g2/seed17"])
def test_the_work_of_a_run_is_that_of_its_timetable(run):
    spec = paper_run(run)
    work = remaining_work(spec)
    schedule = Schedule.of(spec, steps_per_epoch(spec))
    updates = list(Timetable(schedule))
    assert work.steps.total() == schedule.total_steps == 250 * 352
    assert work.epochs.total() == 250
    assert work.updates.total() == len(updates)
    before = [schedule.density(0), *(update.density for update in updates)]
    growing = [new.density > old or new.kind == "exchange" for old, new in zip(before, updates, strict=False)]
    assert work.dense_gradients.total() == sum(growing)
    # The density of every step: what the update before it has set.
    mean = sum(moment.density * steps for moment, steps in work.steps.items()) / schedule.total_steps
    ends = [*(update.step for update in updates), schedule.total_steps]
    begins = [0, *ends]
    expected = sum(density * (end - begin) for density, begin, end in zip(before, begins, ends, strict=False))
    assert mean == pytest.approx(expected / schedule.total_steps)


def test_dyrelu_is_active_until_it_has_faded():
    work = remaining_work(paper_run("tablemethods/east-w-dyrelu-resnet34-cifar10/seed17"))
    dynamic = sum(epochs for moment, epochs in work.epochs.items() if moment.dynamic)
    assert dynamic == 123  # β is zero from epoch 124 on


def test_fixed_masks_are_never_updated():
    assert remaining_work(make_spec(topology="fixed")).updates.total() == 0


def test_random_growth_needs_no_gradient():
    work = remaining_work(make_spec(topology="set", epochs=4))
    assert work.updates.total() > 0
    assert work.dense_gradients.total() == 0


def test_a_resumed_run_has_the_work_of_its_last_epochs():
    spec = make_spec(cyclic=True, epochs=100)
    whole, begun = remaining_work(spec), remaining_work(spec, 60)
    assert begun.epochs.total() == 40
    assert begun.steps.total() == whole.steps.total() * 40 // 100
    assert begun.updates.total() < whole.updates.total()
    assert begun.steps <= whole.steps
    assert remaining_work(spec, 100) == Work()


def test_densities_are_those_at_which_there_is_work():
    constant, cyclic = (remaining_work(paper_run(f"table2/{row}/seed17")) for row in ("static", "cosine-m10-n1"))
    assert densities([constant])[False] == (0.0005, 0.0005)
    assert densities([constant, cyclic])[False] == pytest.approx((0.0005, 0.005), rel=0.01)
    assert densities([]) == {}


def test_a_narrow_range_of_densities_is_timed_once():
    assert timed_densities(0.01, 0.012) == pytest.approx([0.01095], rel=1e-3)
    assert timed_densities(0.01, 0.1) == pytest.approx([0.01, 0.0316, 0.1], rel=1e-2)


def kind_times(**parts):
    return KindTimes(
        build=1.0, save=2.0, checkpoint_bytes=10, batch=4, parts={(False, d): p for d, p in parts.get("at", {}).items()}
    )


def test_seconds_between_two_densities_follow_the_logarithm():
    timed = KindSeconds([kind_times(at={0.01: PARTS, 1.0: replace(PARTS, step=3.0)})])
    assert timed.at(Moment(False, 0.1)).step == pytest.approx(2.0)
    assert timed.at(Moment(False, 0.01)) == PARTS
    assert timed.at(Moment(False, 0.001)).step == pytest.approx(1.0)


def test_seconds_are_the_means_of_processes():
    timed = KindSeconds([kind_times(at={0.1: PARTS}), kind_times(at={0.1: replace(PARTS, update=300.0)})])
    assert timed.at(Moment(False, 0.1)) == replace(PARTS, update=200.0)


def test_every_part_of_the_work_counts():
    moment = Moment(False, 0.1)
    work = Work()
    work.steps[moment] += 7
    work.dense_gradients[moment] += 3
    work.updates[moment] += 5
    work.epochs[moment] += 2
    assert KindSeconds([kind_times(at={0.1: PARTS})]).of(work) == 7 + 30 + 500 + 2 * (1000 + 2)


def test_jobs_begin_in_order_as_places_become_free():
    assert wall_seconds([3, 1, 1, 3], 2) == 5
    assert wall_seconds([3, 1, 1, 3], 1) == 8
    assert wall_seconds([3, 1], 9) == 3
    assert wall_seconds([], 2) == 0


def test_cores_divided_by_threads_are_runs_at_once():
    def at_once(**settings):
        return find_parallelism("cpu", **({"gpus": None, "runs_per_gpu": 1, "jobs": None} | settings))

    assert (at_once(cores=8, threads=3).runs, at_once(cores=8, threads=3).units_per_run) == (2, 3)
    assert (at_once(cores=2, threads=4).runs, at_once(cores=2, threads=4).units_per_run) == (1, 2)
    assert (at_once(cores=8, threads=2, jobs=50).runs, at_once(cores=8, threads=2, jobs=50).sharing) == (50, 4)


@pytest.fixture
def plan():
    return make_plan(read_config(TEST_CONFIG))


def test_what_is_done_is_left_out(plan, tmp_path):
    done, other, kept, *rest = plan.runs
    runs = tmp_path / "runs"
    write_planned_run(runs, done)
    write_planned_run(runs, other, 50.0, fingerprint="that of another configuration")
    folder = write_planned_run(runs, kept)
    (folder / "summary.json").rename(folder / "summary.kept.json")
    assert [item.run for item in runs_left(plan, tmp_path)] == [other, *rest]


def test_a_checkpoint_of_the_same_run_counts(plan, tmp_path):
    begun, changed, *_ = plan.runs
    for run, epochs in ((begun, 1), (changed, 1)):
        folder = tmp_path / "runs" / run.id
        folder.mkdir(parents=True)
        spec = run.spec if run is begun else run.spec.model_copy(update={"seed": 99})
        (folder / "run.json").write_text(json.dumps(spec.model_dump(mode="json")))
        (folder / f"checkpoint-{epochs:06d}.pt").touch()
    works = [item.work.epochs.total() for item in runs_left(plan, tmp_path)]
    assert works[:3] == [1, 2, 2]


def test_costs_of_tables_and_of_all(plan):
    seconds = {run.id: 10.0 for run in plan.runs if run.table == "table2"}
    tables, total = costs(plan.runs, seconds, dict.fromkeys(seconds, 7), at_once=3)
    assert (tables["table2"].runs, tables["table2"].left) == (4, 4)
    assert (tables["table2"].seconds, tables["table2"].wall_seconds, tables["table2"].disk_bytes) == (40, 20, 28)
    assert (tables["table3"].runs, tables["table3"].left, tables["table3"].wall_seconds) == (2, 0, 0)
    assert (total.runs, total.left, total.seconds) == (6, 4, 40)


def test_disk_is_that_of_the_final_weights_and_the_records():
    spec, longer = (make_spec(activation="dyrelu", width=8, epochs=epochs) for epochs in (4, 8))
    weights = len(save(build_model("resnet34", 10, width=8).state_dict()))
    assert run_bytes(spec) == pytest.approx(weights, rel=0.1)
    updates = remaining_work(longer).updates.total() - remaining_work(spec).updates.total()
    assert run_bytes(longer) - run_bytes(spec) == 4 * disk.EPOCH_RECORDS + updates * disk.UPDATE_RECORDS


def test_data_that_are_not_prepared_need_disk(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "manifest.json").touch()
    assert data_bytes(["digits", "imagenet"], tmp_path) == 0
    assert data_bytes(["cifar10"], tmp_path) == 60_000 * (3 * 32 * 32 + 8) + 170_498_071


def conditions(seconds, engine="dense"):
    return Conditions("cpu", engine, threads=1, side_by_side=1, seconds=seconds)


@pytest.mark.parametrize("engine", ["dense", "auto"])
def test_every_part_of_a_kind_is_timed(tmp_path, one_thread, engine):
    spec = make_spec(activation="dyrelu", width=4, dataset="digits", batch_size=16)
    moments = {True: (0.05,), False: (0.05, 0.1, 0.2)}
    found = time_kind(kind_of(spec), moments, conditions(0.2, engine), tmp_path)
    assert found.build > 0
    assert found.save > 0
    assert found.checkpoint_bytes > 1000
    # The dense engine takes as long at any density.
    expected = {(True, 0.05), (False, 0.1)} | ({(False, 0.05), (False, 0.2)} if engine == "auto" else set())
    assert found.parts.keys() == expected
    assert all(parts.step > 0 and parts.evaluation > 0 and parts.update > 0 for parts in found.parts.values())
    assert list(tmp_path.iterdir()) == []


def test_a_slow_step_is_told_from_few_images(one_thread, monkeypatch):
    training = TimedTraining(at_density(kind_of(make_spec(width=4, batch_size=128)), 0.05), CPU, "dense")

    def steps(images, window):
        training.batch = images
        return 2.0 + images / 4

    monkeypatch.setattr(training, "_time_steps", steps)
    assert training.time_step(window=1.0, affordable=16.0) == pytest.approx(2 + 128 / 4)
    assert training.batch < 128


def test_steps_that_can_be_afforded_are_timed_whole(one_thread, monkeypatch):
    training = TimedTraining(at_density(kind_of(make_spec(width=4, batch_size=128)), 0.05), CPU, "dense")

    def steps(images, window):
        training.batch = images
        return 0.01

    monkeypatch.setattr(training, "_time_steps", steps)
    assert training.time_step(window=1.0, affordable=16.0) == 0.01
    assert training.batch == 128


def test_timing_draws_images_of_the_runs_shape(one_thread):
    training = TimedTraining(at_density(kind_of(make_spec(dataset="digit_pairs", width=4)), 0.05), CPU, "dense")
    images, labels = next(training._endless_batches(5))
    assert images.shape == (5, *DATASETS["digit_pairs"].image_shape)
    assert labels.shape == (5,)


def test_a_finished_plan_costs_nothing(plan, tmp_path):
    for run in plan.runs:
        write_planned_run(tmp_path / "runs", run)
    done = east("estimate", "--configfile", TEST_CONFIG, "--results", tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "Everything is done."
    assert done.stdout.splitlines()[-3].split() == ["total", "6", "6", "0", "0", "0", "s", "0", "bytes"]


def test_an_engine_that_is_not_there_is_named(tmp_path):
    done = east("estimate", "--configfile", TEST_CONFIG, "--results", tmp_path, "--engine", "quick")
    assert done.returncode == 2
    assert all(word in done.stderr for word in ("--engine", "quick", "'auto', 'dense', 'sparse'"))


@pytest.mark.slow
def test_the_test_plan_is_estimated_as_json(tmp_path):
    done = east("estimate", "--configfile", TEST_CONFIG, "--results", tmp_path, "--json", "--seconds", "0.5")
    found = json.loads(done.stdout)
    assert found["total"]["runs"] == found["total"]["left"] == len(found["run_seconds"]) == 6
    assert found["total"]["seconds"] == pytest.approx(sum(found["run_seconds"].values()))
    assert found["start_seconds"] > 0.5
    assert [kind["runs"] for kind in found["kinds"]] == [6]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_it_without_a_word_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "east", "estimate", "--configfile", TEST_CONFIG, "--results", tmp_path]
    process = subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    while not any(tmp_path.iterdir()):  # the folder of its checkpoints: processes that time begin
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate() == ("", "")
    assert process.returncode == 130
    assert not any(tmp_path.iterdir())
