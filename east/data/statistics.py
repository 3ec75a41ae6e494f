"""Means and standard deviations of the channels of images, exact before they are rounded once."""

import math

import torch
from torch import Tensor


def channel_counts(images: Tensor) -> Tensor:
    """How often each value occurs in each channel of uint8 images [N, C, H, W]: int64 [C, 256]."""
    return torch.stack([channel.flatten().bincount(minlength=256) for channel in images.transpose(0, 1)])


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images [N, C, H, W], for pixels in [0, 1].

    Both are computed from sums of integers and rounded once, to the nearest float.
    """
    return statistics_of_counts(channel_counts(images))


def statistics_of_counts(counted: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same from how often each value occurs in each channel (`channel_counts`)."""
    levels = torch.arange(256)
    means, deviations = [], []
    for counts in counted:
        number, total, squares = (int((counts * levels**power).sum()) for power in (0, 1, 2))
        means.append(total / (255 * number))
        deviations.append(_root_of_ratio(number * squares - total**2, (255 * number) ** 2))
    return tuple(means), tuple(deviations)


def _root_of_ratio(numerator: int, denominator: int) -> float:
    """The square root of a ratio of integers, rounded to the nearest float."""
    # An integer root of more than 64 bits. Its last bit says whether anything follows: all that rounding needs.
    shift = 2 * max(0, 65 + denominator.bit_length() - numerator.bit_length())
    whole, rest = divmod(numerator << shift, denominator)
    root = math.isqrt(whole)
    is_exact = rest == 0 and root * root == whole
    return (2 * root + (not is_exact)) / (2 << shift // 2)
