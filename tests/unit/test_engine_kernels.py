"""The kernels of one unit (convolution, batch norm, residual, activation) against autograd in double precision."""

from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F

from east.engine.sparse import kernels as k
from east.engine.sparse.index import NonzeroIndex
from east.seeding import torch_generator as generator
from east.sparse.active import ActiveWeights
from east.sparse.layers import MaskedConv2d

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}
"""Largest error, relative to the largest number of a tensor, or to 1 if all are smaller."""

UNSET = float("nan")
"""What stands where a kernel must not read, and where it must write."""

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
        constant: input channels that are kept as a constant.
        z: "found" on the way, "given" by another kernel, or "dense": given, and without lists of non-zeros.
        activation: "none", "relu", or "dynamic", which is a DyReLU.
        direct: whether a gradient at the output is there already, besides what readers give.
        everything: whether gradients of off weights count, so that no channel may be left out.
        probes: vectors of random signs, for sums over channels in `parts`.
    """

    shape: Shape = field(default_factory=Shape)
    nonzeros: tuple[int, ...] = (0, 1, 2, 3, 4, 9)
    inputs: int = 6
    height: int = 6
    width: int = 5
    batch: int = 5
    constant: tuple[int, ...] = ()
    z: str = "found"
    residual: bool = False
    activation: str = "relu"
    readers: tuple[Reader, ...] = (Reader(),)
    direct: bool = False
    everything: bool = False
    probes: int = 0
    parts: int = 1
    training: bool = True
    dtype: torch.dtype = torch.float64
    seed: int = 0


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


def images_of(x):
    """(C, H, W, N) as PyTorch's (N, C, H, W) in double precision."""
    return x.double().permute(3, 0, 1, 2)


def planes_of(images):
    """(N, C, H, W) as (C, H, W, N)."""
    return images.detach().permute(1, 2, 3, 0).contiguous()


def check_two_threads(run, found):
    """Whether `run`, which returns tensors by name, finds with two threads every bit that it has found with one."""
    torch.set_num_threads(2)
    for name, tensor in run().items():
        torch.testing.assert_close(tensor, found[name], rtol=0, atol=0, equal_nan=True)


def each(channels):
    """(C,) for every number of (C, H, W, N)."""
    return channels[:, None, None, None]


