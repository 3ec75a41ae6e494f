"""DyReLU: coefficients of each image, the activation, and the gradients of both.

Linear layers work on (features, groups, 32).
"""

from dataclasses import dataclass

import numpy as np

from tests.reference.elementary import exponential
from tests.reference.rounding import fma
from tests.reference.sums import Floats, halving_tree, has_image, in_order, lane_sums, plane_means

RANGES = (1.0, 1.0, 0.5, 0.5)
RESTS = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Linear:
    """A linear layer: weight (out, in), bias (out,)."""

    weight: Floats
    bias: Floats

    def __call__(self, inputs: Floats) -> Floats:
        """(out, groups, 32) of (in, groups, 32)."""
        out = np.stack([np.full(inputs.shape[1:], bias, np.float32) for bias in self.bias])
        for i, values in enumerate(inputs):
            out = fma(self.weight[:, i, None, None], values, out)
        return out

    def gradient_at_input(self, g: Floats) -> Floats:
        """(in, groups, 32) of g (out, groups, 32)."""
        found = np.zeros((self.weight.shape[1], *g.shape[1:]), np.float32)
        for o, values in enumerate(g):
            found = fma(self.weight[o, :, None, None], values, found)
        return found


@dataclass(frozen=True)
class LinearGradients:
    """Gradients of the parameters of a linear layer."""

    weight: Floats
    bias: Floats

    @classmethod
    def of(cls, g: Floats, inputs: Floats) -> "LinearGradients":
        """From the gradient at the output and the inputs; lanes without an image hold zeros in g."""
        return cls(_over_images(g[:, None], inputs[None]), _over_images(g, np.ones_like(g)))


@dataclass(frozen=True)
class Dynamic:
    """What a forward pass of a DyReLU leaves for the backward pass.

    Args:
        u: the input (C, groups, H, W, 32).
        means: its means (C, groups, 32).
        hidden: outputs of the hidden layer.
        code: outputs of the sigmoid (C, 4, groups, 32).
        scale: β·range, four numbers.
        coefficients: (C, 4, groups, 32), in the order a1, a2, b1, b2.
    """

    u: Floats
    means: Floats
    hidden: Floats
    code: Floats
    scale: Floats
    coefficients: Floats

    @property
    def lines(self) -> tuple[Floats, Floats]:
        """Both lines at every position."""
        a1, a2, b1, b2 = self._each()
        return fma(a1, self.u, b1), fma(a2, self.u, b2)

    @property
    def y(self) -> Floats:
        """The output."""
        one, two = self.lines
        return np.where((one >= two) | np.isnan(one), one, two)

    def slope(self) -> Floats:
        """That of the line which counts; of equal ones half their sum."""
        a1, a2, _, _ = self._each()
        one, two = self.lines
        return np.where(one > two, a1, np.where(two > one, a2, (a1 + a2) * np.float32(0.5)))

    def _each(self) -> list[Floats]:
        return [self.coefficients[:, k, :, None, None] for k in range(4)]


@dataclass(frozen=True)
class DynamicGradients:
    """Gradients at the input of a DyReLU and at its parameters."""

    u: Floats
    fc1: LinearGradients
    fc2: LinearGradients


def dyrelu(u: Floats, fc1: Linear, fc2: Linear, beta: float, count: int) -> Dynamic:
    """The activation of u, of `count` images."""
    means = plane_means(count, u)[:, :, 0, 0]
    hidden = fc1(means)
    hidden = np.where(hidden <= 0, np.float32(0), hidden)
    v = fc2(hidden).astype(np.float64)
    code = (1 / (1 + exponential(-v))).astype(np.float32).reshape(-1, 4, *v.shape[1:])
    scale = (np.float64(beta) * np.array(RANGES)).astype(np.float32)
    rest = np.array(RESTS, np.float32)[:, None, None]
    coefficients = fma(scale[:, None, None], fma(2, code, -1), rest)
    return Dynamic(u, means, hidden, code, scale, coefficients)


def dyrelu_backward(dy: Floats, unit: Dynamic, fc1: Linear, fc2: Linear, count: int) -> DynamicGradients:
    """Gradients from dy at the output."""
    groups, height, width = dy.shape[1:4]
    there = has_image(groups, count)
    at_v = np.where(there, _at_code(dy, unit, there).reshape(-1, *there.shape), np.float32(0))
    at_hidden = np.where(unit.hidden <= 0, np.float32(0), fc2.gradient_at_input(at_v))
    spread = fc1.gradient_at_input(at_hidden) / np.float32(height * width)
    at_u = fma(dy, unit.slope(), spread[:, :, None, None])
    return DynamicGradients(at_u, LinearGradients.of(at_hidden, unit.means), LinearGradients.of(at_v, unit.hidden))


def _at_code(dy: Floats, unit: Dynamic, there: Floats) -> Floats:
    """Gradients at the numbers that the sigmoid gets: (C, 4, groups, 32)."""
    one, two = unit.lines
    half = dy * np.float32(0.5)
    zero = np.float32(0)
    d1 = np.where(one > two, dy, np.where(two > one, zero, half))
    d2 = np.where(two > one, dy, np.where(one > two, zero, half))
    sums = (lane_sums(d1, unit.u), lane_sums(d2, unit.u), lane_sums(d1), lane_sums(d2))
    at_coefficients = np.stack(
        [np.where(there, in_order(np.moveaxis(each, -2, -1)).astype(np.float32), zero) for each in sums], axis=1
    )
    code, scale = unit.code, unit.scale[:, None, None]
    return at_coefficients * (np.float32(2) * scale * (code * (np.float32(1) - code)))


def _over_images(a: Floats, b: Floats) -> Floats:
    """Σ a·b over groups, lane by lane, then over lanes: without the last two axes."""
    total = np.zeros((), np.float32)
    for group in range(a.shape[-2]):
        total = fma(a[..., group, :], b[..., group, :], total)
    return halving_tree(total)
