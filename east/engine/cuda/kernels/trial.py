"""A Triton kernel that only shows whether kernels can be compiled and run here."""

import triton.language as tl

from east.engine.cuda.kernels.common import kernel


@kernel
def add_one(numbers, sums, COUNT: tl.constexpr):
    """Add one to some numbers."""
    places = tl.arange(0, COUNT)
    tl.store(sums + places, tl.load(numbers + places) + 1)
