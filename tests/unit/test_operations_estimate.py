import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save

from east.cli.estimate import _explanation
from east.config import RunSpec, load_plan, make_plan, read_config
from east.cost import timing
from east.cost.measure import random_images
from east.cost.timing import (
    Conditions,
    KindTimes,
    PartSeconds,
    Situation,
    Stopwatch,
    time_kind,
    timed_batch,
)
from east.data.catalog import steps_per_epoch
from east.models import build_model
from east.operations.disk import disk_need
from east.operations.estimate import (
    Cost,
    Estimate,
    Parallelism,
    costs,
    estimate,
    find_parallelism,
    runs_left,
    wall_seconds,
)
from east.operations.kinds import KindSeconds, describe_kind, kind_of, remaining_phases, situations
from east.sparse.schedule import Schedule
from east.sparse.timetable import Phase, Timetable
from east.training.assembly import Training
from east.training.hooks import Hook
from east.training.loop import run_loop
from tests.conftest import ROOT
from tests.unit.cost_specs import make_spec
from tests.unit.fake_runs import TEST_CONFIG, write_planned_run
from tests.unit.in_process import east

CPU = torch.device("cpu")
NAP = 0.5
PAPER = load_plan()
PARTS = PartSeconds(step=1.0, dense_gradients=10.0, update=100.0, evaluation=1000.0)


def paper_run(run_id):
    return next(run for run in PAPER if run.id == run_id).spec


def test_a_kind_keeps_of_a_run_what_sets_the_time_of_its_steps():
    spec = paper_run("tablemethods/east-combined-resnet34-cifar100/seed17")
    settings = spec.model_dump()
    settings["dataset"] |= {"padding": "reflect", "validation_choice": "shuffled"}
    settings["sparsity"] |= {"drop_fraction": 0.3, "drop_fraction_end": 0.1}
    settings["training"]["gradient_clip"]["norm"] = 5.0
    spec = RunSpec.model_validate(settings)
    kind, expected = kind_of(spec).model_dump(), spec.model_dump()
    assert None not in (spec.cycle, spec.phasing)
    expected |= {"seed": 0, "cycle": None, "phasing": None}
    expected["dataset"] |= {"name": "cifar10", "padding": "zero", "validation_choice": "last"}
    expected["sparsity"] |= {"density": 1.0, "drop_fraction": 0.2, "drop_fraction_end": 0.2}
    expected["sparsity"] |= {"update_period": 1, "update_on_last_step": True}
    expected["training"] |= {"epochs": 1, "lr": 1e-6, "lr_drop_epochs": (), "lr_drop_factor": 1.0, "weight_decay": 0.0}
    expected["training"]["gradient_clip"]["norm"] = 1.0
    assert kind == expected
    assert kind_of(make_spec()).training.gradient_clip is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (make_spec(), "resnet34 of width 8, 64 images of 12 x 12"),
        (make_spec(dataset="digit_pairs", dct=True), "resnet34 of width 8 + DCT, 64 images of 8 x 16"),
        (
            make_spec(activation="dyrelu", sharing_ratio=2),
            "resnet34 of width 8 + DyReLU + sharing 2, 64 images of 12 x 12",
        ),
    ],
)
def test_a_kind_is_described_by_network_and_images(spec, words):
    assert describe_kind(kind_of(spec)) == words


def total(phases, what):
    return sum(getattr(phase, what) for phase in phases)


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


