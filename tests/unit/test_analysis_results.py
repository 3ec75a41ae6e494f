import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import east
from east.analysis.results import (
    PlannedRun,
    dtypes,
    read_rows,
    read_runs,
    row_columns,
    run_columns,
    setting_columns,
    write_frames,
)
from east.analysis.sources import Request, Sources
from east.config import make_plan, read_config
from east.config.choices import Choice, TopologySpec
from east.errors import EastError
from east.training.records import EpochRecord
from tests.unit.fake_runs import DIVERGED, write_curve, write_planned_run, write_run

ROOT = Path(east.__file__).parents[1]
TEST_CONFIG = ROOT / "config" / "test.yaml"
PLAN = make_plan(read_config(TEST_CONFIG))
STATIC, OTHER, CYCLIC = (PLAN.run(f"table2/{row}") for row in ("static/seed1", "static/seed2", "cosine-m3-n1/seed1"))


@pytest.fixture
def results(tmp_path):
    """Two finished runs of the six planned ones, and one that goes on."""
    folder = tmp_path / "results" / "test"
    write_planned_run(folder / "runs", STATIC, 81.5, best_test_accuracy=None, liveness={"live_channels": 7})
    write_planned_run(folder / "runs", CYCLIC, 85.25, nonzeros=2504, versions={"torch": "2.11"})
    begun = folder / "runs" / OTHER.id
    write_curve(begun, [33.0])
    (begun / "run.json").write_text(OTHER.spec.model_dump_json())
    return folder


def test_a_row_has_what_the_run_came_to_with_its_settings(results):
    runs = east.load_results(results, TEST_CONFIG).runs.set_index("id")
    assert list(runs.index) == [run.id for run in PLAN.runs]
    cyclic, static = runs.loc[CYCLIC.id], runs.loc[STATIC.id]
    assert list(cyclic[["table", "row", "seed", "method", "status"]]) == [
        *("table2", "cosine-m3-n1", 1, "Cyclic", "finished"),
    ]
    assert list(cyclic[["final_test_accuracy", "best_test_accuracy", "nonzeros", "seconds"]]) == [
        85.25,
        84.25,
        2504,
        60,
    ]
    assert list(cyclic[["cycle.pattern", "cycle.multiplier", "model.width", "sparsity.density"]]) == [
        *("cosine", 3.0, 4, 0.03),
    ]
    assert list(cyclic[["reproducibility", "engine", "versions.torch"]]) == ["any processor", "sparse", "2.11"]
    assert cyclic["fingerprint"] == CYCLIC.fingerprint
    assert (static["liveness.live_channels"], static["training.lr_drop_epochs"]) == (7, "[1]")
    assert static[["best_test_accuracy", "cycle.pattern", "nonzeros"]].isna().all()
    assert runs["status"].value_counts().to_dict() == {"finished": 2, "unfinished": 1, "missing": 3}
    assert runs.loc[OTHER.id, "model.width"] == 4


def test_rows_of_epochs_and_updates_name_their_run(results):
    found = east.load_results(results)
    assert found.problems == ()
    assert found.epochs.groupby("id")["test_acc"].last().to_dict() == {STATIC.id: 81.5, CYCLIC.id: 85.25, OTHER.id: 33}
    assert found.updates.groupby("id")["kind"].first().to_dict() == {STATIC.id: "initial", CYCLIC.id: "initial"}


def frames_of(*runs):
    return Request(step="frames", of=[PlannedRun.of(run).model_dump(mode="json") for run in runs])


def test_the_files_give_the_same_frames(results):
    write_frames(Sources(results), frames_of(*PLAN.runs))
    found = east.load_results(results, TEST_CONFIG)
    for name, columns in (("runs", run_columns()), ("epochs", row_columns(EpochRecord))):
        written = pd.read_csv(results / "tables" / f"{name}.csv", dtype=dtypes(columns))
        pd.testing.assert_frame_equal(written, getattr(found, name))
    assert set(east.load_results(results).runs["method"]) == {"Static", "Cyclic"}


def test_types_are_those_of_the_schema_whatever_is_missing(tmp_path, results):
    whole = east.load_results(results, TEST_CONFIG)
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    empty = east.load_results(tmp_path / "empty")
    for name in ("runs", "epochs", "updates"):
        assert getattr(whole, name).dtypes.to_dict() == getattr(empty, name).dtypes.to_dict()
    assert (whole.epochs["epoch"].dtype, whole.epochs["val_acc"].dtype) == (np.int64, np.float64)
    assert (whole.runs["best_epoch"].dtype, whole.runs["method"].dtype) == ("Int64", "str")
    assert (whole.runs["seed"].dtype, whole.runs["model.width"].dtype) == (np.int64, "Int64")


def test_a_name_is_looked_for_in_results_and_what_is_not_there_is_said(results, monkeypatch):
    monkeypatch.chdir(results.parents[1])
    assert len(east.load_results("test").runs) == 3
    with pytest.raises(EastError, match="results/demo"):
        east.load_results("demo")


