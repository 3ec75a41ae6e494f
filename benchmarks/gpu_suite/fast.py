"""Parts that decide what is fast: rates of the GPU, seconds of a step in each way, an epoch against the authors'."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import pandas as pd
import torch

from benchmarks.floor import FLOAT_BYTES, bytes_per_step
from benchmarks.gpu_suite import ways
from benchmarks.gpu_suite.suite import Row, Setting, each, measured
from benchmarks.gpu_suite.ways import EVERYTHING, MODELS, PLAIN, TimedTraining, Way, spec_of
from benchmarks.results import in_turn, ratio
from benchmarks.variants import masked_model, random_batch
from east.config.run import RunSpec
from east.cost.flops import layer_work, training_flops
from east.cost.measure import seconds_of, seconds_of_each
from east.data.catalog import info_of
from east.training.describe import network_shape

NUMBER_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}
"""Of a stored activation."""

ROUNDS, WINDOW, MOST_STEPS = 9, 0.06, 30
"""In a round a way takes steps for about so many seconds, but no more than so many; their mean is one time."""

WARM_UPS = 2
"""Steps before the clock starts: the first is eager, the second is recorded where there is something to record."""

CYCLE_DENSITIES = (0.0015, 0.005, 0.015)
"""What the density cycles of Tables 2-5 reach: 3, 10 and 30 times the target."""

AUTO_MARGIN = 1.05
"""`auto` has chosen well if its step takes no longer than this, compared with the better engine's."""

FLOOR = "floor of a step, s"
GROUP = ["network", "method", "density", "batch"]


@dataclass(frozen=True)
class Floors:
    """Decides what a step takes at least: what must be computed or moved, at the rates measured on this GPU.

    Dense: operations of all weights over the rate of matrix products. Sparse: the bytes that any step on the non-zeros
    must move over the rate of a copy. Caches are not credited, and launches take no time.
    """

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """The rates, then the floors."""
        count, side = (2**18, 64) if setting.small else (2**29, 8192)
        source = torch.randint(2**31 - 1, (count,), dtype=torch.int32, device=setting.where)
        copied = 8 * count / _seconds(partial(torch.empty_like(source).copy_, source), setting)
        yield {"what": "copy, B/s", "value": copied}
        rates = {}
        for numerics, size in NUMBER_BYTES.items():
            kind = torch.bfloat16 if size == 2 else torch.float32
            first, second = (torch.randn(side, side, device=setting.where).to(kind) for _ in range(2))
            torch.backends.cuda.matmul.fp32_precision = "tf32" if numerics == "tf32" else "ieee"
            rates[numerics] = 2 * side**3 / _seconds(partial(torch.mm, first, second), setting)
            yield {"what": "matrix product, FLOP/s", "numerics": numerics, "value": rates[numerics]}
        for network, model in MODELS.items():
            spec, batch = spec_of(setting, model), setting.batches[0]
            shape = info_of(spec.dataset).image_shape
            operations = batch * training_flops(layer_work(network_shape(spec), shape))
            numbers = bytes_per_step(masked_model(spec), shape, batch) / FLOAT_BYTES
            for numerics, size in NUMBER_BYTES.items():
                floor = {"what": FLOOR, "network": network, "numerics": numerics}
                yield floor | {"engine": "dense", "value": operations / rates[numerics]}
                yield floor | {"engine": "sparse", "value": numbers * size / copied}

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The floors."""
        found = rows[rows["what"] == FLOOR].to_dict("records")
        named = [(f"{row['network']}, {row['engine']}, {row['numerics']}", row["value"]) for row in found]
        return "; ".join(f"{name}: {1e3 * seconds:.3g} ms" for name, seconds in named)


@dataclass(frozen=True)
class Group:
    """Ways that are timed in turn: on a network, by a method of Table 6, at the plan's density unless one is given.

    `last` takes the last, smaller batch of an epoch in place of a full one, and `faded` has DyReLU faded into ReLU.
    """

    network: str
    method: str
    ways: Sequence[Way]
    density: float | None = None
    last: bool = False
    faded: bool = False


RECORDED = (*ways.CAPTURED, *ways.AUTO)
GROUPS = (
    *(Group(network, PLAIN, (*ways.AUTHORS, *ways.EAGER, *RECORDED)) for network in MODELS),
    *(Group(network, PLAIN, RECORDED, last=True) for network in MODELS),
    *(Group(network, PLAIN, RECORDED, density) for network in MODELS for density in CYCLE_DENSITIES),
    *(Group(network, EVERYTHING, (*ways.AUTHORS, *RECORDED)) for network in MODELS),
    *(Group(network, EVERYTHING, RECORDED, faded=True) for network in MODELS),
    *(Group("ResNet-34", method, RECORDED) for method in ("DCTpS", "EAST w/ DyReLU", "EAST w/ WS")),
)
"""In the order of importance."""


@dataclass(frozen=True)
class Times:
    """Decides which way of executing a step is the fastest: the least median over rounds, all ways timed in turn.

    Ratios are of steps of the same round. Memory is the most that a way held while it was prepared.
    """

    seconds: float
    groups: Sequence[Group] = GROUPS

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Group by group."""
        for group in self.groups[:: 10 if setting.small else 1]:
            spec = spec_of(setting, MODELS[group.network], group.method, group.density)
            about: Row = {"network": group.network, "method": group.method + (", faded" if group.faded else "")}
            about |= {"density": spec.sparsity.density, "batch": setting.batches[group.last]}
            yield from each(setting, [(about, partial(_time, group, spec, setting))])
            gc.collect()
            torch.cuda.empty_cache()

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """For each group the fastest way, against the authors' and the floor, and whether `auto` is as fast."""
        by = ["network", "engine", "numerics"]
        floors = others["floors"].set_index(by)["value"].to_dict() if "floors" in others else {}
        answers = []
        for _, group in measured(rows).groupby(GROUP, sort=False):
            seconds = dict(zip(group["way"], group["seconds"], strict=True))
            best = min((way for way in seconds if not way.startswith("authors")), key=lambda way: median(seconds[way]))
            network, method, density, batch = group[GROUP].iloc[0]
            text = f"{network}, {method}, density {density:g}, batch {batch}: {best}"
            if (authors := seconds.get(str(ways.AUTHORS[0]))) is not None:
                text += f", {ratio(authors, seconds[best])} times as fast as the authors' way"
            engine, _, numerics = best.split(", ")
            if method == PLAIN and (floor := floors.get((network, engine, numerics))):
                text += f", {median(seconds[best]) / floor:.3g} times its floor"
            auto = seconds.get(f"auto, captured, {numerics}", seconds[best])
            answers.append(text + ("; auto is slower" if median(auto) > AUTO_MARGIN * median(seconds[best]) else ""))
        return "; ".join(answers)


