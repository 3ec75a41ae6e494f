"""Whether one way to compute a run may take the place of another: `python -m benchmarks.paired estimators | numerics`.

Each seed is trained in both ways, with the same initialisation, masks, order of images and augmentation. The second way
is accepted where two one-sided t tests find the mean difference of final test accuracy within the margin.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Literal

import typer
from pydantic import Field

from benchmarks.results import RESULTS_FOLDER, ROOT, markdown, run_command, save, slug
from east.analysis.inference import mean_interval
from east.config import RunSpec, load_plan
from east.config.run import Frozen
from east.data.prepare import prepare
from east.errors import EastError
from east.training.device import choose_device
from east.training.provenance import device_name
from east.training.run import Resources, train

WAYS: Mapping[str, tuple[str, str]] = {"estimators": ("exact", "sketch"), "numerics": ("tf32", "bf16")}
"""What is compared -> the way that is trusted, and the one that may take its place."""

ROWS = ("table2/static", "table2/cosine-m10-n2-g1", "table4/static", "table4/cosine-m10-n2-g1")

Pair = tuple[float | None, float | None]
"""Final test accuracies in percent, of one seed in both ways; None where a training diverged."""


class Pairs(Frozen):
    """All pairs of trainings."""

    engine: str
    seeds: int
    ways: tuple[str, str] = WAYS["estimators"]
    accuracies: dict[str, tuple[Pair, ...]] = Field(description="row of the plan -> a pair a seed")


class Verdict(Frozen):
    """What pairs say about the mean difference, second way minus first, in percentage points."""

    mean: float | None
    low: float | None = Field(description="of Student's interval; None for fewer than two pairs or a diverged one")
    high: float | None
    accepted: bool = Field(description="whether the ways are the same within the margin")


def judge(pairs: Sequence[Pair], margin: float, level: float) -> Verdict:
    """Student's interval of the mean difference, and two one-sided tests against the margin, each at 1 - level.

    Args:
        pairs: one a seed.
        margin: the largest difference, in percentage points, that still counts as the same.
        level: coverage of the interval; that by which the two tests decide has coverage 2 * level - 1.
    """
    differences = [second - first for first, second in pairs if first is not None and second is not None]
    # A pair that diverged does not show that the ways are equal: nothing is accepted then.
    if len(differences) < max(2, len(pairs)):
        return Verdict(mean=fmean(differences) if differences else None, low=None, high=None, accepted=False)
    wide, narrow = (mean_interval(differences, coverage) for coverage in (level, 2 * level - 1))
    assert wide is not None
    assert narrow is not None
    accepted = narrow.low is not None and narrow.high is not None and -margin < narrow.low and narrow.high < margin
    return Verdict(mean=wide.mean, low=wide.low, high=wide.high, accepted=accepted)


def in_way(spec: RunSpec, seed: int, way: str) -> RunSpec:
    """A run with another seed, computed in one of the ways."""
    content = spec.model_dump() | {"seed": seed}
    if way in WAYS["estimators"]:
        content["training"]["gradient_clip"] |= {"estimator": way}
    else:
        content["training"] |= {"numerics": way}
    return RunSpec.model_validate(content)


def train_pairs(
    specs: Mapping[str, RunSpec],
    ways: tuple[str, str],
    seeds: int,
    resources: Resources,
    *,
    processes: int,
    folder: Path,
    report: Callable[[Pairs], None],
) -> Pairs:
    """Train seeds 1, 2, ... of every row in both ways; finished runs in the folder are taken as they are.

    `report` is called with all pairs that are whole, after each.
    """
    found: dict[str, tuple[Pair, ...]] = dict.fromkeys(specs, ())
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting = {
            # What drifts, such as the clock of a device, then favours neither way.
            (row, seed): {
                way: pool.submit(accuracy, in_way(spec, seed, way), folder / row / f"{way}-seed{seed}", resources)
                for way in (ways if seed % 2 else ways[::-1])
            }
            for seed in range(1, seeds + 1)
            for row, spec in specs.items()
        }
        for (row, _), jobs in waiting.items():
            found[row] = (*found[row], (jobs[ways[0]].result(), jobs[ways[1]].result()))
            pairs = Pairs(engine=resources.engine, seeds=seeds, ways=ways, accuracies=found)
            report(pairs)
    return pairs


def accuracy(spec: RunSpec, folder: Path, resources: Resources) -> float | None:
    """Final test accuracy of a run, in percent; None if it diverged."""
    return train(spec, folder, resources).final_test_accuracy


def render(pairs: Pairs, margin: float, level: float) -> str:
    """The pairs and what follows from them, in Markdown."""
    first, second = pairs.ways
    together = tuple(pair for found in pairs.accuracies.values() for pair in found)
    rows = []
    for row, found in [*pairs.accuracies.items(), ("all", together)]:
        verdict = judge(found, margin, level)
        known = [[value for value in values if value is not None] for values in zip(*found, strict=True)]
        cells = [f"{fmean(of):.2f} ± {stdev(of):.2f}" if len(of) > 1 else "–" for of in known] or ["–", "–"]
        interval = "–" if verdict.low is None else f"{verdict.mean:+.2f} ({verdict.low:+.2f} to {verdict.high:+.2f})"
        rows.append([row, *cells, interval, "yes" if verdict.accepted else "not shown"])
    header = ["row", first, second, f"{second} − {first}, {level:.0%} interval", f"the same within {margin:g} points"]
    return f"# {second} against {first}, {pairs.seeds} seeds, engine {pairs.engine}\n\n{markdown(header, rows)}\n"


def main(
    compared: Annotated[
        Literal["estimators", "numerics"], typer.Argument(help="Of the clip's norm; or bf16 and TF32.")
    ],
    seeds: Annotated[int, typer.Option(min=2, help="Pairs of trainings of each row.")] = 10,
    row: Annotated[list[str] | None, typer.Option(help="Row of the plan; may be repeated.")] = None,
    configfile: Annotated[Path, typer.Option(help="Of the plan.")] = ROOT / "config" / "demo.yaml",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, dense or sparse.")] = "auto",
    processes: Annotated[int, typer.Option(min=1, help="Trainings at once.")] = 1,
    margin: Annotated[float, typer.Option(min=0, help="Percentage points that count as the same.")] = 0.5,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Coverage of the interval.")] = 0.95,
    data_dir: Annotated[Path, typer.Option(help="Downloads and prepared data sets.")] = Path("data"),
    runs: Annotated[Path | None, typer.Option(help="Keep the runs here: the same command goes on with them.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the results.", show_default=False)] = RESULTS_FOLDER,
) -> None:
    """Train rows of a plan in two ways, and test the differences pair by pair."""
    specs = {run.id.rpartition("/")[0]: run.spec for run in load_plan(configfile)}
    rows = row or list(ROWS)
    if missing := set(rows) - specs.keys():
        raise EastError(f"{configfile} has no row '{missing.pop()}'. It has {', '.join(specs)}.")
    chosen = {name: specs[name] for name in rows}
    for dataset in {spec.dataset.images for spec in chosen.values()}:
        prepare(dataset, data_dir)
    resources = Resources(device=device, engine=engine, threads=1, data_dir=data_dir)
    where = device_name(choose_device(device))
    stem = "clip-estimators" if compared == "estimators" else f"numerics-{slug(where)}"

    def report(pairs: Pairs) -> None:
        save(pairs.model_dump_json(indent=1), render(pairs, margin, level), out, stem)

    with tempfile.TemporaryDirectory() as temporary:
        folder = runs or Path(temporary)
        pairs = train_pairs(chosen, WAYS[compared], seeds, resources, processes=processes, folder=folder, report=report)
    print(render(pairs, margin, level))


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
