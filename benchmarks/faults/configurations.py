"""Random configurations, half of them broken in one place: plan, dry run, doctor and training agree on what can run."""

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import yaml
from snakemake.api import SnakemakeApi
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

from benchmarks.faults.outcome import Outcome
from east.config import Plan, RunSpec, make_plan, read_config
from east.data.open import open_dataset
from east.data.prepare import prepare
from east.errors import EastError
from east.operations.doctor.ask import Asker
from east.operations.doctor.checks import can_run, examine
from east.operations.doctor.surroundings import Surroundings
from east.operations.ready import check_ready
from east.training.assembly import Training
from east.training.loop import run_loop

PROJECT = Path(__file__).parents[2]
STEPS = 2
"""Optimizer steps by which a training shows that it can run."""

TRAINED = 3
"""Runs of a configuration that are begun."""

IMAGES = {"digits": (1_438, 12), "digit_pairs": (4_000, 8)}
"""Data set -> training images, and the shorter side of one."""

Values = dict[str, Any]


def cases(count: int, seed: int, ask: Callable[[Path], Asker] | None = None) -> Iterator[Outcome]:
    """Draw configurations, the first ones the same whatever the count, and see whether all judges say the same.

    Args:
        count: how many.
        seed: decides which.
        ask: what the doctor asks in a folder; this machine if absent.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dataset in IMAGES:
            prepare(dataset, folder / "data")
        judges = Judges(folder, ask(folder) if ask else Asker(os.environ, folder))
        for number in range(count):
            draw = random.Random(f"{seed}-{number}")
            values, broken = configuration(draw), ""
            if number % 2:
                broken, change, needle = draw.choice(BREAKS)
                change(values, draw)
                yield judges.of(f"{number}: {broken}", values, needle)
            else:
                yield judges.of(f"{number}: sound", values, None)


def configuration(draw: random.Random) -> Values:
    """A configuration of a few short trainings that can all run, often at the edge of what can."""
    dataset = draw.choice(list(IMAGES))
    images, side = IMAGES[dataset]
    validation = draw.choice([1, 100, images // 2])
    batch = draw.choice([128, 200, 256])
    steps = -(-(images - validation) // batch)
    epochs = draw.randint(3, 5)
    period = draw.randint(1, 2)
    optimizer: Values = draw.choice(
        [
            {"name": "adam", "momentum": 0, "nesterov": False},
            {"name": "sgd", "momentum": draw.choice([0.5, 0.9]), "nesterov": draw.random() < 0.5},
            {"name": "sgd", "momentum": 0, "nesterov": False},
        ]
    )
    recipe: Values = {
        "system": draw.choice(["EAST", "Système", "方法"]),
        "model": draw.choice(["resnet34", "resnet34", "resnet50", "resnet50_imagenet"]),
        "width": draw.randint(2, 5),
        "datasets": [dataset],
        "components": _components(draw),
        "batch_size": batch,
        "epochs": epochs,
        "lr": draw.choice([0.1, 1e-3]),
        "lr_drop_epochs": sorted(draw.sample(range(1, epochs), draw.randint(0, 2))),
        "optimizer": optimizer,
        "weight_decay": draw.choice([0, 1e-4]),
        "distribution": draw.choice(["erk", "uniform", "erk_as_coded"]),
        "update_period": draw.randint(1, steps * epochs - 1),
        "cyclic": {
            "pattern": draw.choice(["cosine", "triangular"]),
            "multiplier": draw.choice([1.5, 2, 3]),
            "cycles": draw.randint(1, 2),
            "cycle_length": (3 * period + 2) / steps if steps > 2 else 1.5,
            "update_period": period,
        },
    }
    if draw.random() < 0.5:
        recipe["gradient_clip"] = draw.choice(
            [None, "readings", {"norm": 1, "scope": "active"}, {"norm": 2, "scope": "dense", "estimator": "exact"}]
        )
    cyclic: Values = recipe["cyclic"]
    row = {key: cyclic[key] for key in ("pattern", "multiplier", "cycles")} | {"fit": "rescale"}
    cyclic["cycle_length"] = min(cyclic["cycle_length"], epochs / cyclic["cycles"])
    return {
        "name": "drawn",
        "title": draw.choice(["Plain", 'It\'s "quoted" & <b>', "$HOME `x` \\", "-n", "ünï 数"]),
        "seeds": sorted(draw.sample(range(50), draw.randint(1, 2))),
        "density": draw.choice([0.1, 0.15]),
        "execution": {"device": "cpu", "threads": 1, "data_dir": "data"},
        "readings": {
            "cycle_end": draw.choice(["target", "as_coded"]),
            "topology": draw.choice(["rigl", "set"]),
            "static_topology": draw.choice(["rigl", "set", "fixed"]),
            "accuracy": draw.choice(["final", "best_validation"]),
        },
        "datasets": {
            dataset: {
                "margin": draw.choice([0, 1, side - 1]),
                "padding": draw.choice(["reflect", "zero"]),
                "validation": validation,
                "validation_choice": draw.choice(["last", "shuffled"]),
            }
        },
        "recipes": {"resnet50-cifar-dct": None, "resnet50-imagenet": None, "drawn": recipe},
        "tables": {
            "table2": {
                "recipe": "drawn",
                "dataset": dataset,
                "published": draw.choice([None, "table2.csv"]),
                "rows": [{"static": True, "label": draw.choice(["Static", "a{b}", "x'y"])}, row],
            },
            "table3": None,
            "table4": None,
            "table5": None,
        },
        "methods": {"recipes": {"cifar10": None, "cifar100": None, dataset: "drawn"}, "systems": ["drawn"]},
        "cost": {"recipe": "drawn", "dataset": dataset},
    }


def _components(draw: random.Random) -> Values:
    return {
        "activation": draw.choice(["relu", "dyrelu"]),
        "sharing_ratio": draw.choice([None, 2, 5]),
        "dct": draw.random() < 0.3,
    }


def _set(*path: str | int, to: Callable[[random.Random], object]) -> Callable[[Values, random.Random], None]:
    """What writes a drawn value at a place; the only data set of the configuration is called `DATASET`."""

    def change(values: Values, draw: random.Random) -> None:
        dataset = values["cost"]["dataset"]
        node: Any = values
        *sections, last = (dataset if part == "DATASET" else part for part in path)
        for part in sections:
            node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
        node[last] = to(draw)

    return change


def _always(*values: object) -> Callable[[random.Random], object]:
    return lambda draw: draw.choice(values)


def _same_method_twice(values: Values, draw: random.Random) -> None:
    values["methods"]["rows"] = {"A  b/C": {}, draw.choice(["a-b-c", "A B C"]): {"dct": True}}


def _table(name: str) -> Callable[[Values, random.Random], None]:
    def change(values: Values, draw: random.Random) -> None:
        values["tables"][name] = values["tables"]["table2"] | {"published": None}

    return change


EITHER = ""
"""All judges accept such a configuration, or all refuse it."""

RECIPE = ("recipes", "drawn")
CYCLIC = (*RECIPE, "cyclic")
BREAKS: list[tuple[str, Callable[[Values, random.Random], None], str]] = [
    ("an unknown key", _set(*RECIPE, "epoch", to=_always(3)), "recipes.drawn.epoch"),
    ("a word for a number", _set(*RECIPE, "lr", to=_always("fast", True, [1], None, -1, 0)), "recipes.drawn.lr"),
    ("a boolean as a seed", _set("seeds", to=_always([True], [False, 2], [1.5], [2.0])), "seeds"),
    ("a seed twice", _set("seeds", to=_always([3, 3])), "seeds"),
    ("too low a density", _set("density", to=_always(1e-7, 1e-320, 1e-4)), "density"),
    ("too high a peak", _set("tables", "table2", "rows", 1, "multiplier", to=_always(11, 1e6)), "table2.rows.1"),
    ("validation of everything", _set("datasets", "DATASET", "validation", to=_always(4000, 10**9)), "validation"),
    ("a margin without image", _set("datasets", "DATASET", "margin", to=_always(12, 50, 10**6)), "margin"),
    ("best validation of none", lambda values, draw: _no_validation(values), "readings.accuracy"),
    ("a batch of everything", _set(*RECIPE, "batch_size", to=_always(5000, 10**8)), "batch_size"),
    ("a rate drop too late", _set(*RECIPE, "lr_drop_epochs", to=_always([5], [1, 99])), "lr_drop_epochs"),
    ("a rate drop twice", _set(*RECIPE, "lr_drop_epochs", to=_always([1, 1], [2, 1])), "lr_drop_epochs"),
    ("a late mask update", _set(*RECIPE, "update_period", to=_always(10**4, 10**9)), "update_period"),
    ("a late cyclic update", _set(*CYCLIC, "update_period", to=_always(10**4, 10**9)), "update_period"),
    ("cycles of no length", _set(*CYCLIC, "cycle_length", to=_always(1e-300, 1e-3)), "density never changes"),
    ("endless cycles", _set(*CYCLIC, "cycles", to=_always(10**8, 0, 1.5)), "cyclic.cycles"),
    # Where a budget lies halfway between two numbers of weights, such a cycle has one more, and is one.
    ("cycles too low", _set("tables", "table2", "rows", 1, "multiplier", to=_always(1 + 1e-9)), EITHER),
    ("Adam with momentum", _set(*RECIPE, "optimizer", to=_always({"name": "adam", "momentum": 0.9})), "optimizer"),
    (
        "Nesterov alone",
        _set(*RECIPE, "optimizer", to=_always({"name": "sgd", "momentum": 0, "nesterov": True})),
        "nesterov",
    ),
    ("a rising drop fraction", _set("readings", "drop_fraction_end", to=_always(0.6, 1)), "drop_fraction_end"),
    ("bf16 on a CPU", _set("readings", "numerics", to=_always("bf16")), "readings.numerics"),
    ("sharing of nothing", _set(*RECIPE, "components", "sharing_ratio", to=_always(6, 99)), "sharing_ratio"),
    ("published by nobody", _set("tables", "table2", "published", to=_always("none.csv", "table6.csv")), "published"),
    ("a folder by an unset name", _set("execution", "data_dir", to=_always("$EAST_UNSET/x", "")), "data_dir"),
    ("a file for a folder", _set("execution", "data_dir", to=_always("afile", "afile/data")), "no folder"),
    ("a title that hides", _set("title", to=_always("a\u202eb", "a\x1b[2J", "", 7)), "title"),
    ("a text without end", _set("title", to=_always("x" * 10**5)), "title"),
    (
        "a reserved name",
        lambda values, draw: _table(draw.choice(["table6", "tableB1", "tablemethods"]))(values, draw),
        "own",
    ),
    ("capitals alone", _table("tAble2"), "tables"),
    ("one slug for two", _same_method_twice, "methods.rows"),
    ("a row twice", _set("tables", "table2", "rows", 1, to=_always({"static": True})), "rows.1"),
    ("no rows", _set("tables", "table2", "rows", to=_always([], None, 3)), "table2.rows"),
    ("a recipe that is not there", _set("tables", "table2", "recipe", to=_always("other")), "table2.recipe"),
    ("a folder for digits", _set("datasets", "DATASET", "folder", to=_always("/images")), "folder"),
    ("fading what does not fade", _set("methods", "rows", "RigL", to=_always({"measured_at_beta": 0})), "RigL"),
]
"""What is wrong -> how a configuration comes to it, and a part of what must then be said."""


def _no_validation(values: Values) -> None:
    values["readings"]["accuracy"] = "best_validation"
    values["datasets"][values["cost"]["dataset"]]["validation"] = 0


class Judges:
    """All that say whether a plan can run, in a folder with prepared data."""

    def __init__(self, folder: Path, ask: Asker) -> None:
        self.folder = folder
        (folder / "afile").write_text("")
        self._ask = ask

    def of(self, case: str, values: Values, needle: str | None) -> Outcome:
        """What they say of a configuration that is broken, so that `needle` is named, sound (None), or `EITHER`."""
        file = self.folder / "drawn.yaml"
        file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
        said: dict[str, str] = {}
        plan: Plan | None = None
        with chdir(self.folder):
            try:
                said["plan"] = ""
                plan = make_plan(read_config(file))
                check_ready(plan, self.folder)
            except EastError as error:
                said["plan"] = str(error)
            except Exception as error:
                return Outcome(case, f"plan: {type(error).__name__}: {error}"[:300])
            said["dry run"] = self._dry_run(file)
            if plan is not None:
                said["doctor"] = self._doctor(plan)
            if plan is not None and not said["plan"]:
                said["training"] = self._training(plan)
        return Outcome(case, _disagreement(said, needle))

    def _dry_run(self, file: Path) -> str:
        """Why `snakemake -n` refuses the plan; empty if it does not."""
        try:
            with redirect_stderr(StringIO()), SnakemakeApi(OutputSettings(dryrun=True)) as snakemake:
                workflow = snakemake.workflow(
                    resource_settings=ResourceSettings(cores=1),
                    config_settings=ConfigSettings(configfiles=[file]),
                    snakefile=PROJECT / "Snakefile",
                    workdir=self.folder,
                )
                workflow.dag().execute_workflow(executor="dryrun")
        except WorkflowError as error:
            return str(error) or type(error).__name__
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _doctor(self, plan: Plan) -> str:
        """What the doctor finds that would stop the plan; empty if nothing does."""
        found = examine(Surroundings(plan, self._ask, self.folder / "results" / plan.config.name))
        errors = [finding.found for findings in found.values() for finding in findings if finding.level == "error"]
        return "" if can_run(found) else "; ".join(errors)

    def _training(self, plan: Plan) -> str:
        """Why one of the first kinds of run cannot make its first steps; empty if all can."""
        kinds = {run.spec.model_copy(update={"seed": 0}): run.spec for run in plan.runs}
        try:
            for spec in list(kinds.values())[:TRAINED]:
                begin(spec, self.folder / "data")
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:300]
        return ""


def begin(spec: RunSpec, data_dir: Path) -> None:
    """Train a run for its first steps, on the CPU."""
    device = torch.device("cpu")
    data = open_dataset(spec.dataset, spec.training.batch_size, spec.seed, data_dir, device)
    run_loop(Training.begin(spec, data, device=device), until=STEPS)


def _disagreement(said: dict[str, str], needle: str | None) -> str:
    """What is not as it should be, in a line; empty if all is."""
    if needle is None or (needle == EITHER and not any(said.values())):
        return "; ".join(f"{who} refuses: {why}" for who, why in said.items() if why)
    wrong = [f"{who} accepts" for who, why in said.items() if not why]
    wrong += [f"{who} does not name {needle}: {why}" for who, why in said.items() if why and needle not in why]
    return "; ".join(wrong)
