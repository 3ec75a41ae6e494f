"""From the memory of the CPU to a device without waiting for either."""

import torch
from torch import Tensor


def staged(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU from where a copy to the device with `non_blocking=True` waits for nothing.

    For a GPU it is a copy in page-locked memory, which PyTorch uses for nothing else until it has been read; from
    ordinary memory a copy would hold up the CPU, and in the end the GPU, until all work before it is done.

    Args:
        tensor: on the CPU, of the dtype that it has on the device: one that is converted on the way is not staged.
        device: where it goes.
    """
    return tensor.pin_memory() if device.type == "cuda" else tensor
