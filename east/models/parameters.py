"""What a network stores, by kind: at extreme sparsity batch norm outweighs the weights."""

from dataclasses import dataclass

from torch import nn

from east.models.dyrelu import dyrelu_units
from east.sparse.layers import masked_layers

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class ParameterCount:
    """Trainable parameters that a network stores.

    Args:
        nonzero_weights: active weights of masked layers.
        batch_norm: scales and shifts of batch normalisation.
        dyrelu: parameters of DyReLU units that are not retired; never masked.
        other: the rest: sharing scales, DCT factors, biases.
    """

    nonzero_weights: int
    batch_norm: int
    dyrelu: int
    other: int


def count_parameters(model: nn.Module, nonzeros: int | None = None) -> ParameterCount:
    """Count what a network stores; off weights are not stored.

    Where masks are not drawn yet, `nonzeros` says how many weights will be active; None counts them in the masks.
    """
    layers = masked_layers(model).values()
    masked = sum(layer.weight.numel() for layer in layers)
    norms = sum(_size(module) for module in model.modules() if isinstance(module, BATCH_NORMS))
    dyrelu = sum(_size(unit) for unit in dyrelu_units(model))
    if nonzeros is None:
        nonzeros = sum(int(layer.mask.sum()) for layer in layers)
    return ParameterCount(nonzeros, norms, dyrelu, _size(model) - masked - norms - dyrelu)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
