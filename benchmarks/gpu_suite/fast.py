"""Parts that decide what is fast: rates of the GPU, seconds of a step in each way, an epoch against the authors'."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

import pandas as pd
import torch

from benchmarks.floor import FLOAT_BYTES, bytes_per_step
from benchmarks.gpu_suite.suite import PROBLEM, Row, Setting, each, measured, sentence
from benchmarks.gpu_suite.ways import (
    AUTHORS,
    AUTO,
    CAPTURED,
    EAGER,
    EVERYTHING,
    NETWORKS,
    PLAIN,
    AuthorsBatches,
    Training,
    Way,
    loader_workers,
    make_training,
    our_batches,
    spec_of,
)
from benchmarks.results import in_turn, ratio
from benchmarks.variants import masked_model, random_batch
from east.config.run import RunSpec
from east.cost.clock import seconds_of, seconds_of_each
from east.cost.flops import layer_work, training_flops
from east.data.catalog import DATASETS
from east.training.describe import network_shape

NUMBER_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}
"""Of a stored activation."""

ROUNDS = 9
WINDOW = 0.06
"""Seconds for which a way takes steps in a round, about; the mean of these steps is one time."""

MOST_STEPS = 30
WARM_UPS = 2
"""Steps before the clock starts: the first is eager, the second is recorded where there is something to record."""

CYCLE_DENSITIES = (0.0015, 0.005, 0.015)
"""What the density cycles of Tables 2-5 reach: 3, 10 and 30 times the target."""

AUTO_MARGIN = 1.05
"""`auto` has chosen well if its step takes no longer than this, compared with the better engine's."""


