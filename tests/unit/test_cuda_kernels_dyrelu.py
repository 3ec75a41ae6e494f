"""The DyReLU kernels of the sparse CUDA engine against PyTorch's automatic differentiation in float64."""

import cuda_reference as reference
import pytest
import torch
from test_cuda_kernels_backward import case_of, check, planes
from test_cuda_kernels_forward import BLOCKS, ONE_BLOCK, close, poisoned

from east.engine.cuda import backward, dyrelu
from east.engine.cuda.tiles import accumulation_type


@pytest.fixture(params=["bf16", "fp32", "fp64"])
def dtype(request):
    return {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[request.param]


pytestmark = pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS, (2, 1, 3, 140)], ids=str)


def coefficients_of(shape, dtype, device):
    generator = torch.Generator().manual_seed(70)
    coefficients = torch.randn(shape[0], 4, shape[3], generator=generator)
    coefficients[0] = torch.tensor([1.0, 1.0, 0.0, 0.0])[:, None]  # both lines are one
    return coefficients.to(device, accumulation_type(dtype))


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


def test_the_larger_line(shape, dtype, device):
    u, coefficients = planes(shape, dtype, device, 74), coefficients_of(shape, dtype, device)
    wanted = reference.dyrelu(u.double(), coefficients.double())
    dyrelu.apply(u, coefficients, u)
    close(u, wanted, dtype)


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
