"""The compiled kernels as Python sees them: the structures that they take, and their names by type of number."""

import ctypes
from ctypes import Structure, c_double, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from east.engine.cpu.library import load_kernels
from east.engine.graph.index import Grouped

NO_ACTIVATION, RECTIFY_BY_OUTPUT, RECTIFY_BY_INPUT, DYNAMIC = range(4)
"""How the backward pass finds which way an activation went: `Activation` in kernels/backward.cpp."""

STORED, CONSTANT, ABSENT = range(3)
"""How a channel of an activation is kept: `Kind` in kernels/planes.h."""

LANES = 32
"""Images of a group: `lanes` in kernels/arithmetic.h."""

FEW = 3
"""Non-zeros of an output channel up to which a unit finds their gradients by itself: `few` in kernels/planes.h."""

SKETCH_CHANNELS = 8
"""Channels over which a sketch is summed at a time: `sketch_channels` in kernels/planes.h."""

_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def _sizes(*names: str) -> list[tuple[str, type[c_int64]]]:
    return [(name, c_int64) for name in names]


def _flags(*names: str) -> list[tuple[str, type[c_int32]]]:
    return [(name, c_int32) for name in names]


def _numbers(*names: str) -> list[tuple[str, type[c_double]]]:
    return [(name, c_double) for name in names]


def _addresses(*names: str) -> list[tuple[str, type[c_void_p]]]:
    return [(name, c_void_p) for name in names]


def plane_stride(groups: int, height: int, width: int) -> int:
    """Numbers from one channel of an activation to the next: `plane_stride` in kernels/planes.h."""
    return groups * height * width * LANES + (5 * LANES if height * width > 1 else 0)


