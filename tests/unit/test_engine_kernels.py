"""The kernels of a unit (convolution, batch norm, residual, activation) and of a convolution, against autograd."""

from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F

from east.engine.cpu import bindings as k
from east.engine.cpu.units import contracted, sketch_parts
from east.engine.graph.index import NonzeroIndex
from east.seeding import torch_generator as generator
from east.sparse.active import ActiveWeights
from east.sparse.layers import MaskedConv2d
from tests.unit.planes import (
    UNSET,
    assert_same_bits,
    copy_of,
    from_lanes,
    on_threads,
    to_images,
    to_lanes,
    to_planes,
    unset,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}
"""Largest error, relative to the largest number of a tensor, or to 1 if all are smaller."""

EPSILON, MOMENTUM = 1e-5, 0.1


@dataclass(frozen=True)
class Shape:
    """Kernel size, stride and padding of a convolution."""

    kernel: int = 3
    stride: int = 1
    padding: int = 1

    def size(self, size):
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class Reader:
    """A convolution that reads the unit's output; `nonzeros` of each of its input channels in turn."""

    shape: Shape = field(default_factory=Shape)
    nonzeros: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Case:
    """A unit with its input.

    Attributes:
        nonzeros: of each output channel, as many channels as there are numbers.
        constant: input channels that are the same number everywhere.
        activation: "none", "relu", or "dynamic", which is a DyReLU.
        direct: whether a gradient at the output is there already, besides what readers give.
        everything: whether gradients of off weights count, so that no channel may be left out.
        probes: vectors of random signs.
    """

    shape: Shape = field(default_factory=Shape)
    nonzeros: tuple[int, ...] = (0, 1, 2, 3, 4, 9)
    inputs: int = 6
    height: int = 6
    width: int = 5
    batch: int = 5
    constant: tuple[int, ...] = ()
    residual: bool = False
    activation: str = "relu"
    readers: tuple[Reader, ...] = (Reader(),)
    direct: bool = False
    everything: bool = False
    probes: int = 0
    training: bool = True
    dtype: torch.dtype = torch.float64
    seed: int = 0


@dataclass(frozen=True)
class Way:
    """How a unit is executed; none of it changes a bit.

    Attributes:
        rows: the convolution and the gradients of many non-zeros by kernels of their own.
        pushed: readers have added their gradients at the output already.
        stored: constant input channels are in memory like others.
    """

    rows: bool = False
    pushed: bool = False
    stored: bool = False


FUSED = Way()
OTHER_WAYS = (Way(stored=True), Way(pushed=True), Way(rows=True), Way(rows=True, pushed=True))


def masked_conv(counts, by, shape, inputs, outputs, case, draw):
    """A masked convolution with so many non-zeros of each output (by 0) or input channel (by 1)."""
    conv = MaskedConv2d(inputs, outputs, shape.kernel, stride=shape.stride, padding=shape.padding).to(case.dtype)
    mask = torch.zeros_like(conv.mask)
    for group, count in zip(mask.unbind(by), counts, strict=True):
        chosen = torch.zeros(group.numel(), dtype=torch.bool)
        chosen[torch.randperm(group.numel(), generator=draw)[:count]] = True
        group.copy_(chosen.view_as(group))
    conv.mask.copy_(mask)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=draw, dtype=torch.float64) * mask)
    return conv


class Bound:
    """A convolution with the lists of its non-zeros, and its geometry between two sizes of images."""

    def __init__(self, conv, size, batch):
        self.conv = conv
        self.weights = ActiveWeights(conv)
        self.index = NonzeroIndex.of(self.weights)
        shape = Shape(conv.kernel_size[0], conv.stride[0], conv.padding[0])
        self.out_size = [shape.size(length) for length in size]
        self.geometry = k.Geometry(
            *(conv.in_channels, *size, conv.out_channels, *self.out_size),
            *(shape.kernel, shape.stride, shape.padding, batch),
        )

    def __call__(self, images, weight=None):
        weight = self.conv.weight.detach().double() if weight is None else weight
        return F.conv2d(images, weight, None, self.conv.stride, self.conv.padding)


