"""The compiled kernels as Python sees them: the structures that they take, and their names by type of number."""

import ctypes
from ctypes import Structure, c_double, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from east.engine.cpu.library import load_kernels
from east.engine.graph.index import Grouped

NO_ACTIVATION, RECTIFY_BY_OUTPUT, RECTIFY_BY_INPUT, DYNAMIC = range(4)
"""How the backward pass finds which way an activation went: `Activation` in kernels/normalization.h."""

STORED, CONSTANT, ABSENT = range(3)
"""How a channel of an activation is kept: `Kind` in kernels/planes.h."""

LANES = 32
"""Images of a group: `lanes` in kernels/arithmetic.h."""

FEW = 3
"""Non-zeros of an output channel up to which their gradients are found from other sums: `few` in kernels/planes.h."""

SLOPE_NUMBERS = 3
"""Doubles of a `Slope` in kernels/normalization.h."""

SKETCH_CHANNELS = 8
"""Channels over which a sketch is summed at a time: `sketch_channels` in kernels/planes.h."""

_SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}

_OF_ACTIVATIONS = {"forward", "backward", "convolve", "backward_rows", "normalize", "convolution_gradient"}
_OF_ACTIVATIONS |= {"means", "dense_gradient", "correlate", "take_images", "max_pool_forward", "max_pool_backward"}
_OF_ACTIVATIONS |= {"dyrelu_apply", "dyrelu_sums"}
"""Kernels that read or write activations or gradients at them: those of EAST_KERNEL in the sources."""


_TYPES: dict[str, Any] = {"int32": c_int32, "int64": c_int64, "double": c_double, "pointer": c_void_p}


def plane_stride(groups: int, height: int, width: int) -> int:
    """Numbers from one channel of an activation to the next: `plane_stride` in kernels/planes.h."""
    return groups * height * width * LANES + (5 * LANES if height * width > 1 else 0)


