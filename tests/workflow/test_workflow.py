import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from east import load_results
from east.locks import locked
from tests.workflow.conftest import ROOT, RUNS, TEST_CONFIG, snakemake, trained, would_train
from tests.workflow.dag import planned_jobs

pytestmark = pytest.mark.workflow

TABLES = ("table2", "table3", "tablemethods")


def others(jobs):
    """The other rules; page and document are always written anew, because they name the configuration's files."""
    return {rule for rule, _ in jobs} - {"train", "all", "write_report", "write_appendix"}


def tables_touched(jobs):
    return [Path(output).stem for rule, output in jobs if rule == "aggregate"]


def test_the_whole_workflow_leaves_tables_figures_cost_and_report(finished):
    results = finished / "results" / "test"
    for table in (*TABLES, "table6", "tableB1", "comparison", "claims", "audit"):
        for form in ("csv", "md", "tex", "html"):
            assert (results / "tables" / f"{table}.{form}").stat().st_size > 0
    assert {path.name for path in (results / "figures").iterdir()} == {
        f"{name}.{form}"
        for name in (
            *(
                f"{table}-{name}"
                for table in ("table2", "table3")
                for name in ("curves", "multiplier", "churn", "layers")
            ),
            *("tablemethods-curves", "tablemethods-churn"),
            *("density", "cost"),
        )
        for form in ("png", "svg")
    }
    assert "\\includegraphics" in (results / "tables" / "appendix.tex").read_text()
    page = (results / "report" / "index.html").read_text()
    assert "6 of 6 runs finished" in re.sub(r"<[^>]+>|\s+", " ", page).replace("  ", " ").replace("  ", " ")
    assert not re.search(r'(src|href)="https?:', page)
    for run in RUNS:
        assert json.loads((results / "runs" / run / "summary.json").read_text())["status"] == "finished"
    found = load_results(results, TEST_CONFIG)
    assert found.runs["id"].is_unique
    assert set(found.runs["id"]) == set(RUNS)
    assert found.epochs.groupby("id")["epoch"].max().to_dict() == dict.fromkeys(RUNS, 2)
    for name in ("runs", "epochs"):
        assert len(pd.read_csv(results / "tables" / f"{name}.csv")) == len(getattr(found, name))
    costs = json.loads((results / "cost" / "cost.json").read_text())
    assert [row["method"] for row in costs] == ["RigL"]
    assert costs[0]["seconds_per_step"] > 0


def test_a_line_tells_of_every_finished_run_with_the_share_done(finished):
    printed = (finished.parent / "stdout").read_text()
    shares = re.findall(r"^table\S+ +test +\d+\.\d\d % +\d+\.\d s  \[(\d)/6\]$", printed, re.MULTILINE)
    assert len(shares) == 6
    assert max(shares) == "6"


def test_the_first_seed_of_all_rows_is_trained_first(finished):
    runs = finished / "results" / "test" / "runs"
    began = {
        run: json.loads((runs / run / "summary.json").read_text())["attempt_records"][0]["started"] for run in RUNS
    }
    first, second = ([began[run] for run in RUNS if run.endswith(seed)] for seed in ("seed1", "seed2"))
    assert max(first) <= min(second)