class Unit:
    """A unit with random numbers, run by the kernels and by autograd. Images are (N, C, H, W)."""

    def __init__(self, case):
        self.case = case
        self.kernels = k.KernelSet(case.dtype)
        draw = generator(case.seed, "unit")

        def random(*shape):
            return torch.randn(shape, generator=draw, dtype=torch.float64).to(case.dtype)

        outputs = len(case.nonzeros)
        conv = masked_conv(case.nonzeros, 0, case.shape, case.inputs, outputs, case, draw)
        self.bound = Bound(conv, (case.height, case.width), case.batch)
        self.out_shape = (case.batch, outputs, *self.bound.out_size)
        self.x = random(case.batch, case.inputs, case.height, case.width)
        for channel in case.constant:
            self.x[:, channel] = random()
        self.gamma, self.beta = random(outputs), random(outputs)
        self.running_mean, self.running_variance = random(outputs), random(outputs).square()
        self.residual = random(*self.out_shape) if case.residual else None
        self.readers = []
        for reader in case.readers:
            counts = [reader.nonzeros[channel % len(reader.nonzeros)] for channel in range(outputs)]
            read = Bound(masked_conv(counts, 1, reader.shape, outputs, 4, case, draw), self.out_shape[2:], case.batch)
            self.readers.append((read, random(case.batch, 4, *read.out_size)))
        self.direct = random(*self.out_shape) if case.direct else None
        self.coefficients = random(case.batch, outputs, 4)
        if case.activation == "dynamic":  # lines that are equal where the first channel is, if nothing else is added
            self.beta[0], self.coefficients[:, 0, 2:] = 0, 0
        self.pooled = random(case.batch, outputs)
        self.signs = 2.0 * torch.randint(2, (max(case.probes, 1), outputs), generator=draw).to(case.dtype) - 1

    @property
    def read(self):
        """Which output channels anything reads; None for all, as behind a residual or a DyReLU."""
        if self.case.direct or self.case.residual or self.case.activation == "dynamic":
            return None
        return torch.stack([bound.index.by_input.occupied for bound, _ in self.readers]).amax(0)

    def expected(self):
        """What autograd finds."""
        case, conv = self.case, self.bound.conv
        weight = conv.weight.detach().double().requires_grad_()
        gamma, beta = (tensor.double().requires_grad_() for tensor in (self.gamma, self.beta))
        running_mean, running_variance = self.running_mean.double().clone(), self.running_variance.double().clone()
        z = self.bound(self.x.double(), weight)
        z.retain_grad()
        u = F.batch_norm(z, running_mean, running_variance, gamma, beta, case.training, MOMENTUM, EPSILON)
        if self.residual is not None:
            u = u + self.residual.double()
        u.retain_grad()
        y = {"none": lambda: u, "relu": lambda: F.relu(u), "dynamic": lambda: self.dyrelu(u)}[case.activation]()
        loss = sum(((bound(y) * dz.double()).sum() for bound, dz in self.readers), y.sum() * 0)
        if self.direct is not None:
            loss = loss + (y * self.direct.double()).sum()
        if case.activation == "dynamic":
            loss = loss + (u.mean((2, 3)) * self.pooled.double()).sum()
        loss.backward()
        deviation = (z.detach().var((0, 2, 3), unbiased=False) + EPSILON).sqrt()
        return {
            "y": (u if case.activation == "dynamic" else y).detach(),
            "means": u.detach().mean((2, 3)),
            "mean": z.detach().mean((0, 2, 3)),
            "inverse": 1 / deviation,
            "running_mean": running_mean,
            "running_variance": running_variance,
            "g": u.grad,
            "dz": z.grad,
            "weight_gradient": gamma.grad,
            "bias_gradient": beta.grad,
            "value_gradient": weight.grad[conv.mask],
            "dense_gradient": weight.grad,
            "sketch": torch.einsum("po,nohw->pnhw", self.signs.double(), z.grad),
            "products": torch.einsum("po,oiab->ipab", self.signs.double(), weight.grad).flatten(2),
        }

    def dyrelu(self, u):
        a1, a2, b1, b2 = self.coefficients.double().permute(2, 0, 1)[..., None, None]
        return torch.maximum(a1 * u + b1, a2 * u + b2)

    def run(self, way=FUSED):
        """What the kernels find."""
        self._forward(way)
        found = {
            "y": torch.where(each(self.kind == k.CONSTANT), each(self.constant), to_images(self.y, self.case.batch)),
            "running_mean": self.new_mean,
            "running_variance": self.new_variance,
        }
        if self.case.activation == "dynamic":
            found["means"] = from_lanes(self.means, self.case.batch)
        if self.case.training:
            self._backward(way)
            mean, inverse, _, _ = self.normalization.unbind(1)
            found |= {"mean": mean, "inverse": inverse, "dz": to_images(self.dz, self.case.batch)} | self.gradients
            if self.g is not None:
                found["g"] = to_images(self.g, self.case.batch)
            if self.case.probes:
                found |= self._project()
        return found

    def _forward(self, way):
        case, geometry = self.case, self.bound.geometry
        self.x_planes = to_planes(self.x)
        self.x_kind = torch.zeros(case.inputs, dtype=torch.uint8)
        self.x_constants = torch.full((case.inputs,), UNSET, dtype=case.dtype)
        for channel in () if way.stored or way.rows else case.constant:
            self.x_kind[channel], self.x_constants[channel] = k.CONSTANT, self.x[0, channel, 0, 0]
            self.x_planes[channel] = UNSET
        self.planes = k.Planes(*map(k.address, (self.x_planes, self.x_kind, self.x_constants)))
        self.lists, self.values = k.Lists.of(self.bound.index.by_output), k.address(self.bound.weights.values)
        outputs, size = len(case.nonzeros), self.bound.out_size
        self.z = unset(outputs, *size, case.batch, case.dtype) if way.rows else None
        if self.z is not None:
            x, z = k.address(self.x_planes), k.address(self.z)
            self.kernels("convolve", k.Convolve(geometry, self.lists, self.values, x, z))
        self.y = unset(outputs, *size, case.batch, case.dtype)
        self.kind = torch.full((outputs,), 99, dtype=torch.uint8)
        self.constant, self.normalization = self.gamma.new_full((outputs,), UNSET), self.gamma.new_empty(outputs, 4)
        self.means = self.gamma.new_full((outputs, k.groups_of(case.batch), k.LANES), UNSET)
        self.new_mean, self.new_variance = self.running_mean.clone(), self.running_variance.clone()
        self.reads = self.read
        residual = None if self.residual is None else to_planes(self.residual)
        forward = k.Forward(
            geometry=geometry,
            by_output=self.lists,
            values=self.values,
            x=self.planes,
            z=k.address(self.z),
            weight=k.address(self.gamma),
            bias=k.address(self.beta),
            running_mean=k.address(self.new_mean),
            running_variance=k.address(self.new_variance),
            epsilon=EPSILON,
            momentum=MOMENTUM,
            training=int(case.training),
            rectify=int(case.activation == "relu"),
            constants=int(self.reads is not None),
            residual=k.address(residual),
            wanted=None if case.everything else k.address(self.reads),
            normalization=k.address(self.normalization),
            y=k.address(self.y),
            kind=k.address(self.kind),
            constant=k.address(self.constant),
            pooled=k.address(self.means) if case.activation == "dynamic" else None,
        )
        self.kernels("forward", forward)

    def _backward(self, way):
        """In the memory in which the engine works: dz takes the place of the output, g that of the direct gradient."""
        case, geometry = self.case, self.bound.geometry
        activation = {
            "none": k.NO_ACTIVATION,
            "relu": k.RECTIFY_BY_INPUT if self.residual is None else k.RECTIFY_BY_OUTPUT,
            "dynamic": k.DYNAMIC,
        }[case.activation]
        u, self.dz = copy_of(self.y), copy_of(self.y)
        readers = [(bound, to_planes(dz)) for bound, dz in self.readers]
        direct = None if self.direct is None else to_planes(self.direct)
        if way.pushed:
            direct = self._pushed(readers, direct)
        self.g = None
        if self.residual is not None:
            self.g = copy_of(self.y).fill_(UNSET) if direct is None else direct
        outputs, values = len(case.nonzeros), len(self.bound.weights.values)
        sizes = {"weight_gradient": outputs, "bias_gradient": outputs, "value_gradient": values}
        self.gradients = {name: self.gamma.new_full((size,), UNSET) for name, size in sizes.items()}
        shape = (sketch_parts(outputs), max(case.probes, 1), *self.y.shape[1:])
        self.sketches = self.gamma.new_full(shape, UNSET)
        coefficients, pooled = to_lanes(self.coefficients), to_lanes(self.pooled)
        backward = k.Backward(
            geometry=geometry,
            by_output=self.lists,
            values=self.values,
            x=self.planes,
            z=k.address(self.z),
            normalization=k.address(self.normalization),
            direct=k.address(direct),
            activation=activation,
            y=k.address(u if case.activation == "dynamic" else self.dz),
            coefficients=k.address(coefficients),
            pooled=k.address(pooled),
            read=k.address(self.reads),
            g=k.address(self.g),
            dz=k.address(self.dz),
            dz_of_dead=int(case.everything),
            **{name: k.address(tensor) for name, tensor in self.gradients.items()},
            probes=case.probes,
            signs=k.address(self.signs),
            sketches=k.address(self.sketches),
        )
        for place, (bound, dz) in enumerate([] if way.pushed else readers):
            values = k.address(bound.weights.values)
            backward.consumers[place] = k.Reader(
                bound.geometry, k.Lists.of(bound.index.by_input), values, k.address(dz)
            )
        self.kernels("backward", backward)
        if way.rows:
            dz, gradient = k.address(self.dz), k.address(self.gradients["value_gradient"])
            arguments = (geometry, self.lists, self.planes, dz, gradient, k.FEW + 1)
            self.kernels("weight_gradient", k.WeightGradient(*arguments))
        if case.everything:
            dense = self.gradients["dense_gradient"] = torch.full_like(self.bound.conv.weight.detach(), UNSET)
            structure = k.DenseGradient(geometry, self.planes, k.address(self.dz), k.address(dense))
            self.kernels("dense_gradient", structure)
            # Channels with few non-zeros have gradients by another formula than that of all weights.
            mask = self.bound.conv.mask
            many = (mask.flatten(1).sum(1) > k.FEW).view(-1, 1, 1, 1).expand_as(mask)
            assert torch.equal(dense[mask & many], self.gradients["value_gradient"][many[mask]])

    def _pushed(self, readers, direct):
        """The gradient at the output after the readers have added to it, one after the other."""
        to = copy_of(self.y).fill_(UNSET) if direct is None else direct
        for number, (bound, dz) in enumerate(readers):
            arguments = (
                k.Lists.of(bound.index.by_input),
                k.address(bound.weights.values),
                k.address(dz),
                k.address(to),
            )
            accumulate = int(direct is not None or number > 0)
            self.kernels("input_gradient", k.InputGradient(bound.geometry, *arguments, accumulate))
        return to

    def _project(self):
        sketches = self.sketches.clone()
        products = contracted(self.kernels, self.bound.geometry, self.planes, sketches)
        return {"sketch": to_images(sketches[:1], self.case.batch).squeeze(0).movedim(1, 0), "products": products}

    @property
    def live(self):
        """Which output channels have a non-zero."""
        return self.bound.index.by_output.occupied.bool()

    def defined(self, found):
        """What the case defines of what was found."""
        case, read = self.case, torch.ones_like(self.live) if self.reads is None else self.reads.bool()
        defined = dict(found)
        defined["y"] = found["y"][:, read | ~self.live | case.everything]
        if "dz" in found:
            defined["dz"] = found["dz"][:, (self.live & read) | case.everything]
        return defined

    def check(self, *ways):
        """Compare everything that the case defines with autograd, and other ways of execution bit for bit."""
        found, expected = self.run(), self.expected()
        kind, y = self.kind.clone(), to_images(self.y, self.case.batch)
        assert y[:, kind != k.STORED].isnan().all()
        defined, expected = self.defined(found), self.defined(expected)
        amplified = float(expected["inverse"].max())  # errors of z, where it hardly varies
        for name, tensor in defined.items():
            agree(tensor, expected[name], TOLERANCE[self.case.dtype], name, amplified)
        for way in ways:
            assert_same_bits(self.defined(self.run(way)), defined)
        self.kind = kind
        return found


