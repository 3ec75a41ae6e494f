"""The kernel of all weights' gradients where planes are zero: what they are multiplied with is not computed."""

import pytest
import torch
from torch.nn.grad import conv2d_weight

from east.engine.cpu import bindings as k
from tests.unit.planes import UNSET, on_threads, to_planes

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = [(3, 1, 1), (3, 2, 1), (1, 2, 0)]
"""Sizes of a kernel, its stride and padding."""


def integers(*shape):
    """Small integers without zero: sums of their products are exact in any order."""
    return torch.randint(1, 4, shape).double() * torch.where(torch.rand(shape) < 0.5, -1, 1)


def batch(window, images, zero_inputs=(), zero_outputs=(), inputs=7, outputs=17):
    """x (N, C, 9, 9) and dz (N, O, H, W) with channels of zeros."""
    x = integers(images, inputs, 9, 9)
    size = (9 + 2 * window[2] - window[0]) // window[1] + 1
    dz = integers(images, outputs, size, size)
    x[:, list(zero_inputs)] = 0
    dz[:, list(zero_outputs)] = 0
    return x, dz


def dense_gradient(x, dz, window, constants=None):
    """What the kernel finds, with any number of threads; `constants`: of input channels that are not stored."""
    found = torch.empty(dz.shape[1], x.shape[1], window[0], window[0], dtype=x.dtype)
    geometry = k.Geometry(*x.shape[1:], *dz.shape[1:], *window, len(x))
    planes, gradient = to_planes(x), to_planes(dz)
    kind, values = torch.zeros(x.shape[1], dtype=torch.uint8), torch.zeros(x.shape[1], dtype=x.dtype)
    for channel, value in (constants or {}).items():
        kind[channel], values[channel], planes[channel] = k.CONSTANT, value, UNSET
    structure = k.DenseGradient(geometry, k.Planes(planes, kind, values), gradient, found)

    def call():
        found.fill_(UNSET)
        k.KernelSet(x.dtype)("dense_gradient", structure)
        return {"gradient": found.clone()}

    return on_threads(call)["gradient"]


@pytest.fixture(autouse=True)
def _fixed_numbers():
    torch.manual_seed(0)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("images", [32, 37])
@pytest.mark.parametrize(
    ("zero_inputs", "zero_outputs"),
    [((), ()), ((0, 3, 6), (0, 1, 5, 16)), (range(7), (2,)), ((2,), range(17)), (range(1, 7), range(16))],
    ids=["none", "some", "all inputs", "all outputs", "all but one"],
)
def test_channels_of_zeros_change_no_other_gradient(window, images, zero_inputs, zero_outputs):
    x, dz = batch(window, images, zero_inputs, zero_outputs)
    expected = conv2d_weight(x, (17, 7, window[0], window[0]), dz, stride=window[1], padding=window[2])
    assert torch.equal(dense_gradient(x, dz, window), expected)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_channels_that_are_not_stored_count_with_their_constants(window):
    x, dz = batch(window, 32)
    constants = {0: 0.0, 2: 2.0, 3: -0.0, 6: -1.0}
    for channel, value in constants.items():
        x[:, channel] = value
    expected = conv2d_weight(x, (17, 7, window[0], window[0]), dz, stride=window[1], padding=window[2])
    assert torch.equal(dense_gradient(x, dz, window, constants), expected)


@pytest.mark.parametrize("zero", ["input", "output"])
def test_a_plane_of_zeros_is_not_multiplied(zero):
    """Infinity shows it: times zero it would be no number."""
    x, dz = batch((3, 1, 1), 32, [1] if zero == "input" else [], [1] if zero == "output" else [])
    (dz if zero == "input" else x)[:, 0] = float("inf")
    found = dense_gradient(x, dz, (3, 1, 1))
    assert not found[0, 1].any() if zero == "input" else not found[1, 0].any()
    assert not found[0, 0].isfinite().any()


def test_one_number_in_the_last_lane_of_the_last_row_counts():
    x, dz = batch((3, 1, 1), 64, range(7), ())
    x[-1, 4, -1, -1] = 1
    found = dense_gradient(x, dz, (3, 1, 1))
    assert torch.equal(found[:, 4, 1, 1], dz[-1, :, -1, -1])
