"""Commands that describe the plan and train nothing."""

import csv
import itertools
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from east.cli.common import (
    AsJson,
    ConfigFiles,
    Results,
    RunId,
    complete_kind,
    print_json,
    print_table,
    read_plan,
    read_plan_and_results,
)
from east.shown import say, tell

if TYPE_CHECKING:
    from east.config import RunSpec
    from east.operations.changes import RunChange

SHOWN = 3
"""Runs that are named of those that train again for one reason."""


def plan(
    configfile: ConfigFiles = None,
    as_json: AsJson = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="Which runs would train, and why: the plan beside the results on disk.")
    ] = False,
    results: Results = None,
    every: Annotated[bool, typer.Option("--all", help="With --changed: name every run.")] = False,
) -> None:
    """List every run of the configuration, or what a change of it trains again."""
    from east.operations.changes import compare
    from east.operations.ready import check_ready

    planned, folder = read_plan_and_results(configfile, results)
    if changed:
        runs, orphans = compare(planned, folder)
        if as_json:
            print_json({"runs": list(map(asdict, runs)), "orphans": orphans})
        else:
            _print_changes(runs, every=every)
            if orphans:
                say(f"{len(orphans)} runs on disk are in no plan; `east prune` lists them.")
            if planned.config.execution.partial:
                say("With `execution.partial: true` Snakemake trains nothing.")
        return
    check_ready(planned, Path.cwd())
    # PyTorch is needed to look at the network, and not for what is printed with --changed.
    from east.training.attempts import class_on_cpu

    rows: list[dict[str, object]] = [
        {
            "id": run.id,
            "table": run.table,
            "row": run.row,
            "method": run.label,
            "model": str(run.spec.model.name),
            "dataset": run.spec.dataset.name,
            "seed": run.spec.seed,
            "recipe": run.recipe,
            "class_on_cpu": str(class_on_cpu(run.spec)),
            "fingerprint": run.fingerprint,
            "run": run.spec.model_dump(),
        }
        for run in planned.runs
    ]
    if as_json:
        print_json(rows)
        return
    print_table(["id", "method", "model", "dataset", "seed", "recipe", "class_on_cpu"], rows)
    say(f"{len(rows)} runs")
    tell(*(f"note: {note}" for note in planned.notes))


def inspect(run_id: RunId, configfile: ConfigFiles = None, as_json: AsJson = False) -> None:
    """Show every masked tensor of a run at its target density, and what the network stores."""
    from east.training.describe import describe_network

    description = describe_network(_loaded(run_id, configfile))
    if as_json:
        print_json(description)
        return
    rows = [
        {**tensor, "shape": "x".join(map(str, tensor["shape"])), "density": f"{tensor['density']:.3g}"}
        for tensor in description["tensors"]
    ]
    print_table(["name", "shape", "density", "nonzeros"], rows)
    for key, value in description["totals"].items():
        say(f"{key.replace('_', ' ')}: {value:,}" if isinstance(value, int) else f"{key}: {value:g}")


def schedule(run_id: RunId, configfile: ConfigFiles = None) -> None:
    """Print step, epoch, density, drop fraction, learning rate and beta at each mask update, as CSV."""
    from east.data.catalog import steps_per_epoch
    from east.sparse.schedule import Schedule
    from east.sparse.timetable import Timetable

    spec = _loaded(run_id, configfile)
    of_run = Schedule.of(spec, steps_per_epoch(spec))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["step", "epoch", "density", "drop_fraction", "lr", "beta"])
    for update in Timetable(of_run):
        epoch = of_run.epoch_of(update.step)
        fraction, rate, beta = of_run.drop_fraction(update.step), of_run.learning_rate(update.step), of_run.beta(epoch)
        writer.writerow([update.step, epoch, update.density, fraction, rate, beta])


def _loaded(run_id: str, configfile: list[Path] | None) -> "RunSpec":
    """A run of the plan, whose plugins are executed: what they give is what is asked for."""
    from east.plugins import load_needed

    plan = read_plan(configfile)
    spec = plan.run(run_id).spec
    load_needed(spec.plugins, list(plan.config.catalogue.paths.values()))
    return spec


def list_parts(
    kind: Annotated[
        str | None,
        typer.Argument(help="One kind alone, for example growth.", autocompletion=complete_kind),
    ] = None,
    configfile: ConfigFiles = None,
    as_json: AsJson = False,
) -> None:
    """List what a configuration may name: networks, rules, schedules, optimizers, data sets, with parameters."""
    from east.config import read_config
    from east.operations.parts import registered
    from east.plugins import NO_PLUGINS

    catalogue = read_config(*configfile).catalogue if configfile else NO_PLUGINS
    parts = list(registered(kind, catalogue))
    if as_json:
        print_json(parts)
        return
    width = max(len(part["name"]) for part in parts)
    for kind, members in itertools.groupby(parts, lambda part: part["kind"]):
        say(f"{kind}:")
        for part in members:
            parameters = (name if value is None else f"{name} = {value}" for name, value in part["parameters"].items())
            plugin = f"in {part['plugin']}" if part["plugin"] else ""
            first, *more = [text for text in (part["about"], ", ".join(parameters), part["paper"], plugin) if text] or [
                ""
            ]
            say(f"  {part['name']:<{width}}  {first}".rstrip())
            for line in more:
                say(f"  {'':<{width}}  {line}")


def _print_changes(runs: "list[RunChange]", *, every: bool) -> None:
    from east.operations.changes import TRAINS

    groups: dict[tuple[str, str], list[str]] = {}
    for run in sorted((run for run in runs if run.status in TRAINS), key=lambda run: TRAINS.index(run.status)):
        groups.setdefault((run.status, run.reason), []).append(run.id)
    for (status, reason), ids in groups.items():
        if len(ids) == 1:
            say(f"{status:<10}  {ids[0]}: {reason}")
            continue
        say(f"{status:<10}  {len(ids)} runs: {reason}")
        for run_id in ids if every else ids[:SHOWN]:
            say(f"              {run_id}")
        if not every and len(ids) > SHOWN:
            say(f"              and {len(ids) - SHOWN} more; --all names them")
    train = sum(map(len, groups.values()))
    say(f"{train} of {len(runs)} runs would train, {len(runs) - train} are done.")