def each(channels):
    """(C,) for every number of (N, C, H, W)."""
    return channels[:, None, None]


def agree(found, expected, tolerance, name, amplified=1.0):
    scale = max(1.0, amplified, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol=tolerance * scale, msg=lambda text: f"{name}: {text}"
    )


NEAR = Shape()
"""Stride 1 and no position further away than one: with few non-zeros, the kernels read all inputs in one pass."""

ENDS = {
    "ReLU": {},
    "no activation": {"activation": "none"},
    "residual and ReLU": {"residual": True, "direct": True},
    "residual alone": {"residual": True, "activation": "none", "direct": True},
    "DyReLU": {"activation": "dynamic", "direct": True, "readers": ()},
    "residual and DyReLU": {"activation": "dynamic", "residual": True, "direct": True, "readers": ()},
}


@pytest.mark.parametrize("batch", [1, 5, 32, 70])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("training", [True, False])
def test_units_with_every_end_equal_autograd_in_every_way(end, batch, training):
    Unit(Case(batch=batch, training=training, **ENDS[end])).check(*OTHER_WAYS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "width"), [(6, 5), (6, 6), (1, 1), (2, 2), (1, 7), (5, 3), (70, 33), (2, 65)])
@pytest.mark.parametrize("shape", [NEAR, Shape(1, 1, 0)], ids=["3x3", "1x1"])
def test_few_nonzeros_at_every_size_of_image_equal_autograd(shape, height, width, dtype):
    for residual in (False, True):
        case = Case(shape, (1, 2, 3, 0), 3, height, width, 16, residual=residual, direct=residual, dtype=dtype)
        Unit(case).check(*OTHER_WAYS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("readers", [1, 2, 3, 4, 5])
def test_every_number_of_nonzeros_and_readers_equals_autograd(readers, residual, dtype):
    """Up to three and four of them, all are read in one pass; each number has a loop of its own."""
    case = Case(batch=19, width=7, readers=(Reader(NEAR, (readers,)),), residual=residual, dtype=dtype)
    Unit(case).check(*OTHER_WAYS)
    Unit(replace(case, direct=True)).check(*OTHER_WAYS)


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_kernel_size_stride_and_padding_equals_autograd(kernel, stride):
    for padding in {0, kernel // 2, kernel - 1}:
        case = Case(Shape(kernel, stride, padding), (0, 1, 2, 3, 4, 20), 21, 8, 9, 5, probes=1)
        Unit(case).check(*OTHER_WAYS)


@pytest.mark.parametrize("seed", range(100))
def test_random_units_equal_autograd_and_on_any_number_of_threads_bit_for_bit(seed):
    draw = generator(seed, "case")

    def one_of(*choices):
        return choices[int(torch.randint(len(choices), (), generator=draw))]

    def shape():
        kernel = one_of(1, 3, 7)
        return Shape(kernel, one_of(1, 2), one_of(0, kernel // 2, kernel // 2, kernel - 1))

    def near(fallback):
        return one_of(NEAR, NEAR, Shape(1, 1, 0), fallback)

    inputs = one_of(1, 2, 5, 30)
    case = Case(
        shape=near(shape()),
        nonzeros=tuple(min(one_of(0, 1, 1, 2, 3, 4, 12), inputs) for _ in range(one_of(1, 4, 9))),
        inputs=inputs,
        height=one_of(9, 10, 13),
        width=one_of(9, 10, 20),
        batch=one_of(2, 3, 33),
        constant=(0, 1, 2) if inputs == 30 else (),
        everything=one_of(False, True),
        probes=one_of(0, 1, 3),
        dtype=one_of(torch.float32, torch.float64),
        seed=seed,
        **ENDS[one_of(*ENDS)],
    )
    if not case.direct:
        counts = one_of((1,), (0, 1), (2, 1, 0), (5, 3))
        readers = (Reader(near(Shape(3, 2, 1)), counts), Reader(near(Shape(1, 2, 0)), counts[::-1]))
        case = replace(case, readers=readers[: one_of(1, 2)])
    unit = Unit(case)
    unit.check(*OTHER_WAYS)
    if seed % 4 == 0:
        for way in (FUSED, Way(rows=True, pushed=True)):
            on_threads(lambda way=way: unit.run(way))


@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1)], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize(
    "nonzeros",
    [(0,) * 4, (0, 1, 0, 0), (54,) * 4, (0, 54, 0, 3), (2, 2, 2, 2)],
    ids=["none", "one", "all", "empty rows", "few"],
)
def test_every_mask_equals_autograd(nonzeros, shape):
    Unit(Case(shape, nonzeros, everything=True)).check(*OTHER_WAYS)


@pytest.mark.parametrize("counts", [(1,), (2,), (3,), (4,), (5,), (0, 9)])
@pytest.mark.parametrize("second", [None, Shape(1, 1, 0), Shape(1, 2, 0), Shape(3, 2, 1)], ids=str)
@pytest.mark.parametrize("direct", [False, True])
def test_gradients_of_all_readers_are_added(counts, second, direct):
    readers = [Reader(NEAR, counts)] + ([] if second is None else [Reader(second, (1, 0, 2))])
    Unit(Case(width=6, readers=tuple(readers), direct=direct)).check(*OTHER_WAYS)
    Unit(Case(width=6, readers=tuple(readers), direct=True, residual=True)).check(*OTHER_WAYS)


@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1), Shape(1, 1, 0), Shape(7, 2, 3)], ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_constant_channels_are_read_as_if_they_were_stored(shape, residual):
    """Their memory holds NaN."""
    for width in (5, 8):
        case = Case(shape, (1, 2, 3, 6, 6, 0), width=width, constant=(0, 1, 3, 5), residual=residual, direct=residual)
        Unit(case).check(*OTHER_WAYS)


