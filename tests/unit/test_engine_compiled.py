"""A compiled network: the same as the network itself, compiled once for each shape and set of parameters."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from east.engine import GradientRequest
from east.engine.dense import CACHE_VARIABLE, CompiledNetwork, DenseEngine
from east.models.described import Parts
from east.models.dyrelu import retire_dyrelu, set_beta
from east.models.networks import BASIC
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import apply_masks, masked_layers
from tests.unit.residual_networks import residual_network

pytestmark = pytest.mark.usefixtures("one_thread", "cache")

CPU = torch.device("cpu")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EAST_CACHE_DIR", str(tmp_path))
    # Set and taken away, so that it is as it was before the test once that has ended.
    monkeypatch.setenv(CACHE_VARIABLE, "")
    monkeypatch.delenv(CACHE_VARIABLE)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network(dyrelu=False):
    torch.manual_seed(0)
    model = residual_network(BASIC, (1,), 10, width=4, parts=Parts(dct=False, dyrelu=dyrelu))
    change_masks(model, 0)
    return model


def change_masks(model, number):
    for name, layer in masked_layers(model).items():
        layer.mask.copy_(torch.rand(layer.mask.shape, generator=generator(0, name, number)) < 0.1 + 0.1 * number)
    apply_masks(masked_layers(model))


def images(size=3):
    return torch.randn(size, 3, 8, 8, generator=generator(0, "images"))


def gradients(model, backend, size=3):
    active = active_weights(masked_layers(model))
    engine = DenseEngine(model, active, numerics="fp32", device=CPU)
    if backend is not None:
        engine._training = CompiledNetwork(model, backend)
    labels = torch.arange(size)
    found = engine.gradients(images(size), lambda logits: F.cross_entropy(logits, labels), GradientRequest())
    return [found.logits, *(w.gradient for w in active.values()), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize(
    ("backend", "dyrelu"),
    [("aot_eager", False), ("aot_eager", True), pytest.param("inductor", True, marks=pytest.mark.slow)],
)
def test_a_compiled_network_has_the_gradients_and_statistics_of_the_network(backend, dyrelu):
    compiled, eager = network(dyrelu), network(dyrelu)
    # Of DyReLU some sums are taken in another order.
    exact = backend == "aot_eager" and not dyrelu
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}
    for found, expected in zip(gradients(compiled, backend), gradients(eager, None), strict=True):
        torch.testing.assert_close(found, expected, **tolerance)
    for found, expected in zip(compiled.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(found, expected, **tolerance)


def test_nothing_is_compiled_again_when_masks_weights_and_beta_change():
    model, counter = network(dyrelu=True), CompileCounter()
    compiled = CompiledNetwork(model, counter)
    for number in range(4):
        change_masks(model, number)
        set_beta(model, 1 / (1 + number))
        torch.testing.assert_close(compiled(images()), model(images()), rtol=0, atol=0)
    assert counter.frame_count == 1


def test_each_batch_size_and_each_phase_of_dyrelu_is_compiled_once():
    model, counter = network(dyrelu=True), CompileCounter()
    compiled = CompiledNetwork(model, counter)
    for size in (3, 2, 3, 2):
        compiled(images(size))
    assert counter.frame_count == 2
    retire_dyrelu(model)
    for size in (3, 2, 3):
        compiled(images(size))
    assert counter.frame_count == 4


def test_evaluation_compiles_nothing():
    model = network()
    engine = DenseEngine(model, active_weights(masked_layers(model)), numerics="fp32", device=CPU, compiled=True)
    before = torch._dynamo.utils.counters["frames"]["total"]
    model.eval()
    engine(images())
    assert torch._dynamo.utils.counters["frames"]["total"] == before


def unable(graph, inputs):
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\n\nmore")


def test_a_network_that_cannot_be_compiled_is_called_as_it_is(capsys):
    model = network()
    compiled = CompiledNetwork(model, unable)
    assert [torch.equal(compiled(images()), model(images())) for _ in range(2)] == [True, True]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the network is not compiled: ")
    assert "Failed to find C compiler" in line


def test_what_is_compiled_goes_into_the_cache_of_the_project(tmp_path):
    CompiledNetwork(network())
    assert os.environ[CACHE_VARIABLE] == str(tmp_path / "inductor")


def test_a_cache_that_others_can_write_to_gives_way_to_a_folder_of_the_process(tmp_path, capsys):
    tmp_path.chmod(0o777)
    CompiledNetwork(network())
    folder = Path(os.environ[CACHE_VARIABLE])
    assert not folder.is_relative_to(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert str(tmp_path) in capsys.readouterr().err


def test_a_cache_that_the_user_names_is_used(monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, "/somewhere")
    CompiledNetwork(network())
    assert os.environ[CACHE_VARIABLE] == "/somewhere"
