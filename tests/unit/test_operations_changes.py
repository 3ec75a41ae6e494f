import json
import shutil

import pytest

from tests.unit.fake_runs import PLAN, TEST_CONFIG, write_planned_run
from tests.unit.in_process import east

STATIC, OTHER_SEED = "table2/static/seed1", "table2/static/seed2"


@pytest.fixture
def results(tmp_path):
    """A results folder in which every run of the test's plan is finished."""
    for run in PLAN.values():
        write_planned_run(tmp_path / "results" / "runs", run)
    return tmp_path / "results"


@pytest.fixture
def told(results, tmp_path):
    """What `east plan --changed` prints about that folder with an overlay over the test's configuration."""

    def tell(overlay="{}", *options):
        (tmp_path / "overlay.yaml").write_text(overlay)
        files = ("--configfile", TEST_CONFIG, "--configfile", tmp_path / "overlay.yaml")
        done = east("plan", "--changed", *files, "--results", results, *options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return tell


def test_runs_that_change_by_one_key_are_one_line_with_a_count(told):
    lines = told("recipes: {resnet34-digits: {lr: 0.15}}").splitlines()
    assert lines[0] == "changed     6 runs: training.lr 0.1 -> 0.15"
    assert [line.strip() for line in lines[1:5]] == [*list(PLAN)[:3], "and 3 more; --all names them"]
    assert lines[5] == "6 of 6 runs would train, 0 are done."
    every = told("recipes: {resnet34-digits: {lr: 0.15}}", "--all").splitlines()
    assert [line.strip() for line in every[1:7]] == list(PLAN)


def test_each_run_is_named_with_every_key_that_changed(told, results):
    shutil.rmtree(results / "runs" / STATIC)
    run = PLAN[OTHER_SEED]
    old = run.spec.model_dump(mode="json") | {"revision": 1}
    old["training"] |= {"gradient_clip": None, "lr_drop_epochs": [1, 2]}
    write_planned_run(results / "runs", run, run=old, fingerprint="f" * 64)
    lines = told().splitlines()
    assert lines[0] == f"new         {STATIC}: never trained"
    assert lines[1].startswith(
        f"changed     {OTHER_SEED}: trained under revision 1; this is {run.spec.revision}: the arithmetic changed, "
        "training.lr_drop_epochs [1, 2] -> [1], "
        'training.gradient_clip null -> {"norm": 1.0, '
    )
    assert lines[2] == "2 of 6 runs would train, 4 are done."


def test_a_run_from_before_an_option_existed_is_done(told, results):
    run = PLAN[STATIC]
    write_planned_run(results / "runs", run, run=json.loads(run.spec.canonical_json()))
    assert told() == "0 of 6 runs would train, 6 are done.\n"
    (results / "runs" / STATIC / "summary.json").unlink()
    (results / "runs" / STATIC / "run.json").write_text(run.spec.canonical_json())
    assert told().splitlines()[0] == f"unfinished  {STATIC}: begun"


def test_an_unfinished_run_says_where_it_goes_on(told, results):
    folder = results / "runs" / STATIC
    (folder / "summary.json").unlink()
    assert told().splitlines()[0] == f"unfinished  {STATIC}: begun"
    (folder / "checkpoint-000001.pt").touch()
    assert told().splitlines()[0] == f"unfinished  {STATIC}: resumes after epoch 1 of 2"
    (folder / "checkpoint-000001.pt").rename(folder / "checkpoint-000001-000004.pt")  # within the first epoch
    assert told().splitlines()[0] == f"unfinished  {STATIC}: resumes after epoch 0 of 2"


def test_a_run_that_was_begun_with_other_settings_has_changed(told, results):
    (results / "runs" / STATIC / "summary.json").unlink()
    spec = PLAN[STATIC].spec.model_dump(mode="json") | {"seed": 9}
    (results / "runs" / STATIC / "run.json").write_text(json.dumps(spec))
    assert told().splitlines()[0] == f"changed     {STATIC}: seed 9 -> 1"


def test_a_summary_that_was_taken_away_is_put_back_and_not_trained(told, results):
    folder = results / "runs" / STATIC
    (folder / "summary.json").rename(folder / "summary.kept.json")
    assert told().splitlines()[0] == f"unfinished  {STATIC}: finished; its summary will be put back"


def test_a_summary_with_another_identity_alone_has_changed_in_that(told, results):
    write_planned_run(results / "runs", PLAN[STATIC], fingerprint="f" * 64)
    assert told().splitlines()[0] == f"changed     {STATIC}: fingerprint {'f' * 64} -> {PLAN[STATIC].fingerprint}"


def test_what_lies_among_runs_and_is_none_is_not_counted(told, results):
    (results / "runs" / "table2/static/notes.txt").write_text("mine")
    (results / "runs" / "table2/static/.seed7").mkdir()
    assert told() == "0 of 6 runs would train, 6 are done.\n"


def test_a_damaged_summary_trains_again(told, results):
    (results / "runs" / STATIC / "summary.json").write_text('{"id": ')
    (results / "runs" / STATIC / "run.json").unlink()
    assert told().splitlines()[0] == f"damaged     {STATIC}: its summary.json cannot be read"


def test_runs_in_no_plan_are_counted(told):
    text = told("seeds: [1]")
    assert "0 of 3 runs would train, 3 are done.\n3 runs on disk are in no plan; `east prune` lists them.\n" in text


def test_a_file_that_the_summary_does_not_know_is_damage(told, results):
    path = results / "runs" / STATIC / "metrics.csv"
    path.write_text(path.read_text().replace("50.0", "51.0"))
    assert told().splitlines()[0].startswith(f"damaged     {STATIC}: its metrics.csv")


def test_json_has_status_and_keys_of_every_run(told):
    changes = json.loads(told("recipes: {resnet34-digits: {lr: 0.15}}\nseeds: [1]", "--json"))
    assert [run["id"] for run in changes["runs"]] == [run for run in PLAN if run.endswith("seed1")]
    assert {run["status"] for run in changes["runs"]} == {"changed"}
    assert changes["runs"][0]["differences"] == [{"key": "training.lr", "old": 0.1, "new": 0.15}]
    assert changes["orphans"] == sorted(run for run in PLAN if run.endswith("seed2"))


def test_without_results_every_run_is_new(tmp_path):
    done = east("plan", "--changed", "--results", tmp_path / "none")
    assert done.stdout.startswith("new         234 runs: never trained\n")
