"""The weights a training starts from: each tensor is drawn by name, so the order of modules does not matter."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from east.errors import EastError
from east.models.dct import DCTConv2d, DCTLinear
from east.models.described import Block
from east.seeding import RandomBits, generator

Law = Callable[[Tensor, RandomBits], None]
"""A distribution: fills a tensor in place from random bits."""


def initialise(model: nn.Module, seed: int) -> None:
    """Set every parameter of a network on the CPU to its value before training, all weights on.

    A tensor is drawn from the random bits of (seed, "initialise", its full name), in row-major order. Distributions are
    PyTorch's defaults: weights and biases of a layer are uniform on [-b, b) with b = 1 / sqrt(fan-in), computed in
    float64 and rounded once to float32; batch norm is 1 and 0. Sharing scales are uniform on [0, 1); DCT factors are
    1, and the sparse weights beside them 0.

    Raises:
        EastError: a parameter of the network has no distribution here.
    """
    # What a module says of its children's parameters overrides theirs.
    modules = reversed(list(model.named_modules()))
    laws = {f"{place}.{name}" if place else name: law for place, module in modules for name, law in _laws_of(module)}
    for name, parameter in model.named_parameters():
        if name not in laws:
            raise EastError(
                f"parameter {name} has no initial distribution. Add one for its module in east/models/initialise.py."
            )
        with torch.no_grad():
            laws[name](parameter, generator(seed, "initialise", name))


def _laws_of(module: nn.Module) -> Iterator[tuple[str, Law]]:
    match module:
        case nn.Conv2d() | nn.Linear():
            fan_in = module.weight[0].numel()
            yield "weight", _symmetric(fan_in)
            yield "bias", _symmetric(fan_in)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            yield "weight", _constant(1.0)
            yield "bias", _constant(0.0)
        case Block():
            for name, _ in module.named_parameters(recurse=False):
                yield name, _constant(1.0) if name.startswith("alpha") else _unit
        case DCTConv2d() | DCTLinear():
            yield "alpha", _constant(1.0)
            yield "sparse.weight", _constant(0.0)


def _symmetric(fan_in: int) -> Law:
    bound = 1 / math.sqrt(fan_in)

    def draw(tensor: Tensor, random: RandomBits) -> None:
        # 2 u - 1 is exact, so before the cast only the product with the bound is rounded.
        numbers = random.uniform(tensor.numel()).numpy()
        numbers *= 2.0
        numbers -= 1.0
        numbers *= bound
        tensor.copy_(torch.from_numpy(numbers.astype(np.float32)).view(tensor.shape))

    return draw


def _unit(tensor: Tensor, random: RandomBits) -> None:
    tensor.copy_(random.uniform32(tensor.numel()).view(tensor.shape))


def _constant(value: float) -> Law:
    def fill(tensor: Tensor, random: RandomBits) -> None:
        tensor.fill_(value)

    return fill
