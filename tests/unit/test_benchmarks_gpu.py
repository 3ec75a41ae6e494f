import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.gpu_suite.authors import AuthorsBatches, AuthorsImages
from benchmarks.gpu_suite.checks import read_report, relative
from benchmarks.gpu_suite.conditions import NETWORKS, Conditions, paper_runs, with_numerics
from benchmarks.gpu_suite.expected import GIVEN_RATES, expected
from benchmarks.gpu_suite.findings import (
    Check,
    EpochTimes,
    Facts,
    PartRecord,
    Quiet,
    Rate,
    Results,
    StepTimes,
    Throughput,
    Work,
)
from benchmarks.gpu_suite.floors import count_work, dense_numbers, floor, masked_model
from benchmarks.gpu_suite.hours import extrapolate
from benchmarks.gpu_suite.numerics import Pair, judge, task_spec
from benchmarks.gpu_suite.quiet import quietly
from benchmarks.gpu_suite.rehearsal import changing
from benchmarks.gpu_suite.report import render
from benchmarks.gpu_suite.runner import Part, run, save
from benchmarks.gpu_suite.traffic import bytes_moved, step_launches
from benchmarks.gpu_suite.ways import OurTraining, Switches, make_training, random_batch, way
from east.data.catalog import DATASETS
from east.engine.cpu.network import describe
from east.errors import EastError
from east.models import build_model
from east.sparse.layers import masked_layers
from east.sparse.schedule import Schedule
from east.sparse.timetable import Timetable
from tests.conftest import ROOT

CPU = torch.device("cpu")
AUTHORS = way("authors", "eager", "tf32")
CAPTURED = way("dense", "captured", "bf16")


@pytest.fixture
def rehearsal(tmp_path):
    return Conditions("cpu", True, 60.0, tmp_path)


def step_times(name, seconds, density=0.0005, **changed):
    return StepTimes(
        **{"network": "ResNet-34", "method": "RigL", "batch": 128, "executed_by": name.engine, "way": name} | changed,
        density=density,
        seconds=seconds,
        steps_a_round=10,
        megabytes=1000.0,
    )


def epoch_times(name, training, network="ResNet-34", evaluation=(), update=(), saving=()):
    return EpochTimes(
        network=network,
        way=name,
        batch=128,
        images=45_000,
        steps=352,
        training=training,
        evaluation=evaluation,
        update=update,
        saving=saving,
    )


def part(name, *findings, state="done"):
    return PartRecord(name=name, title=name, state=state, seconds=1.0, limit=2.0, error=None, findings=findings)


def made_up(*parts):
    return Results(date="2026-01-02", minutes=3.0, budget=9.0, dry=False, parts=parts)


def rates():
    values = {"copy": 3e12, "bf16": 8e14, "tf32": 4e14, "fp32": 6e13}
    return [
        Rate(what=what, unit="B/s" if what == "copy" else "FLOP/s", size="much", values=(0.9 * value, value, value))
        for what, value in values.items()
    ]