EVIDENCE = ("analyse", "evidence_tables")
SUMMARISED = {"aggregate", "table", "figures_grid", "figures_methods", *EVIDENCE}
CHANGES = {
    "nothing": ("{}", [], set()),
    "the title": ("title: Another", [], set()),
    "keys in another order": (
        "recipes: {resnet34-digits: {update_period: 2, lr: 0.1, width: 4}}\nseeds: [1, 2]",
        [],
        set(),
    ),
    "numbers written differently": (
        "density: 3.0e-2\nrecipes: {resnet34-digits: {lr: 0.10, weight_decay: 0.0001}}",
        [],
        set(),
    ),
    "device, engine and threads": (
        "execution: {device: auto, engine: dense, threads: 2}",
        [],
        {"measure_cost", "table_6", "figures_plan"},
    ),
    "a row's label": (
        "tables: {table2: {rows: [{static: true, label: Plain}, {pattern: cosine, multiplier: 3, cycles: 1}]}}",
        [],
        {"aggregate", "frames", "table", "figures_grid", *EVIDENCE},
    ),
    "a row's multiplier": (
        "tables: {table3: {rows: [{pattern: triangular, multiplier: 4, cycles: 1}]}}",
        ["table3/triangular-m4-n1/seed1", "table3/triangular-m4-n1/seed2"],
        {"aggregate", "frames", "table", "figures_grid", "figures_plan", *EVIDENCE},
    ),
    "another seed": (
        "seeds: [1, 2, 3]",
        ["table2/cosine-m3-n1/seed3", "table2/static/seed3", "table3/triangular-m3-n1/seed3"],
        {*SUMMARISED, "frames"},
    ),
    "a seed less": ("seeds: [1]", [], {*SUMMARISED, "frames"}),
    "the recipe": (
        "recipes: {resnet34-digits: {lr: 0.2}}",
        RUNS,
        {*SUMMARISED, "frames", "table_b1", "measure_cost", "table_6", "figures_plan"},
    ),
    "how seeds are summarised": (
        "readings: {spread: population}",
        [],
        SUMMARISED,
    ),
}


def test_a_finished_plan_has_nothing_to_do(finished):
    assert planned_jobs(finished, TEST_CONFIG) == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_runs_exactly_what_it_touches(finished, overlay, change):
    text, runs, rules = CHANGES[change]
    jobs = planned_jobs(finished, TEST_CONFIG, overlay(text))
    assert trained(jobs) == would_train(finished, TEST_CONFIG, overlay(text)) == runs
    assert others(jobs) == rules
    if change == "a row's multiplier":
        assert tables_touched(jobs) == ["table3"]


def test_touching_a_prepared_data_set_trains_nothing(copy):
    (copy / "data" / "digits" / "manifest.json").touch()
    assert trained(planned_jobs(copy, TEST_CONFIG)) == []


@pytest.mark.parametrize(
    ("old", "new", "trainings"),
    [("REVISION = 3", "REVISION = 4", 6), ('__version__ = "0.1.0"', '__version__ = "9"  # a comment', 0)],
    ids=["raising the revision", "editing code"],
)
def test_only_the_revision_of_the_code_trains_again(finished, tmp_path, old, new, trainings):
    """What a user with another copy of the package is told; in a process of its own."""
    package = shutil.copytree(ROOT / "east", tmp_path / "east")
    (tmp_path / "report").symlink_to(ROOT / "report")
    source = package / "version.py"
    source.write_text(source.read_text().replace(old, new))
    assert new in source.read_text()
    program = (
        "import sys; from pathlib import Path; sys.path.append(sys.argv[3]);"
        "from tests.workflow.dag import planned_jobs;"
        "print([rule for rule, _ in planned_jobs(Path(sys.argv[1]), Path(sys.argv[2]))])"
    )
    command = [sys.executable, "-c", program, str(finished), str(TEST_CONFIG), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=finished, env={"PYTHONPATH": str(tmp_path)})
    assert done.stdout.count("'train'") == trainings, done.stderr
    assert done.returncode == 0


def test_a_changed_row_trained_for_real_leaves_every_other_run_alone(copy, overlay):
    results = copy / "results" / "test"
    before = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/*/*/summary.json")}
    page = (results / "tables/table2.html").stat().st_mtime_ns
    text, new, _ = CHANGES["a row's multiplier"]
    done = snakemake(copy, "--configfile", TEST_CONFIG, overlay(text), "--until", "table")
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/*/*/summary.json")}
    assert {path: after[path] for path in before} == before
    assert sorted(str(path.parent.relative_to(results / "runs")) for path in after.keys() - before.keys()) == new
    assert (results / "tables/table2.html").stat().st_mtime_ns == page
    assert "| Triangular | 4 |" in (results / "tables/table3.md").read_text()


