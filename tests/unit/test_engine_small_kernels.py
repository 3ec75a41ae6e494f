"""The kernels around the sparse convolution where numbers are extreme: pools, DyReLU, loss, vectors; and arithmetic."""

import math

import pytest
import torch
import torch.nn.functional as F

from east.engine.cpu import bindings as k
from east.engine.cpu.arithmetic import KernelArithmetic, power
from tests.unit.planes import UNSET, from_lanes, on_threads, to_images, to_lanes, to_planes, unset

CASES = [(1, torch.float32), (7, torch.float64), (128, torch.float32), (70, torch.float64)]
"""Batches, with types of numbers."""


def run(name, structure, *outputs):
    """Call a kernel with several numbers of threads, which must find the same bits; what it writes begins as NaN."""
    kernels = k.KernelSet(outputs[0].dtype)

    def call():
        for output in outputs:
            output.fill_(UNSET)
        kernels(name, structure)
        return {str(number): output.clone() for number, output in enumerate(outputs)}

    on_threads(call)
    return outputs[0]


def integers(*shape, dtype=torch.float64, most=3):
    """Random small integers: sums of their products are exact in any order, and many are equal."""
    return torch.randint(-most, most + 1, shape).to(dtype)


def close(found, expected, tolerance=1e-12):
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * scale)


@pytest.fixture(autouse=True)
def _fixed_numbers():
    torch.manual_seed(0)


# Layout


# Max pooling


def check_max_pool(x):
    """The kernels' result and gradient for x (N, C, H, W) are those of PyTorch."""
    expected = F.max_pool2d(x.requires_grad_(), 3, 2, 1)
    dy = integers(*expected.shape, dtype=x.dtype, most=9)
    expected.backward(dy)
    batch, channels, *size = x.shape
    geometry = k.Geometry(channels, *size, channels, *dy.shape[2:], 3, 2, 1, batch)
    planes, gradient = to_planes(x), to_planes(dy)
    y, dx = unset(channels, *dy.shape[2:], batch, x.dtype), unset(channels, *size, batch, x.dtype)
    at = [k.address(tensor) for tensor in (planes, y, gradient, dx)]
    run("max_pool_forward", k.MaxPoolForward(geometry, at[0], at[1]), y)
    run("max_pool_backward", k.MaxPoolBackward(geometry, at[0], at[2], at[3]), dx)
    torch.testing.assert_close(to_images(y, batch), expected.detach(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(to_images(dx, batch), x.grad)


def test_max_pool_gives_the_gradient_to_the_first_of_equal_maxima():
    check_max_pool(integers(35, 3, 9, 9, most=1))


def test_max_pool_treats_infinity_and_nan_as_pytorch_does():
    values = torch.tensor([float("-inf"), float("-inf"), float("-inf"), 1.0, float("inf"), float("nan")])
    check_max_pool(values[torch.randint(len(values), (35, 5, 9, 9))])


# DyReLU


def dyrelu(u, coefficients):
    """PyTorch's DyReLU for u (N, C, H, W) and coefficients (N, C, 4)."""
    a1, a2, b1, b2 = coefficients[..., None, None].unbind(2)
    return torch.maximum(a1 * u + b1, a2 * u + b2)


class DyReLU:
    """u and dy (N, C, H, W) and coefficients (N, C, 4), small integers; every third channel may be constant."""

    def __init__(self, batch, size=(5, 7), dtype=torch.float64, *, constants=False):
        self.u, self.dy = integers(batch, 5, *size, dtype=dtype), integers(batch, 5, *size, dtype=dtype)
        self.coefficients = integers(batch, 5, 4, dtype=dtype)
        self.kind, self.values = torch.zeros(5, dtype=torch.uint8), torch.full((5,), UNSET, dtype=dtype)
        if constants:
            self.kind[::3], self.values[::3] = k.CONSTANT, torch.tensor([-2.0, 1.0], dtype=dtype)
            self.u[:, ::3] = self.values[::3, None, None]

    def run(self):
        """y and the gradient at the coefficients."""
        batch, channels, *size = self.u.shape
        planes, dy, coefficients = to_planes(self.u), to_planes(self.dy), to_lanes(self.coefficients)
        planes[self.kind.bool()] = UNSET
        u = k.Planes(*map(k.address, (planes, self.kind, self.values)))
        y, gradient = unset(channels, *size, batch, self.u.dtype), torch.empty_like(coefficients)
        shape = (channels, *size, batch)
        run("dyrelu_apply", k.DyReLUApply(*shape, u, k.address(coefficients), k.address(y)), y)
        at = map(k.address, (coefficients, dy, gradient))
        run("dyrelu_sums", k.DyReLUSums(*shape, u, *at), gradient)
        return to_images(y, batch), from_lanes(gradient, batch)


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (9, 20)])
@pytest.mark.parametrize(("batch", "dtype"), CASES)
def test_dyrelu_and_its_coefficients_gradient_are_those_of_pytorch(batch, size, constants, dtype):
    case = DyReLU(batch, size, dtype, constants=constants)
    coefficients = case.coefficients.clone().requires_grad_()
    expected = dyrelu(case.u, coefficients)
    expected.backward(case.dy)
    y, gradient = case.run()
    assert torch.equal(y, expected)
    assert torch.equal(gradient, coefficients.grad)


def test_lines_that_are_equal_everywhere_share_the_gradient():
    case = DyReLU(35)
    case.coefficients = integers(35, 5, 2).repeat_interleave(2, dim=2)
    slope, intercept = (case.dy * case.u).sum((2, 3)) / 2, case.dy.sum((2, 3)) / 2
    assert torch.equal(case.run()[1], torch.stack([slope, slope, intercept, intercept], dim=2))


