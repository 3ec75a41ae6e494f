"""FLOPs of inference and training by rule, of a dense network and of a sparse one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from east.cost.accounting import trace_outputs
from east.models.dct import DCTConv2d, DCTLinear
from east.models.sharing import reuse_counts
from east.sparse.layers import MaskedConv2d, MaskedLinear

FLOPS_PER_USE = 2
"""A weight that is applied once costs a multiplication and an addition."""


@dataclass(frozen=True)
class LayerWork:
    """A convolution or linear layer, as far as FLOPs depend on it.

    Args:
        name: the layer's name in the network.
        weights: its weights, active or not.
        positions: how often each weight is applied for one image, over all places where the layer is used. Positions
            at the border that meet padding count like any other.
        masked: whether only active weights need be executed; DCT matrices and DyReLU are dense.
        trained: whether the weights get a gradient; DCT matrices do not, nothing else is fixed.
        first: whether it reads the image, which needs no gradient.
    """

    name: str
    weights: int
    positions: int
    masked: bool
    trained: bool
    first: bool


def layer_work(model: nn.Module, image_shape: tuple[int, ...]) -> list[LayerWork]:
    """All convolutions and linear layers of a network, in order of execution.

    A DCT layer is two: its fixed matrix and its sparse part. A reused layer is one, with the positions of all its
    places, which are of equal size.
    """
    uses = {name: 1 + count for name, count in reuse_counts(model).items()}
    dct_layers = [module for module in model.modules() if isinstance(module, DCTConv2d | DCTLinear)]
    parts = {part for layer in dct_layers for part in (layer.sparse, layer.dct)}
    work: list[LayerWork] = []
    for output in trace_outputs(model, image_shape):
        layer, name, first = output.module, output.name, not work
        positions = math.prod(output.shape[1:])
        if isinstance(layer, DCTConv2d | DCTLinear):
            weights, positions = layer.sparse.weight.numel(), positions * uses[f"{name}.sparse"]
            work.append(LayerWork(f"{name}.dct", weights, positions, masked=False, trained=False, first=first))
            work.append(LayerWork(f"{name}.sparse", weights, positions, masked=True, trained=True, first=first))
        elif isinstance(layer, nn.Conv2d | nn.Linear) and layer not in parts:
            masked = isinstance(layer, MaskedConv2d | MaskedLinear)
            positions *= uses.get(name, 1)
            work.append(LayerWork(name, layer.weight.numel(), positions, masked=masked, trained=True, first=first))
    return work


def inference_flops(work: Sequence[LayerWork], nonzeros: Mapping[str, float] | None = None) -> float:
    """FLOPs of one image through the network: 2 * positions * executed weights, summed over layers.

    Batch norm, activations, pooling and residual additions are not counted.

    `nonzeros` are the active weights of each masked layer (a mean over time need not be whole); None for all weights: a
    DCT matrix is then added into the weight beside it and costs nothing.
    """
    return sum(FLOPS_PER_USE * layer.positions * _executed(layer, nonzeros) for layer in work)


def training_flops(
    work: Sequence[LayerWork], nonzeros: Mapping[str, float] | None = None, dense_gradient_share: float = 0.0
) -> float:
    """FLOPs of one image in a training step, as the mean over steps.

    The sum of the forward pass; the gradient of each layer's input, at the same price, but not for the layer that
    reads the image; and the gradient of trained weights, at the same price again. On steps whose gradient decides
    which weights grow, the gradient of all weights is computed and not only that of active ones. Optimizer, gradient
    clip and mask update are not counted, nor is the gradient of scalars (DCT factors, sharing scales).

    Args:
        work: the layers.
        nonzeros: as for `inference_flops`, or its mean over the training.
        dense_gradient_share: steps that need dense gradients divided by all steps, in [0, 1].
    """
    total = 0.0
    for layer in work:
        executed = _executed(layer, nonzeros)
        gradient = (1 - dense_gradient_share) * executed + dense_gradient_share * layer.weights
        passes = executed + (0 if layer.first else executed) + (gradient if layer.trained else 0)
        total += FLOPS_PER_USE * layer.positions * passes
    return total


def _executed(layer: LayerWork, nonzeros: Mapping[str, float] | None) -> float:
    if nonzeros is None:
        return layer.weights if layer.trained else 0
    return nonzeros[layer.name] if layer.masked else layer.weights
