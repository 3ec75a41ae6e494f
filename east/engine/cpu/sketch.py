"""Random projections of dense gradients: how their sums are divided, and what they give with an input."""

import torch
from torch import Tensor

from east.engine.cpu import kernels as k


def parts_of(channels: int) -> int:
    """Sums of signs * dz that a layer of this many output channels has, before they are added up."""
    return -(-channels // k.SKETCH_CHANNELS)


def contracted(kernels: k.KernelSet, geometry: k.Geometry, x: k.Planes, sketches: Tensor) -> Tensor:
    """The dense gradient of a convolution contracted with the signs of its sketches, (in, probes, taps) in float64.

    Args:
        kernels: the compiled kernels.
        geometry: of the convolution.
        x: its input.
        sketches: (parts, probes, ...), the sums of signs * dz over channels; the first part becomes the sum of all.
    """
    parts, probes = sketches.shape[:2]
    products = torch.empty(geometry.in_channels, probes, geometry.kernel**2, dtype=torch.float64)
    structure = k.Correlate(geometry, x, probes, parts, k.address(sketches), k.address(products))
    kernels("correlate", structure)
    return products
