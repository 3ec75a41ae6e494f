"""The kernels of one unit (convolution, batch norm, residual, activation) against autograd in double precision."""

from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F

from east.engine.sparse import kernels as k
from east.engine.sparse.index import NonzeroIndex
from east.seeding import generator
from east.sparse.active import ActiveWeights
from east.sparse.layers import MaskedConv2d

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
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
        group.view(-1) if group.is_contiguous() else None
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
        self.pooled = random(outputs, case.batch)
        self.signs = 2.0 * torch.randint(2, (max(case.probes, 1), outputs), generator=draw).to(case.dtype) - 1

    @property
    def read(self):
        """Which output channels any gradient reaches."""
        if self.direct is not None:
            return torch.ones(len(self.case.nonzeros), dtype=torch.uint8)
        return torch.stack([bound.index.by_input.occupied for bound, _ in self.readers]).amax(0)

    def expected(self):
        """What autograd finds."""
        case, conv = self.case, self.bound.conv
        weight = conv.weight.detach().double().requires_grad_()
        gamma, beta = (tensor.double().requires_grad_() for tensor in (self.gamma, self.beta))
        running_mean, running_variance = (tensor.double() for tensor in (self.running_mean, self.running_variance))
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
        """What the kernels find with one thread; two must find the same to the last bit."""
        before = torch.get_num_threads()
        found = []
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found.append(self._run())
        finally:
            torch.set_num_threads(before)
        for name, tensor in found[0].items():
            torch.testing.assert_close(found[1][name], tensor, rtol=0, atol=0, equal_nan=True)
        return found[0]

    def _run(self):
        self._forward()
        found = {
            "y": torch.where((self.kind == k.CONSTANT)[:, None, None, None], self.constant[:, None, None, None], self.y),
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
        self.data = self.x.masked_fill((self.x_kind == k.CONSTANT)[:, None, None, None], UNSET)
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
            constants=int(not case.direct and case.activation != "dynamic"),
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
        self.dz = self.y.clone()
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
            y=k.address(self.y.clone() if case.activation == "dynamic" else self.dz),
            coefficients=k.address(self.coefficients),
            pooled=k.address(self.pooled),
            read=None if case.direct else k.address(self.reads),
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
        """Compare everything that the case defines."""
        case, found, expected = self.case, self.run(), self.expected()
        live, read = self.bound.index.by_output.occupied.bool(), self.read.bool()
        stored = self.kind != k.ABSENT
        assert torch.equal(~stored, torch.zeros_like(live) if case.everything else live & ~read)
        agree(found["y"][stored], expected["y"][stored], case.dtype, "y")
        assert self.y[~stored].isnan().all()
        names = ["running_mean", "running_variance"]
        if case.activation == "dynamic":
            names.append("pooled")
        if case.training:
            names += ["mean", "inverse_deviation", "weight_gradient", "bias_gradient"]
            names += ["value_gradient"] * (case.z == "found") + ["sketch"] * (case.probes > 0)
            wanted = torch.ones_like(read) if case.everything else live & read
            agree(found["dz"][wanted], expected["dz"][wanted], case.dtype, "dz")
            if case.residual:
                agree(found["g"][read], expected["g"][read], case.dtype, "g")
        for name in names:
            agree(found[name], expected[name], case.dtype, name)


def agree(found, expected, dtype, name):
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol=TOLERANCE[dtype] * scale, msg=lambda text: f"{name}: {text}"
    )