def rows_of(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


# Statistics and tables


def test_the_table_compares_steps_of_the_same_round():
    results = made_up(
        part("times", step_times(AUTHORS, (0.02, 0.04, 0.02)), step_times(CAPTURED, (0.002, 0.002, 0.004)))
    )
    rows = rows_of(render(results))
    assert ["the authors' way, tf32", "20 ms (20–30)", "1 (1–1)", "authors", "1,000 MB"] in rows
    assert ["dense, captured, bf16", "2 ms (2–3)", "10 (7.5–15)", "dense", "1,000 MB"] in rows


def test_the_floor_is_named_with_the_multiple_of_it():
    work = Work(
        network="ResNet-34",
        batch=128,
        density=0.0005,
        flops=8e11,
        dense_numbers=3e9,
        least_numbers=3e8,
        sparse_bytes={"fp32": 4e9, "tf32": 4e9, "bf16": 1.5e9},
    )
    sparse = way("sparse", "captured", "bf16")
    results = made_up(
        part("rates", *rates()),
        part("times", work, step_times(CAPTURED, (0.003,)), step_times(sparse, (0.001,))),
    )
    rows = rows_of(render(results))
    # 8e11 operations at 8e14 a second; 3e9 numbers of two bytes at 3e12 bytes a second.
    assert ["1 ms", "3", "2 ms", "1.5", "–", "–"] in [row[5:] for row in rows]
    assert ["–", "–", "0.2 ms", "5", "0.5 ms", "2"] in [row[5:] for row in rows]
    assert floor(work, "dense", "tf32", {"tf32": 4e14, "copy": 3e12}).memory == pytest.approx(0.004)


def test_what_is_wrong_is_counted_and_shown():
    bad = Check(what="gradient", network="ResNet-34", way=CAPTURED, error=0.5, bound=0.3)
    lost = Check(what="loss", network="ResNet-34", way=CAPTURED, error=None, bound=0.3)
    good = Check(what="loss", network="ResNet-34", way=CAPTURED, error=0.1, bound=0.3)
    noisy = Quiet(network="n", way=CAPTURED, steps=8, changed="masks", trouble="sync", recorded=0, compiled=0)
    again = noisy.model_copy(update={"trouble": None, "recorded": 1})
    rows = rows_of(render(made_up(part("step", bad, lost, good), part("quiet", noisy, again))))
    assert ["comparisons with float64 and between ways of stepping", "1", "2"] in rows
    assert ["trainings without synchronisation and recompilation", "0", "2"] in rows
    assert sum("**no**" in row for row in rows) == 4


def test_an_epoch_is_compared_with_the_authors_and_the_last_round_counts():
    earlier, later = epoch_times(CAPTURED, (2.0,)), epoch_times(CAPTURED, (2.0, 4.0))
    rows = rows_of(render(made_up(part("epochs", epoch_times(AUTHORS, (8.0, 8.0)), earlier, later))))
    assert [row[2] for row in rows if row[0] == str(CAPTURED)] == ["3 (2.5–3.5)"]


def test_results_are_named_by_device_and_read_back(tmp_path):
    facts = Facts(
        device="NVIDIA H100 80GB HBM3",
        capability="9.0",
        multiprocessors=132,
        memory_gb=85.0,
        cache_mb=50.0,
        versions={"PyTorch": "2.13", "Triton": None},
        platform="Linux",
        processor="A Processor",
        cores=16,
        commit="abc",
        held_gb=0.5,
        load=0.1,
    )
    results = made_up(part("rates", facts, *rates()), part("times", step_times(CAPTURED, (0.003,)), state="cut off"))
    path = save(results, tmp_path)
    assert path.name == "gpu-nvidia-h100-80gb-hbm3-2026-01-02.md"
    assert Results.model_validate_json(path.with_suffix(".json").read_text()) == results
    assert "compute capability 9.0, 132 multiprocessors" in path.read_text()
    assert "cut off" in path.read_text()


def test_a_report_of_pytest_is_read(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite errors="0" failures="1" skipped="1" tests="5"><testcase name="test_a"/>'
        '<testcase name="test_b"><failure message="assert 1\n == 2">trace</failure></testcase></testsuite></testsuites>'
    )
    found = read_report("test_x.py", report)
    assert (found.passed, found.failed, found.skipped) == (3, 1, 1)
    assert found.failures == ("test_b: assert 1 == 2",)
    assert read_report("test_x.py", tmp_path / "none.xml").failed == 1


def test_an_error_is_relative_and_nan_is_none():
    assert relative(torch.tensor([1.1, 0.0]), torch.tensor([1.0, 0.0], dtype=torch.float64)) == pytest.approx(0.1)
    assert relative(torch.tensor([float("nan")]), torch.ones(1, dtype=torch.float64)) is None
    assert relative(torch.ones(2), torch.ones(1, dtype=torch.float64)) is None


# Hours


def test_hours_are_steps_updates_evaluations_and_checkpoints():
    run_of_34 = next(spec for spec in paper_runs() if spec.model.name == "resnet34" and spec.cycle is None)
    steps, epochs = 352, run_of_34.training.epochs
    # Two steps are part of a timed update.
    timed = epoch_times(CAPTURED, (3.52, 3.52), evaluation=(0.5,), update=(0.12,), saving=(0.25,))
    (found,) = extrapolate(made_up(part("epochs", timed)), [run_of_34], {"resnet34": "ResNet-34"})
    updates = len(list(Timetable(Schedule.of(run_of_34, steps))))
    assert found.hours == pytest.approx((epochs * (3.52 + 0.75) + updates * 0.1) / 3600)
    assert (found.runs, found.processes, found.hours_at_best) == (1, 1, found.hours)


def test_hours_follow_the_density_of_the_sparse_engine():
    sparse = way("sparse", "captured", "bf16")
    cyclic = next(spec for spec in paper_runs() if spec.cycle is not None and spec.cycle.multiplier == 10)
    timed = part("epochs", epoch_times(sparse, (3.52,), cyclic.model.name))
    flat = step_times(sparse, (0.01,), network=cyclic.model.name)
    dear = step_times(sparse, (0.05,), network=cyclic.model.name, density=0.005)
    names = {cyclic.model.name: cyclic.model.name}
    (constant,) = extrapolate(made_up(timed, part("times", flat)), [cyclic], names)
    (cycled,) = extrapolate(made_up(timed, part("times", flat, dear)), [cyclic], names)
    assert 1.2 * constant.hours < cycled.hours < 5 * constant.hours


def test_hours_of_the_paper_shrink_with_the_best_number_of_processes():
    timed = [epoch_times(CAPTURED, (1.0,), network) for network in NETWORKS]
    together = [
        Throughput(network="ResNet-34", way=CAPTURED, mps=mps, processes=count, steps_per_second=rates)
        for mps, count, rates in ((False, 1, (100.0,)), (False, 2, (51.0, 51.0)), (True, 3, (50.0, 50.0, 50.0)))
    ]
    names = {model: label for label, model in NETWORKS.items()}
    (found,) = extrapolate(made_up(part("epochs", *timed), part("together", *together)), paper_runs(), names)
    assert (found.runs, found.processes, found.mps) == (204, 3, True)
    assert found.hours == pytest.approx(204 * 250 / 3600)
    assert found.hours_at_best == pytest.approx(found.hours / 1.5)


def test_hours_need_epochs_of_all_networks():
    names = {model: label for label, model in NETWORKS.items()}
    assert extrapolate(made_up(part("epochs", epoch_times(CAPTURED, (1.0,)))), paper_runs(), names) == []


# What is counted


def test_the_dense_step_computes_and_moves_what_was_counted_by_hand(tmp_path):
    spec = Conditions("cuda", False, 0.0, tmp_path).plain("resnet34")
    work = count_work("ResNet-34", spec, 128)
    assert work.flops == pytest.approx(0.890e12, rel=1e-3)
    # A unit moves 3 x + 11 z numbers, but the first has no gradient at its input; a residual as many as 3 z more.
    network = describe(build_model("resnet34", 10, width=1), (3, 32, 32))
    by_hand = -(3 + 1) * 32 * 32
    for unit in network.units:
        x, z = (a.channels * a.height * a.width for a in (unit.x, unit.y))
        by_hand += 3 * x + 11 * z + (3 * z if unit.residual else 0)
    moved = dense_numbers(network)
    assert moved == by_hand


def test_launches_of_the_sparse_step_move_more_than_it_must(tmp_path):
    spec = Conditions("cuda", False, 0.0, tmp_path).plain("resnet34")
    work = count_work("ResNet-34", spec, 128)
    least = {numerics: 2 * work.least_numbers * (1 if numerics == "bf16" else 2) for numerics in work.sparse_bytes}
    assert all(least[numerics] < moved < 4 * least[numerics] for numerics, moved in work.sparse_bytes.items())
    model, shape = masked_model(spec), DATASETS[spec.dataset.name].image_shape
    with_clip, without = (step_launches(model, shape, 128, torch.bfloat16, probes=probes) for probes in (1, 0))
    assert sum(one.phase == "clip" for one in with_clip) == 36
    assert bytes_moved(without) < bytes_moved(with_clip) == work.sparse_bytes["bf16"]


def test_launches_are_counted_for_plain_networks_only():
    model = build_model("resnet34", 10, activation="dyrelu", width=1)
    with pytest.raises(EastError, match="convolutions, batch norms and ReLUs only"):
        step_launches(model, (3, 8, 8), 2, torch.float32, probes=0)


def test_expected_times_say_that_they_are_computed():
    text = expected(GIVEN_RATES)
    assert text.startswith("**Computed, not measured**")
    assert ["ResNet-34", "dense, tf32", "2.225 ms"] in [row[:3] for row in rows_of(text)]


def test_the_expected_times_in_the_readme_are_those_that_are_computed():
    lines = (ROOT / "benchmarks" / "README.md").read_text().splitlines()
    missing = [line for line in expected(GIVEN_RATES).splitlines() if line not in lines]
    assert missing == [], "put the output of `python -m benchmarks.gpu expected` into benchmarks/README.md"


# Ways


def test_the_authors_way_is_the_masked_dense_step(rehearsal):
    spec = rehearsal.plain("resnet34").model_copy(deep=True)
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"gradient_clip": None})})
    authors = make_training(AUTHORS, spec, CPU, batch_size=3)
    ours = make_training(way("dense", "eager", "tf32"), spec, CPU, batch_size=3)
    for number in (1, 2):
        batch = random_batch(spec, 3, CPU, number)
        authors.train(*batch, number, spec.training.lr)
        ours.train(*batch, number, spec.training.lr)
    for name, layer in masked_layers(ours.model).items():
        other = masked_layers(authors.model)[name]
        assert torch.equal(other.mask, layer.mask)
        torch.testing.assert_close(other.weight, layer.weight, rtol=1e-4, atol=1e-6)


