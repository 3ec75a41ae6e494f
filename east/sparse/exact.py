"""Correctly rounded cosines, the same on every machine; those of C libraries can differ in the last bit.

Angles are multiples of π, so they are reduced exactly before anything is rounded.
"""

from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache

_DECIMALS = Context(prec=50)
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")


@lru_cache(maxsize=2**17)
def cos_pi(multiple: Fraction) -> float:
    """cos(π x), rounded to the nearest float.

    Args:
        multiple: x, exactly; `Fraction(float)` is the exact value of a float.
    """
    # Folded into [0, 1]: the cosine is even and has period 2.
    folded = multiple % 2
    folded = min(folded, 2 - folded)
    if folded > Fraction(1, 2):
        return -cos_pi(1 - folded)
    if folded <= Fraction(1, 4):
        angle = _angle(folded)
        return float(_series(_DECIMALS.multiply(angle, angle), first=Decimal(1), index=0))
    angle = _angle(Fraction(1, 2) - folded)
    return float(_series(_DECIMALS.multiply(angle, angle), first=angle, index=1))


def _series(squared: Decimal, first: Decimal, index: int) -> Decimal:
    """The Taylor series in which each term is the last times -squared / ((k + 1) (k + 2)), k = index, index + 2, ...

    From 1 and 0 it is the cosine, from the angle and 1 the sine, to about 48 digits for angles up to π / 4.
    """
    total, before, term = first, Decimal(0), first
    while total != before:
        term = _DECIMALS.divide(_DECIMALS.multiply(term, squared), Decimal(-(index + 1) * (index + 2)))
        before, total = total, _DECIMALS.add(total, term)
        index += 2
    return total


def _angle(multiple: Fraction) -> Decimal:
    share = _DECIMALS.divide(Decimal(multiple.numerator), Decimal(multiple.denominator))
    return _DECIMALS.multiply(_PI, share)