@pytest.mark.parametrize("everything", [False, True])
def test_a_channel_without_nonzeros_becomes_a_constant(everything):
    unit = Unit(Case(nonzeros=(0, 2, 0), everything=everything))
    unit.check()
    assert unit.kind.tolist() == [k.CONSTANT, k.STORED, k.CONSTANT]


def test_a_channel_without_nonzeros_is_stored_where_constants_are_not_understood():
    unit = Unit(Case(nonzeros=(0, 2, 0), direct=True))
    unit.check()
    assert unit.kind.tolist() == [k.STORED] * 3


@pytest.mark.parametrize("probes", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_channels_that_nothing_reads_are_left_out(probes, dtype):
    """Of six channels the last two are read."""
    readers = (Reader(NEAR, (0, 0, 0, 0, 2, 1)), Reader(Shape(1, 1, 0), (0, 0, 0, 0, 1, 0)))
    case = Case(nonzeros=(1, 2, 3, 9, 2, 0), readers=readers, probes=probes, dtype=dtype)
    unit = Unit(case)
    unit.check(*OTHER_WAYS)
    assert unit.kind.tolist() == [k.ABSENT] * 4 + [k.STORED, k.CONSTANT]
    assert (unit.gradients["bias_gradient"][:4] == 0).all()
    everything = Unit(replace(case, everything=True))
    found = everything.check(*OTHER_WAYS)
    assert everything.kind.tolist() == [k.STORED] * 5 + [k.CONSTANT]
    assert (found["dz"][:, :4] == 0).all()


@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1)], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize("probes", [1, 3])
def test_sketches_sum_the_gradient_with_signs_over_all_channels(shape, probes):
    """Channels without non-zeros count, and so do eight channels that nothing reads."""
    nonzeros = (0, 1, 2, 3, 4, 9) * 3
    for readers in ((Reader(),), (Reader(NEAR, (0,) * 16 + (1, 1)),)):
        Unit(Case(shape, nonzeros, probes=probes, readers=readers)).check(*OTHER_WAYS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("end", ["ReLU", "no activation", "residual and ReLU", "residual alone"])
def test_planes_that_are_written_past_the_caches_equal_autograd(end, dtype):
    Unit(Case(Shape(1, 1, 0), (1, 2), 2, 28, 29, 128, dtype=dtype, **ENDS[end])).check(*OTHER_WAYS)


@pytest.mark.parametrize("mean", [1e3, -1e3])
def test_the_variance_of_a_channel_far_from_zero_is_exact(mean):
    """Its mean is 1000 standard deviations: single precision would lose the variance of plain sums of squares."""
    unit = Unit(Case(Shape(1, 1, 0), (1, 4), 4, 32, 32, 16, dtype=torch.float32))
    unit.x += mean
    found, expected = unit.run(), unit.expected()
    torch.testing.assert_close(found["inverse"].double(), expected["inverse"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("at", ["x", "dz"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("nonzeros", [(1, 2, 0), (4, 9, 0)], ids=["few", "many"])
@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1)], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize("residual", [False, True])
def test_nan_goes_where_it_is_read_and_nowhere_else(at, value, nonzeros, shape, residual):
    unit = Unit(Case(shape, nonzeros, inputs=1, readers=(Reader(NEAR, (54,)),), residual=residual, batch=3))
    (unit.x if at == "x" else unit.readers[0][1])[1, 0] = value
    unit.beta += 5  # so that the ReLU passes everything on
    found = unit.run()
    dead = 2
    assert found["y"][:, :dead].isnan().all() == (at == "x")
    assert found["y"][:, dead].isfinite().all()
    assert not found["dz"][:, 0].isfinite().any()
    for name in ("weight_gradient", "value_gradient"):
        assert not found[name].isfinite().flatten()[0], name
    assert not found["value_gradient"].isfinite().any()


@pytest.mark.parametrize("way", [FUSED, Way(rows=True, pushed=True)], ids=["fused", "rows"])
def test_control_registers_that_other_libraries_have_set_change_nothing(way):
    """Denormal numbers are kept in every thread, and the caller finds its own setting again."""
    unit = Unit(Case(nonzeros=(1, 2, 3, 9), batch=33, dtype=torch.float32))
    unit.x *= 1e-38
    expected = on_threads(lambda: unit.run(way), (1, 2))
    assert torch.set_flush_denormal(True)
    try:
        found = on_threads(lambda: unit.run(way), (1, 2))
        assert (torch.tensor([1e-40]) * 0.5).item() == 0
    finally:
        torch.set_flush_denormal(False)
    assert_same_bits(found, expected)


# Products with sketches of a layer without batch norm, and of every shape


def check_correlate(shape, probes=1, parts=1, height=6, width=5, batch=5, constant=False, dtype=torch.float64):
    draw = generator(0, "correlate")
    bound = Bound(MaskedConv2d(3, 4, shape.kernel, stride=shape.stride, padding=shape.padding), (height, width), batch)
    x = torch.randn(batch, 3, height, width, generator=draw, dtype=torch.float64).to(dtype)
    sketches = torch.randn(parts, batch, probes, *bound.out_size, generator=draw, dtype=torch.float64).to(dtype)
    kind, constants = torch.tensor([0, int(constant), 0], dtype=torch.uint8), torch.full((3,), UNSET, dtype=dtype)
    if constant:
        constants[1], x[:, 1] = 0.7, 0.7
    data = to_planes(x)
    data[kind.bool()] = UNSET
    planes = k.Planes(*map(k.address, (data, kind, constants)))
    groups = k.groups_of(batch)
    memory = torch.full((parts, probes, groups, *bound.out_size, k.LANES), UNSET, dtype=dtype)
    memory.copy_(torch.stack([to_planes(part) for part in sketches]))
    found = on_threads(lambda: {"": contracted(k.KernelSet(dtype), bound.geometry, planes, memory.clone())})[""]
    size = (probes, 3, shape.kernel, shape.kernel)
    weight = torch.nn.grad.conv2d_weight(
        x.double(), size, sketches.double().sum(0), stride=shape.stride, padding=shape.padding
    )
    agree(found, weight.transpose(0, 1).flatten(2), TOLERANCE[dtype], "products")


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_products_with_sketches_are_the_dense_gradient_times_the_signs(kernel, stride):
    for padding in {0, kernel // 2, kernel - 1}:
        for batch in (1, 5, 70):
            check_correlate(Shape(kernel, stride, padding), height=8, width=9, batch=batch)


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("parts", [1, 2, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_of_sketches_are_added(probes, parts, dtype):
    check_correlate(NEAR, probes, parts, height=9, width=33, batch=32, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 70])
@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1), Shape(1, 1, 0)], ids=str)
def test_products_with_constant_channels_and_of_every_width(shape, width, dtype):
    for height in (1, 2, 4):
        check_correlate(shape, 2, height=height, width=width, constant=True, dtype=dtype)


# A convolution by itself, row by row, and the gradients of all its weights


class Convolution(Bound):
    """Random x and dz (N, C, H, W) of a convolution, and a mask; none of it depends on the batch but x and dz."""

    def __init__(self, shape, size, batch, channels=(6, 5), dtype=torch.float64, mask=0.3):
        conv = MaskedConv2d(*channels, shape.kernel, stride=shape.stride, padding=shape.padding).to(dtype)
        draw = generator(1, "convolution")
        if isinstance(mask, float):
            mask = torch.rand(conv.weight.shape, generator=draw) < mask
        conv.mask.copy_(mask)
        with torch.no_grad():
            conv.weight.copy_(torch.randn(mask.shape, generator=draw, dtype=dtype) * mask)
        super().__init__(conv, size, batch)
        self.mask, self.dtype, self.batch, self.kernels = mask, dtype, batch, k.KernelSet(dtype)
        self.x = torch.randn(batch, channels[0], *size, generator=draw, dtype=dtype)
        self.dz = torch.randn(batch, channels[1], *self.out_size, generator=draw, dtype=dtype)
        self.read, self.live = (lists.occupied.bool() for lists in (self.index.by_input, self.index.by_output))

    def planes(self):
        return to_planes(self.x), to_planes(self.dz)

    def convolve(self, x, z=None):
        z = unset(*self.dz.shape[1:], self.batch, self.dtype) if z is None else z
        addresses = map(k.address, (self.weights.values, x, z))
        self.kernels("convolve", k.Convolve(self.geometry, k.Lists.of(self.index.by_output), *addresses))
        return to_images(z, self.batch)

    def input_gradient(self, dz, before=None):
        to = unset(*self.x.shape[1:], self.batch, self.dtype) if before is None else copy_of(before)
        lists, addresses = k.Lists.of(self.index.by_input), map(k.address, (self.weights.values, dz, to))
        self.kernels("input_gradient", k.InputGradient(self.geometry, lists, *addresses, int(before is not None)))
        return to_images(to, self.batch)

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

    def sparse_results(self, x, dz):
        return {"z": self.convolve(x), "dx": self.input_gradient(dz), "gradient": self.weight_gradient(x, dz)}

    def results(self):
        return self.sparse_results(*self.planes()) | {"dense gradient": self.dense_gradient(*self.planes())}

    def check(self, run=results):
        """Compare with PyTorch, and all weights' gradients with the non-zeros' bit for bit."""
        found = run(self)
        x, weight = (tensor.double().requires_grad_() for tensor in (self.x, self.conv.weight.detach()))
        z = self(x, weight)
        z.backward(self.dz.double())
        assert found["z"][:, ~self.live].isnan().all()
        tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[self.dtype]
        agree(found["z"][:, self.live], z.detach()[:, self.live], tolerance, "z")
        agree(found["dx"], x.grad, tolerance, "dx")
        agree(found["dense gradient"], weight.grad, tolerance, "dense gradient")
        assert torch.equal(found["dense gradient"][self.mask], found["gradient"])


@pytest.mark.parametrize("seed", range(60))
def test_random_convolutions_equal_pytorch_on_any_number_of_threads(seed):
    draws = generator(seed, "shape")

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=draws))

    kernel = (1, 3, 7)[draw(0, 2)]
    padding = draw(0, kernel - 1)
    least, shape = max(1, kernel - 2 * padding), Shape(kernel, draw(1, 3), padding)
    size, channels = (draw(least, 20), draw(least, 20)), (draw(1, 9), draw(1, 9))
    dtype = (torch.float32, torch.float64)[draw(0, 1)]
    convolution = Convolution(shape, size, draw(1, 40), channels, dtype, draw(1, 10) / 10)
    convolution.check(lambda own: on_threads(own.results) if seed % 6 == 0 else own.results())