def test_the_authors_batches_are_a_whole_epoch():
    pixels = torch.randint(256, (7, 3, 12, 12), dtype=torch.uint8)
    images = AuthorsImages(pixels, torch.arange(7), (0.5,) * 3, (0.5,) * 3, margin=4)
    batches = list(AuthorsBatches(images, 4, CPU, workers=0).epoch())
    assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 12, 12), (3, 3, 12, 12)]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(7))


@pytest.mark.parametrize("name", [way("dense", "captured", "bf16"), way("auto", "captured", "tf32")])
def test_a_captured_way_takes_the_eager_step(rehearsal, name):
    spec = rehearsal.plain("resnet34")
    eager = make_training(name.model_copy(update={"stepping": "eager"}), spec, CPU, batch_size=3)
    captured = make_training(name, spec, CPU, batch_size=3)
    for number in range(1, 4):
        batch = random_batch(spec, 3, CPU, number)
        assert eager.train(*batch, number, 0.1) == pytest.approx(float(captured.train(*batch, number, 0.1)))
    captured.require_as_named()


def test_a_way_that_fell_back_is_no_time_of_it(rehearsal):
    training = OurTraining(CAPTURED, rehearsal.plain("resnet34"), CPU, batch_size=3)
    with pytest.raises(EastError, match="fell back to eager"):
        training.require_as_named()