def test_a_run_of_other_settings_shows_no_number_of_its_own(results):
    write_planned_run(results / "runs", CYCLIC, 99.0, fingerprint="f" * 64)
    (results / "runs" / OTHER.id / "run.json").write_text(STATIC.spec.model_dump_json())
    found = east.load_results(results, TEST_CONFIG)
    stale = found.runs.set_index("id").loc[CYCLIC.id]
    assert stale["status"] == "stale"
    assert stale[["final_test_accuracy", "fingerprint", "model.width"]].isna().all()
    assert found.runs.set_index("id").loc[OTHER.id, "status"] == "missing"
    assert set(found.epochs["id"]) == {STATIC.id}
    with pytest.raises(EastError, match=CYCLIC.id):
        write_frames(Sources(results), frames_of(CYCLIC))
    assert not (results / "tables").exists()


def test_what_is_damaged_is_named_and_hides_nothing_else(results):
    metrics = results / "runs" / STATIC.id / "metrics.csv"
    metrics.write_text(metrics.read_text()[:-3])
    (results / "runs" / CYCLIC.id / "summary.json").write_text("{")
    found = east.load_results(results)
    assert len(found.problems) == 2
    assert found.epochs.groupby("id").size().to_dict() == {OTHER.id: 1}
    assert list(found.runs["status"]) == ["unfinished", "finished", "unfinished"]
    with pytest.raises(EastError, match=CYCLIC.id):
        write_frames(Sources(results), frames_of(*PLAN.runs))


def test_what_is_damaged_ends_those_who_ask_for_single_runs(results):
    (results / "runs" / CYCLIC.id / "summary.json").write_text("{")
    metrics = results / "runs" / STATIC.id / "metrics.csv"
    metrics.write_text(metrics.read_text()[:-3])
    sources = Sources(results)
    with pytest.raises(EastError, match=CYCLIC.id):
        read_runs(sources, [PlannedRun.of(CYCLIC)])
    with pytest.raises(EastError, match=STATIC.id):
        read_rows(sources, [STATIC.id], EpochRecord)


def test_a_run_is_called_by_its_folder_and_no_other_folder_is_a_run(results):
    write_planned_run(results / "runs", CYCLIC, 85.25, id="copied/from/seed9")
    (results / "runs" / "table2" / "static" / "seedling").mkdir()
    assert list(east.load_results(results).runs["id"]) == [CYCLIC.id, STATIC.id, OTHER.id]


def test_rules_of_a_run_are_shown_in_words(results):
    topology = TopologySpec(drop=Choice(name="threshold", parameters=(("below", 0.5),)), grow="random")
    sparsity = OTHER.spec.sparsity.model_copy(update={"topology": topology})
    spec = OTHER.spec.model_copy(update={"sparsity": sparsity})
    (results / "runs" / OTHER.id / "run.json").write_text(spec.model_dump_json())
    runs = east.load_results(results).runs.set_index("id")
    assert runs.loc[OTHER.id, "sparsity.topology"] == str(topology)
    assert runs.loc[STATIC.id, "sparsity.topology"] == STATIC.spec.sparsity.topology


def test_a_setting_means_what_its_schema_says():
    meanings = {column.name: column.meaning.text for column in setting_columns()}
    assert "seed" not in meanings
    assert meanings["training.optimizer.momentum"] == "of SGD"


def test_results_of_another_version_keep_what_is_known_of_them(tmp_path):
    write_run(tmp_path / "runs", "table2/static/seed17", DIVERGED, run={"revision": 1, "seed": 17, "model": "resnet"})
    (run,) = east.load_results(tmp_path).runs.to_dict("records")
    assert (run["status"], run["diverged_at_epoch"], run["revision"]) == ("diverged", 7, 1)
    assert pd.isna(run["model.width"])


# docs/results.md


def test_the_documented_columns_are_those_of_the_schema(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["columns.py", "--check"])
    assert runpy.run_path(str(ROOT / "docs" / "columns.py"))["main"]() == 0


def test_the_first_lines_of_the_documentation_answer_their_question(results, monkeypatch):
    for seed, accuracy in ((1, 80.0), (2, 84.0)):
        for row, more in (("static", 0.0), ("cosine-m3-n1", 5.0)):
            write_planned_run(results / "runs", PLAN.run(f"table2/{row}/seed{seed}"), accuracy + more)
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.DOTALL)[:1]
    monkeypatch.chdir(results.parents[1])
    names = {}
    *first, last = lines.replace('"demo"', '"test"').strip().splitlines()
    exec("\n".join(first), names)
    answer = eval(last, names)
    assert answer.loc[("table2", "static")].to_list() == [82.0, pytest.approx(8**0.5), 2]
    assert answer.loc[("table2", "cosine-m3-n1")].to_list() == [87.0, pytest.approx(8**0.5), 2]
