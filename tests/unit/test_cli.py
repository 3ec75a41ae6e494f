import csv
import json
import logging
import os
import subprocess
import sys
from typing import get_args

import pytest

import east as package
from east.cli import COMMANDS
from east.cli.common import ChangedPluginName, DeviceName, EngineName, StepName, TrackingName
from east.config.schema import Execution
from east.config.vocabulary import Activation
from east.log import configure_logging
from east.methods import KINDS
from tests.conftest import ROOT
from tests.unit.fake_runs import PLAN, TEST_CONFIG
from tests.unit.in_process import east

RUNS_OF_TABLE3 = [run.id for run in PLAN.values() if run.table == "table3"]


def east_process(*arguments, **settings):
    command = [sys.executable, "-m", "east", *map(str, arguments)]
    return subprocess.run(command, text=True, cwd=ROOT, **({"capture_output": True} | settings))


def test_plan_lists_every_run_as_json():
    done = east("plan", "--configfile", TEST_CONFIG, "--json")
    assert done.returncode == 0
    runs = json.loads(done.stdout)
    assert len(runs) == 6
    assert runs[0] | {"run": None, "fingerprint": None} == {
        "id": "table2/static/seed1",
        "table": "table2",
        "row": "static",
        "method": "Static",
        "model": "resnet34",
        "dataset": "digits",
        "seed": 1,
        "recipe": "resnet34-digits",
        "class_on_cpu": "any processor",
        "fingerprint": None,
        "run": None,
    }