def test_each_way_finds_the_switches_of_the_process_as_it_left_them():
    before = Switches.now()
    other = Switches("ieee", benchmark=not before.benchmark, deterministic=not before.deterministic)
    other.put()
    assert Switches.now() == other
    before.put()
    assert Switches.now() == before


def test_everything_changes_in_the_rehearsal(rehearsal):
    spec = changing(Conditions("cuda", False, 0.0, rehearsal.scratch).methods("resnet34")["EAST Combined"], dry=False)
    updates = list(Timetable(Schedule.of(spec, 6)))
    assert {"cycle", "return", "exchange"} == {update.kind for update in updates}
    assert len({update.density for update in updates}) > 2
    assert spec.phasing is not None
    assert spec.training.lr_drop_epochs == (2,)


def test_a_recompilation_within_a_quiet_step_is_an_error():
    import torch._dynamo as dynamo

    with quietly(CPU):
        assert dynamo.config.error_on_recompile
    assert not dynamo.config.error_on_recompile


# bf16 against TF32


def test_the_paired_test_accepts_small_differences_only():
    def pairs(*differences):
        return [Pair(seed=i, tf32=90.0 + i, bf16=90.0 + i + d) for i, d in enumerate(differences)]

    same = judge(pairs(0.1, -0.1, 0.05, -0.05, 0.0), margin=0.5, level=0.95)
    assert same.accepted
    assert same.mean == pytest.approx(0.0, abs=1e-9)
    # t of 0.975 with 4 degrees of freedom is 2.776, the standard error 0.0791 / sqrt(5).
    assert same.high == pytest.approx(2.776 * 0.0790569 / 5**0.5, rel=1e-3)
    assert not judge(pairs(0.1, -0.1, 0.05, -0.05, 0.0), margin=0.05, level=0.95).accepted
    assert not judge(pairs(-1.0, -1.1, -0.9), margin=0.5, level=0.95).accepted
    # Two pairs that happen to agree say little.
    assert not judge(pairs(0.5, -0.5), margin=0.5, level=0.95).accepted