def groups_of(images: int) -> int:
    """Groups of 32 that a batch makes; the last one may be partly empty."""
    return -(-images // LANES)


class KernelArguments(Structure):
    """What a kernel takes: a tensor by the address of its first number, so it must live as long as this is used.

    Fields without a value are zero.
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*map(_as_argument, values), **{name: _as_argument(value) for name, value in named.items()})


def _as_argument(value: Any) -> Any:
    return address(value) if isinstance(value, Tensor) else value


def _fields(declaration: str) -> list[tuple[str, Any]]:
    """The fields of a structure, each type before the names that have it: `int64 rows columns; pointer x`."""
    parts = (part.split() for part in declaration.split(";"))
    return [(name, _TYPES[kind]) for kind, *names in parts for name in names]


class Geometry(KernelArguments):
    """Sizes of a convolution and of its batch."""

    _fields_ = _fields(
        "int32 in_channels in_height in_width out_channels out_height out_width kernel stride padding batch"
    )


class Lists(KernelArguments):
    """The non-zeros of a convolution, grouped by output or by input channel."""

    _fields_ = _fields("pointer start channel tap value")

    @classmethod
    def of(cls, nonzeros: Grouped) -> "Lists":
        """The addresses of the four lists; valid as long as they live."""
        return cls(nonzeros.start, nonzeros.channel, nonzeros.tap, nonzeros.place)


class Planes(KernelArguments):
    """An activation: its channels, and how each is kept."""

    _fields_ = _fields("pointer data kind constants")


class BatchNorm(KernelArguments):
    """The batch norm of a unit: kernels/normalization.h."""

    _fields_ = _fields(
        "pointer weight bias running_mean running_variance normalization; double epsilon momentum; int32 training"
    )


class Normalized(KernelArguments):
    """The output of a convolution with the batch norm behind it: kernels/rows.h."""

    _fields_ = _fields("pointer z norm start")


_TYPES |= {"Geometry": Geometry, "Lists": Lists, "Planes": Planes, "BatchNorm": BatchNorm, "Normalized": Normalized}


class RowSource(KernelArguments):
    """An activation that is read row by row: kernels/rows.h."""

    _fields_ = _fields("pointer y; Normalized of; pointer residual; Normalized residual_of; int32 rectify keep")


class AtConvolution(KernelArguments):
    """The gradient at the output of a convolution: kernels/backward_rows.h."""

    _fields_ = _fields("pointer dz g z norm slopes")


class Producer(KernelArguments):
    """The unit that wrote the input of another one, which finishes the gradient there: kernels/backward_rows.h."""

    _fields_ = _fields("pointer z norm start read weight_gradient bias_gradient slopes; int32 activation")


_TYPES |= {"RowSource": RowSource, "AtConvolution": AtConvolution, "Producer": Producer}


class Reader(KernelArguments):
    """A convolution that reads an activation, and the gradient at its output: `Consumer` in kernels/backward.cpp."""

    _fields_ = _fields("Geometry geometry; Lists by_input; pointer values dz")


_TYPES["readers"] = Reader * 2


class Forward(KernelArguments):
    """The forward pass of a unit: kernels/forward.cpp."""

    _fields_ = _fields(
        "Geometry geometry; Lists by_output; pointer values; Planes x; BatchNorm norm;"
        "int32 rectify constants; pointer residual wanted y kind constant pooled"
    )


class Backward(KernelArguments):
    """The backward pass of a unit: kernels/backward.cpp."""

    _fields_ = _fields(
        "Geometry geometry; Lists by_output; pointer values; Planes x; pointer z normalization;"
        "readers consumers; pointer direct; int32 activation; pointer y coefficients pooled read g dz;"
        "int32 dz_of_dead; pointer weight_gradient bias_gradient value_gradient slopes;"
        "int32 probes; pointer signs sketches"
    )


def _declare(name: str, declaration: str) -> type[KernelArguments]:
    return type(name, (KernelArguments,), {"_fields_": _fields(declaration)})


Means = _declare("Means", "int64 channels height width batch; Planes x; pointer means")
"""Means of an activation over positions: kernels/forward.cpp."""

Correlate = _declare("Correlate", "Geometry geometry; Planes x; int32 probes parts; pointer sketches products")
"""Products of an input with sketches of the gradient at a convolution: kernels/correlate.cpp."""

Project = _declare("Project", "int64 channels numbers probes; pointer dz signs sketches")
"""Sketches of a gradient: kernels/correlate.cpp."""

Convolve = _declare(
    "Convolve", "Geometry geometry; Lists by_output; pointer values; RowSource x; pointer z wanted; BatchNorm norm"
)
"""A convolution by itself, with batch norm's statistics: kernels/convolve.cpp."""

BackwardRows = _declare(
    "BackwardRows",
    "Geometry geometry; Lists by_output by_input; pointer values; RowSource x; AtConvolution gradient;"
    "pointer to; int32 accumulate; Producer producer; pointer value_gradient; int32 few;"
    "int32 probes; pointer signs products",
)
"""The backward pass through a convolution: kernels/backward_rows.h."""

Normalize = _declare("Normalize", "int64 channels height width batch; RowSource source; pointer wanted means")
"""The output of a unit, from that of its convolution: kernels/normalize.cpp."""

ConvolutionGradient = _declare(
    "ConvolutionGradient", "int64 channels height width batch; pointer g; Normalized of; pointer slopes dz"
)
"""The gradient at a convolution, from that before the activation: kernels/normalize.cpp."""

DenseGradient = _declare("DenseGradient", "Geometry geometry; Planes x; pointer dz gradient")
"""The gradient of all weights of a convolution: kernels/dense_gradient.cpp."""

TakeImages = _declare(
    "TakeImages",
    "pointer from to; int64 batch channels height width image_stride channel_stride position_stride",
)
"""Images into an activation: kernels/layout.cpp."""

MaxPoolForward = _declare("MaxPoolForward", "Geometry geometry; pointer x y")
"""A max-pool: kernels/max_pool.cpp."""

MaxPoolBackward = _declare("MaxPoolBackward", "Geometry geometry; pointer x dy dx")
"""The gradient of a max-pool at its input: kernels/max_pool.cpp."""

Linear = _declare("Linear", "int64 inputs outputs batch; pointer weight bias x y; int32 rectify")
"""A dense linear layer: kernels/linear.cpp."""

LinearBackward = _declare(
    "LinearBackward", "int64 inputs outputs batch; pointer weight x y dy dx weight_gradient bias_gradient"
)
"""The gradients of a dense linear layer: kernels/linear.cpp."""

Coefficients = _declare("Coefficients", "int64 channels batch; double beta; pointer code coefficients")
"""The coefficients of a DyReLU: kernels/dyrelu.cpp."""

CoefficientsBackward = _declare("CoefficientsBackward", "int64 channels batch; double beta; pointer code gradient")
"""From the gradient at the coefficients of a DyReLU to that at its linear layers: kernels/dyrelu.cpp."""

DyReLUApply = _declare("DyReLUApply", "int64 channels height width batch; Planes u; pointer coefficients y")
"""A DyReLU with given coefficients: kernels/dyrelu.cpp."""

DyReLUSums = _declare("DyReLUSums", "int64 channels height width batch; Planes u; pointer coefficients dy gradient")
"""The gradient of a DyReLU's coefficients: kernels/dyrelu.cpp."""

CrossEntropyLoss = _declare("CrossEntropyLoss", "int64 classes batch; pointer logits labels loss gradient")
"""The loss of a batch and its gradient at the logits: kernels/loss.cpp."""

Vectors = _declare("Vectors", "int64 count; pointer at lengths")
"""Several vectors, each by its address and length: kernels/vectors.cpp, like all that follow."""

_TYPES["Vectors"] = Vectors

SumOfSquares = _declare("SumOfSquares", "Vectors vectors; pointer sums")
"""The sums of squares of several vectors."""

Dot = _declare("Dot", "int64 length; pointer left right sum")
"""The sum of products of two vectors."""

ProbeSquares = _declare("ProbeSquares", "int64 rows probes columns; pointer products sums")
"""The squared norms of projections, probe by probe."""

SgdStep = _declare(
    "SgdStep", "Vectors values; pointer gradients momenta; double lr momentum weight_decay; int32 nesterov"
)
"""A step of SGD."""

AdamStep = _declare(
    "AdamStep",
    "Vectors values; pointer gradients means mean_squares;"
    "double mean_decay square_decay weight_decay epsilon step square_factor shrink",
)
"""A step of Adam, or of AdamW where weights shrink by themselves."""


def value_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of number that activations of a type are computed with: `Value` in kernels/arithmetic.h."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


class KernelSet:
    """The kernels for one type of number.

    Args:
        dtype: float32 or float64; or bfloat16, in which activations and the gradients at them are kept, while all is
            computed in float32.

    Raises:
        KernelsUnavailable: they cannot be compiled or loaded here.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        kernels = load_kernels()
        self._library = kernels.library
        self._own_threads = kernels.toolchain.openmp is None
        self._suffix, self._of_values = _SUFFIX[dtype], _SUFFIX[value_dtype(dtype)]

    @property
    def of_values(self) -> "KernelSet":
        """The kernels for what is computed."""
        return self if self._suffix == self._of_values else KernelSet(value_dtype(self.dtype))

    def function(self, name: str) -> str:
        """The name of a kernel with the type of number that it takes."""
        return f"{name}_{self._suffix if name in _OF_ACTIVATIONS else self._of_values}"

    def __call__(self, name: str, arguments: Structure) -> None:
        """Run the kernel `name` on its structure."""
        if self._own_threads:
            self._library.east_use_threads(torch.get_num_threads())
        getattr(self._library, f"east_{self.function(name)}")(ctypes.byref(arguments))


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous tensor's numbers begin; None for no tensor."""
    return None if tensor is None else tensor.data_ptr()