def groups_of(images: int) -> int:
    """Groups of 32 that a batch makes; the last one may be partly empty."""
    return -(-images // LANES)


class Geometry(Structure):
    """Sizes of a convolution and of its batch."""

    _fields_ = [
        *_flags("in_channels", "in_height", "in_width", "out_channels", "out_height", "out_width"),
        *_flags("kernel", "stride", "padding", "batch"),
    ]


class Lists(Structure):
    """The non-zeros of a convolution, grouped by output or by input channel."""

    _fields_ = _addresses("start", "channel", "tap", "value")

    @classmethod
    def of(cls, nonzeros: Grouped) -> "Lists":
        """The addresses of the four lists; valid as long as they live."""
        return cls(*map(address, (nonzeros.start, nonzeros.channel, nonzeros.tap, nonzeros.place)))


class Planes(Structure):
    """An activation: its channels, and how each is kept."""

    _fields_ = _addresses("data", "kind", "constants")


class Reader(Structure):
    """A convolution that reads an activation, and the gradient at its output: `Consumer` in kernels/backward.cpp."""

    _fields_ = [("geometry", Geometry), ("by_input", Lists), *_addresses("values", "dz")]


_UNIT = (("geometry", Geometry), ("by_output", Lists), ("values", c_void_p), ("x", Planes), ("z", c_void_p))
"""What both passes through a unit begin with."""


class Forward(Structure):
    """The forward pass of a unit: kernels/forward.cpp."""

    _fields_ = [
        *_UNIT,
        *_addresses("weight", "bias", "running_mean", "running_variance"),
        *_numbers("epsilon", "momentum"),
        *_flags("training", "rectify", "constants"),
        *_addresses("residual", "wanted", "normalization", "y", "kind", "constant", "pooled"),
    ]


class Means(Structure):
    """Means of an activation over positions: kernels/forward.cpp."""

    _fields_ = [*_sizes("channels", "height", "width", "batch"), ("x", Planes), ("means", c_void_p)]


class Backward(Structure):
    """The backward pass of a unit: kernels/backward.cpp."""

    _fields_ = [
        *_UNIT,
        *_addresses("normalization"),
        ("consumers", Reader * 2),
        *_addresses("direct"),
        *_flags("activation"),
        *_addresses("y", "coefficients", "pooled", "read", "g", "dz"),
        *_flags("dz_of_dead"),
        *_addresses("weight_gradient", "bias_gradient", "value_gradient"),
        *_flags("probes"),
        *_addresses("signs", "sketches"),
    ]


class Correlate(Structure):
    """Products of an input with sketches of the gradient at a convolution: kernels/correlate.cpp."""

    _fields_ = [
        ("geometry", Geometry),
        ("x", Planes),
        *_flags("probes", "parts"),
        *_addresses("sketches", "products"),
    ]


class Project(Structure):
    """Sketches of a gradient: kernels/correlate.cpp."""

    _fields_ = [*_sizes("channels", "numbers", "probes"), *_addresses("dz", "signs", "sketches")]


class Convolve(Structure):
    """A convolution by itself: kernels/rows.cpp."""

    _fields_ = [("geometry", Geometry), ("by_output", Lists), *_addresses("values", "x", "z")]


class InputGradient(Structure):
    """The gradient of a convolution with respect to its input: kernels/rows.cpp."""

    _fields_ = [
        ("geometry", Geometry),
        ("by_input", Lists),
        *_addresses("values", "dz", "to"),
        *_flags("accumulate"),
    ]


class WeightGradient(Structure):
    """The gradient of a convolution's non-zeros: kernels/rows.cpp."""

    _fields_ = [
        ("geometry", Geometry),
        ("by_output", Lists),
        ("x", Planes),
        *_addresses("dz", "gradient"),
        *_flags("least"),
        *_addresses("read"),
    ]


class DenseGradient(Structure):
    """The gradient of all weights of a convolution: kernels/dense_gradient.cpp."""

    _fields_ = [("geometry", Geometry), ("x", Planes), *_addresses("dz", "gradient")]


class TakeImages(Structure):
    """Images into an activation: kernels/layout.cpp."""

    _fields_ = [
        *_addresses("from", "to"),
        *_sizes("batch", "channels", "height", "width", "image_stride", "channel_stride", "position_stride"),
    ]


class MaxPoolForward(Structure):
    """A max-pool: kernels/max_pool.cpp."""

    _fields_ = [("geometry", Geometry), *_addresses("x", "y")]


class MaxPoolBackward(Structure):
    """The gradient of a max-pool at its input: kernels/max_pool.cpp."""

    _fields_ = [("geometry", Geometry), *_addresses("x", "dy", "dx")]


class Linear(Structure):
    """A dense linear layer: kernels/linear.cpp."""

    _fields_ = [
        *_sizes("inputs", "outputs", "batch"),
        *_addresses("weight", "bias", "x", "y"),
        *_flags("rectify"),
    ]


class LinearBackward(Structure):
    """The gradients of a dense linear layer: kernels/linear.cpp."""

    _fields_ = [
        *_sizes("inputs", "outputs", "batch"),
        *_addresses("weight", "x", "y", "dy", "dx", "weight_gradient", "bias_gradient"),
    ]


class Coefficients(Structure):
    """The coefficients of a DyReLU: kernels/dyrelu.cpp."""

    _fields_ = [*_sizes("channels", "batch"), *_numbers("beta"), *_addresses("code", "coefficients")]


class CoefficientsBackward(Structure):
    """From the gradient at the coefficients of a DyReLU to that at its linear layers: kernels/dyrelu.cpp."""

    _fields_ = [*_sizes("channels", "batch"), *_numbers("beta"), *_addresses("code", "gradient")]


class DyReLUApply(Structure):
    """A DyReLU with given coefficients: kernels/dyrelu.cpp."""

    _fields_ = [*_sizes("channels", "height", "width", "batch"), ("u", Planes), *_addresses("coefficients", "y")]


class DyReLUSums(Structure):
    """The gradient of a DyReLU's coefficients: kernels/dyrelu.cpp."""

    _fields_ = [
        *_sizes("channels", "height", "width", "batch"),
        ("u", Planes),
        *_addresses("coefficients", "dy", "gradient"),
    ]


class CrossEntropyLoss(Structure):
    """The loss of a batch and its gradient at the logits: kernels/loss.cpp."""

    _fields_ = [*_sizes("classes", "batch"), *_addresses("logits", "labels", "loss", "gradient")]


class Vectors(Structure):
    """Several vectors, each by its address and length: kernels/vectors.cpp."""

    _fields_ = [*_sizes("count"), *_addresses("at", "lengths")]


class SumOfSquares(Structure):
    """The sums of squares of several vectors: kernels/vectors.cpp."""

    _fields_ = [("vectors", Vectors), *_addresses("sums")]


class Dot(Structure):
    """The sum of products of two vectors: kernels/vectors.cpp."""

    _fields_ = [*_sizes("length"), *_addresses("left", "right", "sum")]


class ProbeSquares(Structure):
    """The squared norms of projections, probe by probe: kernels/vectors.cpp."""

    _fields_ = [*_sizes("rows", "probes", "columns"), *_addresses("products", "sums")]


class Sgd(Structure):
    """A step of SGD: kernels/vectors.cpp."""

    _fields_ = [
        ("values", Vectors),
        *_addresses("gradients", "momenta"),
        *_numbers("lr", "momentum", "weight_decay"),
        *_flags("nesterov"),
    ]


class Adam(Structure):
    """A step of Adam: kernels/vectors.cpp."""

    _fields_ = [
        ("values", Vectors),
        *_addresses("gradients", "means", "mean_squares"),
        *_numbers("mean_decay", "square_decay", "weight_decay", "epsilon", "step", "square_factor"),
    ]


class KernelSet:
    """The kernels for one type of number.

    Args:
        dtype: float32 or float64.

    Raises:
        KernelsUnavailable: they cannot be compiled or loaded here.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._library = load_kernels().library
        self._suffix = _SUFFIX[dtype]

    def __call__(self, name: str, arguments: Structure) -> None:
        """Run the kernel `name` on its structure."""
        getattr(self._library, f"east_{name}_{self._suffix}")(ctypes.byref(arguments))


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous tensor's numbers begin; None for no tensor."""
    return None if tensor is None else tensor.data_ptr()