STRIDED = Shape(3, 2, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "size", "batch", "channels"),
    [
        pytest.param(NEAR, (3, 50), 9, (70, 4), id="rows in several tiles"),
        pytest.param(STRIDED, (4, 90), 9, (5, 70), id="strided rows, several blocks of channels"),
        pytest.param(Shape(1, 1, 0), (1, 1), 128, (40, 10), id="linear layer"),
        pytest.param(NEAR, (1, 1), 20, (6, 5), id="one position"),
        pytest.param(NEAR, (70, 2), 16, (6, 5), id="high and narrow"),
        pytest.param(NEAR, (2, 1), 16, (6, 5), id="one column"),
        pytest.param(STRIDED, (1, 2), 16, (6, 5), id="one row, strided"),
        pytest.param(Shape(7, 2, 3), (17, 19), 33, (6, 5), id="7x7"),
        pytest.param(NEAR, (33, 9), 40, (6, 5), id="several groups"),
        *(
            pytest.param(shape, (6, 7), 33, channels, id=f"{channels} channels, stride {shape.stride}")
            for shape in (NEAR, STRIDED)
            for channels in ((1, 1), (3, 64), (70, 13), (5, 6))
        ),
    ],
)
def test_every_division_equals_pytorch_on_any_number_of_threads(shape, size, batch, channels, dtype):
    """Tiles go over rows and channels; the last ones are narrower."""
    Convolution(shape, size, batch, channels, dtype).check(lambda own: on_threads(own.results, (1, 3)))


