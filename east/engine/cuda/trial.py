"""Runs a kernel that only shows whether kernels can be compiled and run here."""

import torch

from east.engine.cuda.kernels.trial import add_one

COUNT = 16


def computes(device: torch.device) -> bool:
    """Whether a kernel that adds one to some numbers does so."""
    numbers = torch.arange(COUNT, device=device, dtype=torch.float32)
    sums = torch.empty_like(numbers)
    add_one[(1,)](numbers, sums, COUNT=COUNT)
    return torch.equal(sums, numbers + 1)