@pytest.mark.parametrize("nan_at", ["u", "first line", "second line"])
def test_dyrelu_keeps_nan(nan_at):
    case = DyReLU(35)
    at = {"u": case.u, "first line": case.coefficients[..., 2], "second line": case.coefficients[..., 3]}[nan_at]
    at[::2] = UNSET
    torch.testing.assert_close(case.run()[0], dyrelu(case.u, case.coefficients), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("batch", [1, 32, 70])
def test_coefficients_and_their_gradient_are_those_of_pytorch(batch, beta):
    """Codes reach from where the sigmoid is 0 to where it is 1."""
    code = (torch.randn(batch, 3, 4, dtype=torch.float64) * 10).requires_grad_()
    code.data.flatten()[:4] = torch.tensor([0.0, 800.0, -800.0, 1e-300])
    reach, rest = torch.tensor([[1.0, 1.0, 0.5, 0.5], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = rest + beta * reach * (2 * torch.sigmoid(code) - 1)
    found_gradient = torch.randn_like(code)
    expected.backward(found_gradient)
    kernels = k.KernelSet(torch.float64)

    def call():
        codes, at = to_lanes(code, fill=0.0), to_lanes(found_gradient)
        coefficients = torch.full_like(codes, UNSET)
        kernels("coefficients", k.Coefficients(3, batch, beta, k.address(codes), k.address(coefficients)))
        kernels("coefficients_backward", k.CoefficientsBackward(3, batch, beta, k.address(codes), k.address(at)))
        return {"coefficients": coefficients, "gradient": at}

    found = on_threads(call)
    close(from_lanes(found["coefficients"], batch), expected.detach(), 1e-15)
    close(from_lanes(found["gradient"], batch), code.grad, 1e-15)
    assert (found["gradient"].flatten(2)[..., batch:] == 0).all()


# Linear layers


# Loss


def cross_entropy(logits, labels):
    """The kernel's sum of losses and its gradient (N, classes) for logits (N, classes)."""
    lanes = to_lanes(logits)
    loss, gradient = torch.full((1,), UNSET, dtype=torch.float64), torch.full_like(lanes, UNSET)
    at = map(k.address, (lanes, labels, loss, gradient))
    k.KernelSet(logits.dtype)("cross_entropy", k.CrossEntropyLoss(logits.shape[1], len(labels), *at))
    assert (gradient.flatten(1)[:, len(labels) :] == 0).all()
    return loss[0], from_lanes(gradient, len(labels))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e-9])
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize(("batch", "dtype"), CASES)
def test_cross_entropy_and_its_gradient_are_those_of_pytorch(batch, dtype, classes, scale):
    logits, labels = torch.randn(batch, classes, dtype=dtype) * scale, torch.randint(classes, (batch,))
    exact = logits.double().requires_grad_()
    expected = F.cross_entropy(exact, labels)
    expected.backward()
    loss, gradient = cross_entropy(logits, labels)
    close(loss / batch, expected.detach())
    close(gradient, exact.grad, 1e-15 if dtype == torch.float64 else 1e-7)


def test_the_loss_of_logits_far_apart_is_finite():
    loss, gradient = cross_entropy(torch.tensor([[3e38, -3e38], [0.0, 1e4]]), torch.tensor([0, 0]))
    assert loss == 1e4
    assert gradient.tolist() == [[0.0, 0.0], [-0.5, 0.5]]


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_gives_a_loss_that_is_none(value, place):
    logits = torch.zeros(1, 3)
    logits[0, place] = value
    loss, gradient = cross_entropy(logits, torch.tensor([1]))
    assert not loss.isfinite()
    assert gradient.isnan().any()


# Vectors


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_of_products_are_in_double(length, dtype):
    left, right = torch.randn(length, dtype=dtype), torch.randn(length, dtype=dtype)
    found = torch.full((1,), UNSET, dtype=torch.float64)
    k.KernelSet(dtype)("dot", k.Dot(length, k.address(left), k.address(right), k.address(found)))
    assert float(found) == pytest.approx(float(left.double() @ right.double()), rel=1e-12, abs=1e-12)


def test_the_exponential_and_the_logarithm_have_nearly_all_bits():
    """Seen through the loss of two classes: log(1 + exp(-x))."""
    for x in (0.0, 1e-6, 0.5, 1.0, 3.7, 20.0, 36.0):
        loss, _ = cross_entropy(torch.tensor([[x, 0.0]], dtype=torch.float64), torch.tensor([0]))
        assert float(loss) == pytest.approx(math.log(1 + math.exp(-x)), rel=4e-16, abs=1e-16)


# What the optimizer and the clip compute with them


def arithmetic(dtype=torch.float64):
    return KernelArithmetic(k.KernelSet(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_of_squares_is_in_double_whatever_the_threads(dtype):
    some = [torch.randn(size, dtype=dtype) for size in ((3,), (40, 7), (0,), (1,), (200, 100))]
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


def test_vectors_that_are_not_contiguous_are_refused():
    with pytest.raises(ValueError, match="contiguous"):
        arithmetic().sum_of_squares([torch.ones(4, 4, dtype=torch.float64).T])


@pytest.mark.parametrize("exponent", [0, 1, 2, 7, 1000])
def test_a_power_is_found_by_multiplication(exponent):
    assert power(0.999, exponent) == pytest.approx(0.999**exponent, rel=1e-13)
