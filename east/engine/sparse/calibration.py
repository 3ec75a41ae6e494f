"""The cost model of this machine's CPU, from steps of small networks that are timed on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from east.engine.base import Engine
from east.engine.costs.cache import kept
from east.engine.costs.calibration import Case, SmallNetwork, fitted_model
from east.engine.costs.model import KINDS, CostModel, Work
from east.engine.dense import DenseEngine
from east.engine.processor import processor_name
from east.engine.sparse.buffers import Execution
from east.engine.sparse.engine import SparseEngine
from east.engine.sparse.library import cache_folder, load_kernels
from east.engine.workload import Workload

CPU = torch.device("cpu")

LEAST_REPETITIONS = 2
SECONDS_A_CASE = 0.01
"""A step is repeated for this long, and at least so often; the fastest counts, as it was disturbed least."""


@cache
def cost_model() -> CostModel:
    """The cost model of this CPU, fitted where the cache does not hold it. Remembered in this process.

    Raises:
        KernelsUnavailable: the kernels cannot be compiled here.
    """
    machine = {"kernels": load_kernels().path.name, "torch": torch.__version__, "processor": processor_name()}
    return kept(cache_folder(), machine, KINDS, calibrate)


def calibrate() -> CostModel:
    """The cost model of this machine, in float32. Takes about half a second.

    One thread is timed, by the time that the processor works for it: what else the machine does counts little then,
    while threads that wait for each other would count much. Engines divide their work among threads alike.

    Raises:
        KernelsUnavailable: the kernels cannot be compiled here.
    """
    with _one_thread(), torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        timed = [time_case(case) for case in _cases()]
    return fitted_model(timed, KINDS)


def time_case(case: Case) -> tuple[Work, float]:
    """The work of a case's step, and its seconds."""
    network = SmallNetwork.of(case, CPU)
    return network.work, _fastest(network, _engine(case.execution, network))


def _cases() -> list[Case]:
    # In the tiny network nothing takes long but the calls. Of two that convolve densely, one has few weights.
    tiny, sparse, few_weights, many_weights = (16, 4), (16, 32), (32, 16), (128, 8)
    return [
        Case(*tiny, Workload(16), "fused"),
        Case(*tiny, Workload(16), None),
        Case(*sparse, Workload(64), "fused", 1),
        Case(*sparse, Workload(64), "fused", 8),
        Case(*sparse, Workload(64), "tiled", 4),
        Case(*sparse, Workload(64), "tiled", 48),
        Case(*sparse, Workload(64, probes=2), "fused", 1),
        Case(*few_weights, Workload(32, dense=1), "fused", 1),
        Case(*few_weights, Workload(32), "dense"),
        Case(*few_weights, Workload(32), None),
        Case(*many_weights, Workload(16), "dense"),
        Case(*many_weights, Workload(16), None),
    ]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _engine(execution: Execution | None, network: SmallNetwork) -> Engine:
    model, active = network.model, network.active
    if execution is None:
        return DenseEngine(model, active, numerics="fp32", device=CPU)
    executions: dict[str, Execution] = dict.fromkeys(active, execution) | {"classifier": "tiled"}
    return SparseEngine(model, active, numerics="fp32", device=CPU, choose=lambda network, active: executions)


def _fastest(network: SmallNetwork, engine: Engine) -> float:
    """Seconds of the fastest of some steps. The first does not count: it takes memory for the first time."""
    seconds: list[float] = []
    while len(seconds) <= LEAST_REPETITIONS or sum(seconds[1:]) < SECONDS_A_CASE:
        started = time.thread_time()
        network.step(engine)
        seconds.append(time.thread_time() - started)
    return min(seconds[1:])
