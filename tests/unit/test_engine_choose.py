"""Which engine is made: by the run alone on a CPU, as costs least on a GPU, and what is done without kernels."""

import copy

import pytest
import torch
from torch import nn

from east.engine import Workload, choose, make_engine
from east.engine.cpu import library
from east.engine.cpu.cost import cheapest
from east.engine.cpu.engine import CpuEngine
from east.engine.cuda import calibration
from east.engine.dense import DenseEngine
from east.engine.graph.network import network_of
from east.errors import EastError
from east.reproducibility import Reproducibility
from east.sparse.active import active_weights
from east.sparse.layers import masked_layers
from tests.unit.sparse_engines import CPU, ON_CPU, agree, change_masks, gradients

pytestmark = pytest.mark.usefixtures("one_thread")


def engine_of(model, name="auto", device=CPU, **settings):
    return make_engine(name, model, active_weights(masked_layers(model)), numerics="fp32", device=device, **settings)


@pytest.mark.parametrize("name", ["auto", "sparse", "dense"])
def test_an_engine_tells_what_it_has_executed(name):
    model = ON_CPU.network(0.01)
    layers = len(masked_layers(model))
    engine = engine_of(model, name)
    engine(ON_CPU.batch()[0])
    executed = engine.executed()
    assert executed.engine == ("dense" if name == "dense" else "sparse")
    assert sum(executed.executions.values()) == layers
    assert (executed.compiler is None) == (name == "dense")
    expected = Reproducibility.THIS_PROCESSOR if name == "dense" else Reproducibility.ANY_PROCESSOR
    assert executed.reproducibility == expected


# On a CPU: by the run alone


@pytest.mark.parametrize("density", [0.0005, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("workload", [Workload(), Workload(8, dense=1.0), Workload(8, probes=8.0)], ids=str)
def test_on_a_cpu_auto_is_the_sparse_engine_wherever_there_is_a_zero(density, workload):
    """Whatever is asked of it, nothing is timed: that would decide numbers."""
    assert isinstance(engine_of(ON_CPU.network(density, width=4), workload=workload, costs=pytest.fail), CpuEngine)


@pytest.mark.parametrize("keys", [{"density": 1.0}, {"density": 0.01, "dct": True}], ids=str)
def test_where_there_is_no_zero_to_leave_out_it_is_the_dense_engine(keys):
    assert isinstance(engine_of(ON_CPU.network(width=4, **keys), costs=pytest.fail), DenseEngine)


def test_a_network_of_another_kind_is_executed_densely():
    assert isinstance(engine_of(nn.Flatten(), costs=pytest.fail), DenseEngine)


def test_masks_that_become_dense_later_do_not_change_the_engine():
    """A cycle may end with all weights active; the run stays in its class."""
    model = ON_CPU.network(0.02, width=4)
    engine = engine_of(model)
    for density in (0.02, 1.0):
        change_masks(engine, density)
        expected = gradients(engine_of(copy.deepcopy(model), "dense"), *ON_CPU.batch())
        agree(gradients(engine, *ON_CPU.batch()), expected, 1e-6)


def test_the_execution_of_a_layer_follows_from_its_nonzeros_per_output_channel():
    described = network_of(ON_CPU.network(0.01), (3, 32, 32))
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
        engine_of(ON_CPU.network(0.01, width=4), "sparse", torch.device("meta"))


# On a GPU: what is made of what


class Made:
    """Stands for an engine, and knows what it was made of."""

    def __init__(self, model, active, **settings):
        self.model, self.active, self.settings = model, active, settings


@pytest.fixture
def fake_gpu(monkeypatch):
    from east.engine.cuda import engine

    monkeypatch.setattr(choose, "_require_triton", lambda device: None)
    monkeypatch.setattr(engine, "CudaEngine", type("CudaEngine", (Made,), {}))
    monkeypatch.setattr(choose, "AutoEngine", type("AutoEngine", (Made,), {}))
    monkeypatch.setattr(choose, "DenseEngine", type("DenseEngine", (Made,), {}))


@pytest.mark.parametrize("own_costs", [False, True])
@pytest.mark.usefixtures("fake_gpu")
def test_on_a_gpu_auto_is_made_of_both_engines_and_a_model_of_what_they_cost(monkeypatch, own_costs):
    asked = []
    monkeypatch.setattr(calibration, "cost_model", lambda *given: asked.append(given) or "measured")
    model, gpu, workload = ON_CPU.network(0.02, width=4), torch.device("cuda"), Workload(7)
    settings = {"costs": (lambda: "own")} if own_costs else {}
    engine = engine_of(model, "auto", gpu, workload=workload, compiled=True, **settings)
    assert type(engine).__name__ == "AutoEngine"
    assert engine.settings.keys() == {"sparse", "make_dense", "choose"}
    chooser, sparse, dense = engine.settings["choose"], engine.settings["sparse"], engine.settings["make_dense"]()
    assert (chooser.workload, chooser.among) == (workload, ("fused", "dense"))
    assert chooser.model() == ("own" if own_costs else "measured")
    assert asked == ([] if own_costs else [(gpu, "fp32", True)])
    assert sparse.settings == {"numerics": "fp32", "device": gpu, "choose": chooser}
    assert dense.settings == {"numerics": "fp32", "device": gpu, "compiled": True, "lay_out": False}
    assert all(each.model is model and each.active == engine.active for each in (engine, sparse, dense))


@pytest.mark.usefixtures("fake_gpu")
def test_on_a_gpu_an_engine_that_is_asked_for_is_made_alone():
    gpu = torch.device("cuda")
    sparse = engine_of(ON_CPU.network(0.02, width=4), "sparse", gpu)
    assert type(sparse).__name__ == "CudaEngine"
    assert sparse.settings["choose"].among == ("fused",)
    assert type(engine_of(ON_CPU.network(1.0, width=4), "sparse", gpu)).__name__ == "CudaEngine"
    for name, density in (("dense", 0.02), ("auto", 1.0)):
        dense = engine_of(ON_CPU.network(density, width=4), name, gpu)
        assert type(dense).__name__ == "DenseEngine"
        assert dense.settings == {"numerics": "fp32", "device": gpu, "compiled": False}


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
    engine = engine_of(ON_CPU.network(0.02), name)
    assert isinstance(engine, DenseEngine)
    gradients(engine, *ON_CPU.batch())
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: engine {name} falls back to dense; its numbers will not be the same on other processors: "
        "there is no C++ compiler"
    )
    assert "/nonexistent/c++" in line


@pytest.mark.parametrize("name", ["auto", "sparse"])
@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_bf16_is_refused(name):
    model = ON_CPU.network(0.02, width=4, dtype=torch.float32)
    with pytest.raises(EastError, match=r"numerics: bf16 .* there is no C\+\+ compiler"):
        make_engine(name, model, active_weights(masked_layers(model)), numerics="bf16", device=CPU)
