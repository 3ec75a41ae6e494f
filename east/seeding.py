"""The random numbers of a run, exact to the bit: they depend only on (seed, purpose).

The raw bits come from the counter-based generator Philox4x64-10, whose stream NumPy promises to keep. Everything drawn
from them uses integer arithmetic and exact floating-point operations, so a run draws the same numbers under every
version of PyTorch and NumPy and on every processor.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.uint64]

_HALF = np.uint64(32)
_LOW_HALF = np.uint64(2**32 - 1)
_LARGEST_RANGE = 2**32


class RandomBits:
    """A stream of 64-bit words, and the draws made from it.

    Every method takes words from the stream in order, starting with a fresh one. How many it takes depends only on its
    arguments, never on what was drawn.

    Args:
        source: returns the next `count` words of the stream.
    """

    def __init__(self, source: Callable[[int], Words]) -> None:
        self._source = source

    def words(self, count: int) -> Words:
        """The next `count` words (count,), each uniform on 0 .. 2^64 - 1."""
        return self._source(count)

    def uniform(self, count: int) -> Tensor:
        """Float64 numbers (count,) uniform on [0, 1): the upper 53 bits of one word each, times 2^-53."""
        return torch.from_numpy((self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def uniform32(self, count: int) -> Tensor:
        """Float32 numbers (count,) uniform on [0, 1): the upper 24 bits of one word each, times 2^-24."""
        return torch.from_numpy((self.words(count) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))

    def integers(self, below: int, count: int) -> Tensor:
        """Integers (count,) in 0 .. below - 1, int64: floor(word * below / 2^64), one word each.

        Each has probability 1 / below to within 2^-64. No word is rejected, so the number of words is fixed.

        Args:
            below: from 1 to 2^32.
            count: how many.
        """
        if not 1 <= below <= _LARGEST_RANGE:
            raise ValueError(f"cannot draw integers below {below}: the bound must be between 1 and 2^32.")
        words, factor = self.words(count), np.uint64(below)
        # The upper half of the 128-bit product, from half words so that nothing overflows.
        upper = (words >> _HALF) * factor
        lower = (words & _LOW_HALF) * factor
        carried = (lower >> _HALF) + (upper & _LOW_HALF)
        return torch.from_numpy(((upper >> _HALF) + (carried >> _HALF)).view(np.int64))

    def permutation(self, count: int) -> Tensor:
        """The numbers 0 .. count - 1 in random order, int64.

        The order that sorts `count` words ascending; equal words keep the order in which they were drawn.
        """
        # With the top bit flipped, signed numbers sort like unsigned ones, and PyTorch sorts several times faster.
        keys = torch.from_numpy((self.words(count) ^ np.uint64(2**63)).view(np.int64))
        return keys.sort(stable=True).indices

    def choose(self, population: int, count: int) -> Tensor:
        """A uniformly random subset of `count` of the numbers 0 .. population - 1, ascending, int64.

        Draws one word per member of the population and chooses the members with the `count` smallest words; among equal
        words, the smaller members.
        """
        words = self.words(population)
        if not 0 <= count <= population:
            raise ValueError(f"cannot choose {count} of {population}.")
        if count in (0, population):
            return torch.arange(count)
        places = _of_small_words(words, count)
        if len(places) < count:
            places = np.arange(population)
        candidates = words[places]
        threshold = np.partition(candidates, count - 1)[count - 1]
        chosen = candidates < threshold
        tied = np.flatnonzero(candidates == threshold)
        chosen[tied[: count - np.count_nonzero(chosen)]] = True
        return torch.from_numpy(places[chosen])

    def coins(self, count: int) -> Tensor:
        """Fair coins, bool (count,): the bits of the words from the lowest up, 64 per word."""
        octets = self.words(-(-count // 64)).astype("<u8").view(np.uint8)
        return torch.from_numpy(np.unpackbits(octets, count=count, bitorder="little")).bool()

    def signs(self, count: int) -> Tensor:
        """Fair signs, float32 (count,): 1 where `coins` would be true, else -1."""
        return self.coins(count).float().mul_(2.0).sub_(1.0)


def generator(seed: int, *purpose: str | int) -> RandomBits:
    """The random bits for one purpose, independent of those for any other.

    Philox's key is the first 128 bits, as a little-endian number, of the SHA-256 of seed and purpose as text joined by
    slashes; its counter starts at zero.

    Args:
        seed: the run's seed.
        purpose: names and counters, for example `("topology", "layer1.0.conv1", 4000)`.
    """
    philox: Any = np.random.Philox(key=_key(seed, purpose, bits=128))
    return RandomBits(philox.random_raw)


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator of PyTorch for one purpose: what it draws depends on PyTorch's version.

    For timing, and for what PyTorch itself makes of a plugin's network.
    """
    return torch.Generator().manual_seed(_key(seed, purpose, bits=63))


def _key(seed: int, purpose: tuple[str | int, ...], bits: int) -> int:
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "little") & ((1 << bits) - 1)


def _of_small_words(words: Words, count: int) -> NDArray[np.int64]:
    """Places of all words below a bound that, barring bad luck, admits the `count` smallest and few others.

    This avoids partitioning millions of words when few are chosen.
    """
    population = len(words)
    share = (count + 6 * math.sqrt(count) + 8) / population
    if share >= 1:
        return np.arange(population)
    return np.flatnonzero(words < np.uint64(int(share * 2.0**64)))
