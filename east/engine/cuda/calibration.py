"""The cost model of a GPU, from steps of small networks that are timed on it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from statistics import median

import torch

from east.engine.base import Engine
from east.engine.costs.cache import kept, sources_digest
from east.engine.costs.calibration import Case, SmallNetwork, fitted_model
from east.engine.costs.model import KINDS, CostModel, Execution, Work
from east.engine.cpu.library import cache_folder
from east.engine.cuda.available import availability
from east.engine.cuda.engine import CudaSparseEngine
from east.engine.dense import DenseEngine
from east.engine.workload import Workload
from east.sparse.active import ActiveWeights, active_weights
from east.sparse.layers import MaskedLayer

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

    Args:
        device: the GPU.
        numerics: `tf32`, `fp32` or `bf16`; each has a model of its own.
        compiled: whether PyTorch compiles the network for the dense engine; likewise.
    """
    machine = machine_of(torch.cuda.get_device_name(device), str(availability(device).version), numerics, compiled)
    return kept(cache_folder(), machine, KINDS, lambda: calibrate(device, numerics, compiled=compiled))


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
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        timed = [_time_case(case, device, numerics, compiled, clock) for case in cases or gpu_cases()]
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return fitted_model(timed, KINDS)


def seconds_of_replay(step: Callable[[], None], device: torch.device) -> float:
    """Median seconds of a step that is captured in a CUDA graph and replayed, by the device's clock.

    Python's launches do not count, as they do not where steps of a training are captured. A step that cannot be
    captured is made anew each time, as in a training.
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


def _time_case(
    case: Case, device: torch.device, numerics: str, compiled: bool, time_step: TimeStep
) -> tuple[Work, float]:
    """The work of a case's step, and its seconds."""
    network = SmallNetwork.of(case, device, _with_room)
    engine = _engine(case.execution, network, numerics, compiled, device)
    return network.work, time_step(lambda: network.step(engine))


def machine_of(gpu: str, triton: str, numerics: str, compiled: bool) -> dict[str, str]:
    """Everything that decides the cost model of a GPU.

    Args:
        gpu: its name.
        triton: the version of Triton.
        numerics: `tf32`, `fp32` or `bf16`.
        compiled: whether PyTorch compiles the network for the dense engine.
    """
    return {
        "device": gpu,
        "torch": torch.__version__,
        "triton": triton,
        "kernels": sources_digest(Path(__file__).parent),
        "numerics": numerics,
        "dense engine": "compiled" if compiled else "as it is",
    }


def _with_room(layers: Mapping[str, MaskedLayer]) -> dict[str, ActiveWeights]:
    """The active weights in memory that stays, as a training has them on a GPU."""
    return active_weights(layers, {name: int(layer.mask.sum()) for name, layer in layers.items()})


def _engine(
    execution: Execution | None, network: SmallNetwork, numerics: str, compiled: bool, device: torch.device
) -> Engine:
    model, active = network.model, network.active
    if execution is None:
        # Laid out as `auto` has it, whose dense engine takes the weights as they are.
        return DenseEngine(model, active, numerics=numerics, device=device, lay_out=False, compiled=compiled)
    executions: dict[str, Execution] = dict.fromkeys(active, execution) | {"classifier": "dense"}
    return CudaSparseEngine(model, active, numerics=numerics, device=device, choose=lambda network, active: executions)
