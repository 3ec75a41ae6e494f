"""Whether bf16 may take the place of TF32: both train the same runs, and differences of pairs are tested."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks.gpu_suite.conditions import Conditions, with_numerics
from benchmarks.gpu_suite.report import table
from benchmarks.gpu_suite.resume import random_source
from east.config.run import Frozen, Numerics, RunSpec
from east.data.prepare import prepare, store_images
from east.errors import EastError

PAIR: tuple[Numerics, Numerics] = ("tf32", "bf16")


class Pair(Frozen):
    """One seed trained in both numerics."""

    seed: int
    tf32: float | None
    bf16: float | None

    @property
    def difference(self) -> float | None:
        """In percentage points of test accuracy; None where a training diverged."""
        return None if self.tf32 is None or self.bf16 is None else self.bf16 - self.tf32


class Verdict(Frozen):
    """What the pairs say."""

    pairs: tuple[Pair, ...]
    margin: float
    level: float
    mean: float | None
    low: float | None
    high: float | None
    equivalence_low: float | None
    equivalence_high: float | None

    @property
    def accepted(self) -> bool:
        """Whether bf16 is as good as TF32 within the margin: two one-sided tests, each at 1 - level."""
        return (
            self.equivalence_low is not None
            and self.equivalence_high is not None
            and self.equivalence_low > -self.margin
            and self.equivalence_high < self.margin
        )


def judge(pairs: Sequence[Pair], margin: float, level: float) -> Verdict:
    """Student's interval of the mean difference, and the narrower one by which two one-sided tests decide.

    Args:
        pairs: a seed each.
        margin: largest difference, in percentage points, that still counts as the same.
        level: coverage of the interval; the two one-sided tests each err with probability 1 - level, so their interval
            has coverage 2 * level - 1.
    """
    differences = [pair.difference for pair in pairs]
    known = [one for one in differences if one is not None]
    mean = low = high = narrow_low = narrow_high = None
    # A pair that diverged is no evidence of being equal: nothing is accepted then.
    if len(known) == len(pairs) and len(known) > 1:
        from scipy import stats

        mean, error = fmean(known), stdev(known) / math.sqrt(len(known))
        wide, narrow = (float(stats.t.ppf(share, len(known) - 1)) * error for share in ((1 + level) / 2, level))
        low, high, narrow_low, narrow_high = mean - wide, mean + wide, mean - narrow, mean + narrow
    elif known:
        mean = fmean(known)
    return Verdict(
        pairs=tuple(pairs),
        margin=margin,
        level=level,
        mean=mean,
        low=low,
        high=high,
        equivalence_low=narrow_low,
        equivalence_high=narrow_high,
    )


def train_pairs(
    spec: RunSpec,
    seeds: Sequence[int],
    folder: Path,
    data_dir: Path,
    *,
    device: str,
    engine: str,
    report: Callable[[Sequence[Pair]], None],
) -> list[Pair]:
    """Train every seed in both numerics, in alternating order; finished runs in the folder are taken as they are.

    Args:
        spec: the run; seed and numerics are replaced.
        seeds: of the pairs.
        folder: where runs go.
        data_dir: where prepared data are.
        device: `cuda`, or `cpu`, which computes float32 in place of both.
        engine: as in the config.
        report: called with all pairs that are whole, after each.
    """
    from east.training.loop import Resources, train

    resources = Resources(device=device, engine=engine, threads=torch.get_num_threads(), data_dir=data_dir)
    pairs: list[Pair] = []
    for i, seed in enumerate(seeds):
        found: dict[str, Any] = {}
        # What drifts, such as the clock of the device, then favours neither.
        for numerics in PAIR if i % 2 == 0 else PAIR[::-1]:
            one = with_numerics(spec.model_copy(update={"seed": seed}), numerics if device == "cuda" else "fp32")
            summary = train(one, folder / numerics / f"seed{seed}", resources)
            found[numerics] = summary.final_test_accuracy
        pairs.append(Pair(seed=seed, **found))
        report(pairs)
    return pairs


def prepare_task(task: str, spec: RunSpec, data_dir: Path, folder: Path, *, dry: bool) -> Path:
    """Make the data of a task ready: `synthetic` images are made, others prepared as the workflow does.

    Args:
        task: its name.
        spec: a run of it.
        data_dir: where the workflow keeps prepared data sets.
        folder: of the results; synthetic images bear the name of a real data set, so they go there and nowhere else.
        dry: whether it is a rehearsal.

    Returns:
        The folder of the data.
    """
    if task != "synthetic":
        prepare(spec.dataset.name, data_dir)
        return data_dir
    apart = folder / "numerics-synthetic-data"
    store_images(spec.dataset.name, apart, lambda: random_source(spec, Conditions("cpu", dry, 0.0, apart)))
    return apart


def render(verdict: Verdict, title: str, *, dry: bool) -> str:
    """The pairs and what follows, as Markdown."""
    rows = [
        [str(pair.seed), *(_points(value) for value in (pair.tf32, pair.bf16, pair.difference))]
        for pair in verdict.pairs
    ]
    lines = [f"# bf16 against TF32: {title}"]
    if dry:
        lines.append("**A rehearsal on the CPU, which computes both alike. It tests nothing.**")
    lines.append(table(["seed", "TF32, test accuracy %", "bf16", "bf16 - TF32"], rows))
    if verdict.low is None or verdict.high is None or verdict.mean is None:
        lines.append("Too few pairs, or one diverged: nothing follows.")
    else:
        lines.append(
            f"Mean difference {verdict.mean:+.2f} percentage points, Student's {verdict.level:.0%} interval "
            f"{verdict.low:+.2f} to {verdict.high:+.2f} over {len(verdict.pairs)} pairs. By two one-sided tests bf16 "
            f"is {'**the same** as' if verdict.accepted else '**not shown to be the same** as'} TF32 within "
            f"{verdict.margin:g} points."
        )
    return "\n\n".join(lines) + "\n"


def tasks() -> Iterator[str]:
    """The names of the tasks: synthetic images in the shape of CIFAR-10, or a data set of the workflow."""
    yield from ("digits", "synthetic", "cifar10", "cifar100")


def task_spec(task: str, spec: RunSpec, *, epochs: int, dry: bool) -> RunSpec:
    """A training of Tables 2-5 without a cycle, on the task's data and of that many epochs.

    Learning rate drops and updates of the masks keep their places in the training.

    Raises:
        EastError: there is no such task.
    """
    if task not in tasks():
        raise EastError(f"there is no task '{task}'. Choose one of {', '.join(tasks())}.")
    drops = tuple(max(1, round(epoch * epochs / spec.training.epochs)) for epoch in spec.training.lr_drop_epochs)
    training = {"epochs": epochs, "lr_drop_epochs": tuple(dict.fromkeys(drops))}
    dataset: dict[str, Any] = {}
    if task == "digits":
        dataset = {"name": "digits", "margin": 1, "padding": "zero", "flip": False, "validation": 144}
        dataset |= {"validation_choice": "shuffled"}
        training |= {"batch_size": 32}
    elif task == "synthetic":
        dataset = {"name": "cifar10", "validation": 20 if dry else 120}
        training |= {"batch_size": 16 if dry else 128}
    elif task == "cifar100":
        dataset = {"name": "cifar100", "padding": "zero", "validation_choice": "shuffled"}
    update_period = max(1, round(spec.sparsity.update_period * epochs / spec.training.epochs))
    return spec.model_copy(
        update={
            "dataset": spec.dataset.model_copy(update=dataset),
            "training": spec.training.model_copy(update=training),
            "sparsity": spec.sparsity.model_copy(update={"update_period": update_period}),
            "cycle": None,
        }
    )


def _points(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.2f}"
