"""Which training images are held out for validation."""

from typing import Literal

import torch
from torch import Tensor

from east.errors import EastError
from east.seeding import generator


def split_indices(count: int, validation: int, choice: Literal["last", "shuffled"], seed: int) -> tuple[Tensor, Tensor]:
    """Split the training images into those trained on and those held out.

    Args:
        count: training images there are.
        validation: images to hold out, 0 <= validation < count.
        choice: 'last' holds out the last images, 'shuffled' draws them with the run's seed.
        seed: the run's seed; 'last' does not look at it.

    Returns:
        The int64 indices to train on and to validate on, each in ascending order.

    Raises:
        EastError: if no image would be left to train on.
    """
    if not 0 <= validation < count:
        raise EastError(
            f"dataset.validation is {validation}, but there are {count} training images: hold out fewer than that."
        )
    order = torch.arange(count) if choice == "last" else generator(seed, "split").permutation(count)
    kept = count - validation
    return order[:kept].sort().values, order[kept:].sort().values
