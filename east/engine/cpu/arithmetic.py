"""Sums of squares and optimizer steps by the compiled kernels: the same numbers on every processor."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from east.engine.cpu import bindings as k


class KernelArithmetic:
    """What a step does with vectors, see `east.engine.base.Arithmetic`.

    Args:
        kernels: the compiled kernels for the parameters' type.
    """

    def __init__(self, kernels: k.KernelSet) -> None:
        self._kernels = kernels

    def sum_of_squares(self, tensors: Sequence[Tensor]) -> Tensor:
        """The sum of squares of all elements, 0-d in float64: tensor by tensor, then their sums in order."""
        sums = torch.zeros(len(tensors), dtype=torch.float64)
        with _Vectors(tensors) as vectors:
            self._kernels("sum_of_squares", k.SumOfSquares(vectors.structure, k.address(sums)))
        total = 0.0
        for part in sums.tolist():
            total += part
        return torch.tensor(total, dtype=torch.float64)

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean of a vector in float64, 0-d: the sum rounded once, then the quotient."""
        return torch.tensor(math.fsum(numbers.tolist()) / len(numbers), dtype=torch.float64)

    def sgd(
        self,
        values: Sequence[Tensor],
        gradients: Sequence[Tensor],
        momenta: Sequence[Tensor],
        lr: float | Tensor,
        *,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        """One step of SGD in place."""
        with _Vectors(values) as at, _Vectors(gradients) as found, _Vectors(momenta) as state:
            constants = (float(lr), momentum, weight_decay, int(nesterov))
            self._kernels("sgd", k.Sgd(at.structure, found.addresses, state.addresses, *constants))

    def adam(
        self,
        values: Sequence[Tensor],
        gradients: Sequence[Tensor],
        means: Sequence[Tensor],
        mean_squares: Sequence[Tensor],
        steps: Sequence[Tensor],
        lr: float | Tensor,
        *,
        betas: tuple[float, float],
        epsilon: float,
        weight_decay: float,
    ) -> None:
        """One step of Adam in place; all parameters that have made equally many steps together."""
        for step in steps:
            step.add_(1)
        counts = [int(step) for step in steps]
        for count in sorted(set(counts)):
            chosen = [place for place, own in enumerate(counts) if own == count]
            corrected = float(lr) / (1 - power(betas[0], count))
            factor = 1 / math.sqrt(1 - power(betas[1], count))
            with (
                _Vectors([values[place] for place in chosen]) as at,
                _Vectors([gradients[place] for place in chosen]) as found,
                _Vectors([means[place] for place in chosen]) as first,
                _Vectors([mean_squares[place] for place in chosen]) as second,
            ):
                addresses = (found.addresses, first.addresses, second.addresses)
                constants = (*betas, weight_decay, epsilon, corrected, factor)
                self._kernels("adam", k.Adam(at.structure, *addresses, *constants))


def power(base: float, exponent: int) -> float:
    """base^exponent by repeated squaring: a library's `pow` may differ in the last bit.

    Args:
        base: any number.
        exponent: 0 or more.
    """
    result = 1.0
    while exponent:
        if exponent % 2:
            result *= base
        base *= base
        exponent //= 2
    return result


class _Vectors:
    """The addresses and lengths of contiguous tensors, as kernels take them, for as long as the block lasts."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._held = [_contiguous(tensor) for tensor in tensors]
        self._at = torch.tensor([tensor.data_ptr() for tensor in self._held], dtype=torch.int64)
        self._lengths = torch.tensor([tensor.numel() for tensor in self._held], dtype=torch.int64)
        self.structure = k.Vectors(len(self._held), k.address(self._at), k.address(self._lengths))

    def __enter__(self) -> "_Vectors":
        return self

    def __exit__(self, *error: object) -> None:
        self._held = []

    @property
    def addresses(self) -> int | None:
        """Where the addresses are."""
        return k.address(self._at)


def _contiguous(tensor: Tensor) -> Tensor:
    if not tensor.is_contiguous():
        raise ValueError("the kernels' vectors are contiguous tensors")
    return tensor.detach()
