"""Which engine is made: by the run alone on a CPU, as costs least on a GPU, and what is done without kernels."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from east.engine import CrossEntropy, GradientRequest, Workload, make_engine
from east.engine.base import PLAIN
from east.engine.cpu import library
from east.engine.cpu.cost import cheapest
from east.engine.cpu.engine import CpuEngine
from east.engine.cuda.auto import AutoEngine
from east.engine.cuda.cost import KINDS, Cheapest, CostModel
from east.engine.dense import DenseEngine
from east.engine.graph.network import describe
from east.errors import EastError
from east.models import build_model
from east.reproducibility import Reproducibility
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import masked_layers
from east.sparse.masks import Allocation, initialise_masks

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def draw_masks(model, density):
    layers = masked_layers(model)
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    allocation = Allocation(shapes, "erk", sum(layer.weight.numel() for layer in layers.values()))
    initialise_masks(layers, allocation.counts(density), seed=1)
    return layers


@pytest.mark.parametrize("name", ["auto", "sparse", "dense"])
def test_an_engine_tells_what_it_has_executed(name):
    model = network(0.01)
    layers = len(masked_layers(model))
    engine = engine_of(model, name)
    engine(batch(4))
    executed = engine.executed()
    assert executed.engine == ("dense" if name == "dense" else "sparse")
    assert sum(executed.executions.values()) == layers
    assert (executed.compiler is None) == (name == "dense")
    expected = Reproducibility.THIS_PROCESSOR if name == "dense" else Reproducibility.ANY_PROCESSOR
    assert executed.reproducibility == expected


def test_auto_has_the_weakest_class_of_what_it_has_executed_so_far():
    model = network(0.01)
    engine = _auto_between_engines(model)
    engine(batch(4))
    for density, name in ((0.9, "sparse and dense"), (0.01, "sparse and dense")):
        draw_masks(model, density)
        for weights in engine.active.values():
            weights.read()
        engine.masks_changed()
        engine(batch(4))
        executed = engine.executed()
        assert (executed.engine, executed.reproducibility) == (name, Reproducibility.THIS_PROCESSOR)
        assert executed.executions["dense"] == len(engine.active)
        assert executed.instruction_set == torch.backends.cpu.get_cpu_capability()
        assert executed.compiler


def _auto_between_engines(model):
    """`auto` as a GPU has it, between the engines of a CPU: by a model in which each weight costs the same."""
    active = active_weights(masked_layers(model))
    costs = CostModel(dict.fromkeys(KINDS, 0.0) | {"fused products": 1.0, "convolution": 0.5})
    return AutoEngine(
        model,
        active,
        sparse=CpuEngine(model, active, device=CPU, choose=cheapest),
        make_dense=lambda: DenseEngine(model, active, numerics="fp32", device=CPU, lay_out=False),
        choose=Cheapest(lambda: costs, PLAIN),
    )


def network(density, width=16, **parts):
    torch.manual_seed(0)
    model = build_model("resnet34", 10, width=width, **parts).double()
    draw_masks(model, density)
    return model


def engine_of(model, name="auto", device=CPU, **settings):
    return make_engine(name, model, active_weights(masked_layers(model)), numerics="fp32", device=device, **settings)


def batch(number=0):
    return torch.randn(4, 3, 16, 16, generator=generator(0, "batch", number), dtype=torch.float64)


def gradients(engine, images):
    """Logits, and the gradient of every parameter as far as its weights are active."""
    engine.model.zero_grad()
    found = engine.gradients(images, CrossEntropy(torch.arange(len(images))), GradientRequest())
    masked = {f"{name}.weight": weights for name, weights in engine.active.items()}
    left = {"logits": found.logits}
    for name, parameter in engine.model.named_parameters():
        weights = masked.get(name)
        left[name] = parameter.grad if weights is None else weights.to_row_major(weights.gradient)
    return left


# On a CPU: by the run alone


@pytest.mark.parametrize("density", [0.0005, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("workload", [Workload(), Workload(8, dense=1.0), Workload(8, probes=8.0)], ids=str)
def test_on_a_cpu_auto_is_the_sparse_engine_wherever_there_is_a_zero(density, workload):
    """Whatever is asked of it, nothing is timed: that would decide numbers."""
    assert isinstance(engine_of(network(density, width=4), workload=workload, costs=pytest.fail), CpuEngine)


@pytest.mark.parametrize(
    "model", [network(1.0, 4), network(0.01, 4, dct=True)], ids=["all weights active", "DCT layers"]
)
def test_where_there_is_no_zero_to_leave_out_it_is_the_dense_engine(model):
    assert isinstance(engine_of(model, costs=pytest.fail), DenseEngine)


def test_a_network_of_another_kind_is_executed_densely():
    assert isinstance(engine_of(nn.Flatten(), costs=pytest.fail), DenseEngine)


def test_masks_that_become_dense_later_do_not_change_the_engine():
    """A cycle may end with all weights active; the run stays in its class."""
    model = network(0.02, width=4)
    engine = engine_of(model)
    for density in (0.02, 1.0):
        draw_masks(model, density)
        for weights in engine.active.values():
            weights.read()
        engine.masks_changed()
        expected = gradients(engine_of(copy.deepcopy(model), "dense"), batch())
        for name, tensor in gradients(engine, batch()).items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-9)


def test_the_execution_of_a_layer_follows_from_its_nonzeros_per_output_channel():
    described = describe(network(0.01), (3, 32, 32))
    channels = {unit.layer: unit.y.channels for unit in described.units}
    chosen = {
        per_channel: cheapest(
            described, {layer: per_channel * count for layer, count in channels.items()} | {"classifier": 1}
        )
        for per_channel in (1, 40)
    }
    assert {execution for layer, execution in chosen[1].items() if layer in channels} == {"fused"}
    assert {execution for layer, execution in chosen[40].items() if layer in channels} == {"rows"}


@pytest.mark.parametrize("name", ["fast", ""])
def test_an_engine_that_does_not_exist_is_refused(name):
    with pytest.raises(EastError, match="Choose one of auto, dense, sparse"):
        engine_of(nn.Flatten(), name)


def test_the_sparse_engine_is_refused_where_it_does_not_run():
    with pytest.raises(EastError, match="on a CPU or on CUDA, not on meta"):
        engine_of(network(0.01, 4), "sparse", torch.device("meta"))


# On a GPU: as costs least with the masks of the moment. The sparse engine of the CPU stands for that of the GPU.

COSTS = CostModel(
    {
        "unit": 0.0,
        "fused": 4e-10,
        "fused products": 5e-10,
        "layout": 1.5e-9,
        "convolution": 6e-11,
        "sketch": 1e-10,
        "module": 0.0,
        "module numbers": 4e-9,
    }
)
"""Made up; what a call costs is left out."""


def following(model, workload=None, costs=lambda: COSTS):
    active = active_weights(masked_layers(model))
    sparse = CpuEngine(model, active, device=CPU, choose=cheapest)
    dense = partial(DenseEngine, model, active, numerics="fp32", device=CPU, lay_out=False)
    choose = Cheapest(costs, workload or Workload(), ("fused",))
    return AutoEngine(model, active, sparse=sparse, make_dense=dense, choose=choose)


def test_an_exact_clip_speaks_for_the_dense_engine():
    model = network(0.05)
    assert following(model).decide(batch()).name == "sparse"
    assert following(model, Workload(probes=1)).decide(batch()).name == "sparse"
    assert following(model, Workload(dense=1)).decide(batch()).name == "dense"


def test_it_follows_the_masks_and_its_results_are_those_of_the_dense_engine():
    model = network(0.02, width=8)
    engine = following(model)
    chosen = []
    for number, density in enumerate((0.02, 0.07, 0.95, 1.0, 0.02)):
        draw_masks(model, density)
        for weights in engine.active.values():
            weights.read()
        engine.masks_changed()
        images = batch(number)
        expected = gradients(engine_of(copy.deepcopy(model), "dense"), images)
        found = gradients(engine, images)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-9, msg=f"{name} at density {density}")
        chosen.append(engine.decide(images).name)
        assert all(weights.layer.weight.is_contiguous() for weights in engine.active.values())
    assert chosen == ["sparse", "sparse", "dense", "dense", "sparse"]


def test_it_decides_once_until_the_masks_change():
    asked = []

    def costs():
        asked.append(1)
        return COSTS

    engine = following(network(0.02), costs=costs)
    assert not asked
    gradients(engine, batch())
    first = len(asked)
    gradients(engine, batch())
    engine(batch())
    assert len(asked) == first > 0
    engine.masks_changed()
    gradients(engine, batch())
    assert len(asked) > first


def test_the_decision_does_not_depend_on_the_size_of_a_batch():
    """Else a run that is resumed could come out otherwise: the last batch of an epoch is smaller."""
    calls = CostModel(COSTS.seconds | {"unit": 0.002})
    for images, expected in ((8, "dense"), (128, "sparse")):
        assert following(network(0.02), Workload(images), lambda: calls).decide(batch()).name == expected


# Without kernels


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setenv("EAST_CACHE_DIR", str(tmp_path))
    library._load_once.cache_clear()
    yield
    library._load_once.cache_clear()


@pytest.mark.parametrize("name", ["auto", "sparse"])
@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_one_line_says_why_what_is_lost_and_the_dense_engine_takes_over(capfd, name):
    engine = engine_of(network(0.02), name)
    assert isinstance(engine, DenseEngine)
    gradients(engine, batch())
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: engine {name} falls back to dense; its numbers will not be the same on other processors: "
        "there is no C++ compiler"
    )
    assert "/nonexistent/c++" in line
