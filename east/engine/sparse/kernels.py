"""The compiled kernels as Python sees them: the structures that they take, and their names by type of number."""

import ctypes
from ctypes import Structure, c_double, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from east.engine.sparse.library import load_kernels

NO_ACTIVATION, RECTIFY_BY_OUTPUT, RECTIFY_BY_INPUT, DYNAMIC = range(4)
"""How the backward pass finds which way an activation went: `Activation` in kernels/backward.cpp."""

STORED, CONSTANT, ABSENT = range(3)
"""How a channel of an activation is kept: `Kind` in kernels/planes.h."""

_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


class Geometry(Structure):
    """Sizes of a convolution and of its batch."""

    _fields_ = [
        (name, c_int32)
        for name in (
            *("in_channels", "in_height", "in_width"),
            *("out_channels", "out_height", "out_width"),
            *("kernel", "stride", "padding", "batch"),
        )
    ]


class Lists(Structure):
    """The non-zeros of a convolution, grouped by output or by input channel."""

    _fields_ = [(name, c_void_p) for name in ("start", "channel", "tap", "value")]


class Planes(Structure):
    """An activation: its channels, and how each is kept."""

    _fields_ = [(name, c_void_p) for name in ("data", "kind", "constants")]


class Consumer(Structure):
    """A convolution that reads an activation, and the gradient at its output."""

    _fields_ = [("geometry", Geometry), ("by_input", Lists), ("values", c_void_p), ("dz", c_void_p)]


_UNIT = (
    ("geometry", Geometry),
    ("by_output", Lists),
    ("values", c_void_p),
    ("x", Planes),
    ("z", c_void_p),
    ("weight", c_void_p),
    ("bias", c_void_p),
)
"""What both passes through a unit begin with."""


class Forward(Structure):
    """The forward pass of a unit: kernels/forward.cpp."""

    _fields_ = [
        *_UNIT,
        ("running_mean", c_void_p),
        ("running_variance", c_void_p),
        ("epsilon", c_double),
        ("momentum", c_double),
        ("training", c_int32),
        ("rectify", c_int32),
        ("constants", c_int32),
        ("residual", c_void_p),
        ("wanted", c_void_p),
        ("mean", c_void_p),
        ("inverse_deviation", c_void_p),
        ("y", c_void_p),
        ("kind", c_void_p),
        ("constant", c_void_p),
        ("pooled", c_void_p),
    ]


class Backward(Structure):
    """The backward pass of a unit: kernels/backward.cpp."""

    _fields_ = [
        *_UNIT,
        ("mean", c_void_p),
        ("inverse_deviation", c_void_p),
        ("consumers", Consumer * 2),
        ("direct", c_void_p),
        ("activation", c_int32),
        ("y", c_void_p),
        ("coefficients", c_void_p),
        ("pooled", c_void_p),
        ("read", c_void_p),
        ("g", c_void_p),
        ("dz", c_void_p),
        ("dz_of_dead", c_int32),
        ("weight_gradient", c_void_p),
        ("bias_gradient", c_void_p),
        ("value_gradient", c_void_p),
        ("probes", c_int32),
        ("sketch_parts", c_int32),
        ("signs", c_void_p),
        ("sketches", c_void_p),
    ]


class Correlate(Structure):
    """Products of an input with sketches of the gradient at a convolution: kernels/correlate.cpp."""

    _fields_ = [
        ("geometry", Geometry),
        ("x", Planes),
        ("probes", c_int32),
        ("parts", c_int32),
        ("sketches", c_void_p),
        ("products", c_void_p),
    ]


class Convolve(Structure):
    """A convolution by itself: kernels/tiled.cpp."""

    _fields_ = [
        ("geometry", Geometry),
        ("by_output", Lists),
        ("values", c_void_p),
        ("x", c_void_p),
        ("z", c_void_p),
    ]


class InputGradient(Structure):
    """The gradient of a convolution with respect to its input: kernels/tiled.cpp."""

    _fields_ = [
        ("geometry", Geometry),
        ("by_input", Lists),
        ("values", c_void_p),
        ("dz", c_void_p),
        ("to", c_void_p),
        ("accumulate", c_int32),
    ]


class WeightGradient(Structure):
    """The gradient of a convolution's non-zeros: kernels/tiled.cpp."""

    _fields_ = [
        ("geometry", Geometry),
        ("by_output", Lists),
        ("x", c_void_p),
        ("dz", c_void_p),
        ("gradient", c_void_p),
    ]


class ToBatchInnermost(Structure):
    """Images into an activation: kernels/layout.cpp."""

    _fields_ = [
        ("from", c_void_p),
        ("to", c_void_p),
        *((name, c_int64) for name in ("batch", "channels", "positions", "image_stride", "channel_stride", "stride")),
    ]


class FromBatchInnermost(Structure):
    """An activation into images: kernels/layout.cpp."""

    _fields_ = [
        ("from", Planes),
        ("to", c_void_p),
        *((name, c_int64) for name in ("batch", "channels", "positions", "image_stride", "channel_stride", "stride")),
    ]


class MaxPoolForward(Structure):
    """A max-pool: kernels/max_pool.cpp."""

    _fields_ = [("geometry", Geometry), ("x", c_void_p), ("y", c_void_p)]


class MaxPoolBackward(Structure):
    """The gradient of a max-pool at its input: kernels/max_pool.cpp."""

    _fields_ = [("geometry", Geometry), ("x", c_void_p), ("dy", c_void_p), ("dx", c_void_p)]


class DyReLUApply(Structure):
    """A DyReLU with given coefficients: kernels/dyrelu.cpp."""

    _fields_ = [
        *((name, c_int64) for name in ("channels", "positions", "batch")),
        ("u", Planes),
        ("coefficients", c_void_p),
        ("y", c_void_p),
    ]


class DyReLUSums(Structure):
    """The gradient of a DyReLU's coefficients: kernels/dyrelu.cpp."""

    _fields_ = [
        *((name, c_int64) for name in ("channels", "positions", "batch")),
        ("u", Planes),
        ("coefficients", c_void_p),
        ("dy", c_void_p),
        ("gradient", c_void_p),
    ]


class KernelSet:
    """The kernels for one type of number.

    Args:
        dtype: float32 or float64.

    Raises:
        KernelsUnavailable: they cannot be compiled or loaded here.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._library = load_kernels().library
        self._suffix = _SUFFIX[dtype]

    def __call__(self, name: str, arguments: Structure) -> None:
        """Run the kernel `name` on its structure."""
        getattr(self._library, f"east_{name}_{self._suffix}")(ctypes.byref(arguments))


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous tensor's numbers begin; None for no tensor."""
    return None if tensor is None else tensor.data_ptr()
