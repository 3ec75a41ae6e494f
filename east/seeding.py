"""Every random choice comes from a generator derived from (seed, purpose, ...), so none depends on another."""

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on the run's seed and on what the numbers are for.

    Args:
        seed: the run's seed.
        purpose: names and counters, for example `("topology", "layer1.0.conv1", 4000)`.
    """
    key = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose; it is on the CPU so that a run draws the same numbers on any device."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
