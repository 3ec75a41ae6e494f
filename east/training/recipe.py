"""The recipe of Table B.1: learning rate and gradient clip."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import torch
from torch import Tensor, nn

from east.config.run import ClipSpec, TrainingSpec
from east.sparse.layers import MaskedLayer


def learning_rate(epoch: int, spec: TrainingSpec) -> float:
    """The learning rate of an epoch (counted from 1): lr times the drop factor for each drop epoch that is over."""
    drops = sum(epoch > drop for drop in spec.lr_drop_epochs)
    # In decimals, so that 0.1 dropped twice is 0.001 and not its neighbour.
    return float(Decimal(str(spec.lr)) * Decimal(str(spec.lr_drop_factor)) ** drops)


def clip_gradients(
    parameters: Iterable[nn.Parameter], layers: Mapping[str, MaskedLayer], clip: ClipSpec | None
) -> None:
    """Scale all gradients down to a global norm of at most `clip.norm`.

    The default norm runs over every gradient, off weights included: it is 60 to 180 times the norm over active
    weights, so the scope is part of the method. Scaling changes no ranking, so growth sees the same order either way.

    Args:
        parameters: whose gradients are clipped.
        layers: the masked layers among them; scope `active` counts only their active weights.
        clip: norm and scope, or None for no clip.
    """
    if clip is None:
        return
    gradients = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
    masks = {layer.weight: layer.mask for layer in layers.values()} if clip.scope == "active" else {}
    counted = [
        gradient * masks[parameter] if parameter in masks else gradient for parameter, gradient in gradients.items()
    ]
    norm: Tensor = torch.nn.utils.get_total_norm(counted)
    torch.nn.utils.clip_grads_with_norm_(gradients.keys(), clip.norm, norm)