class Unit:
    """A unit with random numbers, run by the kernels and by autograd."""

    def __init__(self, case):
        self.case = case
        draw = generator(case.seed, "unit")

        def random(*shape):
            return torch.randn(shape, generator=draw, dtype=torch.float64).to(case.dtype)

        outputs = len(case.nonzeros)
        conv = masked_conv(case.nonzeros, 0, case.shape, case.inputs, outputs, case, draw)
        self.bound = Bound(conv, (case.height, case.width), case.batch)
        out_shape = (outputs, *self.bound.out_size, case.batch)
        self.x = random(case.inputs, case.height, case.width, case.batch)
        self.x_kind = torch.zeros(case.inputs, dtype=torch.uint8)
        self.x_constants = torch.full((case.inputs,), UNSET, dtype=case.dtype)
        for channel in case.constant:
            self.x_kind[channel], self.x_constants[channel] = k.CONSTANT, random()
            self.x[channel] = self.x_constants[channel]
        self.gamma, self.beta = random(outputs), random(outputs)
        self.running_mean, self.running_variance = random(outputs), random(outputs).square()
        self.residual = random(*out_shape) if case.residual else None
        self.readers = []
        for reader in case.readers:
            counts = [reader.nonzeros[channel % len(reader.nonzeros)] for channel in range(outputs)]
            read = Bound(masked_conv(counts, 1, reader.shape, outputs, 4, case, draw), out_shape[1:3], case.batch)
            self.readers.append((read, random(4, *read.out_size, case.batch)))
        self.direct = random(*out_shape) if case.direct else None
        self.coefficients = random(outputs, 4, case.batch)
        if case.activation == "dynamic":  # lines that are equal where the first channel is, if nothing else is added
            self.beta[0], self.coefficients[0, 2:] = 0, 0
        self.pooled = random(outputs, case.batch)
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
        z = self.bound(images_of(self.x), weight)
        z.retain_grad()
        u = F.batch_norm(z, running_mean, running_variance, gamma, beta, case.training, MOMENTUM, EPSILON)
        if self.residual is not None:
            u = u + images_of(self.residual)
        u.retain_grad()
        y = {"none": lambda: u, "relu": lambda: F.relu(u), "dynamic": lambda: self.dyrelu(u)}[case.activation]()
        loss = sum(((bound(y) * images_of(dz)).sum() for bound, dz in self.readers), y.sum() * 0)
        if self.direct is not None:
            loss = loss + (y * images_of(self.direct)).sum()
        if case.activation == "dynamic":
            loss = loss + (u * self.pooled.double().T[:, :, None, None]).sum()
        loss.backward()
        dz = planes_of(z.grad)
        return {
            "y": planes_of(u if case.activation == "dynamic" else y),
            "pooled": u.detach().mean((2, 3)).T,
            "mean": z.detach().mean((0, 2, 3)),
            "inverse_deviation": (z.detach().var((0, 2, 3), unbiased=False) + EPSILON).rsqrt(),
            "running_mean": running_mean,
            "running_variance": running_variance,
            "g": planes_of(u.grad),
            "dz": dz,
            "weight_gradient": gamma.grad,
            "bias_gradient": beta.grad,
            "value_gradient": weight.grad[conv.mask],
            "sketch": torch.einsum("po,ohwn->phwn", self.signs.double(), dz),
        }

    def dyrelu(self, u):
        a1, a2, b1, b2 = self.coefficients.double().permute(1, 2, 0)[..., None, None]
        return torch.maximum(a1 * u + b1, a2 * u + b2)

    def run(self):
        """What the kernels find."""
        self._forward()
        found = {
            "y": torch.where(each(self.kind == k.CONSTANT), each(self.constant), self.y),
            "pooled": self.means,
            "running_mean": self.new_mean,
            "running_variance": self.new_variance,
        }
        if self.case.training:
            self._backward()
            found |= {"mean": self.mean, "inverse_deviation": self.inverse_deviation}
            found |= {"g": self.g, "dz": self.dz, "sketch": self.sketches.sum(0)} | self.gradients
        return found

    def _forward(self):
        case = self.case
        self.data = self.x.masked_fill(each(self.x_kind == k.CONSTANT), UNSET)
        self.planes = k.Planes(k.address(self.data), k.address(self.x_kind), k.address(self.x_constants))
        self.z = None
        if case.z != "found":
            self.z = planes_of(self.bound(images_of(self.x))).to(case.dtype)
        if case.z == "given":  # kernels leave channels without non-zeros as they are
            self.z[~self.bound.index.by_output.occupied.bool()] = UNSET
        self.lists = k.Lists() if case.z == "dense" else self.bound.index.by_output.lists
        outputs = len(case.nonzeros)
        self.y = self.x.new_full((outputs, *self.bound.out_size, case.batch), UNSET)
        self.kind = torch.full((outputs,), 99, dtype=torch.uint8)
        self.constant, self.mean, self.inverse_deviation = self.x.new_full((3, outputs), UNSET)
        self.means = self.x.new_full((outputs, case.batch), UNSET)
        self.new_mean, self.new_variance = self.running_mean.clone(), self.running_variance.clone()
        self.reads = self.read
        forward = k.Forward(
            geometry=self.bound.geometry,
            by_output=self.lists,
            values=k.address(self.bound.weights.values),
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
            residual=k.address(self.residual),
            wanted=None if case.everything else k.address(self.reads),
            mean=k.address(self.mean),
            inverse_deviation=k.address(self.inverse_deviation),
            y=k.address(self.y),
            kind=k.address(self.kind),
            constant=k.address(self.constant),
            pooled=k.address(self.means) if case.activation == "dynamic" else None,
        )
        k.KernelSet(case.dtype)("forward", forward)

    def _backward(self):
        """In the memory in which the engine works: dz takes the place of the output, g that of the direct gradient."""
        case = self.case
        activation = {
            "none": k.NO_ACTIVATION,
            "relu": k.RECTIFY_BY_INPUT if self.residual is None else k.RECTIFY_BY_OUTPUT,
            "dynamic": k.DYNAMIC,
        }[case.activation]
        self.u, self.dz = self.y.clone(), self.y.clone()
        direct = None if self.direct is None else self.direct.clone()
        self.g = torch.full_like(self.y, UNSET) if direct is None else direct
        outputs, values = len(case.nonzeros), len(self.bound.weights.values)
        sizes = {"weight_gradient": outputs, "bias_gradient": outputs, "value_gradient": values}
        self.gradients = {name: self.x.new_full((size,), UNSET) for name, size in sizes.items()}
        self.sketches = self.x.new_full((case.parts, max(case.probes, 1), *self.y.shape[1:]), UNSET)
        backward = k.Backward(
            geometry=self.bound.geometry,
            by_output=self.lists,
            values=k.address(self.bound.weights.values),
            x=self.planes,
            z=k.address(self.z),
            weight=k.address(self.gamma),
            bias=k.address(self.beta),
            mean=k.address(self.mean),
            inverse_deviation=k.address(self.inverse_deviation),
            direct=k.address(direct),
            activation=activation,
            y=k.address(self.u if case.activation == "dynamic" else self.dz),
            coefficients=k.address(self.coefficients),
            pooled=k.address(self.pooled),
            read=k.address(self.reads),
            g=None if self.residual is None else k.address(self.g),
            dz=k.address(self.dz),
            dz_of_dead=int(case.everything),
            **{name: k.address(tensor) for name, tensor in self.gradients.items()},
            probes=case.probes,
            sketch_parts=case.parts,
            signs=k.address(self.signs),
            sketches=k.address(self.sketches),
        )
        for place, (bound, dz) in enumerate(self.readers):
            values = k.address(bound.weights.values)
            backward.consumers[place] = k.Consumer(bound.geometry, bound.index.by_input.lists, values, k.address(dz))
        k.KernelSet(case.dtype)("backward", backward)

    def check(self):
        """Compare everything that the case defines; returns what the kernels find."""
        case, found, expected = self.case, self.run(), self.expected()
        live = self.bound.index.by_output.occupied.bool() | (case.z == "dense")
        read = torch.ones_like(live) if self.reads is None else self.reads.bool()
        written = read | ~live | case.everything
        assert found["y"][~written].isnan().all()
        amplified = float(expected["inverse_deviation"].max())  # errors of z, where it hardly varies
        agree(found["y"][written], expected["y"][written], case.dtype, "y", amplified)
        names = ["running_mean", "running_variance"]
        if case.activation == "dynamic":
            names.append("pooled")
        if case.training:
            names += ["mean", "inverse_deviation", "weight_gradient", "bias_gradient"]
            names += ["value_gradient"] * (case.z == "found") + ["sketch"] * (case.probes > 0)
            names += ["g"] * case.residual
            wanted = (live & read) | case.everything
            agree(found["dz"][wanted], expected["dz"][wanted], case.dtype, "dz", amplified)
        for name in names:
            agree(found[name], expected[name], case.dtype, name, amplified)
        return found


