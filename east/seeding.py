"""Random numbers of a run: raw bits that depend on (seed, purpose) alone, and what is made of them, to the bit.

The bits are those of the counter-based Philox4x64-10 generator, whose raw stream NumPy promises to keep. What is made
of them is written here in integer arithmetic and exact floating-point operations, so that a run draws the same numbers
under every version of PyTorch and NumPy and on every processor.
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
    """A stream of 64-bit words, and the draws that are made of it.

    Every method takes words from the stream in order and begins with a fresh one. How many it takes depends on its
    arguments alone, never on what was drawn.

    Args:
        source: gives the next `count` words of the stream.
    """

    def __init__(self, source: Callable[[int], Words]) -> None:
        self._source = source

    @classmethod
    def of_torch(cls, random: torch.Generator | None) -> "RandomBits":
        """A stream of the words that PyTorch draws.

        Args:
            random: a generator of the CPU; None for PyTorch's default one.
        """

        def words(count: int) -> Words:
            drawn = torch.empty(count, dtype=torch.int64).random_(-(2**63), None, generator=random)
            return drawn.numpy().view(np.uint64)

        return cls(words)

    def words(self, count: int) -> Words:
        """The next `count` words (count,), each uniform on 0 .. 2^64 - 1."""
        return self._source(count)

    def uniform(self, count: int) -> Tensor:
        """Float64 numbers (count,) uniform on [0, 1): the upper 53 bits of a word each, times 2^-53."""
        return torch.from_numpy((self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def uniform32(self, count: int) -> Tensor:
        """Float32 numbers (count,) uniform on [0, 1): the upper 24 bits of a word each, times 2^-24."""
        return torch.from_numpy((self.words(count) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))

    def integers(self, below: int, count: int) -> Tensor:
        """Whole numbers (count,) in 0 .. below - 1, int64: floor(word * below / 2^64), a word each.

        The probability of a number is 1 / below to within 2^-64. Words are never rejected, so a draw costs the same
        whatever it gives.

        Args:
            below: from 1 to 2^32.
            count: how many.
        """
        if not 1 <= below <= _LARGEST_RANGE:
            raise ValueError(f"integers below {below} cannot be drawn: the bound lies between 1 and 2^32.")
        words, factor = self.words(count), np.uint64(below)
        # The upper half of a product of 128 bits, by halves that do not overflow.
        upper = (words >> _HALF) * factor
        lower = (words & _LOW_HALF) * factor
        carried = (lower >> _HALF) + (upper & _LOW_HALF)
        return torch.from_numpy(((upper >> _HALF) + (carried >> _HALF)).view(np.int64))

    def permutation(self, count: int) -> Tensor:
        """The numbers 0 .. count - 1 in random order, int64.

        It is the order that sorts `count` words ascending; equal words stay in the order they were drawn in.
        """
        # Signed numbers sort as unsigned ones do once the top bit is flipped, and PyTorch sorts several times faster.
        keys = torch.from_numpy((self.words(count) ^ np.uint64(2**63)).view(np.int64))
        return keys.sort(stable=True).indices

    def choose(self, population: int, count: int) -> Tensor:
        """A random subset of 0 .. population - 1, all of `count` numbers being equally likely: ascending, int64.

        It takes a word for every member of the population and chooses those of the `count` smallest words; among equal
        words the smaller numbers go first.

        Args:
            population: how many there are to choose from.
            count: how many are chosen, 0 <= count <= population.
        """
        words = self.words(population)
        if not 0 <= count <= population:
            raise ValueError(f"{count} of {population} cannot be chosen.")
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
        """Fair coins, bool (count,): the bits of the words from the lowest one up, 64 a word."""
        octets = self.words(-(-count // 64)).astype("<u8").view(np.uint8)
        return torch.from_numpy(np.unpackbits(octets, count=count, bitorder="little")).bool()

    def signs(self, count: int) -> Tensor:
        """Fair signs, float32 (count,): 1 where `coins` would give true, else -1."""
        return self.coins(count).float().mul_(2.0).sub_(1.0)

    def octets(self, count: int) -> Tensor:
        """Numbers uniform on 0 .. 255, uint8 (count,): the bytes of the words from the lowest one up."""
        return torch.from_numpy(self.words(-(-count // 8)).astype("<u8").view(np.uint8)[:count])


def generator(seed: int, *purpose: str | int) -> RandomBits:
    """The random bits of one purpose: those of no other purpose tell anything about them.

    The key of Philox is the first 128 bits, read as a little-endian number, of the SHA-256 of the seed and the parts
    of the purpose, as text joined by slashes; its counter starts at zero.

    Args:
        seed: the run's seed.
        purpose: names and counters, for example `("topology", "layer1.0.conv1", 4000)`.
    """
    philox: Any = np.random.Philox(key=_key(seed, purpose, bits=128))
    return RandomBits(philox.random_raw)


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """PyTorch's own generator for one purpose, on the CPU: for batches that are timed, never for a number of a run.

    What it draws depends on PyTorch's version.
    """
    return torch.Generator().manual_seed(_key(seed, purpose, bits=63))


def as_random_bits(random: "RandomBits | torch.Generator | None") -> RandomBits:
    """A stream of random bits from any generator; None stands for PyTorch's default one."""
    return random if isinstance(random, RandomBits) else RandomBits.of_torch(random)


def _key(seed: int, purpose: tuple[str | int, ...], bits: int) -> int:
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "little") & ((1 << bits) - 1)


def _of_small_words(words: Words, count: int) -> NDArray[np.int64]:
    """Places of words below a bound under which, but for bad luck, the `count` smallest lie and few others.

    All words below the bound are found. It spares partitioning millions where few are chosen.
    """
    population = len(words)
    share = (count + 6 * math.sqrt(count) + 8) / population
    if share >= 1:
        return np.arange(population)
    return np.flatnonzero(words < np.uint64(int(share * 2.0**64)))
