"""Gradients of weights: of the non-zeros, of all weights, and of random projections."""

import numpy as np
from numpy.typing import NDArray

from tests.reference.convolution import Geometry
from tests.reference.normalization import Slope
from tests.reference.rounding import fma
from tests.reference.sums import Doubles, Floats, plane_sum

FEW = 3
"""Non-zeros of an output channel up to which their gradients come from sums that need no gradient at z."""

BLOCK = 8
"""Output channels that a projection sums at once."""


def nonzero_gradients(
    x: Floats, dz: Floats, mask: NDArray[np.bool_], geometry: Geometry, count: int, slope: Slope | None = None
) -> Floats:
    """The gradient of every non-zero, in the order of the weight's memory.

    Args:
        x: the input.
        dz: the gradient at the convolution's output.
        mask: of the weight.
        geometry: of the convolution.
        count: images.
        slope: what batch norm does to the gradient; None where there is none.
    """
    of_channel = mask.sum(axis=(1, 2, 3))
    gradients = []
    for o, i, row, column in np.argwhere(mask):
        met, inside = geometry.met(x[i], row, column)
        if slope is None or of_channel[o] > FEW:
            gradients.append(plane_sum(count, met, dz[o], inside))
        else:
            xg = plane_sum(count, met, slope.g[o], inside)
            xhat = plane_sum(count, met, slope.hat[o], inside)
            factor, b, c = np.float64(slope.factor[o]), slope.b[o], slope.c[o]
            gradients.append((factor * xg + b * xhat) + c * plane_sum(count, met, inside=inside))
    return np.array(gradients, np.float64).astype(np.float32)


def dense_gradient(x: Floats, dz: Floats, geometry: Geometry, count: int) -> Floats:
    """The gradient of all weights: (out, in, kernel, kernel)."""
    return _against_input(x, dz, geometry, count).astype(np.float32)


def projections(x: Floats, dz: Floats, signs: Floats, geometry: Geometry, count: int) -> Doubles:
    """What each probe makes of the dense gradient: (probes, in, kernel, kernel)."""
    return _against_input(x, np.stack([contracted(dz, s) for s in signs]), geometry, count)


def contracted(dz: Floats, signs: Floats) -> Floats:
    """Σ s·dz over output channels, element by element."""
    total = None
    for start in range(0, len(dz), BLOCK):
        of_block = np.zeros_like(dz[0])
        for o in range(start, min(start + BLOCK, len(dz))):
            of_block = fma(signs[o], dz[o], of_block)
        total = of_block if total is None else total + of_block
    return total


def _against_input(x: Floats, planes: Floats, geometry: Geometry, count: int) -> Doubles:
    """Plane sums Σ x·plane for every plane, input channel and place of the kernel."""
    found = np.empty((len(planes), len(x), geometry.kernel, geometry.kernel))
    for row, column in np.ndindex(geometry.kernel, geometry.kernel):
        met, inside = geometry.met(x, row, column)
        found[:, :, row, column] = plane_sum(count, met[None], planes[:, None], inside)
    return found
