"""Whether training with the sketched clip norm is training with the exact one: paired runs of the demo.

    python -m benchmarks.clip_estimators --seeds 10

Each seed is trained twice, with the same initialisation, masks, order of images and augmentation, once for each
estimator. What is reported is the mean of the differences in final test accuracy with its 95 % confidence interval
(Student's t), for rows of the demo's Tables 2 and 4.
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from scipy import stats

from east.config import RunSpec, load_plan
from east.data.prepare import prepare
from east.training.loop import Resources, train

ROWS = ("table2/static", "table2/cosine-m10-n2-g1", "table4/static", "table4/cosine-m10-n2-g1")
Differences = dict[str, list[tuple[float, float]]]


def with_estimator(spec: RunSpec, seed: int, estimator: str) -> RunSpec:
    """The run with another seed and estimator of the clip's norm."""
    content = spec.model_dump()
    content["seed"] = seed
    content["training"]["gradient_clip"] |= {"estimator": estimator}
    return RunSpec.model_validate(content)


def accuracy(spec: RunSpec, data_dir: Path, engine: str) -> float:
    """Final test accuracy of a run, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        resources = Resources(device="cpu", engine=engine, threads=1, data_dir=data_dir)
        summary = train(spec, Path(folder), resources)
    return float(summary.final_test_accuracy)


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences and half the width of its 95 % confidence interval."""
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.mean(differences), float(stats.t.ppf(0.975, len(differences) - 1)) * error


def measure(seeds: int, engine: str, processes: int) -> Differences:
    """Row -> (exact, sketch) accuracies, a pair a seed."""
    specs = {run.id.rsplit("/", 1)[0]: run.spec for run in load_plan("config/demo.yaml")}
    missing = [row for row in ROWS if row not in specs]
    if missing:
        raise SystemExit(f"the demo has no rows {missing}; it has {sorted(specs)}")
    with tempfile.TemporaryDirectory() as data, ProcessPoolExecutor(processes) as pool:
        prepare("digits", Path(data))
        waiting = {
            (row, seed, estimator): pool.submit(
                accuracy, with_estimator(specs[row], seed, estimator), Path(data), engine
            )
            for row in ROWS
            for seed in range(1, seeds + 1)
            for estimator in ("exact", "sketch")
        }
        found = {key: job.result() for key, job in waiting.items()}
    return {
        row: [(found[row, seed, "exact"], found[row, seed, "sketch"]) for seed in range(1, seeds + 1)] for row in ROWS
    }


def table(found: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """The result as Markdown."""
    lines = ["| row | exact | sketch | difference, 95 % interval |", "|---|---|---|---|"]
    together = [pair for pairs in found.values() for pair in pairs]
    for row, pairs in [*found.items(), ("all", together)]:
        exact, sketch = zip(*pairs, strict=True)
        mean, half = interval([after - before for before, after in pairs])
        cells = [f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" for values in (exact, sketch)]
        lines.append(f"| {row} | {cells[0]} | {cells[1]} | {mean:+.2f} ± {half:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Run all pairs, print the table, write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/clip-estimators.json"))
    chosen = parser.parse_args()
    found = measure(chosen.seeds, chosen.engine, chosen.processes)
    content: dict[str, Any] = {"engine": chosen.engine, "seeds": chosen.seeds, "accuracies": found}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
