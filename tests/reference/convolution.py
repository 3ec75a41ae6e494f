"""A sparse convolution: forward, its gradient at the input, and all that is summed against the input for its weights.

Weights are (out, in, kernel, kernel), and a classifier's have a kernel of size 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.reference.rounding import fma
from tests.reference.sums import Floats


@dataclass(frozen=True)
class Window:
    """Where a kernel's weight meets the input: rows and columns of the output, and those of the input."""

    output: tuple[slice, slice]
    input: tuple[slice, slice]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution.

    Args:
        kernel, stride, padding: numbers of positions.
        height, width: of the input.
    """

    kernel: int
    stride: int
    padding: int
    height: int
    width: int

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the output."""
        return self._size(self.height), self._size(self.width)

    def window(self, row: int, column: int) -> Window:
        """The output positions for which a weight of the kernel lies within the image, and what it meets there."""
        out_rows, in_rows = self._span(row, self.height)
        out_columns, in_columns = self._span(column, self.width)
        return Window((out_rows, out_columns), (in_rows, in_columns))

    def met(self, x: Floats, row: int, column: int) -> tuple[Floats, NDArray[np.bool_]]:
        """What a weight of the kernel meets at every output position, and whether it lies within the image."""
        window = self.window(row, column)
        found = np.zeros((*x.shape[:-3], *self.output, x.shape[-1]), np.float32)
        inside = np.zeros(self.output, bool)
        found[..., *window.output, :] = x[..., *window.input, :]
        inside[window.output] = True
        return found, inside

    def _size(self, size: int) -> int:
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def _span(self, offset: int, size: int) -> tuple[slice, slice]:
        outputs = [i for i in range(self._size(size)) if 0 <= i * self.stride + offset - self.padding < size]
        if not outputs:
            return slice(0, 0), slice(0, 0)
        start = outputs[0] * self.stride + offset - self.padding
        return slice(outputs[0], outputs[-1] + 1), slice(start, start + self.stride * len(outputs), self.stride)


def convolution(x: Floats, weight: Floats, mask: NDArray[np.bool_], geometry: Geometry) -> Floats:
    """z (out, groups, H, W, 32) of x (in, groups, H, W, 32)."""
    z = np.zeros((len(weight), x.shape[1], *geometry.output, x.shape[-1]), np.float32)
    for o, i, row, column in np.argwhere(mask):
        window = geometry.window(row, column)
        out = z[o][:, *window.output]
        out[...] = fma(weight[o, i, row, column], x[i][:, *window.input], out)
    return z


def add_gradient_at_input(g: Floats, dz: Floats, weight: Floats, mask: NDArray[np.bool_], geometry: Geometry) -> Floats:
    """G with the gradients added that reach the input of a convolution from dz at its output."""
    g = g.copy()
    for i, o, row, column in np.argwhere(mask.transpose(1, 0, 2, 3)):
        window = geometry.window(row, column)
        to = g[i][:, *window.input]
        to[...] = fma(weight[o, i, row, column], dz[o][:, *window.output], to)
    return g
