"""The tiled kernels against PyTorch's convolutions in double precision."""

import ctypes
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from east.engine.sparse.library import load_kernels

SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


def fields(kind, names):
    return [(name, kind) for name in names.split()]


class Geometry(ctypes.Structure):
    _fields_ = fields(
        ctypes.c_int32,
        "in_channels in_height in_width out_channels out_height out_width kernel stride padding batch",
    )


class Lists(ctypes.Structure):
    _fields_ = fields(ctypes.c_void_p, "start channel tap value")


class Call(ctypes.Structure):
    """Any of the three calls; only `east_input_gradient` has the last field."""

    _fields_ = [
        ("geometry", Geometry),
        ("lists", Lists),
        *fields(ctypes.c_void_p, "first second third"),
        ("accumulate", ctypes.c_int32),
    ]


@dataclass(frozen=True)
class Shape:
    """A convolution and its batch."""

    kernel: int
    stride: int
    padding: int
    height: int
    width: int
    batch: int
    channels_in: int = 6
    channels_out: int = 5


class Convolution:
    """Random tensors of one convolution: x and dz as [channels, height, width, batch], and the non-zeros of a mask."""

    def __init__(self, shape, mask, dtype=torch.float64):
        self.shape, self.mask, self.dtype = shape, mask, dtype
        random = {"generator": torch.Generator().manual_seed(3), "dtype": dtype}
        self.values = torch.randn(int(mask.sum()), **random)
        self.weight = torch.zeros(mask.shape, dtype=torch.float64).masked_scatter_(mask, self.values.double())
        self.x = torch.randn(shape.channels_in, shape.height, shape.width, shape.batch, **random)
        out = [(size + 2 * shape.padding - shape.kernel) // shape.stride + 1 for size in (shape.height, shape.width)]
        self.dz = torch.randn(shape.channels_out, *out, shape.batch, **random)
        self.geometry = Geometry(
            *self.x.shape[:3], *self.dz.shape[:3], shape.kernel, shape.stride, shape.padding, shape.batch
        )
        self.read, self.live = mask.flatten(2).any(2).any(0), mask.flatten(1).any(1)

    def lists(self, by):
        """The non-zeros grouped by output channel (0) or by input channel (1), and what keeps their memory alive."""
        where = self.mask.flatten(2).nonzero()
        value = where[:, by].argsort(stable=True)
        where = where[value]
        counts = torch.bincount(where[:, by], minlength=self.mask.shape[by])
        start = F.pad(counts.cumsum(0), (1, 0))
        kept = [column.to(torch.int32).contiguous() for column in (start, where[:, 1 - by], where[:, 2], value)]
        return Lists(*(column.data_ptr() for column in kept)), kept

    def call(self, name, by, *tensors, accumulate=False):
        lists, _kept = self.lists(by)
        call = Call(self.geometry, lists, *(tensor.data_ptr() for tensor in tensors), accumulate)
        getattr(load_kernels().library, f"east_{name}_{SUFFIX[self.dtype]}")(ctypes.byref(call))

    def convolve(self):
        z = torch.full_like(self.dz, 7)
        self.call("convolve", 0, self.values, self.x, z)
        return z

    def input_gradient(self, before=None):
        to = torch.full_like(self.x, torch.nan) if before is None else before.clone()
        self.call("input_gradient", 1, self.values, self.dz, to, accumulate=before is not None)
        return to

    def weight_gradient(self):
        gradient = torch.full_like(self.values, torch.nan)
        self.call("weight_gradient", 0, self.x, self.dz, gradient)
        return gradient

    def all_results(self):
        return self.convolve(), self.input_gradient(), self.weight_gradient()

    def all_expected(self):
        """What PyTorch gives."""
        images, dz = (tensor.double().permute(3, 0, 1, 2) for tensor in (self.x, self.dz))
        setting = {"stride": self.shape.stride, "padding": self.shape.padding}
        z = F.conv2d(images, self.weight, **setting).permute(1, 2, 3, 0)
        to = torch.nn.grad.conv2d_input(images.shape, self.weight, dz, **setting).permute(1, 2, 3, 0)
        gradient = torch.nn.grad.conv2d_weight(images, self.weight.shape, dz, **setting)
        return torch.where(self.live[:, None, None, None], z, 7.0), to, gradient[self.mask]

    def check(self):
        for result, expected in zip(self.all_results(), self.all_expected(), strict=True):
            scale = float(expected.abs().max()) if expected.numel() else 1.0
            torch.testing.assert_close(result.double(), expected, rtol=0, atol=TOLERANCE[self.dtype] * scale)


def random_mask(shape, density=0.3):
    generator = torch.Generator().manual_seed(1)
    weights = (shape.channels_out, shape.channels_in, shape.kernel, shape.kernel)
    return torch.rand(weights, generator=generator) < density


@pytest.fixture(autouse=True)
def threads():
    """One thread, unless the test asks for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("batch", [1, 7, 128])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_every_stride_and_padding_equals_pytorch(kernel, batch):
    for stride in (1, 2):
        for padding in {0, kernel // 2, kernel - 1}:
            for height, width in ((7, 7), (8, 10)):
                shape = Shape(kernel, stride, padding, height, width, batch)
                Convolution(shape, random_mask(shape)).check()


def test_random_shapes_equal_pytorch():
    generator = torch.Generator().manual_seed(0)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    for _ in range(60):
        kernel = (1, 3, 7)[draw(0, 2)]
        padding = draw(0, kernel - 1)
        least = max(1, kernel - 2 * padding)
        shape = Shape(
            kernel, draw(1, 2), padding, draw(least, 20), draw(least, 20), draw(1, 40), draw(1, 9), draw(1, 9)
        )
        Convolution(shape, random_mask(shape, draw(1, 10) / 10)).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Shape(3, 1, 1, 3, 50, 9, 400, 4), id="rows in several tiles"),
        pytest.param(Shape(3, 2, 1, 4, 90, 9, 300, 4), id="strided rows in several tiles"),
        pytest.param(Shape(1, 1, 0, 40, 40, 32), id="positions as columns"),
        pytest.param(Shape(1, 1, 0, 13, 11, 3), id="positions as columns, batch with a remainder"),
        pytest.param(Shape(1, 1, 0, 1, 1, 128, 40, 10), id="linear layer"),
        pytest.param(Shape(3, 1, 1, 1, 1, 20), id="one position"),
        pytest.param(Shape(3, 1, 1, 70, 2, 16), id="high and narrow"),
        pytest.param(Shape(3, 1, 1, 4, 4, 500, 40, 40), id="rows that begin anywhere in a line"),
    ],
)
def test_every_division_equals_pytorch(shape, dtype):
    Convolution(shape, random_mask(shape), dtype).check()


def masks(shape):
    every = random_mask(shape, density=1)
    one, empty_rows, empty_columns = torch.zeros_like(every), random_mask(shape), random_mask(shape)
    one[1, 2, 0, 2] = True
    empty_rows[[0, 2, 4]] = False
    empty_columns[:, [0, 3, 5]] = False
    return {"none": ~every, "one": one, "every": every, "empty rows": empty_rows, "empty columns": empty_columns}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["none", "one", "every", "empty rows", "empty columns"])
def test_every_mask_equals_pytorch_and_reads_only_what_it_needs(name, stride):
    shape = Shape(3, stride, 1, 9, 6, 17)
    convolution = Convolution(shape, masks(shape)[name])
    expected = convolution.all_expected()
    convolution.x[~convolution.read] = torch.nan
    convolution.dz[~convolution.live] = torch.nan
    for result, right in zip(convolution.all_results(), expected, strict=True):
        torch.testing.assert_close(result, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [32, 5])
def test_an_input_gradient_is_added_to_what_is_there(batch):
    shape = Shape(3, 2, 1, 8, 8, batch)
    convolution = Convolution(shape, masks(shape)["empty columns"])
    before = torch.randn_like(convolution.x)
    torch.testing.assert_close(convolution.input_gradient(before), before + convolution.input_gradient())


@pytest.mark.parametrize(
    "shape", [Shape(3, 1, 1, 33, 9, 40), Shape(3, 2, 1, 16, 16, 3), Shape(1, 1, 0, 1, 1, 64), Shape(3, 1, 1, 4, 4, 1)]
)
def test_results_do_not_depend_on_the_number_of_threads(shape, threads):
    convolution = Convolution(shape, random_mask(shape), torch.float32)
    expected = convolution.all_results()
    for count in (2, 5):
        threads(count)
        for result, right in zip(convolution.all_results(), expected, strict=True):
            assert torch.equal(result, right)


def test_memory_need_not_be_aligned():
    shape = Shape(3, 1, 1, 5, 5, 32)
    aligned = Convolution(shape, random_mask(shape), torch.float32)
    shifted = Convolution(shape, random_mask(shape), torch.float32)
    for name in ("x", "dz"):
        tensor = getattr(aligned, name)
        memory = torch.zeros(tensor.numel() + 1)
        setattr(shifted, name, memory[1:].view(tensor.shape).copy_(tensor))
    z = torch.zeros(aligned.dz.numel() + 1)[1:].view(aligned.dz.shape)
    shifted.call("convolve", 0, shifted.values, shifted.x, z)
    assert torch.equal(z[aligned.live], aligned.convolve()[aligned.live])
    for result, right in zip(shifted.all_results(), aligned.all_results(), strict=True):
        assert torch.equal(result, right)