@dataclass(frozen=True)
class Floors:
    """Decides what a step takes at the least: arithmetic and bytes, counted, at the rates that this GPU is measured at.

    Dense: operations of all weights over the rate of matrix products. Sparse: the bytes that any step on the non-zeros
    must move over the rate of a copy; caches are not credited, launches take no time.
    """

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """The rates, then the floors."""
        count = 2**18 if setting.small else 2**29
        source = torch.randint(2**31 - 1, (count,), dtype=torch.int32, device=setting.where)
        rates = {"copy": 8 * count / _seconds(partial(torch.empty_like(source).copy_, source), setting)}
        yield {"what": "copy, bytes a second", "value": rates["copy"]}
        del source
        side = 64 if setting.small else 8192
        for numerics in NUMBER_BYTES:
            kind = torch.bfloat16 if numerics == "bf16" else torch.float32
            first, second = (torch.randn(side, side, device=setting.where).to(kind) for _ in range(2))
            with _matrix_precision("tf32" if numerics == "tf32" else "ieee"):
                rates[numerics] = 2 * side**3 / _seconds(partial(torch.mm, first, second), setting)
            yield {"what": f"matrix product {numerics}, operations a second", "value": rates[numerics]}
        for label, model in NETWORKS.items():
            spec = spec_of(setting, model)
            shape, batch = DATASETS[spec.dataset.name].image_shape, setting.batches[0]
            operations = batch * training_flops(layer_work(network_shape(spec), shape))
            numbers = bytes_per_step(masked_model(spec), shape, batch) / FLOAT_BYTES
            for numerics, size in NUMBER_BYTES.items():
                floor = {"network": label, "numerics": numerics, "what": "floor of a step, seconds"}
                yield floor | {"engine": "dense", "value": operations / rates[numerics]}
                yield floor | {"engine": "sparse", "value": numbers * size / rates["copy"]}

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The floors in milliseconds."""
        floors = rows[rows["what"].str.startswith("floor")]
        return "; ".join(
            f"{row.network}, {row.engine}, {row.numerics}: {1e3 * row.value:.3g} ms" for row in floors.itertuples()
        )


@dataclass(frozen=True)
class Group:
    """Ways that are timed in turn.

    Args:
        network: how tables call it.
        method: of Table 6.
        ways: what is compared.
        density: of the network; the plan's if None.
        last: the last, smaller batch of an epoch in place of a full one.
        faded: whether DyReLU is a plain ReLU already.
    """

    network: str
    method: str
    ways: Sequence[Way]
    density: float | None = None
    last: bool = False
    faded: bool = False


ALL = (*AUTHORS, *EAGER, *CAPTURED, *AUTO)
GROUPS = (
    *(Group(network, PLAIN, ALL) for network in NETWORKS),
    *(Group(network, PLAIN, (*CAPTURED, *AUTO), last=True) for network in NETWORKS),
    *(Group(network, PLAIN, (*CAPTURED, *AUTO), density) for network in NETWORKS for density in CYCLE_DENSITIES),
    *(
        Group(network, EVERYTHING, (*AUTHORS, *CAPTURED), faded=faded)
        for network in NETWORKS
        for faded in (False, True)
    ),
    *(Group("ResNet-34", method, (*AUTHORS, *CAPTURED)) for method in ("DCTpS", "EAST w/ DyReLU", "EAST w/ WS")),
)
"""In the order of importance."""


@dataclass(frozen=True)
class Times:
    """Decides which way of executing a step is the fastest: the least median of the rounds, all ways timed in turn.

    A ratio is of steps of the same round. Memory is the most that a way held while it was prepared.
    """

    seconds: float
    groups: Sequence[Group] = GROUPS

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Group by group."""
        for group in [one for one in self.groups if not setting.small or one.network == "ResNet-34"]:
            about = {"network": group.network, "method": group.method + (", faded" if group.faded else "")}
            spec = spec_of(setting, NETWORKS[group.network], group.method, group.density)
            about |= {"density": spec.sparsity.density, "batch": setting.batches[group.last]}
            yield from each(setting, [(about, partial(_time, group, spec, setting))])
            gc.collect()
            if setting.device == "cuda":
                torch.cuda.empty_cache()

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The fastest way of each group, against the authors' with TF32 and the floor, and whether `auto` chose it."""
        answers = []
        key = ["network", "method", "density", "batch"]
        for (network, method, density, batch), group in measured(rows).groupby(key, sort=False):
            steps = dict(zip(group["way"], group["seconds"], strict=True))
            best = min((way for way in steps if not way.startswith("authors")), key=lambda way: median(steps[way]))
            text = f"{network}, {method}, density {density:g}, batch {batch}: {best} is the fastest"
            if (authors := steps.get(str(AUTHORS[0]))) is not None:
                text += f", {ratio(authors, steps[best])} times as fast as the authors' way"
            for way in AUTO:
                rivals = [
                    median(steps[str(one)]) for one in CAPTURED if one.numerics == way.numerics and str(one) in steps
                ]
                if str(way) in steps and rivals and median(steps[str(way)]) > AUTO_MARGIN * min(rivals):
                    text += f"; auto with {way.numerics} does not choose the faster engine"
            answers.append(text + _multiple(network, best, median(steps[best]), others.get("floors")))
        return "; ".join(answers)


@dataclass(frozen=True)
class Epochs:
    """Decides how much faster an epoch is than in the authors' way, making of batches included: quotients of rounds."""

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """An epoch of the plain ResNet-34 in the authors' way and in each captured one, in turn."""
        spec = spec_of(setting, NETWORKS["ResNet-34"])
        count = 5 if setting.small else DATASETS[spec.dataset.name].train_images - spec.dataset.validation
        workers = 1 if setting.small else loader_workers()
        authors = AuthorsBatches(spec, count, setting, workers)
        ours = our_batches(spec, count, setting)
        turns = []
        for way in (AUTHORS[0], *CAPTURED):
            try:
                training = make_training(way, spec, setting)
                turns.append(partial(_epoch, str(way), training, authors if way in AUTHORS else ours, spec, setting))
                turns[-1](0)
            except Exception as error:
                yield {"way": str(way), PROBLEM: sentence(error)}
        for way, seconds in in_turn(turns, 1 if setting.small else 3).items():
            yield {"way": way, "images": count, "loader workers": workers, "seconds": seconds}

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """Each way's quotient."""
        found = measured(rows)
        seconds = dict(zip(found["way"], found["seconds"], strict=True))
        authors = seconds.pop(str(AUTHORS[0]))
        faster = [f"{way}: {ratio(authors, own)} times as fast" for way, own in seconds.items()]
        return f"an epoch of ResNet-34 takes {median(authors):.3g} s in the authors' way; " + "; ".join(faster)