def agree(found, expected, dtype, name, amplified=1.0):
    scale = max(1.0, amplified, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol=TOLERANCE[dtype] * scale, msg=lambda text: f"{name}: {text}"
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


@pytest.mark.parametrize("batch", [1, 5, 128])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("training", [True, False])
def test_units_with_every_end_equal_autograd(end, batch, training):
    Unit(Case(batch=batch, training=training, **ENDS[end])).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "width"), [(6, 5), (1, 1), (2, 2), (1, 7), (5, 3), (40, 33)])
@pytest.mark.parametrize("shape", [NEAR, Shape(1, 1, 0)], ids=["3x3", "1x1"])
def test_few_nonzeros_at_every_size_of_image_equal_autograd(shape, height, width, dtype):
    for residual in (False, True):
        Unit(Case(shape, (1, 2, 3, 0), 3, height, width, 16, residual=residual, direct=residual, dtype=dtype)).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("readers", [1, 2, 3, 4, 5])
def test_every_number_of_nonzeros_and_readers_equals_autograd(readers, residual, dtype):
    """Up to three and four of them, all are read in one pass; each number has a loop of its own."""
    case = Case(batch=19, readers=(Reader(NEAR, (readers,)),), residual=residual, dtype=dtype)
    Unit(case).check()
    Unit(replace(case, direct=True)).check()


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_kernel_size_stride_and_padding_equals_autograd(kernel, stride):
    for padding in {0, kernel // 2, kernel - 1}:
        for batch in (1, 5) if padding != kernel // 2 else (1, 5, 128):
            Unit(Case(Shape(kernel, stride, padding), (0, 1, 2, 3, 4, 20), 21, 8, 9, batch, probes=1)).check()


@pytest.mark.parametrize("seed", range(100))
def test_random_units_equal_autograd(seed):
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
        batch=one_of(1, 3, 8, 33),
        constant=(0, 1, 2) if inputs == 30 else (),
        z=one_of("found", "found", "found", "given", "dense"),
        everything=one_of(False, True),
        probes=one_of(0, 1, 3),
        parts=1,
        dtype=one_of(torch.float32, torch.float64),
        seed=seed,
        **ENDS[one_of(*ENDS)],
    )
    if not case.direct:
        counts = one_of((1,), (0, 1), (2, 1, 0), (5, 3))
        readers = (Reader(near(Shape(3, 2, 1)), counts), Reader(near(Shape(1, 2, 0)), counts[::-1]))
        case = replace(case, readers=readers[: one_of(1, 2)])
    unit = Unit(case)
    found = unit.check()
    if seed % 4 == 0:
        check_two_threads(unit.run, found)


