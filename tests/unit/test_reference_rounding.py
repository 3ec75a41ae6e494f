"""The reference's arithmetic against exact fractions."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tests.reference.elementary import exponential, logarithm
from tests.reference.rounding import fma, fma_double
from tests.reference.sums import halving_tree, lane_sums, plane_sum, segments

FLOAT, DOUBLE = (24, -126, 127), (53, -1022, 1023)


def rounded(exact, kind):
    """A fraction to the nearest number with so many bits, ties to even; denormal numbers are kept."""
    bits, least, most = kind
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    unit = Fraction(2) ** (max(exponent, least) - bits + 1)
    nearest = round(exact / unit) * unit
    if abs(nearest) >= Fraction(2) ** (most + 1):
        return math.inf if nearest > 0 else -math.inf
    return float(nearest)


def nasty(bits, least, most):
    """Numbers that make products and sums tie, cancel, vanish and overflow."""
    one = 2.0 ** (1 - bits)
    near_one = [1.0, 1 + one, 1 - one / 2, 1 + one * 2 ** (bits // 2), 1.5, 3.0, 1 + 2.0 ** -(bits // 2)]
    tiny = [2.0**least, 2.0 ** (least - bits + 1), 2.0**least * (1 - one), 2.0 ** ((least - bits) // 2)]
    rest = [0.0, 2.0**-bits, 2.0 ** (1 - bits), 2.0**bits, (2 - one) * 2.0**most, 2.0 ** (most // 2) * (1 + one)]
    return near_one + tiny + rest


@pytest.mark.parametrize(
    ("function", "kind", "dtype"), [(fma, FLOAT, np.float32), (fma_double, DOUBLE, np.float64)], ids=["float", "double"]
)
class TestFma:
    def agrees(self, function, kind, a, b, c):
        found = function(a, b, c).tolist()
        triples = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
        assert found == [rounded(Fraction(x) * Fraction(y) + Fraction(z), kind) for x, y, z in triples]

    def test_nasty_numbers(self, function, kind, dtype):
        numbers = nasty(*kind)
        with_minus = numbers + [-number for number in numbers]
        triples = np.array(list(itertools.product(numbers, numbers, with_minus)), dtype)
        self.agrees(function, kind, *triples.T)

    def test_sums_that_cancel_or_tie(self, function, kind, dtype):
        draw = np.random.default_rng(0)
        a, b = (1 + draw.random(2000).astype(dtype) for _ in range(2))
        near = (a * b).astype(dtype)
        half = np.spacing(near) / dtype(2)
        for c in (-near, half, -half, half * half, near * near):
            self.agrees(function, kind, a, b, c)

    @pytest.mark.parametrize("size", [0, "least", "most"])
    def test_random_numbers_whose_product_and_sum_are_of_like_size(self, function, kind, dtype, size):
        draw = np.random.default_rng(1)
        bits, least, most = kind
        of_sum = {"least": least - bits // 2, "most": most - 2}.get(size, size)
        of_first = of_sum // 2 + draw.integers(-40, 40, 3000)
        powers = (of_first, of_sum - of_first, of_sum + draw.integers(-bits - 3, 2, 3000))
        a, b, c = (np.ldexp(draw.uniform(-2, 2, 3000), each).astype(dtype) for each in powers)
        self.agrees(function, kind, a, b, c)

    def test_what_is_no_number_or_infinite_stays(self, function, kind, dtype):
        a, b, c = (np.array(each, dtype) for each in ([np.nan, np.inf, np.inf, 1], [1, 0, 2, 1], [1, 1, 1, -np.inf]))
        assert np.array_equal(function(a, b, c), [np.nan, np.nan, np.inf, -np.inf], equal_nan=True)


def test_exponential_and_logarithm_are_within_a_last_place_of_the_library():
    x = np.linspace(-700, 700, 20001)
    powers = exponential(x)
    library = np.array([math.exp(each) for each in x])
    assert np.all(np.abs(powers - library) <= np.spacing(library))
    logarithms = np.array([math.log(each) for each in powers])
    assert np.all(np.abs(logarithm(powers) - logarithms) <= 2 * np.spacing(np.abs(logarithms) + 0.1))


def test_the_logarithm_halves_at_the_root_of_a_half():
    root = float.fromhex("0x1.6a09e667f3bcdp-1")
    around = np.array([root, np.nextafter(root, 0), 2 * root, 1.0, 2.0])
    assert logarithm(around) == pytest.approx([math.log(each) for each in around], rel=1e-15, abs=1e-300)


def test_a_halving_tree_adds_halves():
    numbers = np.full(32, 1.0, np.float32)
    numbers[0], numbers[16] = 2.0**24, -(2.0**24)
    assert halving_tree(numbers) == 30
    numbers[16], numbers[1] = 1.0, -(2.0**24)
    assert halving_tree(numbers) != 30


@pytest.mark.parametrize(
    ("height", "width", "rows"), [(8, 8, [8]), (12, 12, [5, 5, 2]), (9, 7, [9]), (3, 65, [1, 1, 1]), (2, 33, [1, 1])]
)
def test_segments_are_whole_rows(height, width, rows):
    assert [each.stop - each.start for each in segments(height, width)] == rows


def test_a_plane_sum_leaves_out_lanes_without_an_image():
    plane = np.ones((1, 2, 3, 65, 32), np.float32)
    plane[:, 1, ..., 5:] = np.nan
    assert lane_sums(plane).shape == (1, 2, 3, 32)
    assert plane_sum(37, plane).tolist() == [37 * 3 * 65]
