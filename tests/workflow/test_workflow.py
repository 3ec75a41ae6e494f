import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from east import load_results
from east.analysis.results import dtypes, row_columns, run_columns
from east.training.records import EpochRecord
from tests.workflow.conftest import ROOT, TEST_CONFIG, snakemake
from tests.workflow.dag import planned_jobs

pytestmark = pytest.mark.workflow

RUNS = [
    f"{row}/seed{seed}"
    for row in ("table2/cosine-m3-n1", "table2/static", "table3/triangular-m3-n1")
    for seed in (1, 2)
]
TABLES = ("table2", "table3", "tablemethods")


def overlay(tmp_path, text):
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    return path


def trained(jobs):
    return [re.sub(r"results/test/runs/(.*)/summary.json", r"\1", output) for rule, output in jobs if rule == "train"]


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
    for name, columns in (("runs", run_columns()), ("epochs", row_columns(EpochRecord))):
        written = pd.read_csv(results / "tables" / f"{name}.csv", dtype=dtypes(columns))
        pd.testing.assert_frame_equal(written, getattr(found, name))
    costs = json.loads((results / "cost" / "cost.json").read_text())
    assert [row["method"] for row in costs] == ["RigL"]
    assert costs[0]["seconds_per_step"] > 0


def test_a_line_tells_of_every_finished_run_with_the_share_done(finished, tmp_path):
    done = snakemake(tmp_path, "--configfile", str(TEST_CONFIG), "--quiet", "all", "--until", "train")
    assert done.returncode == 0, done.stderr
    shares = re.findall(r"^table\S+ +test +\d+\.\d\d % +\d+\.\d s  \[(\d)/6\]$", done.stdout, re.MULTILINE)
    assert len(shares) == 6
    assert max(shares) == "6"


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
def test_a_change_runs_exactly_what_it_touches(finished, tmp_path, change):
    text, runs, rules = CHANGES[change]
    jobs = planned_jobs(finished, TEST_CONFIG, overlay(tmp_path, text))
    assert trained(jobs) == runs
    assert others(jobs) == rules


def test_a_changed_row_renders_only_the_tables_that_show_it(finished, tmp_path):
    text, *_ = CHANGES["a row's multiplier"]
    jobs = planned_jobs(finished, TEST_CONFIG, overlay(tmp_path, text))
    assert tables_touched(jobs) == ["table3"]


def test_touching_a_prepared_data_set_trains_nothing(copy):
    (copy / "data" / "digits" / "manifest.json").touch()
    assert trained(planned_jobs(copy, TEST_CONFIG)) == []


def dry_run(workdir, package):
    """What a user with this copy of the package is told, as rule names; in a process of its own."""
    program = (
        "import sys; from pathlib import Path; sys.path.append(sys.argv[3]);"
        "from tests.workflow.dag import planned_jobs;"
        "print([rule for rule, _ in planned_jobs(Path(sys.argv[1]), Path(sys.argv[2]))])"
    )
    command = [sys.executable, "-c", program, str(workdir), str(TEST_CONFIG), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=workdir, env={"PYTHONPATH": str(package)})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("old", "new", "trainings"),
    [("REVISION = 3", "REVISION = 4", 6), ('__version__ = "0.1.0"', '__version__ = "9"  # a comment', 0)],
    ids=["raising the revision", "editing code"],
)
def test_only_the_revision_of_the_code_trains_again(finished, tmp_path, old, new, trainings):
    package = shutil.copytree(ROOT / "east", tmp_path / "east")
    source = package / "version.py"
    source.write_text(source.read_text().replace(old, new))
    assert new in source.read_text()
    assert dry_run(finished, tmp_path).count("'train'") == trainings


def test_a_changed_row_trained_for_real_leaves_every_other_run_alone(copy, tmp_path):
    runs = copy / "results" / "test" / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/*/summary.json")}
    page = (copy / "results/test/tables/table2.html").stat().st_mtime_ns
    text, new, _ = CHANGES["a row's multiplier"]
    done = snakemake(copy, "--configfile", str(TEST_CONFIG), str(overlay(tmp_path, text)))
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/*/summary.json")}
    assert {path: after[path] for path in before} == before
    assert sorted(str(path.parent.relative_to(runs)) for path in after.keys() - before.keys()) == new
    assert (copy / "results/test/tables/table2.html").stat().st_mtime_ns == page
    assert "| Triangular | 4 |" in (copy / "results/test/tables/table3.md").read_text()


def test_a_stale_summary_is_refused_by_name_even_without_snakemakes_records(copy, tmp_path):
    shutil.rmtree(copy / ".snakemake")
    changed = overlay(tmp_path, "recipes: {resnet34-digits: {lr: 0.2}}")
    done = snakemake(
        copy, "--configfile", str(TEST_CONFIG), str(changed), "--forcerun", "aggregate", "--until", "aggregate"
    )
    assert done.returncode != 0
    message = (copy / "results/test/logs/aggregate/table2.log").read_text()
    assert all(run in message for run in RUNS if run.startswith("table2"))
    assert "Traceback" not in message


def test_a_partial_report_shows_what_is_missing_and_trains_nothing(copy, tmp_path):
    shutil.rmtree(copy / "results" / "test" / "runs" / "table2" / "static" / "seed2")
    partial = overlay(tmp_path, "execution: {partial: true}")
    done = snakemake(copy, "--configfile", str(TEST_CONFIG), str(partial))
    assert done.returncode == 0, done.stderr
    assert not (copy / "results/test/runs/table2/static/seed2").exists()
    assert "1 of 2" in (copy / "results/test/tables/table2.md").read_text()


def test_a_partial_report_is_made_again_when_a_run_has_ended_since(finished, copy, tmp_path):
    run = "results/test/runs/table2/static/seed2"
    shutil.rmtree(copy / run)
    partial = overlay(tmp_path, "execution: {partial: true}")
    done = snakemake(copy, "--configfile", str(TEST_CONFIG), str(partial), "--until", "aggregate")
    assert done.returncode == 0, done.stderr
    assert tables_touched(planned_jobs(copy, TEST_CONFIG, partial)) == []
    shutil.copytree(finished / run, copy / run)
    assert tables_touched(planned_jobs(copy, TEST_CONFIG, partial)) == ["table2", "tablemethods"]


def test_a_mistake_in_the_configuration_stops_before_anything_runs(tmp_path):
    done = snakemake(tmp_path, "--configfile", str(TEST_CONFIG), str(overlay(tmp_path, "readings: {spred: sample}")))
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


def test_rendering_never_imports_torch():
    modules = ("cli", "config", "analysis.aggregate", "render.contents", "render.figures", "render.tables")
    imports = "; ".join(f"import east.{module}" for module in modules)
    program = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
