"""The cost model of a GPU, fitted to steps of small networks that are timed on it, and kept beside the kernels."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from east.engine.base import Engine, GradientRequest, Workload
from east.engine.cuda.available import triton_status
from east.engine.cuda.cost import KINDS, CostModel, Kind, Work, dense_work, sparse_work
from east.engine.cuda.engine import CudaEngine
from east.engine.dense import DenseEngine
from east.engine.graph.network import network_of
from east.engine.graph.program import Execution
from east.engine.machine import cache_folder
from east.files import parse_json, read_regular, write_atomically
from east.locks import locked
from east.models.described import DescribedNetwork, Parts
from east.models.description import Description, Shape, describe
from east.models.networks import BASIC, residual
from east.sparse.active import ActiveWeights, active_weights
from east.sparse.layers import MaskedLayer, masked_layers
from east.sparse.masks import initialise_masks

LOG = logging.getLogger(__name__)

CLASSES = 10
IMAGE_CHANNELS = 3

WARM_UP = 3
"""Steps before a step is captured: they compile kernels, and libraries choose their algorithms."""

REPLAYS = 10
LEAST_SAMPLES = 5
SECONDS_A_CASE = 0.02
"""A sample is the mean of some replays; they are repeated for this long, and at least so often. Their median counts."""

TimeStep = Callable[[Callable[[], None]], float]
"""From a step, which may be called several times, to its seconds."""


@cache
def cost_model(device: torch.device, numerics: str, compiled: bool) -> CostModel:
    """The cost model of a GPU, fitted where the cache does not hold it. Remembered in this process.

    Each of the numerics has a model of its own, with and without a compiled dense engine.
    """
    machine = machine_of(torch.cuda.get_device_name(device), str(triton_status(device).version), numerics, compiled)
    return kept(cache_folder(), machine, lambda: calibrate(device, numerics, compiled=compiled))


# What is timed


@dataclass(frozen=True)
class Case:
    """A step of a small network: a stem and a block of two convolutions.

    Args:
        width: channels.
        size: height and width of images.
        workload: images, and what is asked for beyond gradients of active weights.
        execution: of every layer in the sparse engine; None for the dense engine.
        per_channel: non-zeros for each output channel of a layer.
    """

    width: int
    size: int
    workload: Workload
    execution: Execution | None
    per_channel: int = 1


def _one_block(width: int, image_shape: Shape) -> Description:
    make = partial(residual, design=BASIC, blocks=(1,), width=width)
    return describe(make, image_shape, CLASSES)


@dataclass(frozen=True, eq=False)
class SmallNetwork:
    """The network of a case, with random masks, and a batch for it.

    The active weights are in memory that stays, as a training has them; images are (N, 3, size, size).
    """

    model: DescribedNetwork
    active: dict[str, ActiveWeights]
    images: Tensor
    request: GradientRequest
    work: Work

    @classmethod
    def of(cls, case: Case, device: torch.device) -> "SmallNetwork":
        """The network of a case, on a device."""
        image_shape = (IMAGE_CHANNELS, case.size, case.size)
        described = partial(_one_block, case.width)
        model = DescribedNetwork(described, image_shape, Parts(dct=False, dyrelu=False)).to(device)
        layers = masked_layers(model)
        counts = {
            name: min(case.per_channel * len(layer.weight), layer.weight.numel()) for name, layer in layers.items()
        }
        initialise_masks(layers, counts, seed=0)
        work: dict[Kind, float] = {}
        for unit in network_of(model, image_shape).units:
            if case.execution is None:
                found = dense_work(unit, case.workload)
            else:
                found = sparse_work(unit, case.execution, counts[unit.layer], case.workload)
            for kind, amount in found.items():
                work[kind] = work.get(kind, 0.0) + amount
        images = torch.randn(case.workload.batch, *image_shape).to(device)
        request = GradientRequest(dense=case.workload.dense > 0, signs=_signs(layers, int(case.workload.probes)))
        return cls(model, active_weights(layers, counts), images, request, work)

    def step(self, engine: Engine) -> None:
        """Forward and backward pass, as an engine executes them."""
        self.model.zero_grad()
        engine.gradients(self.images, lambda logits: logits.square().mean(), self.request)


def gpu_cases() -> list[Case]:
    """Steps of networks that keep a GPU busy, and of a tiny one in which nothing takes long but the launches."""
    tiny, wide_images, many_weights = (16, 4), (64, 32), (256, 8)
    # That of the paper, as kernels are compiled for each batch size.
    batch = 128
    return [
        Case(*tiny, Workload(batch), "fused"),
        Case(*tiny, Workload(batch), "dense"),
        Case(*tiny, Workload(batch), None),
        Case(*wide_images, Workload(batch), "fused", 1),
        Case(*wide_images, Workload(batch), "fused", 16),
        Case(*wide_images, Workload(batch, probes=1), "fused", 1),
        Case(*wide_images, Workload(batch, probes=4), "fused", 1),
        Case(*wide_images, Workload(batch, dense=1), "fused", 1),
        Case(*wide_images, Workload(batch), "dense"),
        Case(*wide_images, Workload(batch), None),
        Case(*many_weights, Workload(batch), "fused", 2),
        Case(*many_weights, Workload(batch), "fused", 64),
        Case(*many_weights, Workload(batch), "dense"),
        Case(*many_weights, Workload(batch), None),
    ]


# How it is timed


def calibrate(
    device: torch.device,
    numerics: str,
    *,
    compiled: bool = False,
    time_step: TimeStep | None = None,
    cases: Sequence[Case] | None = None,
) -> CostModel:
    """The cost model of a device. Takes a few seconds, and more where something must be compiled first.

    Args:
        device: where steps execute.
        numerics: `tf32`, `fp32` or `bf16`.
        compiled: whether PyTorch compiles the network for the dense engine.
        time_step: how they are timed; captured in a CUDA graph, by the device's clock, if None.
        cases: what is timed; each kind of work occurs in some case. Networks that keep a GPU busy if None.
    """
    clock = time_step or partial(seconds_of_replay, device=device)
    works: list[list[float]] = []
    seconds: list[float] = []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for case in cases or gpu_cases():
            network = SmallNetwork.of(case, device)
            engine = _engine(case.execution, network, numerics, compiled, device)
            works.append([network.work.get(kind, 0.0) for kind in KINDS])
            seconds.append(clock(partial(network.step, engine)))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return CostModel(dict(zip(KINDS, fit(np.array(works), np.array(seconds)).tolist(), strict=True)))


def seconds_of_replay(step: Callable[[], None], device: torch.device) -> float:
    """Median seconds of a step that is captured in a CUDA graph and replayed, by the device's clock.

    Python's launches do not count, as they do not where steps of a training are captured. A step that cannot be
    captured is launched each time, as in a training.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
        graph, repeat = torch.cuda.CUDAGraph(), step
        with suppress(RuntimeError):
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                step()
            repeat = graph.replay
        samples: list[float] = []
        while len(samples) < LEAST_SAMPLES or REPLAYS * sum(samples) < SECONDS_A_CASE:
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            repeat()  # so that the device is busy while the first replay that counts is launched
            began.record()
            for _ in range(REPLAYS):
                repeat()
            ended.record()
            ended.synchronize()
            samples.append(began.elapsed_time(ended) / 1000 / REPLAYS)
    return median(samples)


