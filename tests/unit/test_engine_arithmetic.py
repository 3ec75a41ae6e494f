"""Sums of squares and optimizer steps by the kernels against PyTorch's, in double precision."""

import math

import pytest
import torch

from east.engine.arithmetic import PyTorchArithmetic
from east.engine.cpu.arithmetic import KernelArithmetic, power
from east.engine.cpu.bindings import KernelSet
from tests.unit.planes import on_threads

SIZES = ((3,), (40, 7), (0,), (1,), (200, 100))


def tensors(number, dtype=torch.float64):
    draw = torch.Generator().manual_seed(number)
    return [torch.randn(size, generator=draw, dtype=torch.float64).to(dtype) for size in SIZES]


def arithmetic(dtype=torch.float64):
    return KernelArithmetic(KernelSet(dtype))


def agree(found, expected, tolerance=1e-12):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_of_squares_is_in_double_whatever_the_threads(dtype):
    some = tensors(0, dtype)
    found = on_threads(lambda: {"": arithmetic(dtype).sum_of_squares(some)})[""]
    expected = sum(float(tensor.double().square().sum()) for tensor in some)
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(expected, rel=1e-13)
    assert arithmetic(dtype).sum_of_squares([]) == 0


def test_a_square_root_is_correctly_rounded():
    """PyTorch's, of one number, is not on every processor."""
    numbers = [1.0 + i / 977 for i in range(2000)]
    found = [float(arithmetic().square_root(torch.tensor(number, dtype=torch.float64))) for number in numbers]
    assert found == [math.sqrt(number) for number in numbers]
    assert math.isnan(arithmetic().square_root(torch.tensor(math.nan)))


def test_a_mean_is_of_a_sum_that_is_rounded_once():
    numbers = torch.tensor([1.0, 1e100, 1.0, -1e100], dtype=torch.float64)
    assert arithmetic().mean(numbers) == 0.5


def sgd(made_by, dtype, nesterov, weight_decay):
    values, momenta = tensors(1, dtype), [torch.zeros_like(tensor) for tensor in tensors(1, dtype)]
    for step in range(4):
        settings = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": weight_decay}
        made_by.sgd(values, tensors(2 + step, dtype), momenta, 0.1 / (step + 1), **settings)
    return [*values, *momenta]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_sgd_is_pytorchs(nesterov, weight_decay):
    expected = sgd(PyTorchArithmetic(), torch.float64, nesterov, weight_decay)
    agree(sgd(arithmetic(), torch.float64, nesterov, weight_decay), expected)


def adam(made_by, dtype, weight_decay, lr=0.01):
    values = tensors(1, dtype)
    means, squares = ([torch.zeros_like(tensor) for tensor in values] for _ in range(2))
    steps = [torch.zeros(()) for _ in values]
    for step in range(5):
        chosen = slice(step % 2, None)  # not every parameter has made every step
        settings = {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": weight_decay}
        lists = [own[chosen] for own in (values, tensors(2 + step, dtype), means, squares, steps)]
        made_by.adam(*lists, lr, **settings)
    return [*values, *means, *squares, *steps]


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adam_is_pytorchs(weight_decay):
    expected = adam(PyTorchArithmetic(), torch.float64, weight_decay)
    agree(adam(arithmetic(), torch.float64, weight_decay), expected)


@pytest.mark.parametrize(
    "step", [lambda own: sgd(own, torch.float32, True, 0.01), lambda own: adam(own, torch.float32, 0.01)]
)
def test_no_bit_of_a_step_depends_on_the_number_of_threads(step):
    on_threads(lambda: {str(number): tensor for number, tensor in enumerate(step(arithmetic(torch.float32)))})


def test_a_learning_rate_may_be_a_tensor():
    found = adam(arithmetic(), torch.float64, 0.0, torch.tensor(0.01, dtype=torch.float64))
    agree(found, adam(arithmetic(), torch.float64, 0.0), 0)


def test_vectors_that_are_not_contiguous_are_refused():
    with pytest.raises(ValueError, match="contiguous"):
        arithmetic().sum_of_squares([torch.ones(4, 4, dtype=torch.float64).T])


@pytest.mark.parametrize("exponent", [0, 1, 2, 7, 1000])
def test_a_power_is_found_by_multiplication(exponent):
    assert power(0.999, exponent) == pytest.approx(0.999**exponent, rel=1e-13)
