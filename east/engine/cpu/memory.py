"""Memory for activations: one piece that is used again by every step and every batch size."""

import ctypes
import math
import sys
from contextlib import suppress

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes of a cache line and of the widest vectors."""

HUGE_PAGE = 2**21
MADV_HUGEPAGE = 14


class Arena:
    """Hands out tensors from one piece of memory, which it never gives back.

    Activations are the same size in every step. Memory that is taken anew each time costs more than the step, because
    its pages are cleared when they are first touched.

    Args:
        dtype: of all tensors.
        device: where they are.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device | None = None) -> None:
        self.dtype = dtype
        self._memory = torch.empty(0, dtype=dtype, device=device)
        self._used = 0

    @property
    def room(self) -> int:
        """Numbers that there is room for."""
        return self._memory.numel()

    def reserve(self, count: int) -> bool:
        """Make room for this many numbers; returns whether tensors handed out before must be taken anew."""
        if count <= self._memory.numel():
            return False
        self._memory = self._memory.new_empty(0)  # give the old piece back before the new one is taken
        self._memory = self._memory.new_empty(count)
        if self._memory.device.type == "cpu":
            _ask_for_huge_pages(self._memory)
        return True

    def reset(self) -> None:
        """Hand out from the beginning again."""
        self._used = 0

    def take(self, *shape: int) -> Tensor:
        """A tensor whose content is anything."""
        tensor = self._memory[self._used : self._used + math.prod(shape)].view(shape)
        self._used += padded(math.prod(shape), self.dtype)
        return tensor


def padded(count: int, dtype: torch.dtype) -> int:
    """Numbers that a tensor of `count` takes in an arena: each begins at a cache line."""
    line = ALIGNMENT // dtype.itemsize
    return -(-count // line) * line


def _ask_for_huge_pages(memory: Tensor) -> None:
    """Large pages spare the processor most of the work of finding addresses. Only Linux has the call."""
    start = -(-memory.data_ptr() // HUGE_PAGE) * HUGE_PAGE
    end = (memory.data_ptr() + memory.numel() * memory.element_size()) // HUGE_PAGE * HUGE_PAGE
    if sys.platform == "linux" and end > start:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_HUGEPAGE)
