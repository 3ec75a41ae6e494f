"""The backward and DyReLU kernels of the sparse CUDA engine against PyTorch's automatic differentiation in float64."""

from dataclasses import dataclass

import cuda_reference as reference
import pytest
import torch
from test_cuda_kernels_forward import BLOCKS, ONE_BLOCK, close, norm_of, output_shape, poisoned
from torch import Tensor

from east.engine.cuda import backward, dyrelu
from east.engine.cuda.operands import Consumer, Output
from east.engine.cuda.tiles import accumulation_type, parts_of
from east.engine.graph.network import Window

READERS = {
    "none": [],
    "1x1": [Window(1, 1, 0)],
    "3x3": [Window(3, 1, 1)],
    "7x7, stride 2": [Window(7, 2, 3)],
    "3x3 and 1x1, stride 2": [Window(3, 2, 1), Window(1, 2, 0)],
}


@pytest.fixture(params=["bf16", "fp32", "fp64"])
def dtype(request):
    return {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[request.param]


@dataclass
class Case:
    """A unit's output in float64 that can be differentiated, and what the kernels are given."""

    output: Output
    leaves: dict[str, Tensor]
    y: Tensor
    written: Tensor


def planes(shape, dtype, device, seed):
    return reference.random_source(shape, dtype, device, pending=False, rectify=False, seed=seed).data


def case_of(shape, dtype, device, *, rectify, residual, training=True):
    """Batch norm, residual and activation of a random z, whose channels without non-zeros are NaN."""
    before = reference.sparse_weight((shape[0], 2, 3, 3), 6, 11, dtype, device)
    before[0, 0, 0, 0] = 1
    z = reference.random_source(shape, dtype, device, pending=False, rectify=False, seed=12, weight=before)
    module, norm = norm_of(shape, dtype, device)
    module.bias.data[-1] = -0.5
    leaves = {"z": reference.activation(z), "weight": module.weight.data.double(), "bias": module.bias.data.double()}
    if residual:
        leaves["residual"] = planes(shape, dtype, device, 13).double()
    for leaf in leaves.values():
        leaf.requires_grad_()
    running = None if training else (module.running_mean, module.running_var)
    y = reference.batch_norm(leaves["z"], leaves["weight"], leaves["bias"], module.eps, running)
    if residual:
        y = y + leaves["residual"]
    y = y.relu() if rectify else y
    flat = leaves["z"].detach().flatten(1)
    mean, variance = (flat.mean(1), flat.var(1, correction=0)) if training else running
    norm.mean.copy_(mean)
    norm.inverse_deviation.copy_((variance.double() + module.eps).rsqrt())
    norm.scale.copy_(norm.weight * norm.inverse_deviation)
    norm.shift.copy_(norm.bias - norm.mean * norm.scale)
    output = Output(z.data, z.stored, norm, rectify, y.detach().to(dtype).contiguous() if residual else None)
    return Case(output, leaves, y, z.stored.diff() > 0)


def consumers_of(y, windows, dtype, device):
    """Sparse convolutions that read y: what the kernels are given, and a loss to be differentiated by y and weights."""
    consumers, weights, loss = [], [], y.new_zeros(())
    for number, window in enumerate(windows):
        weight = reference.sparse_weight((5, len(y), window.kernel, window.kernel), 12, 20 + number, dtype, device)
        lists, values = reference.lists_of(weight, 15, "input")
        dz = planes(output_shape(y.shape, 5, window), dtype, device, 30 + number)
        leaf = weight.double().clone().requires_grad_()
        loss = loss + (reference.convolve(y, leaf, window) * dz.double().clone()).sum()
        dz[weight.flatten(1).count_nonzero(1) == 0] = float("nan")
        products = poisoned((15, parts_of(y.shape, dtype)), accumulation_type(dtype), device)
        gradient = poisoned((18,), accumulation_type(dtype), device)
        consumers.append(Consumer(lists, values, window, dz, products, gradient))
        weights.append((weight, leaf))
    return consumers, weights, loss


def check_values(consumers, weights, dtype):
    for consumer, (weight, leaf) in zip(consumers, weights, strict=True):
        wanted = leaf.grad[weight != 0]
        close(consumer.value_gradient[: len(wanted)], wanted, dtype)
        assert (consumer.value_gradient[len(wanted) :] == 0).all()


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
@pytest.mark.parametrize(
    ("readers", "residual", "dtype"),
    [
        ("none", False, torch.float32),
        ("none", True, torch.bfloat16),
        ("1x1", False, torch.float64),
        ("3x3", False, torch.bfloat16),
        ("3x3", True, torch.float32),
        ("3x3", True, torch.float64),
        ("7x7, stride 2", False, torch.float32),
        ("3x3 and 1x1, stride 2", False, torch.float64),
        ("3x3 and 1x1, stride 2", True, torch.bfloat16),
        ("3x3 and 1x1, stride 2", True, torch.float32),
    ],
)
def test_the_gradient_through_a_unit(readers, residual, dtype, shape, device):
    case = case_of(shape, dtype, device, rectify=True, residual=residual)
    consumers, weights, loss = consumers_of(case.y, READERS[readers], dtype, device)
    direct = planes(shape, dtype, device, 40) if residual or not consumers else None
    if direct is not None:
        loss = loss + (case.y * direct.double().clone()).sum()
    loss.backward()
    g, dz = poisoned(shape, dtype, device), poisoned(shape, dtype, device)
    backward.through_unit(
        case.output, consumers, direct, g, dz, keep=residual, everything=False, training=True
    )  # fmt: skip
    check(case, g if residual else None, dz, dtype)
    assert dz[~case.written].isnan().all()
    check_values(consumers, weights, dtype)


def check(case, g, dz, dtype, everything=False):
    leaves, norm = case.leaves, case.output.norm
    written = torch.ones_like(case.written) if everything else case.written
    close(dz[written], leaves["z"].grad[written], dtype)
    if g is not None:
        close(g, leaves["residual"].grad, dtype)
    tolerance = torch.float32 if dtype == torch.bfloat16 else dtype
    scale = case.y[0].numel()
    close(norm.weight_gradient / scale, leaves["weight"].grad / scale, tolerance)
    close(norm.bias_gradient / scale, leaves["bias"].grad / scale, tolerance)


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("everything", [True, False], ids=["everything", ""])
def test_in_place_and_for_channels_without_nonzeros(everything, training, shape, device):
    dtype = torch.float64
    case = case_of(shape, dtype, device, rectify=True, residual=True, training=training)
    consumers, weights, loss = consumers_of(case.y, READERS["3x3"], dtype, device)
    direct = planes(shape, dtype, device, 40)
    (loss + (case.y * direct.double().clone()).sum()).backward()
    dz = case.output.z
    backward.through_unit(
        case.output, consumers, direct, direct, dz, keep=True, everything=everything, training=training
    )
    check(case, direct, dz, dtype, everything)
    check_values(consumers, weights, dtype)


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
@pytest.mark.parametrize("keep", [True, False], ids=["kept", ""])
def test_the_convolution_of_a_shortcut_takes_the_gradient_as_it_is(keep, shape, dtype, device):
    case = case_of(shape, dtype, device, rectify=False, residual=False)
    direct = planes(shape, dtype, device, 41)
    (case.y * direct.double().clone()).sum().backward()
    g, dz = poisoned(shape, dtype, device), poisoned(shape, dtype, device)
    backward.through_unit(case.output, (), direct, g, dz, keep=keep, everything=False, training=True)
    check(case, None, dz, dtype)
    assert torch.equal(g, direct) if keep else g.isnan().all()


@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
@pytest.mark.parametrize(
    ("with_direct", "dtype"), [(True, torch.bfloat16), (True, torch.float32), (False, torch.float64)]
)
def test_the_gradient_at_a_stored_activation(with_direct, shape, dtype, device):
    y = planes(shape, dtype, device, 50)
    leaf = y.double().clone().requires_grad_()
    consumers, weights, loss = consumers_of(leaf, READERS["3x3 and 1x1, stride 2"], dtype, device)
    direct = planes(shape, dtype, device, 51) if with_direct else None
    (loss if direct is None else loss + (leaf * direct.double().clone()).sum()).backward()
    g = poisoned(shape, dtype, device) if direct is None else direct
    backward.gather(y, consumers, direct, g)
    close(g, leaf.grad, dtype)
    check_values(consumers, weights, dtype)


@pytest.mark.parametrize(("window", "pending"), [(Window(3, 1, 1), True), (Window(7, 2, 3), False)])
def test_the_gradients_of_nonzeros_alone(window, pending, dtype, device):
    source = reference.random_source(BLOCKS, dtype, device, pending=pending, rectify=pending, seed=60)
    weight = reference.sparse_weight((5, len(source.data), window.kernel, window.kernel), 12, 61, dtype, device)
    lists, _ = reference.lists_of(weight, 15, "output")
    dz = planes(output_shape(BLOCKS, 5, window), dtype, device, 62)
    leaf = weight.double().clone().requires_grad_()
    (reference.convolve(reference.activation(source), leaf, window) * dz.double().clone()).sum().backward()
    dz[-1] = float("nan")
    products = poisoned((15, parts_of(dz.shape, dtype)), accumulation_type(dtype), device)
    gradient = poisoned((18,), accumulation_type(dtype), device)
    backward.value_gradients(source, lists, window, dz, products, gradient)
    wanted = leaf.grad[weight != 0]
    tolerance = torch.float32 if dtype == torch.bfloat16 else dtype
    close(gradient[: len(wanted)], wanted, tolerance)
    assert (gradient[len(wanted) :] == 0).all()


# DyReLU


SHAPES = pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS, (2, 1, 3, 140)], ids=str)


