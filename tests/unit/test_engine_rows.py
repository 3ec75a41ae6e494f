"""The kernels that execute a convolution row by row, and gradients of all weights, against PyTorch in double."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from east.engine.cpu import bindings as k
from east.engine.graph.index import NonzeroIndex
from east.seeding import torch_generator as generator
from east.sparse.active import ActiveWeights
from east.sparse.layers import MaskedConv2d
from tests.unit.planes import UNSET, assert_same_bits, copy_of, on_threads, to_images, to_planes, unset

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


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
    """Random tensors of one convolution, x and dz (N, C, H, W), and the non-zeros of a mask."""

    def __init__(self, shape, mask, dtype=torch.float64):
        self.shape, self.mask, self.dtype = shape, mask, dtype
        random = {"generator": generator(3, "convolution"), "dtype": dtype}
        conv = MaskedConv2d(
            shape.channels_in, shape.channels_out, shape.kernel, stride=shape.stride, padding=shape.padding
        ).to(dtype)
        conv.mask.copy_(mask)
        with torch.no_grad():
            conv.weight.copy_(torch.randn(mask.shape, **random) * mask)
        self.weight = conv.weight.detach().double()
        self.weights = ActiveWeights(conv)
        self.index = NonzeroIndex.of(self.weights)
        self.x = torch.randn(shape.batch, shape.channels_in, shape.height, shape.width, **random)
        out = [(size + 2 * shape.padding - shape.kernel) // shape.stride + 1 for size in (shape.height, shape.width)]
        self.dz = torch.randn(shape.batch, shape.channels_out, *out, **random)
        self.geometry = k.Geometry(
            *self.x.shape[1:], *self.dz.shape[1:], shape.kernel, shape.stride, shape.padding, shape.batch
        )
        self.read, self.live = (self.index.by_input.occupied.bool(), self.index.by_output.occupied.bool())
        self.kernels = k.KernelSet(dtype)

    def planes(self):
        return to_planes(self.x), to_planes(self.dz)

    def convolve(self, x):
        z = unset(*self.dz.shape[1:], self.shape.batch, self.dtype)
        values = k.address(self.weights.values)
        lists = k.Lists.of(self.index.by_output)
        self.kernels("convolve", k.Convolve(self.geometry, lists, values, k.address(x), k.address(z)))
        return to_images(z, self.shape.batch)

    def input_gradient(self, dz, before=None):
        to = unset(*self.x.shape[1:], self.shape.batch, self.dtype) if before is None else copy_of(before)
        arguments = (k.Lists.of(self.index.by_input), k.address(self.weights.values), k.address(dz), k.address(to))
        self.kernels("input_gradient", k.InputGradient(self.geometry, *arguments, int(before is not None)))
        return to_images(to, self.shape.batch)

    def weight_gradient(self, x, dz, least=0):
        gradient = torch.full_like(self.weights.values, UNSET)
        arguments = (k.Planes(k.address(x)), k.address(dz), k.address(gradient), least)
        self.kernels("weight_gradient", k.WeightGradient(self.geometry, k.Lists.of(self.index.by_output), *arguments))
        return gradient

    def dense_gradient(self, x, dz, kind=None, constants=None):
        gradient = torch.full(self.mask.shape, UNSET, dtype=self.dtype)
        planes = k.Planes(*map(k.address, (x, kind, constants)))
        self.kernels("dense_gradient", k.DenseGradient(self.geometry, planes, k.address(dz), k.address(gradient)))
        return gradient

    def sparse_results(self, x=None, dz=None):
        own_x, own_dz = self.planes()
        x, dz = own_x if x is None else x, own_dz if dz is None else dz
        return {"z": self.convolve(x), "dx": self.input_gradient(dz), "gradient": self.weight_gradient(x, dz)}

    def results(self):
        return self.sparse_results() | {"dense gradient": self.dense_gradient(*self.planes())}

    def expected(self):
        """What PyTorch gives; channels without non-zeros are not written."""
        x, dz = self.x.double(), self.dz.double()
        setting = {"stride": self.shape.stride, "padding": self.shape.padding}
        z = F.conv2d(x, self.weight, **setting)
        gradient = torch.nn.grad.conv2d_weight(x, self.weight.shape, dz, **setting)
        return {
            "z": torch.where(self.live[:, None, None], z, UNSET),
            "dx": torch.nn.grad.conv2d_input(x.shape, self.weight, dz, **setting),
            "gradient": gradient[self.mask],
            "dense gradient": gradient,
        }

    def check(self):
        """Compare with PyTorch, and all weights' gradients with the non-zeros' bit for bit."""
        found = self.results()
        for name, expected in self.expected().items():
            scale = max(1.0, float(expected.nan_to_num().abs().max())) if expected.numel() else 1.0
            torch.testing.assert_close(
                found[name].double(), expected, rtol=0, atol=TOLERANCE[self.dtype] * scale, equal_nan=True
            )
        assert torch.equal(found["dense gradient"][self.mask], found["gradient"])


def random_mask(shape, density=0.3):
    weights = (shape.channels_out, shape.channels_in, shape.kernel, shape.kernel)
    return torch.rand(weights, generator=generator(1, "mask")) < density


@pytest.mark.parametrize("batch", [1, 7, 70])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_every_stride_and_padding_equals_pytorch(kernel, batch):
    for stride in (1, 2):
        for padding in {0, kernel // 2, kernel - 1}:
            for height, width in ((7, 7), (8, 10)):
                shape = Shape(kernel, stride, padding, height, width, batch)
                Convolution(shape, random_mask(shape)).check()


@pytest.mark.parametrize("seed", range(60))
def test_random_shapes_equal_pytorch(seed):
    draws = generator(seed, "shape")

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=draws))

    kernel = (1, 3, 7)[draw(0, 2)]
    padding = draw(0, kernel - 1)
    least = max(1, kernel - 2 * padding)
    shape = Shape(kernel, draw(1, 3), padding, draw(least, 20), draw(least, 20), draw(1, 40), draw(1, 9), draw(1, 9))
    Convolution(shape, random_mask(shape, draw(1, 10) / 10)).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Shape(3, 1, 1, 3, 50, 9, 70, 4), id="rows in several tiles"),
        pytest.param(Shape(3, 2, 1, 4, 90, 9, 5, 70), id="strided rows, several blocks of channels"),
        pytest.param(Shape(1, 1, 0, 1, 1, 128, 40, 10), id="linear layer"),
        pytest.param(Shape(3, 1, 1, 1, 1, 20), id="one position"),
        pytest.param(Shape(3, 1, 1, 70, 2, 16), id="high and narrow"),
        pytest.param(Shape(3, 1, 1, 2, 1, 16), id="one column"),
        pytest.param(Shape(3, 2, 1, 1, 2, 16), id="one row, strided"),
        pytest.param(Shape(7, 2, 3, 17, 19, 33), id="7x7"),
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
    convolution.check()
    expected = convolution.sparse_results()
    x, dz = convolution.planes()
    x[~convolution.read], dz[~convolution.live] = UNSET, UNSET
    assert_same_bits(convolution.sparse_results(x, dz), expected)


@pytest.mark.parametrize("batch", [32, 5])
def test_an_input_gradient_is_added_to_what_is_there(batch):
    shape = Shape(3, 2, 1, 8, 8, batch)
    convolution = Convolution(shape, masks(shape)["empty columns"])
    before = torch.randn(convolution.x.shape, generator=generator(0, "before"), dtype=torch.float64)
    dz = to_planes(convolution.dz)
    found = convolution.input_gradient(dz, to_planes(before))
    torch.testing.assert_close(found, before + convolution.input_gradient(dz), rtol=0, atol=1e-12)


def test_channels_with_fewer_nonzeros_than_asked_for_are_left_out():
    shape = Shape(3, 1, 1, 5, 5, 3)
    mask = random_mask(shape)
    mask[0] = False
    mask[0, :3, 1, 1] = True
    convolution = Convolution(shape, mask)
    x, dz = convolution.planes()
    found, every = convolution.weight_gradient(x, dz, least=4), convolution.weight_gradient(x, dz)
    assert found[:3].isnan().all()
    assert torch.equal(found[3:], every[3:])


@pytest.mark.parametrize(
    "shape",
    [Shape(3, 1, 1, 33, 9, 40), Shape(3, 2, 1, 16, 16, 3, 20, 30), Shape(1, 1, 0, 1, 1, 64), Shape(3, 1, 1, 4, 4, 1)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_bit_depends_on_the_number_of_threads(shape, dtype):
    convolution = Convolution(shape, random_mask(shape), dtype)
    on_threads(convolution.results)


def test_an_images_output_depends_on_no_other_image():
    """Evaluation may divide images as it likes."""
    shape = Shape(3, 1, 1, 9, 9, 70)
    whole = Convolution(shape, random_mask(shape), torch.float32)
    z = whole.convolve(to_planes(whole.x))
    for first, count in ((0, 1), (31, 2), (5, 64)):
        part = Convolution(Shape(3, 1, 1, 9, 9, count), whole.mask, torch.float32)
        part.weights.values.copy_(whole.weights.values)
        found = part.convolve(to_planes(whole.x[first : first + count]))
        assert torch.equal(found[:, part.live], z[first : first + count, part.live])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_need_not_be_aligned(dtype):
    shape = Shape(3, 1, 1, 5, 5, 32)
    convolution = Convolution(shape, random_mask(shape), dtype)

    def shifted(planes):
        """The same one number further on in memory."""
        channels, stride = len(planes), planes.stride(0)
        memory = torch.full((channels * stride + 1,), UNSET, dtype=dtype)
        return memory[1:].view(channels, stride)[:, : planes[0].numel()].view(planes.shape).copy_(planes)

    x, dz = convolution.planes()
    assert_same_bits(convolution.sparse_results(shifted(x), shifted(dz)), convolution.sparse_results(x, dz))
    z = shifted(unset(*convolution.dz.shape[1:], shape.batch, dtype))
    arguments = (
        k.Lists.of(convolution.index.by_output),
        k.address(convolution.weights.values),
        k.address(x),
        k.address(z),
    )
    convolution.kernels("convolve", k.Convolve(convolution.geometry, *arguments))
    assert_same_bits({"z": to_images(z, shape.batch)}, {"z": convolution.convolve(x)})


@pytest.mark.parametrize("channels", [(1, 1), (3, 64), (70, 13), (5, 6)])
@pytest.mark.parametrize("stride", [1, 2])
def test_all_weights_gradients_of_any_number_of_channels(channels, stride):
    """Tiles go over both; the last ones are narrower."""
    shape = Shape(3, stride, 1, 6, 7, 33, *channels)
    Convolution(shape, random_mask(shape), torch.float32).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_weights_gradients_read_constant_channels_as_if_they_were_stored(dtype):
    shape = Shape(3, 1, 1, 6, 7, 33)
    convolution = Convolution(shape, random_mask(shape), dtype)
    convolution.x[:, [0, 4]] = 0.7
    x, dz = convolution.planes()
    expected = convolution.dense_gradient(x, dz)
    kind, constants = torch.zeros(6, dtype=torch.uint8), torch.full((6,), UNSET, dtype=dtype)
    kind[[0, 4]], constants[[0, 4]], x[[0, 4]] = k.CONSTANT, 0.7, UNSET
    assert torch.equal(convolution.dense_gradient(x, dz, kind, constants), expected)
