"""Loss and max-pool."""

import numpy as np
from numpy.typing import NDArray

from tests.reference.elementary import exponential, logarithm
from tests.reference.sums import Floats, in_order

KERNEL, STRIDE, PADDING = 3, 2, 1
"""Of the max-pool."""


def cross_entropy(logits: Floats, labels: NDArray[np.int64]) -> tuple[float, Floats]:
    """The mean loss of logits (N, classes), and its gradient at them."""
    count = len(logits)
    values = logits.astype(np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    powers = exponential(shifted)
    sums = in_order(powers)
    losses = logarithm(sums) - shifted[np.arange(count), labels]
    is_label = (np.arange(logits.shape[1]) == labels[:, None]).astype(np.float64)
    gradient = (powers / sums[:, None] - is_label) / count
    return float(in_order(losses)) / count, gradient.astype(np.float32)


def max_pool(x: Floats) -> Floats:
    """The largest number of each window of x (C, groups, H, W, 32)."""
    rows, columns = ((size + 2 * PADDING - KERNEL) // STRIDE + 1 for size in x.shape[2:4])
    y = np.empty((*x.shape[:2], rows, columns, x.shape[-1]), np.float32)
    for row, column in np.ndindex(rows, columns):
        y[:, :, row, column] = x[_window(x, row, column)].max(axis=(2, 3))
    return y


def max_pool_backward(dy: Floats, x: Floats) -> Floats:
    """The gradient at x: that of a window goes to the first of its largest numbers."""
    g = np.zeros_like(x)
    for row, column in np.ndindex(dy.shape[2:4]):
        window = x[_window(x, row, column)]
        flat = window.reshape(*x.shape[:2], -1, x.shape[-1])
        is_first = (np.arange(flat.shape[2])[:, None] == flat.argmax(axis=2)[:, :, None]).reshape(window.shape)
        to = g[_window(x, row, column)]
        to[...] = np.where(is_first, to + dy[:, :, row, column][:, :, None, None], to)
    return g


def _window(x: Floats, row: int, column: int) -> tuple[slice, ...]:
    spans = []
    for place, size in ((row, x.shape[2]), (column, x.shape[3])):
        start = place * STRIDE - PADDING
        spans.append(slice(max(start, 0), min(start + KERNEL, size)))
    return slice(None), slice(None), *spans