def coefficients_of(shape, dtype, device):
    generator = torch.Generator().manual_seed(70)
    coefficients = torch.randn(shape[0], 4, shape[3], generator=generator)
    coefficients[0] = torch.tensor([1.0, 1.0, 0.0, 0.0])[:, None]  # both lines are one
    return coefficients.to(device, accumulation_type(dtype))


@SHAPES
@pytest.mark.parametrize("with_residual", [True, False], ids=["residual", ""])
def test_the_input_and_its_means(with_residual, shape, dtype, device):
    before = reference.sparse_weight((shape[0], 2, 3, 3), 4, 71, dtype, device)
    source = reference.random_source(shape, dtype, device, pending=True, rectify=False, seed=72, weight=before)
    residual = None
    if with_residual:
        residual = reference.random_source(shape, dtype, device, pending=False, rectify=False, seed=73)
    u = poisoned(shape, dtype, device)
    means = poisoned((shape[0], shape[3]), accumulation_type(dtype), device)
    dyrelu.finish_input(source, residual, u, means)
    close(u, reference.activation(source) + (0 if residual is None else residual.data.double()), dtype)
    close(means, u.double().mean((1, 2)), accumulation_type(dtype))


@SHAPES
def test_the_larger_line(shape, dtype, device):
    u, coefficients = planes(shape, dtype, device, 74), coefficients_of(shape, dtype, device)
    wanted = reference.dyrelu(u.double(), coefficients.double())
    dyrelu.apply(u, coefficients, u)
    close(u, wanted, dtype)


@SHAPES
def test_the_gradient_of_coefficients_and_input(shape, dtype, device):
    case = case_of(shape, dtype, device, rectify=False, residual=True)
    coefficients = coefficients_of(shape, dtype, device)
    leaf = coefficients.double().clone().requires_grad_()
    dy, at_means = planes(shape, dtype, device, 75), coefficients[:, 0].contiguous() / 9
    u = case.output.y
    # The kernels read u as it is stored, so its derivative is taken there.
    stored = u.double().clone().requires_grad_()
    (reference.dyrelu(stored, leaf) * dy.double().clone()).sum().backward()
    at_u = stored.grad + at_means.double()[:, None, None, :]
    case.y.backward(at_u)
    of_coefficients = torch.full_like(coefficients, float("nan"))
    dyrelu.gradient_of_coefficients(u, coefficients, dy, of_coefficients)
    close(of_coefficients, leaf.grad, accumulation_type(dtype))
    output = case.output
    dyrelu.gradient_of_input(u, coefficients, dy, at_means, output.z, output.stored, output.norm, dy)
    close(dy, at_u, dtype)
    backward.through_norm(output, dy, output.z, everything=False, training=True)
    check(case, None, output.z, dtype)