def test_a_pair_that_diverged_accepts_nothing():
    pairs = [Pair(seed=seed, tf32=90.0, bf16=90.0) for seed in range(4)]
    assert judge(pairs, margin=0.5, level=0.95).accepted
    assert not judge([*pairs, Pair(seed=5, tf32=90.0, bf16=None)], margin=0.5, level=0.95).accepted
    assert not judge(pairs[:1], margin=0.5, level=0.95).accepted


def test_a_short_task_keeps_the_places_of_drops_and_updates(rehearsal):
    spec = Conditions("cuda", False, 0.0, rehearsal.scratch).plain("resnet34")
    short = task_spec("digits", spec, epochs=30, dry=False)
    assert (short.training.epochs, short.training.lr_drop_epochs) == (30, (9, 18))
    assert short.sparsity.update_period == 480
    assert with_numerics(short, "bf16").training.numerics == "bf16"
    with pytest.raises(EastError, match="no task 'mnist'"):
        task_spec("mnist", spec, epochs=30, dry=False)


# The suite


def endless(conditions):
    yield rates()[0]
    subprocess.Popen(["sleep", "60"])
    time.sleep(60)


def broken(conditions):
    yield rates()[1]
    raise EastError("nothing works")


def dying(conditions):
    yield rates()[2]
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_part_that_ends_badly_keeps_what_it_found_and_the_others_run(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu_suite.runner.GRACE", 0.0)
    parts = [Part(m.__name__, m.__name__, 10, m) for m in (broken, dying, endless)]
    results, path = run(parts, seconds=24.0, device="cpu", dry=True, folder=tmp_path)
    assert [record.state for record in results.parts] == ["failed", "failed", "cut off"]
    assert [len(record.findings) for record in results.parts] == [1, 1, 1]
    assert results.parts[0].error == "EastError: nothing works"
    assert Results.model_validate_json(path.with_suffix(".json").read_text()) == results


def test_a_part_without_time_is_left_out(tmp_path):
    parts = [Part("broken", "Broken", 10, broken)]
    results, _ = run(parts, seconds=0.0, device="cuda", dry=False, folder=tmp_path)
    assert results.parts[0].state == "left out"


def suite(*arguments):
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_without_a_gpu_the_suite_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = suite()
    assert done.returncode == 2
    assert "There is no GPU here" in done.stderr
    assert suite("--dry-run").returncode == 1


@pytest.mark.slow
def test_the_rehearsal_runs_every_part(tmp_path):
    done = suite("--dry-run", "--minutes", 15, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("gpu-rehearsal-*.json")
    results = Results.model_validate_json(path.read_text())
    assert {record.state for record in results.parts} == {"done"}, done.stdout
    assert all(record.findings for record in results.parts)
    text = path.with_suffix(".md").read_text()
    assert "No number in it measures anything" in text
    assert "**no**" not in text
    assert {one.way.engine for one in results.all(StepTimes)} == {"authors", "dense", "sparse", "auto"}
    assert {one.way.stepping for one in results.all(StepTimes)} == {"eager", "captured", "compiled"}


@pytest.mark.slow
def test_the_paired_test_is_a_command(tmp_path):
    done = suite("numerics", "--seeds", 2, "--task", "synthetic", "--epochs", 2, "--dry-run", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("gpu-numerics-*.json")
    assert [pair["seed"] for pair in json.loads(path.read_text())["pairs"]] == [1, 2]
    assert "It tests nothing" in done.stdout
