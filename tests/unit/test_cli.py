import csv
import json
import subprocess
import sys

import pytest

from east.cli import MODULES, app, load
from tests.conftest import ROOT


def east(*arguments, **settings):
    command = [sys.executable, "-m", "east", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **settings)


def test_plan_lists_every_run_as_json():
    done = east("plan", "--json")
    assert done.returncode == 0
    runs = json.loads(done.stdout)
    assert len(runs) == 234
    assert runs[0] | {"run": None, "fingerprint": None} == {
        "id": "table2/static/seed17",
        "table": "table2",
        "row": "static",
        "method": "Static",
        "model": "resnet34",
        "dataset": "cifar10",
        "seed": 17,
        "recipe": "resnet34-cifar",
        "class_on_cpu": "any processor",
        "fingerprint": None,
        "run": None,
    }


def test_output_may_be_cut_off_by_its_reader():
    command = f"{sys.executable} -m east plan --json | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[\n", "")


def test_inspect_shows_exact_counts_that_add_up():
    done = east("inspect", "table2/static/seed17", "--json")
    description = json.loads(done.stdout)
    assert len(description["tensors"]) == 37
    assert sum(tensor["nonzeros"] for tensor in description["tensors"]) == 10_633
    assert description["totals"]["dense_weights"] == 21_265_088
    assert description["totals"]["batch_norm_parameters"] == 17_024


def test_inspect_keeps_the_budget_of_the_dense_network_with_sharing():
    done = east("inspect", "tablemethods/east-combined-resnet34-cifar100/seed17", "--json")
    totals = json.loads(done.stdout)["totals"]
    assert (totals["dense_weights"], totals["stored_weights"]) == (21_311_168, 11_210_432)
    assert totals["nonzeros"] == round(0.0005 * 21_311_168)
    assert totals["dyrelu_parameters"] == 3_181_168


def test_schedule_is_csv_with_a_row_an_update():
    done = east("schedule", "table2/cosine-m10-n2-g1/seed17")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert list(rows[0]) == ["step", "epoch", "density", "drop_fraction", "lr", "beta"]
    assert (rows[0]["step"], rows[0]["epoch"]) == ("350", "1")
    assert float(rows[0]["density"]) == pytest.approx(0.0005 * 1.0349, rel=1e-4)
    back = next(row for row in rows if row["step"] == "35200")
    assert (back["density"], back["lr"]) == ("0.0005", "0.01")
    assert rows[-1]["step"] == "84000"


def test_cost_gives_the_papers_accounting_for_any_network():
    rows = json.loads(east("cost", "--json", "--no-measure").stdout)
    printed = {row["method"]: (round(row["param_size_mb"], 2), round(row["est_total_mb"], 2)) for row in rows}
    assert printed == {
        "RigL": (81.36, 100.44),
        "DCTpS": (162.66, 197.36),
        "EAST w/ DyReLU": (81.36, 107.81),
        "EAST w/ WS": (42.83, 58.78),
        "EAST w/ Cyclic": (81.36, 100.44),
        "EAST Combined": (54.96, 78.78),
    }
    other = json.loads(east("cost", "--model", "resnet50", "--dataset", "cifar100", "--json", "--no-measure").stdout)
    assert [row["method"] for row in other] == [row["method"] for row in rows]
    assert round(other[0]["param_size_mb"], 2) == 90.43


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--configfile", "nowhere.yaml"), "no configuration file nowhere.yaml"),
        (("inspect", "table2/none/seed1"), "'table2/none/seed1' is not a run of this plan"),
        (("train", "--run", "nowhere.json", "--out", "x"), "nowhere.json cannot be read"),
        (("train", "--run", '{"seed": 1}', "--out", "x"), "--run: dataset: Field required"),
        (("prepare", "mnist"), "mnist"),
        (("cost", "--model", "vgg"), "--model: there is no 'vgg'. Choose one of resnet34"),
        (("aggregate", "--table", "{}", "--runs", "x", "--out", "y"), "--table"),
        (
            ("report", "--spec", '{"title": "t", "name": "n", "colour": 1}', "--runs", "x", "--out", "y"),
            "--spec: colour: Extra inputs are not permitted",
        ),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_no_traceback(arguments, message):
    done = east(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_each_module_adds_the_commands_that_it_is_loaded_for():
    load()
    registered = {}
    for command in app.registered_commands:
        module = command.callback.__module__.removeprefix("east.cli.")
        registered.setdefault(module, []).append(command.name or command.callback.__name__)
    assert {module: tuple(names) for module, names in registered.items()} == MODULES


def test_a_command_is_loaded_without_the_others():
    program = "import sys; from east.cli import load; load('table'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    modules = done.stdout.split()
    assert "east.cli.workflow" in modules
    assert "east.cli.doctor" not in modules
    assert "east.config.schema" not in modules


def test_every_command_has_help():
    overview = east("--help").stdout
    for command in ("plan", "inspect", "schedule", "prepare", "train", "cost"):
        assert command in overview
        assert east(command, "--help").returncode == 0
