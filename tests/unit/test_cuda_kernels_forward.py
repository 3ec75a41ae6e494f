"""The forward kernels of the sparse CUDA engine against float64 references."""

import itertools

import cuda_reference as reference
import pytest
import torch
from torch import nn

from east.engine.cuda import forward
from east.engine.cuda.operands import Norm, Source
from east.engine.cuda.tiles import accumulation_type, blocks_of
from east.engine.graph.network import Window

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}

WINDOWS = {
    "1x1": Window(1, 1, 0),
    "1x1, stride 2": Window(1, 2, 0),
    "3x3": Window(3, 1, 1),
    "3x3, stride 2": Window(3, 2, 1),
    "3x3, no padding": Window(3, 1, 0),
    "7x7, stride 2": Window(7, 2, 3),
}

ONE_BLOCK, BLOCKS = (4, 5, 7, 3), (3, 9, 10, 100)
"""Inputs whose planes are one block, and several that do not come out even."""


@pytest.fixture(params=["bf16", "fp32", "fp64"])
def dtype(request):
    return {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[request.param]


def close(actual, wanted, dtype):
    tolerance, wanted = TOLERANCES[dtype], wanted.double()
    largest = wanted.abs().max().item()
    torch.testing.assert_close(actual.double(), wanted, rtol=tolerance, atol=tolerance * largest)


def output_shape(shape, channels, window):
    sizes = [(size + 2 * window.padding - window.kernel) // window.stride + 1 for size in shape[1:3]]
    return channels, *sizes, shape[3]


def poisoned(shape, dtype, device):
    return torch.full(shape, float("nan"), dtype=dtype, device=device)


def norm_of(shape, dtype, device, seed=0):
    """A batch norm with random parameters and statistics, bound to poisoned memory."""
    torch.manual_seed(seed)
    module = nn.BatchNorm2d(shape[0], device=device, dtype=accumulation_type(dtype))
    for vector in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
        vector.copy_(torch.rand_like(vector) + 0.5)
    norm = Norm.of(module, shape, dtype)
    for name in (
        "mean",
        "inverse_deviation",
        "scale",
        "shift",
        "weight_gradient",
        "bias_gradient",
        "factors",
        "partial",
    ):
        getattr(norm, name).fill_(float("nan"))
    return module, norm


def check_norm(module, norm, z, running, dtype):
    """Batch norm's vectors against PyTorch's batch norm of z, whose running statistics were `running`."""
    wanted = nn.BatchNorm2d(len(z), eps=module.eps, device=z.device, dtype=torch.float64)
    for name, vector in (("weight", module.weight.data), ("bias", module.bias.data), *running.items()):
        getattr(wanted, name).data.copy_(vector)
    wanted.train(module.training)
    y = reference.planes(wanted(reference.images(z)))
    tolerance = torch.float32 if dtype == torch.bfloat16 else dtype
    factor = norm.scale.double()[:, None, None, None]
    close(factor * z.double() + norm.shift.double()[:, None, None, None], y, tolerance)
    close(module.running_mean, wanted.running_mean, tolerance)
    close(module.running_var, wanted.running_var, tolerance)
    close(norm.mean * norm.scale + norm.shift, module.bias, tolerance)
    close(norm.inverse_deviation * module.weight, norm.scale, tolerance)


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_a_sparse_convolution_with_its_statistics(window, shape, dtype, device):
    weight = reference.sparse_weight((4, shape[0], window.kernel, window.kernel), 9, 1, dtype, device)
    lists, values = reference.lists_of(weight, 12, "output")
    source = reference.random_source(shape, dtype, device, pending=True, rectify=True, seed=2)
    z = poisoned(output_shape(shape, 4, window), dtype, device)
    module, norm = norm_of(z.shape, dtype, device)
    running = {"running_mean": module.running_mean.clone(), "running_var": module.running_var.clone()}
    forward.convolve(source, lists, values, window, z, norm, training=True)
    written = lists.start.diff() > 0
    close(z[written], reference.convolve(reference.activation(source), weight, window)[written], dtype)
    assert z[~written].isnan().all()
    assert not written.all()
    check_norm(module, norm, torch.where(written[:, None, None, None], z, 0.0), running, dtype)


def test_the_shapes_above_have_one_block_and_several(dtype):
    assert blocks_of(ONE_BLOCK, dtype) == 1
    assert blocks_of(BLOCKS, dtype) > 2


@pytest.mark.parametrize(("pending", "rectify", "dead"), list(itertools.product([False, True], repeat=3)))
def test_every_kind_of_input_can_be_read(pending, rectify, dead, device):
    before = reference.sparse_weight((4, 2, 3, 3), 5, 3, torch.float32, device) if dead else None
    shape = (4, 6, 5, 8)
    source = reference.random_source(
        shape, torch.float32, device, pending=pending, rectify=rectify, seed=4, weight=before
    )
    window = Window(3, 1, 1)
    weight = reference.sparse_weight((5, 4, 3, 3), 25, 5, torch.float32, device)
    lists, values = reference.lists_of(weight, 30, "output")
    z = poisoned((5, *shape[1:]), torch.float32, device)
    _, norm = norm_of(z.shape, torch.float32, device)
    forward.convolve(source, lists, values, window, z, norm, training=True)
    close(z[:-1], reference.convolve(reference.activation(source), weight, window)[:-1], torch.float32)


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
def test_evaluation_normalises_with_running_statistics(shape, device):
    dtype, window = torch.float32, Window(1, 1, 0)
    weight = reference.sparse_weight((4, shape[0], 1, 1), 9, 1, dtype, device)
    lists, values = reference.lists_of(weight, 12, "output")
    z = poisoned((4, *shape[1:]), dtype, device)
    module, norm = norm_of(z.shape, dtype, device)
    module.eval()
    running = {"running_mean": module.running_mean.clone(), "running_var": module.running_var.clone()}
    source = reference.random_source(shape, dtype, device, pending=False, rectify=False, seed=2)
    forward.convolve(source, lists, values, window, z, norm, training=False)
    check_norm(module, norm, z.nan_to_num(0), running, dtype)
    torch.testing.assert_close(module.running_mean, running["running_mean"], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
def test_statistics_of_an_output_that_pytorch_wrote(shape, dtype, device):
    z = reference.random_source(shape, dtype, device, pending=False, rectify=False, seed=6).data
    module, norm = norm_of(shape, dtype, device)
    running = {"running_mean": module.running_mean.clone(), "running_var": module.running_var.clone()}
    forward.normalise(z, norm, training=True)
    check_norm(module, norm, z, running, dtype)


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
def test_statistics_keep_their_digits_where_the_mean_is_large(shape, device):
    z = 1e4 + reference.random_source(shape, torch.float32, device, pending=False, rectify=False, seed=7).data
    _, norm = norm_of(shape, torch.float32, device)
    forward.normalise(z, norm, training=True)
    variance = z.double().flatten(1).var(1, correction=0)
    torch.testing.assert_close(norm.inverse_deviation.double(), (variance + 1e-5).rsqrt(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
@pytest.mark.parametrize("residual", ["none", "stored", "pending"])
def test_the_output_of_a_block(residual, shape, dtype, device):
    before = reference.sparse_weight((shape[0], 2, 3, 3), 4, 8, dtype, device)
    source = reference.random_source(shape, dtype, device, pending=True, rectify=False, seed=9, weight=before)
    other = None
    if residual != "none":
        pending = residual == "pending"
        weight = before.flip(0) if pending else None
        other = reference.random_source(shape, dtype, device, pending=pending, rectify=False, seed=10, weight=weight)
    y = poisoned(shape, dtype, device)
    forward.finish_block(source, other, y, rectify=True)
    wanted = reference.activation(source) + (0 if other is None else reference.activation(other))
    close(y, wanted.relu(), dtype)


def test_a_number_that_is_none_stays_visible(device):
    data = torch.full((1, 2, 2, 8), float("nan"), device=device)
    y = torch.zeros_like(data)
    forward.finish_block(Source(data), None, y, rectify=True)
    assert y.isnan().all()
