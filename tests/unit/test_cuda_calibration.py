"""The cost model of a GPU: what is timed for it, and what `auto` does with it. Nothing here is timed on a GPU."""

import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from east.engine import GradientRequest, Workload, make_engine
from east.engine.cuda.auto import AutoEngine
from east.engine.cuda.available import triton_status
from east.engine.cuda.calibration import Case, SmallNetwork, calibrate, gpu_cases, machine_of
from east.engine.cuda.cost import KINDS, Cheapest, CostModel
from east.engine.cuda.engine import CudaEngine
from east.engine.dense import DenseEngine
from east.engine.graph.network import describe
from east.models.blocks import BASIC, Parts
from east.models.resnet import ResNet
from east.sparse.active import active_weights
from east.training.captured import CapturedStep
from east.training.step import TrainingStep
from tests.unit.recorders import Tapes
from tests.unit.test_engine_auto import draw_masks
from tests.unit.test_training_captured import Training

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

COSTS = CostModel(
    {
        "unit": 2e-5,
        "fused": 2e-11,
        "fused products": 5e-12,
        "layout": 1e-11,
        "convolution": 2e-14,
        "sketch": 3e-12,
        "module": 4e-5,
        "module numbers": 6e-11,
    }
)
"""Made up, in the order of magnitude of what bytes and operations of a step would take."""


def network(density, *, dct=False):
    """A stem and a block of two convolutions."""
    torch.manual_seed(0)
    model = ResNet(BASIC, (1,), 10, width=4, parts=Parts(dct=dct, dyrelu=False)).double().to(DEVICE)
    return model, draw_masks(model, density)


def with_room(layers, density):
    return active_weights(layers, {name: int(density * layer.weight.numel()) for name, layer in layers.items()})


def auto_engine(model, active, costs):
    choose = Cheapest(lambda: costs, Workload(2))
    settings = {"numerics": "fp32", "device": DEVICE}
    sparse = CudaEngine(model, active, **settings, choose=choose)
    make_dense = partial(DenseEngine, model, active, **settings, lay_out=False)
    return AutoEngine(model, active, sparse=sparse, make_dense=make_dense, choose=choose)


def batch():
    return torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(DEVICE)


def told(costs):
    """Seconds of the steps of all cases, as if they had been timed on a machine of these costs."""
    return iter([costs.predict(SmallNetwork.of(case, CPU).work) for case in gpu_cases()])


def test_what_is_timed_tells_each_kind_of_work_from_the_others():
    seconds = told(COSTS)
    found = calibrate(DEVICE, "tf32", time_step=lambda step: next(seconds))
    assert found.seconds.keys() == set(KINDS)
    for kind, expected in COSTS.seconds.items():
        assert found.seconds[kind] == pytest.approx(expected, rel=1e-3), kind


def test_a_disturbance_of_a_few_percent_changes_costs_by_little():
    """Those that decide: numbers and products of the sparse engine, convolutions and numbers of the dense one."""
    seconds = (value * (1.03 if number % 2 else 0.97) for number, value in enumerate(told(COSTS)))
    found = calibrate(DEVICE, "tf32", time_step=lambda step: next(seconds))
    for kind in ("fused", "fused products", "convolution", "module numbers"):
        assert found.seconds[kind] == pytest.approx(COSTS.seconds[kind], rel=0.25), kind