@pytest.mark.parametrize("z", ["found", "given", "dense"])
@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1)], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize(
    "nonzeros",
    [(0,) * 4, (0, 1, 0, 0), (54,) * 4, (0, 54, 0, 3), (2, 2, 2, 2)],
    ids=["none", "one", "all", "empty rows", "few"],
)
def test_every_mask_equals_autograd(nonzeros, shape, z):
    Unit(Case(shape, nonzeros, everything=True, z=z)).check()


@pytest.mark.parametrize("counts", [(1,), (2,), (3,), (4,), (5,), (0, 9)])
@pytest.mark.parametrize("second", [None, Shape(1, 1, 0), Shape(1, 2, 0), Shape(3, 2, 1)], ids=str)
@pytest.mark.parametrize("direct", [False, True])
def test_gradients_of_all_readers_are_added(counts, second, direct):
    readers = [Reader(NEAR, counts)] + ([] if second is None else [Reader(second, (1, 0, 2))])
    Unit(Case(readers=tuple(readers), direct=direct)).check()
    Unit(Case(readers=tuple(readers), direct=True, residual=True)).check()


@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1), Shape(1, 1, 0), Shape(7, 2, 3)], ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_constant_channels_are_read_as_if_they_were_stored(shape, residual):
    """Their memory holds NaN."""
    Unit(Case(shape, (1, 2, 3, 6, 6, 0), constant=(0, 1, 3, 5), residual=residual, direct=residual)).check()


@pytest.mark.parametrize("everything", [False, True])
def test_a_channel_without_nonzeros_becomes_a_constant(everything):
    unit = Unit(Case(nonzeros=(0, 2, 0), everything=everything))
    unit.check()
    assert unit.kind.tolist() == [k.CONSTANT, k.STORED, k.CONSTANT]
    assert unit.y[unit.kind == k.CONSTANT].isnan().all()


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
    unit.check()
    assert unit.kind.tolist() == [k.ABSENT] * 4 + [k.STORED, k.CONSTANT]
    assert (unit.gradients["bias_gradient"][:4] == 0).all()
    everything = Unit(replace(case, everything=True))
    everything.check()
    assert everything.kind.tolist() == [k.STORED] * 5 + [k.CONSTANT]
    assert (everything.dz[:4] == 0).all()


@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1)], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("parts", [1, 2, 6])
def test_sketches_sum_the_gradient_with_signs_over_all_channels(shape, probes, parts):
    """Channels without non-zeros count, and so does a part that nothing reads."""
    for readers in ((Reader(),), (Reader(NEAR, (0, 0, 0, 1, 1, 1)),)):
        for z in ("found", "given"):
            Unit(Case(shape, z=z, probes=probes, parts=parts, readers=readers)).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("end", ["ReLU", "no activation", "residual and ReLU", "residual alone"])
def test_planes_that_are_written_past_the_caches_equal_autograd(end, dtype):
    Unit(Case(Shape(1, 1, 0), (1, 2), 2, 28, 29, 128, dtype=dtype, **ENDS[end])).check()