@pytest.mark.parametrize("run", ["table2/static/seed17", "table3/triangular-m30-n2-g2/seed17"])
def test_what_a_run_does_is_what_its_timetable_has(run):
    spec = paper_run(run)
    phases = remaining_phases(spec)
    schedule = Schedule.of(spec, steps_per_epoch(spec))
    updates = list(Timetable(schedule))
    assert total(phases, "steps") == schedule.total_steps == 250 * 352
    assert total(phases, "epochs") == 250
    assert total(phases, "updates") == len(updates)
    before = [schedule.density(0), *(update.density for update in updates)]
    growing = [new.density > old or new.kind == "exchange" for old, new in zip(before, updates, strict=False)]
    assert total(phases, "dense_gradients") == sum(growing)
    # The density of every step: what the update before it has set.
    mean = sum(phase.density * phase.steps for phase in phases) / schedule.total_steps
    ends = [*(update.step for update in updates), schedule.total_steps]
    begins = [0, *ends]
    expected = sum(density * (end - begin) for density, begin, end in zip(before, begins, ends, strict=False))
    assert mean == pytest.approx(expected / schedule.total_steps)


def test_dyrelu_is_active_until_it_has_faded():
    phases = remaining_phases(paper_run("tablemethods/east-w-dyrelu-resnet34-cifar10/seed17"))
    assert sum(phase.epochs for phase in phases if phase.dynamic) == 123  # β is zero from epoch 124 on
    assert situations(phases)[0].dynamic  # DyReLU retires for good
    assert not situations(phases)[-1].dynamic


def test_masks_and_gradients_are_looked_at_where_the_rule_does():
    assert total(remaining_phases(make_spec(topology="fixed")), "updates") == 0
    random = remaining_phases(make_spec(topology="set", epochs=4))
    assert total(random, "updates") > 0
    assert total(random, "dense_gradients") == 0


def test_a_resumed_run_does_its_last_epochs():
    spec = make_spec(cyclic=True, epochs=100)
    whole, begun = remaining_phases(spec), remaining_phases(spec, 60)
    assert total(begun, "epochs") == 40
    assert total(begun, "steps") == total(whole, "steps") * 40 // 100
    assert 0 < total(begun, "updates") < total(whole, "updates")
    assert remaining_phases(spec, 100) == ()


def test_a_kind_is_timed_where_its_densities_lie():
    constant, cyclic = (remaining_phases(paper_run(f"table2/{row}/seed17")) for row in ("static", "cosine-m10-n1"))
    assert situations(constant) == [Situation(False, pytest.approx(0.0005))]
    assert [each.density for each in situations([*constant, *cyclic])] == pytest.approx(
        [0.0005, 0.00158, 0.005], rel=0.01
    )
    # A narrow range is timed once.
    narrow = [Phase(density, False, steps=1) for density in (0.01, 0.012)]
    assert [each.density for each in situations(narrow)] == pytest.approx([0.01095], rel=1e-3)
    # Half as much again is narrow; twice as much is not. Where no step is made nothing is timed.
    edges = {0.5: [0.75], 0.25: [0.5], 1.0: [1.0]}
    for low, highs in edges.items():
        phases = [Phase(density, False, steps=1) for density in (low, *highs)]
        timed = situations([*phases, Phase(0.001, False, updates=1)])
        assert len(timed) == (3 if highs[0] == 2 * low else 1)
    assert situations([]) == []


def kind_seconds(*found):
    """Of a kind that each process has timed at these densities."""
    return KindSeconds(
        [
            KindTimes(1.0, 2.0, 10, batch=4, parts={Situation(False, density): parts for density, parts in one.items()})
            for one in found
        ]
    )


def test_seconds_between_two_densities_follow_the_logarithm_and_are_means_of_processes():
    timed = kind_seconds({0.01: PARTS, 1.0: replace(PARTS, step=3.0)})
    assert timed.at(Situation(False, 0.1)).step == pytest.approx(2.0)
    assert timed.at(Situation(False, 0.01)) == PARTS
    assert timed.at(Situation(False, 0.001)).step == pytest.approx(1.0)
    of_two = kind_seconds({0.1: PARTS}, {0.1: replace(PARTS, update=300.0)})
    assert of_two.at(Situation(False, 0.1)) == replace(PARTS, update=200.0)


