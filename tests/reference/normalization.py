"""Batch norm: statistics, output and gradients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.reference.rounding import fma
from tests.reference.sums import Doubles, Floats, plane_sum

MOMENTUM = 0.1
EPSILON = 1e-5


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each channel, in double."""

    mean: Doubles
    variance: Doubles


@dataclass(frozen=True)
class Norm:
    """Batch norm as it is applied to z, a number for each channel.

    Args:
        mean: rounded to float.
        inverse, factor, shift: 1/deviation, weight/deviation, bias − mean·factor.
    """

    mean: Floats
    inverse: Floats
    factor: Floats
    shift: Floats

    def __call__(self, z: Floats) -> Floats:
        """The output for z (C, groups, H, W, 32)."""
        return fma(_by_channel(self.factor), z, _by_channel(self.shift))


@dataclass(frozen=True)
class Slope:
    """Batch norm as it is applied to the gradient g at its output.

    Args:
        g, hat: the gradient, and normalised z: (C, groups, H, W, 32).
        factor: (C,) in float.
        b, c: factors of `hat` and 1 in the gradient at z: (C,).
        weight, bias: the gradients of the parameters.
    """

    g: Floats
    hat: Floats
    factor: Floats
    b: Doubles
    c: Doubles
    weight: Floats
    bias: Floats

    def dz(self) -> Floats:
        """The gradient at z."""
        b, c = (_by_channel(each.astype(np.float32)) for each in (self.b, self.c))
        return fma(_by_channel(self.factor), self.g, fma(b, self.hat, c))


def moments(z: Floats, has_nonzeros: NDArray[np.bool_], count: int) -> Moments:
    """Those of a batch."""
    n = _elements(z, count)
    pivot = z[:, 0, 0, 0, 0]
    d = z - _by_channel(pivot)
    s1, s2 = plane_sum(count, d), plane_sum(count, d, d)
    mean = pivot.astype(np.float64) + s1 / n
    variance = np.maximum(s2 / n - (s1 / n) * (s1 / n), 0)
    return Moments(np.where(has_nonzeros, mean, 0), np.where(has_nonzeros, variance, 0))


def updated_statistics(
    running_mean: Floats, running_var: Floats, found: Moments, z: Floats, count: int
) -> tuple[Floats, Floats]:
    """Running statistics after a batch."""
    n = _elements(z, count)
    unbiased = found.variance * (n / (n - 1))
    pairs = ((running_mean.astype(np.float64), found.mean), (running_var.astype(np.float64), unbiased))
    mean, variance = ((r + MOMENTUM * (new - r)).astype(np.float32) for r, new in pairs)
    return mean, variance


def batch_norm(weight: Floats, bias: Floats, mean: Doubles, variance: Doubles) -> Norm:
    """Batch norm with these statistics: those of a batch, or running ones."""
    deviation = np.sqrt(variance + EPSILON)
    factor = (weight.astype(np.float64) / deviation).astype(np.float32)
    shift = bias.astype(np.float64) - mean * factor.astype(np.float64)
    return Norm(mean.astype(np.float32), (1 / deviation).astype(np.float32), factor, shift.astype(np.float32))


def batch_norm_backward(
    g: Floats, z: Floats, norm: Norm, has_nonzeros: NDArray[np.bool_], is_reached: NDArray[np.bool_], count: int
) -> Slope:
    """What follows from the gradient g at the output of batch norm; no gradient reaches some channels."""
    n = _elements(z, count)
    hat = np.where(_by_channel(has_nonzeros), (z - _by_channel(norm.mean)) * _by_channel(norm.inverse), np.float32(0))
    bias = np.where(is_reached, plane_sum(count, g), 0)
    weight = np.where(is_reached & has_nonzeros, plane_sum(count, g, hat), 0)
    minus = -norm.factor.astype(np.float64)
    b, c = minus * weight / n, minus * bias / n
    return Slope(g, hat, norm.factor, b, c, weight.astype(np.float32), bias.astype(np.float32))


def _by_channel(numbers: Floats) -> Floats:
    return numbers[:, None, None, None, None]


def _elements(z: Floats, count: int) -> int:
    """Numbers of a channel in a batch."""
    return count * z.shape[2] * z.shape[3]
