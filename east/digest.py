"""A digest of tensors by name, dtype, shape and numbers, whatever file or library holds them."""

import hashlib
from collections.abc import Mapping

import numpy as np
from torch import Tensor


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, in hexadecimal.

    What is hashed: for each tensor, sorted by name, a line `name dtype shape`, such as `mean float64 3` or
    `images uint8 10x3x8x8`, then its elements in row-major order as little-endian bytes.

    Args:
        tensors: by name, on any device and in any memory layout.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        elements = tensors[name].detach().contiguous().cpu().numpy()
        found.update(f"{name} {elements.dtype.name} {'x'.join(map(str, elements.shape))}\n".encode())
        found.update(np.ascontiguousarray(elements.astype(elements.dtype.newbyteorder("<"), copy=False)).data)
    return found.hexdigest()
