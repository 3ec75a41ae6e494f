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
    found = np.zeros(mask.shape)
    has_few = mask.sum(axis=(1, 2, 3)) <= FEW
    for row, column in np.ndindex(mask.shape[2:]):
        met, inside = geometry.met(x, row, column)
        o, i = np.nonzero(mask[:, :, row, column])
        many = np.full(len(o), True) if slope is None else ~has_few[o]
        for_many, for_few = (o[many], i[many]), (o[~many], i[~many])
        found[*for_many, row, column] = plane_sum(count, met[for_many[1]], dz[for_many[0]], inside)
        if slope is not None:
            found[*for_few, row, column] = _of_few(met, inside, *for_few, count, slope)
    return found[mask].astype(np.float32)


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


def _of_few(
    met: Floats, inside: NDArray[np.bool_], o: NDArray[np.int64], i: NDArray[np.int64], count: int, slope: Slope
) -> Doubles:
    """The gradients of the non-zeros from input channels i to output channels o, from sums without dz."""
    xg = plane_sum(count, met[i], slope.g[o], inside)
    xhat = plane_sum(count, met[i], slope.hat[o], inside)
    factor, b, c = slope.factor[o].astype(np.float64), slope.b[o], slope.c[o]
    return (factor * xg + b * xhat) + c * plane_sum(count, met[i], inside=inside)


def _against_input(x: Floats, planes: Floats, geometry: Geometry, count: int) -> Doubles:
    """Plane sums Σ x·plane for every plane, input channel and place of the kernel."""
    found = np.empty((len(planes), len(x), geometry.kernel, geometry.kernel))
    for row, column in np.ndindex(geometry.kernel, geometry.kernel):
        met, inside = geometry.met(x, row, column)
        found[:, :, row, column] = plane_sum(count, met[None], planes[:, None], inside)
    return found
