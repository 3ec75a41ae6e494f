"""Gradient clip, SGD, Adam and AdamW."""

import math
from collections.abc import Sequence

import numpy as np

from tests.reference.rounding import fma
from tests.reference.sums import Floats, dot

BETA1, BETA2 = 0.9, 0.999
EPSILON = 1e-8
CLIP_EPSILON = 1e-6


def clip_norm(gradients: Sequence[Floats], squared_norms: Sequence[float] = ()) -> float:
    """The global norm.

    Args:
        gradients: in order.
        squared_norms: each probe's, where the rest is estimated.
    """
    total = 0.0
    for gradient in gradients:
        total += dot(gradient, gradient)
    if len(squared_norms):
        total += math.fsum(squared_norms) / len(squared_norms)
    return math.sqrt(total)


def clip_scale(norm: float, limit: float) -> np.float32:
    """What gradients are multiplied by."""
    return np.float32(np.minimum(1.0, limit / (norm + CLIP_EPSILON)))


def sgd(
    w: Floats, g: Floats, m: Floats, lr: float, *, momentum: float, nesterov: bool, decay: float
) -> tuple[Floats, Floats]:
    """Weights and momenta after a step."""
    lr, momentum, decay = np.float32(lr), np.float32(momentum), np.float32(decay)
    g = fma(decay, w, g)
    m = fma(momentum, m, g)
    step = fma(momentum, m, g) if nesterov else m
    return fma(-lr, step, w), m


def adam(
    w: Floats, g: Floats, m: Floats, v: Floats, lr: float, *, step: int, decay: float, decoupled: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Weights, means and mean squares after the step of this number, counted from 1; AdamW where decay is decoupled."""
    if decoupled:
        w = fma(-np.float32(lr * decay), w, w)
    else:
        g = fma(np.float32(decay), w, g)
    m = fma(np.float32(BETA1), m, np.float32(1 - BETA1) * g)
    v = fma(np.float32(BETA2), v, np.float32(1 - BETA2) * (g * g))
    size = np.float32(lr / (1 - power(BETA1, step)))
    f = np.float32(1 / math.sqrt(1 - power(BETA2, step)))
    return fma(-size, m / fma(np.sqrt(v), f, np.float32(EPSILON)), w), m, v


def power(base: float, exponent: int) -> float:
    """A whole power by repeated squaring, from the lowest bit of the exponent."""
    result = 1.0
    while exponent:
        if exponent % 2:
            result *= base
        base *= base
        exponent //= 2
    return result
