"""Random bits, and what is made of them: every transformation beside a slow one in Python's whole numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import east.seeding
from east.seeding import RandomBits, generator


def stream(*words):
    """Random bits that are these words, one after another."""
    left = list(words)
    return RandomBits(lambda count: np.array([left.pop(0) for _ in range(count)], dtype=np.uint64))


def words_of(count, *purpose):
    return [int(word) for word in generator(17, *purpose).words(count)]


def test_the_stream_of_a_purpose_never_changes():
    words = generator(17, "topology", "stages.0.0.conv1", 4000).words(6).tolist()
    assert words[:3] == [0xD59213DC546BED79, 0xD89D8A82E6B4EC41, 0xD59BA9BB109F948E]
    assert words[3:] == [0x8E95119D11E4BBF6, 0x640F7E2CA2EF590D, 0x178590C896A04B4C]


def test_other_seeds_and_purposes_have_other_streams():
    streams = [generator(seed, *purpose).words(4).tolist() for seed in (1, 2) for purpose in (("a",), ("a", 1), ("b",))]
    assert len({tuple(words) for words in streams}) == 6


def test_a_stream_goes_on_where_it_was():
    parts, whole = generator(3, "x"), generator(3, "x").words(50)
    assert np.array_equal(np.concatenate([parts.words(count) for count in (1, 2, 7, 0, 40)]), whole)


def test_uniform_numbers_are_the_upper_bits_of_words():
    assert generator(17, "u").uniform(40).tolist() == [(word >> 11) / 2**53 for word in words_of(40, "u")]
    single = generator(17, "u").uniform32(40)
    assert single.dtype == torch.float32
    assert single.tolist() == [(word >> 40) / 2**24 for word in words_of(40, "u")]
    top = 2**64 - 1
    assert stream(0, top).uniform(2).tolist() == [0.0, 1 - 2**-53]
    assert stream(0, top).uniform32(2).tolist() == [0.0, 1 - 2**-24]


@given(st.integers(1, 2**32), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_integers_are_the_exact_upper_half_of_the_product(below, words):
    assert stream(*words).integers(below, len(words)).tolist() == [word * below >> 64 for word in words]


@pytest.mark.parametrize("below", [0, -1, 2**32 + 1])
def test_integers_beyond_their_range_are_refused(below):
    with pytest.raises(ValueError, match=rf"{below}:.*2\^32"):
        generator(1, "x").integers(below, 1)


def test_a_permutation_sorts_unsigned_words_and_keeps_the_order_of_equal_ones():
    assert stream(2**63, 5, 2**64 - 1, 5, 0, 2**63).permutation(6).tolist() == [4, 1, 3, 0, 5, 2]
    words = words_of(3000, "p")
    assert generator(17, "p").permutation(3000).tolist() == sorted(range(3000), key=words.__getitem__)


@given(st.integers(1, 400), st.data(), st.integers(0, 10**6), st.integers(1, 2**64))
def test_a_subset_is_that_of_the_smallest_words_and_of_equal_words_the_first(population, data, seed, levels):
    count = data.draw(st.integers(0, population))
    words = [int(word) * levels >> 64 << 58 & 2**64 - 1 for word in generator(seed, "s").words(population)]
    expected = sorted(sorted(range(population), key=words.__getitem__)[:count])
    assert stream(*words).choose(population, count).tolist() == expected


@pytest.mark.parametrize("count", [1, 20, 5000, 99_990])
def test_a_subset_of_many_is_that_of_the_smallest_words(count):
    words = generator(5, "many").words(100_000)
    expected = np.sort(np.argsort(words, kind="stable")[:count])
    assert np.array_equal(generator(5, "many").choose(100_000, count).numpy(), expected)


def test_a_subset_is_found_however_few_words_are_small():
    words = [2**64 - 1] * 4990 + [5] * 5 + [2**64 - 2] * 5
    assert stream(*words).choose(5000, 12).tolist() == [0, 1, *range(4990, 5000)]


@pytest.mark.parametrize("count", [-1, 4])
def test_a_subset_larger_than_the_whole_is_refused(count):
    with pytest.raises(ValueError, match=f"{count} of 3"):
        generator(1, "x").choose(3, count)


def test_coins_are_the_bits_of_words_from_the_lowest_up():
    words = words_of(3, "c")
    bits = [word >> bit & 1 for word in words for bit in range(64)]
    assert generator(17, "c").coins(130).tolist() == [bool(bit) for bit in bits[:130]]
    assert generator(17, "c").signs(130).tolist() == [2.0 * bit - 1 for bit in bits[:130]]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda random: random.integers(3, 10), 10),
        (lambda random: random.permutation(10), 10),
        (lambda random: random.choose(10, 0), 10),
        (lambda random: random.choose(10, 3), 10),
        (lambda random: random.choose(10, 10), 10),
        (lambda random: random.coins(65), 2),
        (lambda random: random.signs(64), 1),
    ],
)
def test_what_is_drawn_never_decides_how_many_words_are_taken(draw, words):
    random = generator(2, "count")
    draw(random)
    assert int(random.words(1)[0]) == int(generator(2, "count").words(words + 1)[-1])


@pytest.mark.parametrize("part", ["data", "sparse", "training"])
def test_nothing_that_decides_a_run_draws_from_pytorch(part):
    drawing = ("torch.rand(", "torch.randn(", "randperm", "randint", "manual_seed", "torch_generator")
    for path in (Path(east.seeding.__file__).parent / part).rglob("*.py"):
        assert not [word for word in drawing if word in path.read_text()], path
