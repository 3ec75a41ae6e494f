"""The kernels around the sparse convolution: layouts, max pooling and DyReLU."""

import ctypes

import pytest
import torch
import torch.nn.functional as F

from east.engine.sparse.library import load_kernels

DTYPES = [torch.float32, torch.float64]
CASES = [(1, torch.float32), (7, torch.float64), (128, torch.float32), (128, torch.float64), (500, torch.float32)]
"""Batches, with types of numbers."""
UNSET = float("nan")
"""What stands where a kernel must not read, and where it must write."""


class Planes(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("kind", ctypes.c_void_p), ("constants", ctypes.c_void_p)]


class Geometry(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("in_channels", "in_height", "in_width", "out_channels", "out_height", "out_width"),
            *("kernel", "stride", "padding", "batch"),
        )
    ]


def structure(*fields):
    """A structure with these values in this order: int -> int64, tensor -> pointer, ctypes values as they are."""
    values = [ctypes.c_void_p(field.data_ptr()) if isinstance(field, torch.Tensor) else field for field in fields]
    values = [ctypes.c_int64(value) if isinstance(value, int) else value for value in values]
    kinds = [(f"field{index}", type(value)) for index, value in enumerate(values)]
    return type("Arguments", (ctypes.Structure,), {"_fields_": kinds})(*values)


def planes(data, kind=None, constants=None):
    return Planes(*(tensor.data_ptr() if tensor is not None else None for tensor in (data, kind, constants)))


def with_constants(x):
    """x [C, ...] with every third channel constant: the planes' tensors, and x as it then is."""
    kind = torch.zeros(len(x), dtype=torch.uint8)
    kind[::3] = 1
    constants = torch.arange(len(x), dtype=x.dtype) - 2
    constants[kind == 0] = UNSET
    data, whole = x.clone(), x.clone()
    data[kind == 1] = UNSET
    whole[kind == 1] = constants[kind == 1].view(-1, *[1] * (x.dim() - 1)).expand_as(whole[kind == 1])
    return (data, kind, constants), whole


@pytest.fixture
def run():
    """Calls a kernel with one and with two threads and checks that both write the same numbers to the output."""
    library = load_kernels().library
    threads = torch.get_num_threads()

    def call(name, arguments, output):
        suffix = {torch.float32: "f32", torch.float64: "f64"}[output.dtype]
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            output.fill_(UNSET)
            getattr(library, f"{name}_{suffix}")(ctypes.byref(arguments))
            results.append(output.clone())
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=0, equal_nan=True)
        return output

    yield call
    torch.set_num_threads(threads)


def integers(*shape, dtype=torch.float64, most=3):
    """Random small integers: sums of their products are exact in any order, and many are equal."""
    return torch.randint(-most, most + 1, shape).to(dtype)


@pytest.fixture(autouse=True)
def _fixed_numbers():
    torch.manual_seed(0)


# Layout


def image_layouts(batch, channels, positions, dtype):
    """Images [batch, channels, positions] in memory in several orders."""
    yield torch.randn(batch, channels, positions, dtype=dtype)
    yield torch.randn(batch, positions, channels, dtype=dtype).transpose(1, 2)
    yield torch.randn(positions, 2 * batch, channels + 1, dtype=dtype)[:, ::2, 1:].permute(1, 2, 0)


@pytest.mark.parametrize(("channels", "positions"), [(3, 35), (70, 9), (300, 1)])
@pytest.mark.parametrize(("batch", "dtype"), CASES)
def test_images_of_any_order_are_copied_to_planes_and_back(run, batch, channels, positions, dtype):
    for images in image_layouts(batch, channels, positions, dtype):
        expected = images.permute(1, 2, 0).contiguous()
        to_planes = structure(images, x := torch.empty_like(expected), batch, channels, positions, *images.stride())
        assert torch.equal(run("east_to_batch_innermost", to_planes, x), expected)
        back = torch.empty_strided(images.shape, images.stride(), dtype=dtype)
        to_images = structure(planes(expected), back, batch, channels, positions, *images.stride())
        assert torch.equal(run("east_from_batch_innermost", to_images, back), images)


def test_constant_channels_are_filled_into_images(run):
    x, whole = with_constants(torch.randn(8, 15, 7))
    for images in image_layouts(7, 8, 15, torch.float32):
        arguments = structure(planes(*x), images, 7, 8, 15, *images.stride())
        assert torch.equal(run("east_from_batch_innermost", arguments, images), whole.permute(2, 0, 1))


# Max pooling