def test_a_kind_is_the_mean_of_processes_with_the_largest_checkpoint_and_the_fewest_images():
    parts = {Situation(dynamic, density): PARTS for dynamic, density in ((True, 0.1), (False, 1.0), (False, 0.01))}
    parts[Situation(False, 1.0)] = replace(PARTS, evaluation=3000.0)
    parts[Situation(True, 0.1)] = replace(PARTS, evaluation=9.0)
    first, second = KindTimes(1.0, 2.0, 10, batch=64, parts=parts), KindTimes(3.0, 6.0, 30, batch=32, parts=parts)
    for found in ([first, second], [second, first]):
        timed = KindSeconds(found)
        assert (timed.build, timed.save, timed.checkpoint_bytes, timed.batch) == (2.0, 4.0, 30, 32)
    assert timed.at(Situation(False, 0.1)).evaluation == pytest.approx(2000.0)
    assert timed.at(Situation(True, 0.3)).evaluation == 9.0
    dynamic = [Phase(0.1, True, steps=4, epochs=1)]
    assert KindSeconds([first]).of(dynamic) == 4 * 1.0 + 9.0 + 2.0


def test_every_part_of_a_run_counts():
    phases = [Phase(0.1, False, steps=7, updates=5), Phase(0.1, False, dense_gradients=3, epochs=2)]
    timed = kind_seconds({0.1: replace(PARTS, step=4.0)})
    assert timed.of(phases) == 28 + 30 + 500 + 2 * (1000 + 2)


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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Parallelism(6, "GPU", 1 / 3, 3)),
        ({"gpus": 1}, Parallelism(3, "GPU", 1 / 3, 3)),
        ({"jobs": 50}, Parallelism(50, "GPU", 1 / 3, 3)),
        ({"jobs": 2}, Parallelism(2, "GPU", 1 / 3, 2)),
    ],
)
def test_on_gpus_runs_share_each_of_them(monkeypatch, settings, expected):
    monkeypatch.setattr("east.operations.estimate.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = {"cores": 8, "threads": 1, "gpus": None, "runs_per_gpu": 3, "jobs": None} | settings
    assert find_parallelism("cuda", **asked) == expected


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
    begun, changed, at_once, *_ = plan.runs
    for run, epochs in ((begun, 1), (changed, 1), (at_once, None)):
        folder = tmp_path / "runs" / run.id
        folder.mkdir(parents=True)
        spec = run.spec.model_copy(update={"seed": 99}) if run is changed else run.spec
        (folder / "run.json").write_text(json.dumps(spec.model_dump(mode="json")))
        if epochs:
            (folder / f"checkpoint-{epochs:06d}.pt").touch()
    epochs = [total(item.phases, "epochs") for item in runs_left(plan, tmp_path)]
    assert epochs[:4] == [1, 2, 2, 2]


def test_what_is_timed_is_multiplied_by_what_is_left(plan, tmp_path, monkeypatch):
    """Two of the smallest plan's runs are of another kind; of the others one is done and one is half done."""

    def wider(run):
        model = run.spec.model.model_copy(update={"width": 8})
        return run.model_copy(update={"spec": run.spec.model_copy(update={"model": model})})

    runs = tuple(wider(run) if run.table == "table3" else run for run in plan.runs)
    plan = type(plan)(plan.config, runs, plan.tables)
    assert [run.table for run in runs] == 4 * ["table2"] + 2 * ["table3"]
    monkeypatch.chdir(tmp_path)  # where no data are prepared
    results = tmp_path / "results" / "test"
    write_planned_run(results / "runs", runs[0])
    (folder := results / "runs" / runs[1].id).mkdir(parents=True)
    (folder / "run.json").write_text(runs[1].spec.canonical_json())
    (folder / "checkpoint-000001.pt").touch()
    small, large = kind_of(runs[1].spec), kind_of(runs[4].spec)
    asked, said, seconds_of_a_process = [], [], [15.0]

    def time_kinds(kinds, conditions, where, report):
        asked.append((conditions, where, {kind: list(found) for kind, found in kinds.items()}))
        for _ in range(3):  # more processes than kinds: some kind is timed twice
            report()
        return {
            small: [KindTimes(1.0, 2.0, 10, 4, dict.fromkeys(kinds[small], PARTS))],
            large: [KindTimes(30.0, 5.0, 70, 4, {one: replace(PARTS, step=2.0) for one in kinds[large]})],
        }

    def time_start(spec, conditions):
        asked.append((spec, conditions))
        return seconds_of_a_process[0], ("warning: slow",)

    monkeypatch.setattr("east.operations.estimate.time_kinds", time_kinds)
    monkeypatch.setattr("east.operations.estimate.time_start", time_start)
    found = estimate(plan, results, conditions(1.0), Parallelism(2, "core", 1, 2), said.append)

    # A process of 15 s, less two checkpoints and the making of its network; then with that of its own kind.
    starts = {small: 15.0 - 2 * 2.0 - 1.0 + 1.0, large: 15.0 - 2 * 2.0 - 1.0 + 30.0}

    def seconds(run):
        kind, phases = kind_of(run.spec), remaining_phases(run.spec, int(run is runs[1]))
        step, epoch = {small: (1.0, 1002.0), large: (2.0, 1005.0)}[kind]
        in_steps = step * total(phases, "steps") + 10.0 * total(phases, "dense_gradients")
        return starts[kind] + in_steps + 100.0 * total(phases, "updates") + epoch * total(phases, "epochs")

    each = {run.id: seconds(run) for run in runs[1:]}
    assert found.run_seconds == pytest.approx(each)
    need = disk_need(runs[1:], tmp_path / "none")
    one, two, three = (each[run.id] for run in runs[1:4])
    seconds, wall = pytest.approx(one + two + three), pytest.approx(max(one + three, two))
    assert found.tables["table2"] == Cost(4, 3, seconds, wall, sum(need.runs[run.id] for run in runs[1:4]))
    assert (found.total.runs, found.total.left) == (6, 5)
    assert found.total.disk_bytes == sum(need.runs.values())
    assert found.start_seconds == pytest.approx((3 * starts[small] + 2 * starts[large]) / 5)
    assert found.checkpoint_bytes == 2 * 2 * 70
    assert found.data_bytes == need.data > 0
    assert {kind: left for kind, (left, _) in found.kinds.items()} == {small: 3, large: 2}
    assert found.warnings == ("warning: slow",)
    assert said == ["timing 2 kinds of run"] + [f"timing 2 kinds of run, {done} done" for done in (1, 2, 2)] + [
        "timing the start of a run"
    ]
    (timing, where, kinds), start = asked
    assert (timing, where, start[1]) == (conditions(1.0), results, conditions(1.0))
    # Of whole trainings, however far they are; the start is timed where the commonest kind has the fewest weights.
    for kind in (small, large):
        whole = [phase for run in runs if kind_of(run.spec) == kind for phase in remaining_phases(run.spec)]
        assert kinds[kind] == situations(whole)
    assert start[0].sparsity.density == min(one.density for one in kinds[small])
    assert kind_of(start[0]) == small
    seconds_of_a_process[0] = 2.0  # so noisy that nothing is left for the start of the small ones
    found = estimate(plan, Path("none/test"), conditions(1.0), Parallelism(2, "core", 1, 2))
    assert found.start_seconds == pytest.approx((4 * 0.0 + 2 * (2.0 - 2 * 2.0 - 1.0 + 30.0)) / 6)
    assert asked[2][1] == tmp_path, "the folder of the results is not there yet"


def test_costs_of_tables_and_of_all(plan):
    seconds = {run.id: 10.0 for run in plan.runs if run.table == "table2"}
    tables, total = costs(plan.runs, seconds, dict.fromkeys(seconds, 7), at_once=3)
    assert (tables["table2"].runs, tables["table2"].left) == (4, 4)
    assert (tables["table2"].seconds, tables["table2"].wall_seconds, tables["table2"].disk_bytes) == (40, 20, 28)
    assert (tables["table3"].runs, tables["table3"].left, tables["table3"].wall_seconds) == (2, 0, 0)
    assert (total.runs, total.left, total.seconds) == (6, 4, 40)


def test_disk_is_that_of_the_final_weights_and_the_records(plan, tmp_path):
    def run_bytes(spec):
        [found] = disk_need([plan.runs[0].model_copy(update={"spec": spec})], tmp_path).runs.values()
        return found

    spec, longer = (make_spec(activation="dyrelu", width=8, epochs=epochs) for epochs in (4, 8))
    state = build_model("resnet34", 10, width=8).state_dict()
    weights = sum(tensor.nbytes for tensor in state.values())
    assert weights == pytest.approx(len(save(state)), rel=0.1)
    for one in (spec, longer):
        updates = total(remaining_phases(one), "updates")
        assert run_bytes(one) == weights + 32_000 + one.training.epochs * 600 + updates * 500


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("digits", 0),
        ("imagenet", 0),
        ("cifar10", 60_000 * (3 * 32 * 32 + 8) + 170_498_071),
        ("cifar100", 60_000 * (3 * 32 * 32 + 8) + 169_001_437),
        ("digit_pairs", 4_500 * (3 * 8 * 16 + 8)),
    ],
)
def test_data_that_are_not_prepared_need_disk(plan, tmp_path, dataset, expected):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "manifest.json").touch()
    runs = [plan.runs[0].model_copy(update={"spec": make_spec(dataset=dataset)})]
    assert disk_need([*runs, *runs], tmp_path).data == expected


