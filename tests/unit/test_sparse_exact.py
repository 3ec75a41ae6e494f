import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from east.sparse.exact import cos_pi


@pytest.mark.parametrize(
    ("multiple", "cosine"),
    [(0, 1.0), (Fraction(1, 3), 0.5), (Fraction(1, 2), 0.0), (Fraction(2, 3), -0.5), (1, -1.0), (Fraction(7, 3), 0.5)],
)
def test_rational_cosines_are_exact(multiple, cosine):
    assert cos_pi(Fraction(multiple)) == cosine


@pytest.mark.parametrize(
    ("multiple", "cosine"),
    # The nearest floats to sqrt(2) / 2, sqrt(3) / 2, (1 + sqrt(5)) / 4 and sqrt(2 + sqrt(2)) / 2.
    [
        (Fraction(1, 4), 0.7071067811865476),
        (Fraction(1, 6), 0.8660254037844386),
        (Fraction(1, 5), 0.8090169943749475),
        (Fraction(1, 8), 0.9238795325112867),
    ],
)
def test_known_cosines_are_rounded_to_the_nearest_float(multiple, cosine):
    assert cos_pi(multiple) == cosine


def test_is_within_a_unit_of_the_last_place_of_the_library_where_that_is_accurate():
    for k in range(4000):
        x = Fraction(k, 16_000)  # the angle's own rounding moves no cosine below π / 4 by more than that
        assert abs(cos_pi(x) - math.cos(math.pi * k / 16_000)) <= math.ulp(cos_pi(x))
        sine = cos_pi(Fraction(1, 2) - x)
        assert abs(sine - math.sin(math.pi * k / 16_000)) <= 2 * math.ulp(sine)


@given(st.fractions(-50, 50, max_denominator=10**7))
def test_is_even_periodic_and_antisymmetric_to_the_bit(x):
    assert cos_pi(x) == cos_pi(-x) == cos_pi(x + 2) == -cos_pi(1 - x)


def test_keeps_its_digits_beside_a_root():
    # sin x = x - x^3 / 6, and x^3 is below a thousandth of the last place
    assert cos_pi(Fraction(1, 2) - Fraction(1, 10**9)) == pytest.approx(math.pi / 10**9, rel=4e-16)


def test_cosines_never_change():
    found = [cos_pi(Fraction(k, 97)).hex() for k in (3, 11, 29, 41)]
    assert found == ["0x1.fd95c9e052bd6p-1", "0x1.dfd98ea730367p-1", "0x1.2e493847151c4p-1", "0x1.ec98592bb8164p-3"]