@dataclass(frozen=True)
class Epochs:
    """Decides how much faster an epoch is than in the authors' way, batches included: quotients of the same round."""

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """An epoch of the plain ResNet-34 in the authors' way and in each recorded one, in turn."""
        spec = spec_of(setting, MODELS["ResNet-34"])
        count = 5 if setting.small else info_of(spec.dataset).train_images - spec.dataset.validation
        authors, ours = ways.AuthorsBatches(spec, count, setting), ways.our_batches(spec, count, setting)

        def epoch(way: Way, training: TimedTraining, number: int) -> Mapping[Way, float]:
            def train() -> None:
                for step, batch in enumerate((authors if way in ways.AUTHORS else ours).epoch(number), start=1):
                    training.train(*batch, step, spec.training.lr)

            training.resume()
            return {way: seconds_of(train, setting.where)}

        made = [(way, ways.make_training(way, spec, setting)) for way in (ways.AUTHORS[0], *ways.CAPTURED)]
        turns = [partial(epoch, way, training) for way, training in made]
        in_turn(turns, 1)
        for _, training in made:
            training.executed_by()
        for way, seconds in in_turn(turns, 1 if setting.small else 2).items():
            yield {"way": str(way), "images": count, "seconds": seconds}

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """Each way's quotient."""
        seconds = dict(zip(rows["way"], rows["seconds"], strict=True))
        authors = seconds.pop(str(ways.AUTHORS[0]))
        faster = [f"{way}: {ratio(authors, own)} times as fast" for way, own in seconds.items()]
        return f"an epoch of ResNet-34 takes {median(authors):.3g} s in the authors' way; {'; '.join(faster)}"


def _time(group: Group, spec: RunSpec, setting: Setting) -> Iterator[Row]:
    """Make all ways of a group, then time them in turn; what cannot be made is named and left out."""
    batch = random_batch(spec, setting.batches[group.last], setting.where)
    turns: dict[str, Callable[[int], Mapping[str, float]]] = {}

    def prepare(way: Way) -> Iterator[Row]:
        held = _most_memory(setting, reset=True)
        training = ways.make_training(way, spec, setting, faded=group.faded)

        def take(steps: int) -> float:
            def train() -> None:
                for _ in range(steps):
                    training.train(*batch, WARM_UPS + 1, spec.training.lr)

            return seconds_of(train, setting.where)

        def turn(number: int) -> Mapping[str, float]:
            training.resume()
            take(1)  # not timed: the caches were another way's
            return {str(way): take(steps) / steps}

        training.resume()
        take(WARM_UPS)
        found = {"executed by": training.executed_by(), "MB": (_most_memory(setting) - held) / 2**20}
        steps = 1 if setting.small else max(1, min(MOST_STEPS, round(WINDOW / take(1))))
        turns[str(way)] = turn
        yield found

    prepared = list(each(setting, [({"way": str(way)}, partial(prepare, way)) for way in group.ways]))
    seconds = in_turn(turns.values(), 1 if setting.small else ROUNDS)
    yield from (row | {"seconds": seconds.get(row["way"])} for row in prepared)


def _seconds(run: Callable[[], object], setting: Setting) -> float:
    seconds = seconds_of_each(lambda number: run(), range(2 if setting.small else 23), setting.where)
    return median(seconds[3:] or seconds)


def _most_memory(setting: Setting, *, reset: bool = False) -> float:
    """Bytes of the GPU that were held at most since the last reset, or are held now."""
    if setting.device != "cuda":
        return 0.0
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.max_memory_allocated())