def conditions(seconds, engine="dense"):
    return Conditions("cpu", engine, threads=1, side_by_side=1, seconds=seconds)


@pytest.mark.parametrize("engine", ["dense", "auto"])
def test_every_part_of_a_kind_is_timed(tmp_path, one_thread, engine):
    spec = make_spec(activation="dyrelu", width=4, dataset="digits", batch_size=16)
    timed = [Situation(True, 0.05), *(Situation(False, density) for density in (0.05, 0.1, 0.2))]
    found = time_kind(kind_of(spec), timed, conditions(0.2, engine), tmp_path)
    assert found.build > 0
    assert found.save > 0
    assert found.checkpoint_bytes > 1000
    assert found.batch == 16
    # The dense engine takes as long at any density.
    assert list(found.parts) == ([timed[0], timed[2]] if engine == "dense" else timed)
    assert all(parts.step > 0 and parts.evaluation > 0 and parts.update > 0 for parts in found.parts.values())
    assert list(tmp_path.iterdir()) == []


def test_the_loop_and_its_records_are_clocked_by_part(one_thread):
    class Naps(Hook):
        def after_step(self, training, update):
            time.sleep(NAP if update is not None else 0)

        def after_epoch(self, training, record):
            time.sleep(2 * NAP)

    spec = make_spec(width=4, density=0.05, update_period=5, batch_size=2, epochs=50)
    training = Training.begin(spec, random_images(spec, CPU, training=12, evaluation=4), device=CPU, engine="dense")
    stopwatch = Stopwatch(training, [Naps()], settling=1, seconds=0.0)
    with pytest.raises(SystemExit):
        run_loop(training, [stopwatch])
    assert training.epoch == 1  # its time was over at once
    found = stopwatch.means()
    assert NAP <= found["update"] < 2 * NAP
    assert 2 * NAP <= found["save"] < 3 * NAP
    assert 0 < found["step"] < NAP
    assert 0 < found["evaluation"] < NAP
    assert 0 <= found["dense gradients"] < NAP


