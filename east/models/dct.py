"""DCTpS layers: a fixed DCT matrix, times a trainable scalar, plus a sparse trainable weight (Price & Tanner, 2021)."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from east.sparse.exact import cos_pi
from east.sparse.layers import MaskedConv2d, MaskedLinear


def dct_matrix(rows: int, columns: int) -> Tensor:
    """The orthonormal DCT-II of size N = max(rows, columns), cut to its first rows and columns.

    Element (o, q) is c_o cos(pi o (2 q + 1) / (2 N)), with c_0 = sqrt(1 / N) and c_o = sqrt(2 / N) otherwise.
    """
    size = max(rows, columns)
    frequency = torch.arange(rows)[:, None]
    position = torch.arange(columns)[None, :]
    # The angle is a whole number of steps of π / (2 N), and the cosine repeats after 4 N of them.
    matrix = torch.tensor(_cosines(size), dtype=torch.float64)[frequency * (2 * position + 1) % (4 * size)]
    scale = torch.full((rows, 1), math.sqrt(2 / size), dtype=torch.float64)
    scale[0] = math.sqrt(1 / size)
    return (scale * matrix).to(torch.get_default_dtype())


@lru_cache(maxsize=32)
def _cosines(size: int) -> tuple[float, ...]:
    """cos(π k / (2 N)) for k = 0 .. 4 N - 1, correctly rounded."""
    quarter = [cos_pi(Fraction(k, 2 * size)) for k in range(size + 1)]
    half = [*quarter, *(-cosine for cosine in reversed(quarter[:-1]))]
    return (*half, *reversed(half[1:-1]))


def dct_kernel(out_channels: int, in_channels: int, kernel_size: int) -> Tensor:
    """The DCT matrix over patches, as a convolution weight (out_channels, in_channels, kernel_size, kernel_size).

    A patch is read in the order (kernel row, kernel column, input channel).
    """
    matrix = dct_matrix(out_channels, kernel_size * kernel_size * in_channels)
    return matrix.view(out_channels, kernel_size, kernel_size, in_channels).permute(0, 3, 1, 2).contiguous()


class Fixed(nn.Module):
    """A linear operation by a weight that is neither trained nor stored."""

    weight: Tensor

    def __init__(self, weight: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._operation = operation
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the weight to x."""
        return self._operation(x, self.weight)


class DCTConv2d(nn.Module):
    """A convolution with weight alpha * D + S: D the fixed DCT, S sparse and initially zero, alpha a trained scalar.

    Attributes:
        fused: execute one convolution of the sum; otherwise two in parallel, as in the published implementation.
    """

    fused: bool = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.sparse = MaskedConv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        nn.init.zeros_(self.sparse.weight)
        convolve = partial(F.conv2d, stride=stride, padding=padding)
        self.dct = Fixed(dct_kernel(out_channels, in_channels, kernel_size), convolve)
        self.alpha = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, C, H, W)."""
        if self.fused:
            return self._convolve(x, self.alpha * self.dct.weight + self.sparse.weight)
        parallel: Tensor = self.sparse(x) + self.alpha * self.dct(x)
        return parallel

    def reuse(self, x: Tensor, scale: Tensor, alpha: Tensor) -> Tensor:
        """Apply this layer elsewhere in the network, with that place's scale for S and alpha for D."""
        return self._convolve(x, alpha * self.dct.weight + scale * self.sparse.weight)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, self.sparse.stride, self.sparse.padding)


class DCTLinear(nn.Module):
    """A linear layer with weight alpha * D + S, as in `DCTConv2d`, and a bias."""

    fused: bool = True

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.sparse = MaskedLinear(in_features, out_features, bias=bias)
        nn.init.zeros_(self.sparse.weight)
        self.dct = Fixed(dct_matrix(out_features, in_features), F.linear)
        self.alpha = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x (N, in_features)."""
        if self.fused:
            return F.linear(x, self.alpha * self.dct.weight + self.sparse.weight, self.sparse.bias)
        parallel: Tensor = self.sparse(x) + self.alpha * self.dct(x)
        return parallel

    def reuse(self, x: Tensor, scale: Tensor, alpha: Tensor) -> Tensor:
        """Apply this layer elsewhere in the network, with that place's scale for S and alpha for D."""
        return F.linear(x, alpha * self.dct.weight + scale * self.sparse.weight, self.sparse.bias)


def set_fused(model: nn.Module, fused: bool) -> None:
    """Choose how every DCT layer executes: one layer with the summed weight, or two in parallel."""
    for module in model.modules():
        if isinstance(module, DCTConv2d | DCTLinear):
            module.fused = fused


def has_dct(model: nn.Module) -> bool:
    """Whether any layer of a network has a dense part."""
    return any(isinstance(module, DCTConv2d | DCTLinear) for module in model.modules())
