"""The GPU suite: answers from made-up numbers, parts that end badly, and a rehearsal of all of it on the CPU."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import typer

from benchmarks.gpu import PARTS, main
from benchmarks.gpu_suite.fast import FLOOR
from benchmarks.gpu_suite.right import relative
from benchmarks.gpu_suite.suite import PROBLEM, Record, Results, Setting, decides, run_part
from benchmarks.gpu_suite.ways import AUTHORS, AUTO, CAPTURED, AuthorsTraining, OurTraining, Way, changed, spec_of
from benchmarks.variants import random_batch
from east.errors import EastError

DENSE, SPARSE = (str(way) for way in CAPTURED[2:])  # bf16


def answer(name, rows, **others):
    frames = {
        part: Record(decides="", state="done", seconds=1, error=None, verdict=None, rows=tuple(found)).frame
        for part, found in {name: rows, **others}.items()
    }
    return PARTS[name].decide(frames[name], frames)


def test_each_part_says_what_it_decides():
    assert all(decides(part).startswith("Decides ") for part in PARTS.values())


def test_steps_are_right_where_no_error_is_above_its_bound():
    rows = [
        {"way": way, "error": error, "bound": 0.3} for way, error in [("a", 0.1), ("a", 0.3), ("b", 0.1), ("b", 0.31)]
    ]
    rows.append({"way": "c", PROBLEM: "out of memory"})
    assert answer("steps", rows) == "right: a; not shown to be right: b; c"


@pytest.mark.parametrize(("failed", "status", "verdict"), [(0, 0, "yes"), (1, 1, "no"), (0, 5, "no")])
def test_a_question_is_answered_by_tests_of_which_all_pass(failed, status, verdict):
    rows = [{"passed": 3, "failed": 0, "status": 0}, {"passed": 2, "failed": failed, "status": status}]
    assert f"are right: {verdict}, 5 tests passed" in answer("kernels", rows)


def test_the_fastest_way_is_compared_with_the_authors_the_floor_and_auto():
    group = {"network": "ResNet-34", "method": "RigL", "density": 0.0005, "batch": 128}
    seconds = {
        str(AUTHORS[0]): [0.02, 0.04],
        DENSE: [0.004, 0.004],
        SPARSE: [0.002, 0.002],
        str(AUTO[1]): [0.004, 0.004],
    }
    rows = [group | {"way": way, "seconds": found} for way, found in seconds.items()]
    floors = [{"what": FLOOR, "network": "ResNet-34", "engine": "sparse", "numerics": "bf16", "value": 0.0005}]
    found = answer("times", rows, floors=floors)
    assert (
        f"128: {SPARSE}, 15 (12.5–17.5) times as fast as the authors' way, 4 times its floor; auto is slower" in found
    )


def test_the_plan_is_run_in_the_fewest_hours_and_a_gpu_shared_no_more_than_is_worth_it():
    hours = [
        {"engine": engine, "numerics": "bf16", "runs": 204, "hours": n}
        for engine, n in (("auto", 9.5), ("dense", 20.0))
    ]
    assert "204 runs take 9.5 hours" in answer("hours", hours)
    walls = {(False, 1): 100.0, (False, 2): 61.0, (False, 4): 60.0, (True, 4): 59.9}
    rows = [{"MPS": mps, "runs": count, "wall, s": wall} for (mps, count), wall in walls.items()]
    assert answer("sharing", rows).startswith("runs_per_gpu 2, MPS False: 1.64 times")


def test_a_training_counts_as_eager_if_losses_agree_and_promises_are_kept():
    rows: list[dict[str, Any]] = [{"way": way, "gap": gap, "bound": 0.01} for way, gap in (("a", 0.009), ("b", 0.02))]
    rows += [{"way": way, "kept": kept} for way, kept in (("c", True), ("d", True), ("d", False))]
    assert answer("trainings", rows) == "as eager: a; c; others: b; d"


def test_an_error_is_relative_and_infinite_where_it_is_no_number():
    one = torch.ones(1, dtype=torch.float64)
    assert relative(torch.tensor([1.1]), one) == pytest.approx(0.1)
    assert relative(torch.tensor([float("nan")]), one) == relative(torch.ones(2), one) == float("inf")


def test_the_authors_way_is_the_masked_dense_step(tmp_path):
    setting = Setting("cpu", True, 60.0, tmp_path)
    spec = changed(spec_of(setting, "resnet34"), training={"gradient_clip": None})
    authors, ours = (
        AuthorsTraining(AUTHORS[0], spec, setting),
        OurTraining(Way("dense", "eager", "fp32"), spec, setting),
    )
    for number in (1, 2):
        losses = [
            one.train(*random_batch(spec, 3, setting.where, [number]), number, spec.training.lr)
            for one in (authors, ours)
        ]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5, check_dtype=False)


@dataclass(frozen=True)
class Bad:
    """Decides nothing."""

    end: str
    seconds: float = 1.0

    def measure(self, setting):
        yield {"value": 1}
        if self.end == "raises":
            raise ValueError("nothing works")
        subprocess.Popen(["sleep", "60"])
        if self.end == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def decide(self, rows, others):
        return "nothing"


@pytest.mark.slow
def test_a_part_that_ends_badly_says_so_and_keeps_what_it_found(monkeypatch):
    monkeypatch.setattr("benchmarks.gpu_suite.suite.GRACE", 0.0)
    limit = 120.0
    for end, state, error in (
        ("raises", "failed", "ValueError: nothing works"),
        ("dies", "failed", "died"),
        ("stays", "cut off", "time was up"),
    ):
        record = run_part(Bad(end), limit, small=True)
        assert (record.state, record.rows) == (state, ({"value": 1},))
        assert error in str(record.error)
        limit = 1 + 3 * record.seconds  # enough for the next one to begin


@pytest.mark.slow
def test_a_rehearsal_answers_questions_and_goes_on_where_it_was_cut(tmp_path, monkeypatch, capsys):
    """All parts are rehearsed by `make campaign`."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    main(dry_run=True, parts=["floors"], out=tmp_path)
    main(dry_run=True, parts=["floors", "times"], minutes=30, out=tmp_path)
    printed = capsys.readouterr().out
    assert "Done already: floors." in printed
    (path,) = tmp_path.glob("gpu-rehearsal-*.json")
    results = Results.model_validate_json(path.read_text())
    states = {name: record.state for name, record in results.parts.items()}
    assert states == {"floors": "done", "times": "done"}, printed
    assert all(record.verdict for record in results.parts.values())
    assert not [row for record in results.parts.values() for row in record.rows if row.get(PROBLEM)]
    assert "measures anything" in path.with_suffix(".md").read_text()


def test_what_measures_nothing_is_refused(monkeypatch, capsys):
    with pytest.raises(EastError, match="--out"):
        main(dry_run=True)
    with pytest.raises(EastError, match="no part 'speed'"):
        main(parts=["speed"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(typer.Exit):
        main()
    assert "no GPU" in capsys.readouterr().err