def mask_of(name):
    density = {"none": 0.0, "one": 0.0, "every": 1.0}.get(name, 0.3)
    mask = torch.rand(5, 6, 3, 3, generator=generator(1, "mask")) < density
    if name == "one":
        mask[1, 2, 0, 2] = True
    if name == "empty rows":
        mask[[0, 2, 4]] = False
    if name == "empty columns":
        mask[:, [0, 3, 5]] = False
    return mask


@pytest.mark.parametrize("shape", [NEAR, STRIDED], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize("name", ["none", "one", "every", "empty rows", "empty columns"])
def test_every_mask_equals_pytorch_and_reads_only_what_it_needs(name, shape):
    convolution = Convolution(shape, (9, 6), 17, mask=mask_of(name))
    convolution.check()
    x, dz = convolution.planes()
    expected = convolution.sparse_results(x, dz)
    x[~convolution.read], dz[~convolution.live] = UNSET, UNSET
    assert_same_bits(convolution.sparse_results(x, dz), expected)


@pytest.mark.parametrize("batch", [32, 5])
def test_an_input_gradient_is_added_to_what_is_there(batch):
    convolution = Convolution(STRIDED, (8, 8), batch, mask=mask_of("empty columns"))
    before = torch.randn(convolution.x.shape, generator=generator(0, "before"), dtype=torch.float64)
    dz = to_planes(convolution.dz)
    found = convolution.input_gradient(dz, to_planes(before))
    torch.testing.assert_close(found, before + convolution.input_gradient(dz), rtol=0, atol=1e-12)


def test_channels_with_fewer_nonzeros_than_asked_for_are_left_out():
    mask = mask_of("some")
    mask[0] = False
    mask[0, :3, 1, 1] = True
    convolution = Convolution(NEAR, (5, 5), 3, mask=mask)
    x, dz = convolution.planes()
    found, every = convolution.weight_gradient(x, dz, least=4), convolution.weight_gradient(x, dz)
    assert found[:3].isnan().all()
    assert torch.equal(found[3:], every[3:])


def test_an_images_output_depends_on_no_other_image():
    """Evaluation may divide images as it likes."""
    whole = Convolution(NEAR, (9, 9), 70, dtype=torch.float32)
    z = whole.convolve(to_planes(whole.x))
    for first, count in ((0, 1), (31, 2), (5, 64)):
        part = Convolution(NEAR, (9, 9), count, dtype=torch.float32)
        found = part.convolve(to_planes(whole.x[first : first + count]))
        assert torch.equal(found[:, part.live], z[first : first + count, part.live])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_need_not_be_aligned(dtype):
    convolution = Convolution(NEAR, (5, 5), 32, dtype=dtype)

    def shifted(planes):
        """The same one number further on in memory."""
        channels, stride = len(planes), planes.stride(0)
        memory = torch.full((channels * stride + 1,), UNSET, dtype=dtype)
        return memory[1:].view(channels, stride)[:, : planes[0].numel()].view(planes.shape).copy_(planes)

    x, dz = convolution.planes()
    assert_same_bits(convolution.sparse_results(shifted(x), shifted(dz)), convolution.sparse_results(x, dz))
    z = shifted(unset(*convolution.dz.shape[1:], 32, dtype))
    assert_same_bits({"z": convolution.convolve(x, z)}, {"z": convolution.convolve(x)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_weights_gradients_read_constant_channels_as_if_they_were_stored(dtype):
    convolution = Convolution(NEAR, (6, 7), 33, dtype=dtype)
    convolution.x[:, [0, 4]] = 0.7
    x, dz = convolution.planes()
    expected = convolution.dense_gradient(x, dz)
    kind, constants = torch.zeros(6, dtype=torch.uint8), torch.full((6,), UNSET, dtype=dtype)
    kind[[0, 4]], constants[[0, 4]], x[[0, 4]] = k.CONSTANT, 0.7, UNSET
    assert torch.equal(convolution.dense_gradient(x, dz, kind, constants), expected)