def fit(work: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients x >= 0 that minimise the sum of squares of the relative errors, (work x - seconds) / seconds.

    Args:
        work: (steps, kinds), >= 0; each kind occurs somewhere.
        seconds: (steps,), > 0.
    """
    # Not at the top: it takes long to import, and only where there is no cost model yet.
    from scipy.optimize import nnls

    rows = work / seconds[:, None]
    scale = np.linalg.norm(rows, axis=0)
    fitted: NDArray[np.float64] = nnls(rows / scale, np.ones(len(rows)))[0] / scale
    return fitted


def _engine(
    execution: Execution | None, network: SmallNetwork, numerics: str, compiled: bool, device: torch.device
) -> Engine:
    model, active = network.model, network.active
    if execution is None:
        # Laid out as `auto` has it, whose dense engine takes the weights as they are.
        return DenseEngine(model, active, numerics=numerics, device=device, lay_out=False, compiled=compiled)
    executions: dict[str, Execution] = dict.fromkeys(active, execution) | {"classifier": "dense"}
    return CudaEngine(model, active, numerics=numerics, device=device, choose=lambda network, nonzeros: executions)


def _signs(layers: Mapping[str, MaskedLayer], probes: int) -> dict[str, Tensor] | None:
    if probes == 0:
        return None
    return {name: torch.ones(probes, len(layer.weight), device=layer.weight.device) for name, layer in layers.items()}


# Where it is kept


def machine_of(gpu: str, triton: str, numerics: str, compiled: bool) -> dict[str, str]:
    """Everything that decides the cost model of a GPU."""
    return {
        "device": gpu,
        "torch": torch.__version__,
        "triton": triton,
        "sources": sources_digest(Path(__file__).parent),
        "numerics": numerics,
        "dense engine": "compiled" if compiled else "as it is",
    }


def kept(folder: Path | None, machine: Mapping[str, str], fit: Callable[[], CostModel]) -> CostModel:
    """The cost model of a machine, from a file in the folder, or fitted and kept there.

    It decides how layers are executed, and with that the rounding of results. The file makes these decisions the same
    in every process: a second one waits for the first to write it. Another machine, or this one with another cache,
    may decide otherwise. Where the folder is None or cannot be written, the model is fitted for this process alone,
    and a line says so.
    """
    if folder is None:
        return _unkept("there is no home folder", fit)
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"costs-{digest}.json"
    if (model := _read(path, machine)) is not None:
        return model
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if (model := _read(path, machine)) is not None:
                return model
            model = fit()
            write_atomically(path, json.dumps({"machine": machine, "seconds": model.seconds}, indent=2) + "\n")
            return model
    except OSError as error:
        return _unkept(str(error), fit)


def sources_digest(folder: Path) -> str:
    """The first 16 hex digits of a SHA-256 of all Python sources in a folder."""
    digest = hashlib.sha256()
    for source in sorted(folder.rglob("*.py")):
        # Each part is preceded by its length, so that text cannot move from one to the next unseen.
        for part in (str(source.relative_to(folder)).encode(), source.read_bytes()):
            digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()[:16]


def _unkept(reason: str, fit: Callable[[], CostModel]) -> CostModel:
    LOG.warning(
        "the costs of engines cannot be kept: %s. Each process measures them and may decide otherwise, so a resumed "
        "run may differ by rounding. Name a folder in the environment variable EAST_CACHE_DIR.",
        reason,
    )
    return fit()


def _read(path: Path, machine: Mapping[str, str]) -> CostModel | None:
    """The model in a file; None if there is none, or not a whole one of this machine."""
    try:
        content = parse_json(read_regular(path))
        seconds = {kind: float(content["seconds"][kind]) for kind in KINDS}
        sound = content["machine"] == machine and all(0 <= value < math.inf for value in seconds.values())
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        return None
    return CostModel(seconds) if sound else None
