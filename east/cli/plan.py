"""Commands that describe the plan and train nothing."""

import csv
import sys

from east.cli.app import app
from east.cli.input import read_plan
from east.cli.options import AsJson, ConfigFiles, RunId
from east.cli.output import print_json, print_table
from east.config import Run


@app.command()
def plan(configfile: ConfigFiles = None, as_json: AsJson = False) -> None:
    """List every run of the configuration."""
    rows = [_plan_row(run) for run in read_plan(configfile).runs]
    if as_json:
        print_json(rows)
        return
    print_table(["id", "method", "model", "dataset", "seed", "recipe"], rows)
    print(f"{len(rows)} runs")


@app.command()
def inspect(run_id: RunId, configfile: ConfigFiles = None, as_json: AsJson = False) -> None:
    """Show every masked tensor of a run at its target density, and what the network stores."""
    from east.training.describe import describe_network

    description = describe_network(read_plan(configfile).run(run_id).spec)
    if as_json:
        print_json(description)
        return
    rows = [
        {**tensor, "shape": "x".join(map(str, tensor["shape"])), "density": f"{tensor['density']:.3g}"}
        for tensor in description["tensors"]
    ]
    print_table(["name", "shape", "density", "nonzeros"], rows)
    for key, value in description["totals"].items():
        print(f"{key.replace('_', ' ')}: {value:,}" if isinstance(value, int) else f"{key}: {value:g}")


@app.command()
def schedule(run_id: RunId, configfile: ConfigFiles = None) -> None:
    """Print step, epoch, density, drop fraction, learning rate and beta at each mask update, as CSV."""
    from east.training.describe import mask_updates

    rows = mask_updates(read_plan(configfile).run(run_id).spec)
    writer = csv.DictWriter(
        sys.stdout, ["step", "epoch", "density", "drop_fraction", "lr", "beta"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)


def _plan_row(run: Run) -> dict[str, object]:
    return {
        "id": run.id,
        "table": run.table,
        "row": run.row,
        "method": run.label,
        "model": run.spec.model.name,
        "dataset": run.spec.dataset.name,
        "seed": run.spec.seed,
        "recipe": run.recipe,
        "fingerprint": run.fingerprint,
        "run": run.spec.model_dump(mode="json"),
    }