@pytest.mark.parametrize("numerics", ["tf32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_costs_are_measured_from_end_to_end(numerics):
    def seconds(step):
        started = time.perf_counter()
        step()
        return time.perf_counter() - started

    tiny = (2, 2)
    cases = [
        Case(*tiny, Workload(2, probes=1), "fused"),
        Case(*tiny, Workload(2, dense=1), "dense"),
        Case(*tiny, Workload(2), None),
    ]
    before, random = torch.is_grad_enabled(), torch.get_rng_state()
    with torch.inference_mode():
        found = calibrate(DEVICE, numerics, time_step=seconds, cases=cases)
    assert torch.is_grad_enabled() == before
    assert torch.get_rng_state().equal(random)
    assert found.seconds.keys() == set(KINDS)
    assert any(value > 0 for value in found.seconds.values())


def test_another_gpu_numerics_or_way_to_execute_has_a_model_of_its_own():
    machines = [
        machine_of(gpu, triton, numerics, compiled)
        for gpu in ("A", "B")
        for triton in ("3.7.1", "3.8.0")
        for numerics in ("tf32", "bf16")
        for compiled in (False, True)
    ]
    assert len({tuple(machine.items()) for machine in machines}) == len(machines)


def test_auto_follows_the_masks_and_its_signature_tells_what_it_decided():
    model, layers = network(0.05)
    active = with_room(layers, 1.0)
    # The network is tiny: without launches, what is computed decides.
    engine = auto_engine(model, active, CostModel(COSTS.seconds | {"unit": 0.0, "module": 0.0}))
    images, labels = batch(), torch.arange(2, device=DEVICE)
    chosen, signatures = [], []
    for density in (0.05, 0.9, 0.05):
        draw_masks(model, density)
        for weights in active.values():
            weights.read()
        engine.masks_changed()
        model.zero_grad()
        logits = engine.gradients(images, lambda logits: F.cross_entropy(logits, labels), GradientRequest()).logits
        expected = DenseEngine(model, active, numerics="fp32", device=DEVICE, lay_out=False)(images)
        torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-9)
        chosen.append(engine.decide(images).name)
        signatures.append(engine.signature(images))
    assert chosen == ["sparse", "dense", "sparse"]
    assert [signature[0] for signature in signatures] == chosen
    assert signatures[0] == signatures[2], "the masks change, and a captured graph stays right"


def test_layers_are_executed_as_costs_least():
    model, layers = network(0.05)
    active = with_room(layers, 1.0)
    dear_products = CostModel(COSTS.seconds | {"fused products": 1e-8, "unit": 0.0, "module": 1.0})
    engine = auto_engine(model, active, dear_products)
    assert engine.decide(batch()).name == "sparse"
    _, executed_densely = engine.decide(batch()).signature(batch())
    assert "stages.0.0.conv1" in executed_densely
    engine = auto_engine(model, active, CostModel(COSTS.seconds | {"layout": 1.0, "module": 1.0}))
    _, executed_densely = engine.decide(batch()).signature(batch())
    assert not executed_densely


class OtherEngine(DenseEngine):
    """Stands for a sparse engine whose steps can be recorded without a GPU."""

    name = "sparse"

    def signature(self, images):
        return "other"


def auto_training(recorder=None):
    """A small training whose masks become dense at last, so that `auto` changes from one engine to the other."""
    training = Training(capacity=0.7)  # nothing but the engine changes, not the memory of active weights
    model, active, settings = training.model, training.active, {"numerics": "fp32", "device": CPU}
    free = dict.fromkeys(KINDS, 0.0)
    products = Cheapest(lambda: CostModel(free | {"fused products": 1e-9}), Workload(6), ("fused",))
    network = describe(model, (3, 8, 8))
    nonzeros = {name: weights.count for name, weights in active.items()}
    threshold = 3 * products.seconds(network, nonzeros) / len(network.units)
    choose = replace(products, model=lambda: CostModel(free | {"fused products": 1e-9, "module": threshold}))
    sparse = OtherEngine(model, active, **settings, lay_out=False)
    make_dense = partial(DenseEngine, model, active, **settings, lay_out=False)
    training.engine = AutoEngine(model, active, sparse=sparse, make_dense=make_dense, choose=choose)
    training.step = TrainingStep(training.engine, training.optimizer, active, training.clip)
    if recorder is not None:
        training.step = CapturedStep(training.step, recorder, CPU)
    return training


def test_a_recorded_step_follows_auto_from_one_engine_to_the_other():
    numbers, tapes = range(1, 21), Tapes()
    eager, recorded = auto_training().run(numbers), auto_training(tapes).run(numbers)
    assert eager.engine.decide(batch()).name == recorded.engine.decide(batch()).name == "dense"
    for name, value in eager.state().items():
        assert torch.equal(value, recorded.state()[name]), name
    # Full and last batch, before and after the last update of the masks; the updates before it record nothing anew.
    assert len(tapes.tapes) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("numerics", ["tf32", "bf16"])
def test_a_gpu_is_measured_within_a_minute(numerics):
    started = time.perf_counter()
    found = calibrate(DEVICE, numerics)
    assert time.perf_counter() - started < 60
    for kind in ("fused", "convolution", "module numbers"):
        assert found.seconds[kind] > 0, kind


@pytest.fixture
def looked_at_anew():
    triton_status.cache_clear()
    yield
    triton_status.cache_clear()


@pytest.mark.usefixtures("looked_at_anew")
def test_triton_is_available_where_its_kernels_compute():
    found = triton_status(DEVICE)
    assert (found.available, found.reason) == (True, "")
    assert found.version


@pytest.mark.parametrize("name", ["auto", "sparse"])
@pytest.mark.usefixtures("looked_at_anew")
def test_without_triton_one_line_says_why_and_the_dense_engine_takes_over(monkeypatch, capfd, name):
    monkeypatch.setitem(sys.modules, "triton", None)
    model, layers = network(0.05)
    engine = make_engine(name, model, active_weights(layers), numerics="tf32", device=torch.device("cuda"))
    assert isinstance(engine, DenseEngine)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: engine {name} falls back to dense: Triton cannot be imported: ModuleNotFoundError"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("looked_at_anew")
def test_what_stands_in_the_way_of_a_kernel_is_told():
    found = triton_status(torch.device("cuda"))
    assert not found.available
    assert found.reason.startswith(f"Triton {found.version} cannot run a kernel: ")


@pytest.mark.parametrize(("density", "parts"), [(1.0, {}), (0.1, {"dct": True})], ids=["all active", "DCT layers"])
def test_where_there_is_no_zero_to_leave_out_nothing_is_looked_at(density, parts):
    model, layers = network(density, **parts)
    cuda = torch.device("cuda")
    engine = make_engine("auto", model, active_weights(layers), numerics="tf32", device=cuda, costs=pytest.fail)
    assert isinstance(engine, DenseEngine)
