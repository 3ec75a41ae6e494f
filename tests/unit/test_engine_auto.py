"""Which engine `auto` takes, that it follows the masks, and what happens without kernels."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from east.engine import GradientRequest, Workload, make_engine
from east.engine.costs.model import CostModel
from east.engine.dense import DenseEngine
from east.engine.sparse import library
from east.engine.sparse.engine import SparseEngine
from east.models import build_model
from east.reproducibility import Reproducibility
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import masked_layers
from east.sparse.masks import Allocation, initialise_masks

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")

COSTS = CostModel(
    {
        "unit": 0.0,
        "fused": 4e-10,
        "fused products": 5e-10,
        "tiled": 1.5e-9,
        "tiled products": 1e-10,
        "layout": 1.5e-9,
        "convolution": 6e-11,
        "sketch": 1e-10,
        "module": 0.0,
        "module numbers": 4e-9,
    }
)
"""As measured on a processor with AVX-512, without what a call costs."""


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
    engine = engine_of(model)
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


def network(density, width=16, **parts):
    torch.manual_seed(0)
    model = build_model("resnet34", 10, width=width, **parts).double()
    draw_masks(model, density)
    return model


def engine_of(model, name="auto", workload=None, costs=lambda: COSTS):
    active = active_weights(masked_layers(model))
    workload = workload or Workload()
    return make_engine(name, model, active, numerics="fp32", device=CPU, workload=workload, costs=costs)


def batch(number=0):
    return torch.randn(4, 3, 16, 16, generator=generator(0, "batch", number), dtype=torch.float64)


def gradients(engine, images):
    """Logits, and the gradient of every parameter as far as its weights are active."""
    engine.model.zero_grad()
    labels = torch.arange(len(images))
    found = engine.gradients(images, lambda logits: F.cross_entropy(logits, labels), GradientRequest())
    masked = {f"{name}.weight": weights for name, weights in engine.active.items()}
    left = {"logits": found.logits}
    for name, parameter in engine.model.named_parameters():
        weights = masked.get(name)
        left[name] = parameter.grad if weights is None else weights.to_row_major(weights.gradient)
    return left


def test_few_nonzeros_are_executed_sparsely():
    engine = engine_of(network(0.01))
    assert engine.name == "auto"
    assert isinstance(engine.decide(batch()), SparseEngine)


@pytest.mark.parametrize("model", [network(1.0), network(0.01, dct=True)], ids=["all weights active", "DCT layers"])
def test_where_there_is_no_zero_to_leave_out_it_is_the_dense_engine(model):
    assert isinstance(engine_of(model, costs=pytest.fail), DenseEngine)


def test_a_network_of_another_kind_is_executed_densely():
    assert isinstance(engine_of(nn.Flatten(), costs=pytest.fail), DenseEngine)


def test_an_exact_clip_speaks_for_the_dense_engine():
    model = network(0.25)
    assert isinstance(engine_of(model).decide(batch()), SparseEngine)
    assert isinstance(engine_of(model, workload=Workload(probes=1)).decide(batch()), SparseEngine)
    assert isinstance(engine_of(model, workload=Workload(dense=1)).decide(batch()), DenseEngine)


def test_it_follows_the_masks_and_its_results_are_those_of_the_dense_engine():
    model = network(0.02, width=8)
    engine = engine_of(model)
    chosen = []
    for number, density in enumerate((0.02, 0.2, 0.95, 1.0, 0.02)):
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

    engine = engine_of(network(0.02), costs=costs)
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
    for images, expected in ((8, DenseEngine), (128, SparseEngine)):
        engine = engine_of(network(0.02), workload=Workload(images), costs=lambda: calls)
        assert isinstance(engine.decide(batch()), expected)


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setenv("EAST_CACHE_DIR", str(tmp_path))
    library._load_once.cache_clear()
    yield
    library._load_once.cache_clear()


@pytest.mark.parametrize("name", ["auto", "sparse"])
@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_one_line_says_why_and_the_dense_engine_takes_over(capfd, name):
    engine = engine_of(network(0.02), name)
    assert isinstance(engine, DenseEngine)
    gradients(engine, batch())
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: engine {name} falls back to dense: there is no C++ compiler")
    assert "/nonexistent/c++" in line