def test_steps_that_settle_do_not_count(one_thread):
    spec = make_spec(width=4, density=0.05, update_period=50, batch_size=2, epochs=50)
    training = Training.begin(spec, random_images(spec, CPU, training=12, evaluation=4), device=CPU, engine="dense")
    step = training.parts.step

    class Settles(Hook):
        def __call__(self, images, labels, lr, number, *, dense_gradients):
            time.sleep(NAP if number <= 4 else 0)
            return step(images, labels, lr, number, dense_gradients=dense_gradients)

    training.parts = replace(training.parts, step=Settles())
    stopwatch = Stopwatch(training, [], settling=4, seconds=0.0)
    with pytest.raises(SystemExit):
        run_loop(training, [stopwatch])
    assert 0 < stopwatch.means()["step"] < NAP / 2


def test_seconds_are_those_of_whole_batches_and_data_sets(monkeypatch, tmp_path, one_thread):
    seconds = {"step": 1.0, "dense gradients": 2.0, "update": 3.0, "evaluation": 5.0, "save": 7.0}
    monkeypatch.setattr(timing, "clock", lambda *_: (11.0, seconds, 13))
    spec = kind_of(make_spec(width=4, batch_size=128))
    found = time_kind(spec, [Situation(False, 0.05)], conditions(1e-4), tmp_path)
    assert (found.build, found.save, found.checkpoint_bytes, found.batch) == (11.0, 7.0, 13, 32)
    # A quarter of a batch was timed, and an evaluation of 125 images of each part.
    expected = PartSeconds(4.0, 8.0, 3.0, 5.0 * (143 + 359) / (125 + 125))
    assert found.parts == {Situation(False, 0.05): expected}