@pytest.mark.parametrize("mean", [1e3, -1e3])
def test_the_variance_of_a_channel_far_from_zero_is_exact(mean):
    """Its mean is 1000 standard deviations: single precision would lose the variance of plain sums of squares."""
    unit = Unit(Case(Shape(1, 1, 0), (1, 4), 4, 32, 32, 16, dtype=torch.float32))
    unit.x += mean
    found, expected = unit.run(), unit.expected()
    torch.testing.assert_close(found["inverse_deviation"].double(), expected["inverse_deviation"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("at", ["x", "dz"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("nonzeros", [(1, 2, 0), (4, 9, 0)], ids=["few", "many"])
@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1)], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize("residual", [False, True])
def test_nan_goes_where_it_is_read_and_nowhere_else(at, value, nonzeros, shape, residual):
    unit = Unit(Case(shape, nonzeros, inputs=1, readers=(Reader(NEAR, (54,)),), residual=residual, batch=3))
    (unit.x if at == "x" else unit.readers[0][1])[0, :, :, 1] = value
    found = unit.run()
    dead = 2
    assert found["y"][:dead].isnan().all() == (at == "x")
    assert found["y"][dead].isfinite().all()
    for name in ("dz", "weight_gradient", "value_gradient"):
        assert not found[name].isfinite().flatten()[0], name
    assert not found["value_gradient"].isfinite().any()


# Products with sketches


def correlate(x, sketches, bound, kind=None, constants=None):
    """What the kernel finds: (in, probes, taps)."""
    parts, probes = sketches.shape[:2]
    planes = k.Planes(*map(k.address, (x, kind, constants)))

    products = torch.full((len(x), probes, bound.geometry.kernel**2), UNSET, dtype=torch.float64)
    summed = sketches.clone()
    arguments = k.Correlate(bound.geometry, planes, probes, parts, k.address(summed), k.address(products))
    k.KernelSet(x.dtype)("correlate", arguments)
    return {"products": products}


def check_correlate(
    shape, probes=1, parts=1, height=6, width=5, batch=5, constant=False, dtype=torch.float64, threads=1
):
    draw = generator(0, "correlate")
    bound = Bound(MaskedConv2d(3, 4, shape.kernel, stride=shape.stride, padding=shape.padding), (height, width), batch)
    x = torch.randn(3, height, width, batch, generator=draw, dtype=torch.float64).to(dtype)
    sketches = torch.randn(parts, probes, *bound.out_size, batch, generator=draw, dtype=torch.float64).to(dtype)
    kind, constants = torch.tensor([0, int(constant), 0], dtype=torch.uint8), torch.full((3,), UNSET, dtype=dtype)
    data = x.clone()
    if constant:
        constants[1], x[1], data[1] = 0.7, 0.7, UNSET

    def run():
        return correlate(data, sketches, bound, kind, constants)

    found = run()
    size = (probes, 3, shape.kernel, shape.kernel)
    weight = torch.nn.grad.conv2d_weight(
        images_of(x), size, images_of(sketches.sum(0)), stride=shape.stride, padding=shape.padding
    )
    agree(found["products"], weight.transpose(0, 1).flatten(2), dtype, "products")
    if threads == 2:
        check_two_threads(run, found)


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_products_with_sketches_are_the_dense_gradient_times_the_signs(kernel, stride):
    for padding in {0, kernel // 2, kernel - 1}:
        for batch in (1, 5, 128):
            check_correlate(Shape(kernel, stride, padding), height=8, width=9, batch=batch)


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("parts", [1, 2, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_of_sketches_are_added(probes, parts, dtype):
    check_correlate(NEAR, probes, parts, height=9, width=33, batch=32, dtype=dtype, threads=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 40])
@pytest.mark.parametrize("shape", [NEAR, Shape(3, 2, 1), Shape(1, 1, 0)], ids=str)
def test_products_with_constant_channels_and_of_every_width(shape, width, dtype):
    for height in (1, 2, 4):
        check_correlate(shape, 2, height=height, width=width, constant=True, dtype=dtype)


@pytest.mark.parametrize(("width", "batch"), [(15, 128), (16, 128), (17, 128), (25, 128), (9, 600), (6, 2000)])
def test_products_with_sketches_in_several_strips_of_columns(width, batch):
    check_correlate(NEAR, height=4, width=width, batch=batch, constant=True)


def test_a_nan_in_an_input_channel_is_a_nan_in_its_products():
    bound = Bound(MaskedConv2d(2, 1, 3, padding=1), (5, 5), 3)
    x, sketches = torch.ones(2, 5, 5, 3), torch.ones(1, 1, 5, 5, 3)
    x[1, 2, 2, 0] = UNSET
    assert correlate(x, sketches, bound)["products"].isnan().flatten(1).all(1).tolist() == [False, True]
