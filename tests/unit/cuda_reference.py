"""What the kernels of the sparse CUDA engine must compute, in float64 by PyTorch and its automatic differentiation."""

import torch
import torch.nn.functional as F

from east.engine.cuda.operands import Source
from east.engine.cuda.tiles import accumulation_type
from east.engine.graph.index import Grouped
from east.engine.graph.network import Window

POISON = -(10**6)
"""An entry that no kernel may read."""


def lists_of(weight, capacity, by):
    """Lists of a dense weight (out, in, k, k) with zeros, by "output" or "input", and its values; poison at the end."""
    out_channels, in_channels, kernel, _ = weight.shape
    positions = weight.flatten().nonzero()[:, 0]
    outputs, inputs = positions // (in_channels * kernel**2), positions // kernel**2 % in_channels
    group, other, groups = (outputs, inputs, out_channels) if by == "output" else (inputs, outputs, in_channels)
    order = group.argsort(stable=True)
    start = torch.searchsorted(group[order].contiguous(), torch.arange(groups + 1, device=weight.device))

    def padded(vector, filler):
        return F.pad(vector, (0, capacity - len(vector)), value=filler)

    entries = [padded(vector[order].int(), POISON) for vector in (other, positions % kernel**2)]
    lists = Grouped(start.int(), *entries, place=padded(order.int(), POISON))
    values = padded(weight.flatten()[positions], float("nan"))
    return lists, values


def sparse_weight(shape, nonzeros, seed, dtype, device):
    """A weight (out, in, k, k) with about so many non-zeros; the last output and the first input channel have none."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(shape)
    flat = weight.view(-1)
    flat[torch.randperm(flat.numel(), generator=generator)[:nonzeros]] = torch.randn(nonzeros, generator=generator)
    if shape[0] > 1:
        weight[-1] = 0
    if shape[1] > 1:
        weight[:, 0] = 0
    return weight.to(device, accumulation_type(dtype))


def random_source(shape, dtype, device, *, pending, rectify, seed, weight=None):
    """An activation with random contents; channels that `weight`, the convolution before it, does not write are NaN."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(shape, generator=generator, dtype=torch.float64)
    scale, shift = torch.randn(2, shape[0], generator=generator, dtype=torch.float64)
    stored = None
    if weight is not None:
        stored = lists_of(weight, int(weight.count_nonzero()), "output")[0].start
        data[(stored.diff() == 0).cpu()] = float("nan")
    own = {"device": device, "dtype": accumulation_type(dtype)}
    affine = (scale.to(**own), shift.to(**own)) if pending else (None, None)
    return Source(data.to(device, dtype), *affine, rectify, stored)


def images(tensor):
    """(C, H, W, N) as PyTorch has it: (N, C, H, W), in float64."""
    return tensor.double().permute(3, 0, 1, 2)


def planes(tensor):
    """The inverse of `images`."""
    return tensor.permute(1, 2, 3, 0)


def activation(source):
    """What a source stands for, in float64: (C, H, W, N)."""
    value = source.data.double()
    if source.stored is not None:
        value = torch.where((source.stored.diff() > 0)[:, None, None, None], value, 0.0)
    if source.scale is not None:
        value = value * source.scale.double()[:, None, None, None] + source.shift.double()[:, None, None, None]
    return value.relu() if source.rectify else value


def convolve(x, weight, window: Window):
    """The convolution of planes (Ci, H, W, N) with a dense weight: (Co, Ho, Wo, N)."""
    return planes(F.conv2d(images(x), weight.double(), None, window.stride, window.padding))


def batch_norm(z, weight, bias, epsilon, running=None):
    """Batch norm of planes (C, H, W, N), with the statistics of the batch or with running ones (mean, variance)."""
    mean, variance = (None, None) if running is None else (vector.double() for vector in running)
    return planes(F.batch_norm(images(z), mean, variance, weight, bias, running is None, 0.0, epsilon))


def dyrelu(u, coefficients):
    """max(a1 u + b1, a2 u + b2) with coefficients (C, 4, N)."""
    a1, a2, b1, b2 = (coefficients[:, k, None, None, :] for k in range(4))
    return torch.maximum(a1 * u + b1, a2 * u + b2)
