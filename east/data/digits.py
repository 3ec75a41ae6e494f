"""The embedded data sets: scikit-learn's handwritten digits, one or two to an image."""

from importlib.resources import as_file, files

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from east.data.manifest import SourceFile, md5
from east.data.source import SourceImages
from east.seeding import generator

SPLIT_SEED = 0
"""Seed of the fixed split and the fixed pairs, which belong to the data, not to a run."""

SIZE = 12
"""Height and width of single digits: the three strides of a ResNet leave a 2 x 2 map."""


def native_digits() -> tuple[Tensor, Tensor]:
    """All 1,797 digits: uint8 images [N, 8, 8], scaled from 0..16 to 0..255, and int64 labels [N]."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).long()
    return _divided(255 * images, 16), torch.from_numpy(digits.target).to(torch.int64)


def split_digits(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The fixed stratified split: indices of the training and of the test digits, each in ascending order.

    A fifth of every class, rounded, is for testing.
    """
    train, test = [], []
    for label in range(10):
        members = (labels == label).nonzero().flatten()
        order = generator(SPLIT_SEED, "digits", "split", label).permutation(len(members))
        held_out = round(0.2 * len(members))
        test.append(members[order[:held_out]])
        train.append(members[order[held_out:]])
    return torch.cat(train).sort().values, torch.cat(test).sort().values


def draw_pairs(labels: Tensor, digits: Tensor, per_class: int, part: str) -> Tensor:
    """Draw distinct (tens, units) pairs among some of the digits, the same number for each class 00..99.

    Args:
        labels: labels [N] of all digits.
        digits: indices of the digits that may be used.
        per_class: pairs of each class.
        part: 'train' or 'test', which names the generator.

    Returns:
        Indices int64 [100 * per_class, 2] of digits. Row i has class i mod 100, so any 100 consecutive rows, and hence
        the last images held out for validation, are balanced.
    """
    members = [digits[labels[digits] == label] for label in range(10)]
    classes = []
    for number in range(100):
        tens, units = members[number // 10], members[number % 10]
        random = generator(SPLIT_SEED, "digit_pairs", part, number)
        chosen = random.permutation(len(tens) * len(units))[:per_class]
        classes.append(torch.stack((tens[chosen // len(units)], units[chosen % len(units)]), dim=1))
    return torch.stack(classes, dim=1).flatten(0, 1)


def enlarge(images: Tensor, size: int = SIZE) -> Tensor:
    """Digits [N, 8, 8] as color images [N, 3, size, size]: bilinear, grey on three channels, halves rounded up."""
    weights = _bilinear_weights(images.shape[-1], size)
    large = _divided(weights @ images.long() @ weights.T, (2 * size) ** 2)
    return large.unsqueeze(1).repeat(1, 3, 1, 1)


def _bilinear_weights(old: int, new: int) -> Tensor:
    """The share of each of `old` pixels in each of a row of `new` pixels, int64 [new, old], in units of 1 / (2 new).

    Pixels are squares, sampled at their centers, as in PyTorch's interpolation without aligned corners.
    """
    weights = torch.zeros(new, old, dtype=torch.int64)
    for pixel in range(new):
        before, part = divmod(max(0, (2 * pixel + 1) * old - new), 2 * new)
        weights[pixel, before] += 2 * new - part
        weights[pixel, min(before + 1, old - 1)] += part
    return weights


def _divided(numerator: Tensor, denominator: int) -> Tensor:
    """A quotient of integers in 0..255, rounded to nearest, halves up: uint8."""
    return ((2 * numerator + denominator) // (2 * denominator)).to(torch.uint8)


def join_pairs(images: Tensor, pairs: Tensor) -> Tensor:
    """Pairs [P, 2] of digits [N, 8, 8] as color images [P, 3, 8, 16]: side by side, pixel for pixel, in grey."""
    joined = torch.cat((images[pairs[:, 0]], images[pairs[:, 1]]), dim=2)
    return joined.unsqueeze(1).repeat(1, 3, 1, 1)


def _source() -> tuple[SourceFile, ...]:
    with as_file(files("sklearn.datasets.data") / "digits.csv.gz") as path:
        return (SourceFile(name="digits.csv.gz", md5=md5(path)),)


def read_digits() -> SourceImages:
    """`digits`: ten classes, 1,438 training and 359 test images of 12 x 12 pixels."""
    images, labels = native_digits()
    train, test = split_digits(labels)
    large = enlarge(images)
    return SourceImages(large[train], labels[train], large[test], labels[test], _source())


def read_digit_pairs() -> SourceImages:
    """`digit_pairs`: classes 00..99, training pairs made of training digits and test pairs of test digits."""
    images, labels = native_digits()
    train_digits, test_digits = split_digits(labels)
    # 4,000 training and 500 test images of 100 classes.
    train = draw_pairs(labels, train_digits, 40, "train")
    test = draw_pairs(labels, test_digits, 5, "test")
    tens_and_units = torch.tensor([10, 1])
    return SourceImages(
        train_images=join_pairs(images, train),
        train_labels=(labels[train] * tens_and_units).sum(dim=1),
        test_images=join_pairs(images, test),
        test_labels=(labels[test] * tens_and_units).sum(dim=1),
        sources=_source(),
    )