def max_pool(run, x, dy, kernel, stride, padding):
    """The kernels' y and dx for x and dy [batch, channels, height, width]."""
    (batch, channels, *size), out_size = x.shape, dy.shape[2:]
    geometry = Geometry(channels, *size, channels, *out_size, kernel, stride, padding, batch)
    x, dy = (tensor.permute(1, 2, 3, 0).contiguous() for tensor in (x, dy))
    y = run("east_max_pool_forward", structure(geometry, x, y := torch.empty_like(dy)), y)
    dx = run("east_max_pool_backward", structure(geometry, x, dy, dx := torch.empty_like(x)), dx)
    return y.permute(3, 0, 1, 2), dx.permute(3, 0, 1, 2)


def check_max_pool(run, x, kernel=3, stride=2, padding=1):
    x.requires_grad_()
    expected = F.max_pool2d(x, kernel, stride, padding)
    dy = integers(*expected.shape, dtype=x.dtype, most=9)
    expected.backward(dy)
    y, dx = max_pool(run, x.detach(), dy, kernel, stride, padding)
    torch.testing.assert_close(y, expected.detach(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(dx, x.grad)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 2)])
@pytest.mark.parametrize(("batch", "dtype"), CASES)
def test_max_pool_and_its_gradient_are_those_of_pytorch(run, batch, size, dtype):
    check_max_pool(run, torch.randn(batch, 3, *size, dtype=dtype))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 1, 1), (2, 3, 1), (1, 2, 0)])
def test_max_pool_takes_any_window(run, kernel, stride, padding):
    check_max_pool(run, torch.randn(7, 2, 9, 6), kernel, stride, padding)


def test_max_pool_gives_the_gradient_to_the_first_of_equal_maxima(run):
    check_max_pool(run, integers(35, 3, 9, 9, most=1))


def test_max_pool_treats_infinity_and_nan_as_pytorch_does(run):
    values = torch.tensor([float("-inf"), float("-inf"), float("-inf"), 1.0, float("inf"), float("nan")])
    check_max_pool(run, values[torch.randint(len(values), (35, 5, 9, 9))])


# DyReLU


def dyrelu(u, coefficients):
    """PyTorch's DyReLU for u [C, P, N] and coefficients [C, 4, N]."""
    a1, a2, b1, b2 = coefficients.unsqueeze(2).unbind(1)
    return torch.maximum(a1 * u + b1, a2 * u + b2)


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize(("batch", "dtype"), CASES)
def test_dyrelu_and_its_coefficients_gradient_are_those_of_pytorch(run, batch, constants, dtype):
    channels, positions = 5, 35
    u, coefficients = integers(channels, positions, batch, dtype=dtype), integers(channels, 4, batch, dtype=dtype)
    x, u = with_constants(u) if constants else ((u,), u)
    coefficients.requires_grad_()
    expected = dyrelu(u, coefficients)
    dy = integers(*u.shape, dtype=dtype)
    expected.backward(dy)
    shape = channels, positions, batch
    apply = structure(*shape, planes(*x), coefficients, y := torch.empty_like(u))
    assert torch.equal(run("east_dyrelu_apply", apply, y), expected)
    sums = structure(*shape, planes(*x), coefficients, dy, gradient := torch.empty_like(coefficients).detach())
    assert torch.equal(run("east_dyrelu_sums", sums, gradient), coefficients.grad)


def test_lines_that_are_equal_everywhere_share_the_gradient(run):
    u, dy = integers(2, 9, 35), integers(2, 9, 35)
    coefficients = integers(2, 2, 35).repeat_interleave(2, dim=1)
    sums = structure(2, 9, 35, planes(u), coefficients, dy, gradient := torch.empty_like(coefficients))
    run("east_dyrelu_sums", sums, gradient)
    slope, intercept = (dy * u).sum(1) / 2, dy.sum(1) / 2
    assert torch.equal(gradient, torch.stack([slope, slope, intercept, intercept], dim=1))


@pytest.mark.parametrize("nan_at", ["u", "first line", "second line"])
def test_dyrelu_keeps_nan(run, nan_at):
    u, coefficients = integers(2, 9, 35), integers(2, 4, 35)
    {"u": u, "first line": coefficients[:, 2], "second line": coefficients[:, 3]}[nan_at][:, ::2] = float("nan")
    y = run("east_dyrelu_apply", structure(2, 9, 35, planes(u), coefficients, y := torch.empty_like(u)), y)
    torch.testing.assert_close(y, dyrelu(u, coefficients), rtol=0, atol=0, equal_nan=True)