def _time(group: Group, spec: RunSpec, setting: Setting) -> Iterator[Row]:
    """Make all ways of a group, then time them in turn; what cannot be made is named and left out."""
    batch = random_batch(spec, setting.batches[group.last], setting.where)
    trainings: dict[str, Training] = {}
    found: dict[str, Row] = {}
    turns = []
    for way in group.ways:
        held = _memory(setting, reset=True)
        try:
            training = make_training(way, spec, setting, faded=group.faded)
            training.resume()
            for number in range(1, WARM_UPS + 1):
                training.train(*batch, number, spec.training.lr)
            executed_by = training.executed_by()
        except Exception as error:
            yield {"way": str(way), PROBLEM: sentence(error)}
            continue
        peak = (_memory(setting) - held) / 2**20
        steps = 1
        if not setting.small:
            one = seconds_of(partial(_take, training, batch, 1, spec), setting.where)
            steps = max(1, min(MOST_STEPS, round(WINDOW / one)))
        trainings[str(way)] = training
        found[str(way)] = {"way": str(way), "executed by": executed_by, "MB": peak}
        turns.append(partial(_turn, str(way), training, batch, steps, spec, setting))
    for way, seconds in in_turn(turns, 1 if setting.small else ROUNDS).items():
        yield found[way] | {"seconds": seconds}


def _turn(
    way: str,
    training: Training,
    batch: tuple[torch.Tensor, torch.Tensor],
    steps: int,
    spec: RunSpec,
    setting: Setting,
    number: int,
) -> dict[str, float]:
    """Some steps in a row, after one that is not timed: the caches were another way's."""
    training.resume()
    _take(training, batch, 1, spec)
    return {way: seconds_of(partial(_take, training, batch, steps, spec), setting.where) / steps}


def _take(training: Training, batch: tuple[torch.Tensor, torch.Tensor], steps: int, spec: RunSpec) -> None:
    for _ in range(steps):
        training.train(*batch, WARM_UPS + 1, spec.training.lr)


def _epoch(
    way: str, training: Training, batches: object, spec: RunSpec, setting: Setting, number: int
) -> dict[str, float]:
    def train() -> None:
        for step, (images, labels) in enumerate(batches.epoch(number), start=1):
            training.train(images, labels, step, spec.training.lr)

    training.resume()
    return {way: seconds_of(train, setting.where)}


def _multiple(network: str, way: str, seconds: float, floors: pd.DataFrame | None) -> str:
    """How many times its floor a step takes."""
    engine, _, numerics = way.split(", ")
    if floors is None:
        return ""
    own = floors[(floors["network"] == network) & (floors["engine"] == engine) & (floors["numerics"] == numerics)]
    return "" if own.empty else f", {seconds / own['value'].iloc[0]:.3g} times its floor"


def _seconds(run: Callable[[], object], setting: Setting) -> float:
    for _ in range(3):
        run()
    return median(seconds_of_each(lambda number: run(), range(2 if setting.small else 20), setting.where))


def _memory(setting: Setting, *, reset: bool = False) -> float:
    """Bytes of the GPU that are held, or were at most since the last reset."""
    if setting.device != "cuda":
        return 0.0
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.max_memory_allocated())


@contextmanager
def _matrix_precision(precision: str) -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before
