"""Memory for activations and the gradients at them: one piece that every step and every batch size uses again."""

import ctypes
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor

from east.engine.graph.network import Activation, GradientKey

CACHE_LINE = 64
"""Bytes of a cache line and of the widest vectors."""

HUGE_PAGE = 2**21
MADV_HUGEPAGE = 14

Role = Literal["z", "u", "y", "gradient"]
"""What memory is for: a convolution's output, a DyReLU's input, a stored activation, a gradient at activations."""

Piece = tuple[Role, Activation | GradientKey]
"""A role, and whose it is: that of the activation behind the convolution, or of all activations with one key."""


class Buffer:
    """The gradient at an activation. Engines add how they store the activation itself.

    Attributes:
        gradient: memory for it, in the engine's layout; activations with the same key share it. None for activations
            whose gradient is never stored, such as the images.
        has_gradient: whether something of this pass is in `gradient`.
    """

    def __init__(self, gradient: Tensor | None) -> None:
        self.gradient = gradient
        self.has_gradient = False

    @property
    def gradient_memory(self) -> Tensor:
        """The memory of the gradient, of an activation that has one."""
        if self.gradient is None:
            raise RuntimeError("the gradient at this activation is not stored")
        return self.gradient


class Arena:
    """Hands out tensors from one piece of memory, which it never gives back.

    Activations are the same size in every step. Memory that is allocated each time costs more than the step, because
    its pages are cleared when they are first touched.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device | None = None) -> None:
        self.dtype = dtype
        self._memory = torch.empty(0, dtype=dtype, device=device)

    @property
    def room(self) -> int:
        """Numbers that there is room for."""
        return self._memory.numel()

    def reserve(self, count: int) -> None:
        """Make room for this many numbers; if that takes more memory, tensors handed out before must be taken again."""
        if count <= self.room:
            return
        self._memory = self._memory.new_empty(0)  # give the old piece back before the new one is taken
        self._memory = self._memory.new_empty(count)
        if self._memory.device.type == "cpu":
            _ask_for_huge_pages(self._memory)

    def take(self, shapes: Mapping[Piece, Sequence[int]]) -> dict[Piece, Tensor]:
        """Tensors of these shapes one behind the other from the beginning, whose content is anything.

        There must be room for `numbers_needed` of them.
        """
        taken: dict[Piece, Tensor] = {}
        used = 0
        for piece, shape in shapes.items():
            count = math.prod(shape)
            taken[piece] = self._memory[used : used + count].view(*shape)
            used += _padded(count, self.dtype)
        return taken


def numbers_needed(shapes: Iterable[Sequence[int]], dtype: torch.dtype) -> int:
    """Numbers that tensors of these shapes take in an arena."""
    return sum(_padded(math.prod(shape), dtype) for shape in shapes)


def _padded(count: int, dtype: torch.dtype) -> int:
    """Numbers that a tensor of `count` takes: each begins at a cache line."""
    line = CACHE_LINE // dtype.itemsize
    return -(-count // line) * line


def _ask_for_huge_pages(memory: Tensor) -> None:
    """Large pages spare the processor most of the work of finding addresses. Only Linux has the call."""
    start = -(-memory.data_ptr() // HUGE_PAGE) * HUGE_PAGE
    end = (memory.data_ptr() + memory.numel() * memory.element_size()) // HUGE_PAGE * HUGE_PAGE
    if sys.platform == "linux" and end > start:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_HUGEPAGE)
