"""Fused multiply-adds of float and double, exact on any processor, and bfloat16."""

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32] | NDArray[np.float64]

SPLIT = 2.0**27 + 1


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> NDArray[np.float32]:
    """a·b + c in float, rounded once: the double is exact for the product, and odd where it is not for the sum."""
    with np.errstate(invalid="ignore", over="ignore"):
        product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
        return _sum_to_odd(product, np.asarray(c, np.float64)).astype(np.float32)


def bfloat16(a: NDArray[np.float32]) -> NDArray[np.float32]:
    """The upper half of each float, rounded to nearest, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.where(np.isnan(a), np.float32(np.nan), bits.astype(np.uint32).view(np.float32))


def fma_double(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> NDArray[np.float64]:
    """a·b + c in double, rounded once.

    By the emulation of Boldo and Melquiond (2008), and by fractions for numbers to which its proof does not extend.
    """
    a, b, c = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(c, np.float64))
    with np.errstate(all="ignore"):
        high, low = _product(a, b)
        upper, lower = _sum(c, low)
        top, rest = _sum(high, upper)
        result = np.atleast_1d(top + _sum_to_odd(rest, lower))
        plain = a * b + c
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    result[~np.atleast_1d(finite)] = np.atleast_1d(plain)[~np.atleast_1d(finite)]
    for place in np.argwhere(np.atleast_1d(finite & ~_is_moderate(a, b, c))):
        at = tuple(place)
        result[at] = _by_fractions(*(float(np.atleast_1d(operand)[at]) for operand in (a, b, c)))
    return result.reshape(a.shape)


def _is_moderate(a: Array, b: Array, c: Array) -> Array:
    """Where no step of the emulation can overflow, and none loses bits of a number that is too small."""
    sizes = [np.frexp(each)[1] for each in (a, b, c)]
    product = (a == 0) | (b == 0) | (np.abs(sizes[0] + sizes[1]) < 800)
    return product & (np.abs(sizes) < 900).all(axis=0)


def _by_fractions(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def _product(a: Array, b: Array) -> tuple[Array, Array]:
    """a·b as the rounded product and its error (Dekker)."""
    product = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: Array) -> tuple[Array, Array]:
    """a as a sum of two numbers of 26 bits (Veltkamp)."""
    scaled = SPLIT * a
    high = scaled - (scaled - a)
    return high, a - high


def _sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b as the rounded sum and its error (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def _sum_to_odd(a: Array, b: Array) -> Array:
    """a + b, of the two doubles around it the one with an odd last bit where it is none; rounding it again is safe."""
    total, error = _sum(a, b)
    bits = np.array(total, ndmin=1).view(np.int64)
    total, error = np.atleast_1d(total), np.atleast_1d(error)
    is_wrong = ((error > 0) | (error < 0)) & (bits & 1 == 0)  # an error that is no number belongs to a sum that is none
    bits += np.where(is_wrong, np.where((error > 0) == (total > 0), 1, -1), 0)
    return bits.view(np.float64).reshape(np.broadcast_shapes(np.shape(a), np.shape(b)))