def test_slow_steps_are_timed_on_few_images():
    small, large = make_spec(width=4, batch_size=128), make_spec(width=64, dataset="cifar10", batch_size=128)
    assert timed_batch(small, "dense", CPU, conditions(3.0)) == 128
    assert timed_batch(large, "sparse", CPU, conditions(3.0)) == 128
    few = timed_batch(large, "dense", CPU, conditions(3.0))
    assert 32 <= few < 128
    assert timed_batch(large, "dense", CPU, conditions(30.0)) == 128


def test_a_finished_plan_costs_nothing(plan, tmp_path):
    for run in plan.runs:
        write_planned_run(tmp_path / "runs", run)
    done = east("estimate", "--configfile", TEST_CONFIG, "--results", tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "Everything is done."
    assert done.stdout.splitlines()[-3].split() == ["total", "6", "6", "0", "0", "0", "s", "0", "bytes"]
    found = estimate(plan, tmp_path, conditions(1.0), Parallelism(1, "core", 1, 1))
    assert found.total == Cost(6, 0, 0.0, 0.0, 0)
    assert (found.run_seconds, found.start_seconds, found.checkpoint_bytes, found.data_bytes) == ({}, 0.0, 0, 0)
    assert (found.kinds, found.warnings) == ({}, ())


@pytest.mark.parametrize("dataset", ["digits", "imagenet"])
def test_what_is_not_counted_is_said(dataset):
    spec = load_plan(TEST_CONFIG)[0].spec
    kind = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"name": dataset})})
    found = Estimate({}, Cost(1, 1, 0.0, 0.0, 0), kinds={kind: (1, SimpleNamespace(batch=kind.training.batch_size))})
    at_once, conditions = SimpleNamespace(runs=1, sharing=1), SimpleNamespace(threads=1, engine="auto")
    said = " ".join(_explanation(found, at_once, conditions, "a processor", disturbed=False))
    assert ("ImageNet" in said) == (dataset == "imagenet")
    assert "extrapolated" not in said


@pytest.mark.slow
def test_the_test_plan_is_estimated_as_json(tmp_path):
    done = east(
        "estimate", "--configfile", TEST_CONFIG, "--results", tmp_path, "--json", "--seconds", "0.1", "--cores", "1"
    )
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