def test_runs_of_another_recipe_are_trained_again_even_without_snakemakes_records(copy, overlay):
    shutil.rmtree(copy / ".snakemake")
    files = TEST_CONFIG, overlay("recipes: {resnet34-digits: {lr: 0.2}}\nseeds: [1]")
    done = snakemake(copy, "results/test/aggregate/table3.json", "--configfile", *files)
    assert done.returncode == 0, done.stderr
    summary = json.loads((copy / "results/test/runs/table3/triangular-m3-n1/seed1/summary.json").read_text())
    assert summary["run"]["training"]["lr"] == 0.2
    assert would_train(copy, *files) == [run for run in RUNS if run.endswith("seed1") and not run.startswith("table3")]


def test_a_partial_report_shows_what_is_missing_trains_nothing_and_follows_what_ends(finished, copy, overlay):
    run = "results/test/runs/table2/static/seed2"
    shutil.rmtree(copy / run)
    partial = overlay("execution: {partial: true}")
    assert trained(planned_jobs(copy, TEST_CONFIG, partial)) == []
    done = snakemake(copy, "--configfile", TEST_CONFIG, partial)
    assert done.returncode == 0, done.stderr
    assert not (copy / run).exists()
    assert "1 of 2" in (copy / "results/test/tables/table2.md").read_text()
    assert planned_jobs(copy, TEST_CONFIG, partial) == []
    shutil.copytree(finished / run, copy / run)
    assert tables_touched(planned_jobs(copy, TEST_CONFIG, partial)) == ["table2", "tablemethods"]


def test_a_mistake_in_the_configuration_stops_before_anything_runs(tmp_path, overlay):
    done = snakemake(tmp_path, "--configfile", TEST_CONFIG, overlay("readings: {spred: sample}"))
    assert done.returncode != 0
    assert "readings.spred: unknown key. Did you mean 'spread'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_paper_is_planned_in_seconds_with_204_runs_in_its_tables():
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "-n", "--quiet", "host", "reason"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    listed = done.stdout + done.stderr
    assert re.search(r"^train +234$", listed, re.MULTILINE)
    assert re.search(r"^table_6 +1$", listed, re.MULTILINE)


DERIVED = {
    "figures/table2-curves.svg": "figures_grid",
    "made_from/tables/table2.json": "table",
    "runs/table2/static/seed1": "train",
    "runs/table2/static/seed1/metrics.csv": "train",
}
"""What a user may delete -> the rule that makes it again."""


@pytest.mark.parametrize("name", DERIVED)
def test_whatever_is_deleted_is_made_again_without_snakemakes_records(copy, name):
    shutil.rmtree(copy / ".snakemake")
    path = copy / "results" / "test" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    rule = DERIVED[name]
    assert rule in {found for found, _ in planned_jobs(copy, TEST_CONFIG)}


def test_a_file_that_was_changed_by_hand_is_made_again(copy):
    path = copy / "results" / "test" / "tables" / "table2.csv"
    right = path.read_bytes()
    path.write_bytes(right.replace(b".", b",", 1))
    assert others(planned_jobs(copy, TEST_CONFIG)) == {"table"}
    assert snakemake(copy, "--configfile", TEST_CONFIG).returncode == 0
    assert path.read_bytes() == right


def test_a_second_snakemake_is_told_that_the_first_one_works_here(copy):
    with locked(copy / "results" / "test" / ".workflow.lock"):
        (copy / "results" / "test" / "tables" / "table2.csv").unlink()
        done = snakemake(copy, "--configfile", TEST_CONFIG)
    assert done.returncode != 0
    assert "Another snakemake works in results/test" in done.stderr