def test_output_may_be_cut_off_by_its_reader():
    reader, writer = os.pipe()
    os.close(reader)
    done = east_process("list", capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == ""


def test_inspect_shows_exact_counts_that_add_up_to_the_budget_of_the_dense_network():
    done = east("inspect", "tablemethods/east-combined-resnet34-cifar100/seed17", "--json")
    description = json.loads(done.stdout)
    totals = description["totals"]
    assert (totals["dense_weights"], totals["stored_weights"]) == (21_311_168, 11_210_432)
    nonzeros = [tensor["nonzeros"] for tensor in description["tensors"]]
    assert sum(nonzeros) == totals["nonzeros"] == round(0.0005 * 21_311_168)
    assert (totals["batch_norm_parameters"], totals["dyrelu_parameters"]) == (17_024, 3_181_168)


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
    configured = ("cost", "--configfile", TEST_CONFIG, "--json", "--no-measure")
    done = [east(*configured, *arguments) for arguments in ((), ("--model", "resnet50", "--dataset", "cifar100"))]
    (ours,), (other,) = (json.loads(each.stdout) for each in done)
    assert ours["method"] == other["method"] == "RigL"
    assert ours["seconds_per_step"] is None
    assert ours["param_size_mb"] < ours["est_total_mb"] < other["est_total_mb"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--configfile", "nowhere.yaml"), "no configuration file nowhere.yaml"),
        (("inspect", "table2/none/seed1"), "'table2/none/seed1' is not a run of this plan"),
        (("train", "--run", "nowhere.json", "--out", "x"), "nowhere.json cannot be read"),
        (("train", "--run", '{"seed": 1}', "--out", "x"), "--run: dataset: Field required"),
        (("train", "--run", "{}", "--out", "x", "--threads", "40000"), "40000 threads are more than this machine"),
        (("prepare", "emnist"), "emnist"),
        (("status", "--json", "--watch"), "Leave one of them out."),
        (("lock", "--results", "nowhere"), "none of the plan's 234 runs is finished in nowhere."),
        (("verify", "nowhere.json"), "nowhere.json cannot be read"),
        (("verify", "pyproject.toml"), "pyproject.toml"),
        (("restore", "nowhere.tar.gz"), "nowhere.tar.gz cannot be used: "),
        (("restore", "pyproject.toml"), "pyproject.toml is damaged"),
        (("merge", "docs"), "docs has no folder runs. Give another person's results/paper."),
        (("prune", "--results", "nowhere"), "there is no folder nowhere, so there is nothing to remove."),
        (("cost", "--model", "vgg"), "--model: there is no 'vgg'. Choose one of resnet18, resnet34"),
        (("make", "--results", "x", "--request", "{}"), "--request: step: Field required"),
        (("make", "--results", "x", "--request", '{"step": "dance"}'), "--request: there is no step 'dance'"),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_no_traceback(arguments, message):
    done = east(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


HEAVY = {
    "torch",
    "numpy",
    "pandas",
    "yaml",
    "rich",
    "sklearn",
    "scipy",
    "matplotlib",
    "jinja2",
    "safetensors",
}
NAMES = [name for commands in COMMANDS.values() for name in commands]


def test_help_lists_what_people_use_in_groups_and_hides_the_steps_of_the_workflow():
    sections = {text.partition(":\n")[0]: text for text in east("--help").stdout.split("\n\n")}
    for group, commands in COMMANDS.items():
        if group:
            listed = [line.split()[0] for line in sections[group].splitlines()[1:] if line[2] != " "]
            assert listed == list(commands)
    assert not any(f"\n  {name} " in "".join(sections.values()) for name in COMMANDS[""])


def test_help_loads_nothing_heavy():
    program = (
        "import sys\nfrom east.cli import main\n"
        "for arguments in [['--help'], *([name, '--help'] for name in sys.argv[1:])]:\n"
        "    sys.argv = ['east', *arguments]\n"
        "    try: main()\n    except SystemExit as end: assert not end.code\n"
        "    if arguments == ['--help']: assert 'pydantic' not in sys.modules\n"  # Typer parses other options with it
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *NAMES], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert HEAVY & set(done.stderr.split()) == set()


def test_the_version_names_the_commit_of_a_checkout():
    done = east("--version")
    assert done.stdout.startswith(f"east {package.__version__}")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert head.returncode != 0 or head.stdout.strip() in done.stdout


def test_every_part_that_a_configuration_may_name_is_listed_with_its_parameters():
    parts = {(part["kind"], part["name"]): part for part in json.loads(east("list", "--json").stdout)}
    for kind, names in {"activations": Activation}.items():
        assert {name for found, name in parts if found == kind} == set(get_args(get_args(names)[0]))
    for kind in KINDS.values():
        assert [name for found, name in parts if found == kind.name] == [entry.name for entry in kind]
    assert parts["growth rules", "momentum"]["parameters"] == {"decay": 0.9, "redistribute": True}
    assert parts["growth rules", "momentum"]["gradient"] == "steps"
    assert parts["growth rules", "momentum"]["meanings"]["decay"]
    assert "Dettmers" in parts["growth rules", "momentum"]["paper"]
    assert parts["optimizers", "sgd"]["parameters"] == {"momentum": 0.0, "nesterov": False}
    assert parts["topologies", "fixed"]["parameters"] == {}
    printed = east("list").stdout
    assert all(f"\n  {name} " in printed or f"\n  {name}\n" in printed for _, name in parts)


def test_one_kind_may_be_listed_alone():
    listed = json.loads(east("list", "growth", "--json").stdout)
    assert {part["kind"] for part in listed} == {"growth rules"}
    refused = east("list", "growths")
    assert refused.returncode == 1
    assert "growth" in refused.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sta", ["status"]),
        ("tab", []),
        ("inspect --configfile config/test.yaml table3/", RUNS_OF_TABLE3),
        ("inspect --configfile nowhere.yaml table", []),
        ("status --configfile config/test.yaml --table table", ["table2", "table3", "tablemethods"]),
        ("prepare digit", ["digits", "digit_pairs"]),
        ("cost --model resnet50", ["resnet50", "resnet50_imagenet"]),
        ("train --engine d", ["dense"]),
        ("new gr", ["growth"]),
        ("try resnet34 digits --method s", ["set", "snfs", "set-itop"]),
        ("export --as non", ["nonzeros"]),
    ],
)
def test_shells_complete_commands_choices_and_names_of_the_plan(words, found):
    typed = f"east {words}"
    asked = {"_EAST_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = east_process(env=os.environ | asked)
    assert (done.stdout.split(), done.stderr) == (found, "")


def test_choices_are_those_of_the_configuration():
    fields = Execution.model_fields
    for name, choices in {
        "device": DeviceName,
        "engine": EngineName,
        "step": StepName,
        "tracking": TrackingName,
        "changed_plugin": ChangedPluginName,
    }.items():
        assert fields[name].annotation == choices


def test_log_lines_are_printed_with_their_level(capsys):
    configure_logging()
    logger = logging.getLogger("east.some.part")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logger.log(level, "step %d", level)
    assert capsys.readouterr().err == "step 20\nwarning: step 30\n"
