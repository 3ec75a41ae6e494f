"""Exponential and logarithm in double."""

import math

import numpy as np

from tests.reference.rounding import fma_double
from tests.reference.sums import Doubles

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
C1 = float.fromhex("0x1.62e42fefa38p-1")
C2 = float.fromhex("0x1.ef35793c7673p-45")
"""C1 + C2 is the logarithm of 2."""

SHIFT = 1.5 * 2.0**52
ROOT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")


def exponential(x: Doubles) -> Doubles:
    """e^x, for x limited to ±700."""
    x = np.clip(np.asarray(x, np.float64), -700, 700)
    k = fma_double(x, LOG2_E, SHIFT) - SHIFT
    r = fma_double(-k, C2, fma_double(-k, C1, x))
    result = np.full_like(x, 1 / math.factorial(13))
    for i in range(12, -1, -1):
        result = fma_double(result, r, 1 / math.factorial(i))
    return np.ldexp(result, np.where(np.isnan(k), 0, k).astype(np.int64))


def logarithm(x: Doubles) -> Doubles:
    """The natural logarithm of normal numbers."""
    m, k = np.frexp(np.asarray(x, np.float64))  # m is in [1/2, 1)
    is_small = m < ROOT_HALF
    m, k = np.where(is_small, 2 * m, m), (k - is_small).astype(np.float64)
    s = (m - 1) / (m + 1)
    q = s * s
    t = np.zeros_like(s)
    for power in range(23, 1, -2):
        t = fma_double(t, q, 1 / power)
    last = fma_double(2 * s * q, t, 2 * s)
    return fma_double(k, C1, fma_double(k, C2, last))
