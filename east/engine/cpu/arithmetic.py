"""Sums of squares and optimizer steps by the compiled kernels: the same numbers on every processor."""

import math
from typing import Unpack

import torch
from torch import Tensor

from east.engine.arithmetic import AdamRule, SgdRule, Tensors
from east.engine.cpu import bindings as k


class KernelArithmetic:
    """What a step does with vectors, see `east.engine.arithmetic.Arithmetic`."""

    def __init__(self, kernels: k.KernelSet) -> None:
        self._kernels = kernels

    def sum_of_squares(self, tensors: Tensors) -> Tensor:
        """The sum of squares of all elements, 0-d in float64: tensor by tensor, then their sums in order."""
        sums = torch.zeros(len(tensors), dtype=torch.float64)
        vectors = _Vectors(tensors)
        self._kernels("sum_of_squares", k.SumOfSquares(vectors.structure, sums))
        total = 0.0
        for part in sums.tolist():
            total += part
        return torch.tensor(total, dtype=torch.float64)

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean of a vector in float64, 0-d: the sum rounded once, then the quotient."""
        return torch.tensor(math.fsum(numbers.tolist()) / len(numbers), dtype=torch.float64)

    def square_root(self, number: Tensor) -> Tensor:
        """The square root of a number, 0-d in float64, correctly rounded.

        PyTorch's own is that of Intel's MKL, which on Intel's processors is off by a last bit for one number in 130.
        """
        return torch.tensor(math.sqrt(float(number)), dtype=torch.float64)

    def sgd(
        self, values: Tensors, gradients: Tensors, momenta: Tensors, lr: float | Tensor, **rule: Unpack[SgdRule]
    ) -> None:
        """One step of SGD in place."""
        at, found, state = map(_Vectors, (values, gradients, momenta))
        constants = (float(lr), rule["momentum"], rule["weight_decay"], int(rule["nesterov"]))
        self._kernels("sgd", k.SgdStep(at.structure, found.at, state.at, *constants))

    def adam(
        self,
        values: Tensors,
        gradients: Tensors,
        means: Tensors,
        mean_squares: Tensors,
        steps: Tensors,
        lr: float | Tensor,
        **rule: Unpack[AdamRule],
    ) -> None:
        """One step of Adam or AdamW in place; all parameters that have made equally many steps together."""
        for step in steps:
            step.add_(1)
        counts = [int(step) for step in steps]
        for count in sorted(set(counts)):
            chosen = [place for place, own in enumerate(counts) if own == count]
            corrected = float(lr) / (1 - power(rule["betas"][0], count))
            factor = 1 / math.sqrt(1 - power(rule["betas"][1], count))
            at, *others = (
                _Vectors([tensors[place] for place in chosen]) for tensors in (values, gradients, means, mean_squares)
            )
            # Decay by the rate is a step of its own, and the gradient has none of it then.
            shrink, decay = (
                (float(lr) * rule["weight_decay"], 0.0) if rule["decoupled"] else (0.0, rule["weight_decay"])
            )
            constants = (*rule["betas"], decay, rule["epsilon"], corrected, factor, shrink)
            self._kernels("adam", k.AdamStep(at.structure, *(other.at for other in others), *constants))


def power(base: float, exponent: int) -> float:
    """base^exponent by repeated squaring: a library's `pow` may differ in the last bit."""
    result = 1.0
    while exponent:
        if exponent % 2:
            result *= base
        base *= base
        exponent //= 2
    return result


class _Vectors:
    """The addresses and lengths of contiguous tensors, as kernels take them, for as long as this lives."""

    def __init__(self, tensors: Tensors) -> None:
        if not all(tensor.is_contiguous() for tensor in tensors):
            raise ValueError("the kernels' vectors are contiguous tensors")
        self._held = [tensor.detach() for tensor in tensors]
        self.at = torch.tensor([tensor.data_ptr() for tensor in self._held], dtype=torch.int64)
        self._lengths = torch.tensor([tensor.numel() for tensor in self._held], dtype=torch.int64)
        self.structure = k.Vectors(len(self._held), self.at, self._lengths)
