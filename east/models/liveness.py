"""How much of a sparse network is connected, from the masks alone: reachability from the input to the logits."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from east.models.dct import DCTConv2d, DCTLinear
from east.models.described import DescribedNetwork, Masked, masked_part
from east.models.description import MASKED, Feature
from east.sparse.layers import MaskedLayer, masked_layers


@dataclass(frozen=True)
class Liveness:
    """Connectivity of a network. A channel is live if it varies with the input and the logits depend on it.

    Channels are counted at the output of every convolution and linear layer but the classifier, once for every place
    where a shared one is used. By this count random ERK masks leave about 47 % of a CIFAR ResNet-34 live at density
    0.0005. DyReLU units are treated as the ReLUs they become, although while active their pooled coefficients connect
    all channels of a tensor.

    Attributes:
        channels: output channels of all convolutions.
        live_channels: the live ones.
        weights: active weights of all masked layers, classifier included.
        live_weights: those on a path from the input to the logits.
        branches: residual branches, one for each sum.
        dead_branches: those whose output has no live channel.
        positions: weights of all masked layers, active or not.
        reachable_positions: those whose input channel varies with the input and on whose output channel the logits
            depend. Elsewhere only channels that are the same for every image can give a gradient.
    """

    channels: int
    live_channels: int
    weights: int
    live_weights: int
    branches: int
    dead_branches: int
    positions: int
    reachable_positions: int


def liveness(model: nn.Module) -> Liveness:
    """Follow the masks of a network from its input forward and from its logits back.

    Of a module that has no description, all counts are 0.
    """
    if not isinstance(model, DescribedNetwork):
        return Liveness(0, 0, 0, 0, 0, 0, 0, 0)
    # Numbers of active weights (out, in). The paper's kernels hold at most 49, so a byte is enough, and faster.
    active = {
        layer: layer.mask.reshape(*layer.mask.shape[:2], -1).sum(dim=2, dtype=torch.uint8).cpu()
        for layer in masked_layers(model).values()
    }
    description = model.description
    varies: dict[Feature, Tensor] = {}
    uses: dict[Feature, _Use] = {}
    for feature in description.features:
        before = [varies[one] for one in feature.inputs]
        if feature.operation in MASKED:
            uses[feature] = _Use(model.masked_of(feature), before[0], active)
            varies[feature] = uses[feature].output_varies
        else:
            varies[feature] = _forward(feature, before)
    matters = {one: torch.zeros(one.shape[0], dtype=torch.bool) for one in description.features}
    matters[description.head].fill_(True)
    for feature in reversed(description.features):
        for one in feature.inputs:
            found = matters[feature]
            at_input = uses[feature].look_back(found) if feature in uses else _back(feature, found, one)
            matters[one] |= at_input

    convs = [use for feature, use in uses.items() if feature is not description.head]
    branches = [uses[end] for one in description.features if (end := _end_of_branch(one)) is not None]
    reachable: dict[MaskedLayer, Tensor] = {}
    for use in uses.values():
        reachable[use.layer] = reachable.get(use.layer, torch.tensor(False)) | use.reachable
    return Liveness(
        channels=sum(len(use.live_outputs) for use in convs),
        live_channels=sum(int(use.live_outputs.sum()) for use in convs),
        weights=sum(int(weights.sum()) for weights in active.values()),
        live_weights=sum(int(active[layer][pairs].sum()) for layer, pairs in reachable.items()),
        branches=len(branches),
        dead_branches=sum(not branch.live_outputs.any() for branch in branches),
        positions=sum(layer.weight.numel() for layer in active),
        reachable_positions=sum(int(pairs.sum()) * layer.weight[0, 0].numel() for layer, pairs in reachable.items()),
    )


def _forward(feature: Feature, before: list[Tensor]) -> Tensor:
    """Which channels vary behind an operation without weights."""
    match feature.operation:
        case "images":
            return torch.ones(feature.shape[0], dtype=torch.bool)
        case "add":
            return before[0] | before[1]
        case "flatten":
            return before[0].repeat_interleave(feature.inputs[0].positions)
        case "identity":
            return torch.nn.functional.pad(before[0], (0, feature.shape[0] - len(before[0])))
        case _:
            return before[0]


def _back(feature: Feature, matters: Tensor, one: Feature) -> Tensor:
    """Which channels of an input count where those behind an operation without weights do."""
    if feature.operation == "flatten":
        return matters.view(one.shape[0], -1).any(dim=1)
    return matters[: one.shape[0]]


def _end_of_branch(feature: Feature) -> Feature | None:
    """The last convolution of the residual branch that a sum ends; None for anything else."""
    if feature.operation != "add":
        return None
    before = feature.inputs[0]
    while before.operation in ("norm", "act"):
        before = before.inputs[0]
    return before if before.operation in MASKED else None


class _Use:
    """One place where a layer is used, and the state of its channels there.

    `active` has the numbers of active weights (out, in) of every masked layer.
    """

    def __init__(self, module: Masked, input_varies: Tensor, active: Mapping[MaskedLayer, Tensor]) -> None:
        dense = isinstance(module, DCTConv2d | DCTLinear)
        self.layer: MaskedLayer = masked_part(module)
        self.connected = torch.ones_like(active[self.layer], dtype=torch.bool) if dense else active[self.layer] > 0
        self.input_varies = input_varies
        self.output_varies = (self.connected & input_varies).any(dim=1)

    def look_back(self, output_matters: Tensor) -> Tensor:
        """Record the output channels that the logits depend on; return the input channels that these depend on."""
        self.output_matters = output_matters
        return (self.connected & output_matters[:, None]).any(dim=0)

    @property
    def live_outputs(self) -> Tensor:
        """Which output channels are live."""
        return self.output_varies & self.output_matters

    @property
    def reachable(self) -> Tensor:
        """Pairs (output, input) of a channel that the logits depend on and one that varies with the network's input."""
        return self.output_matters[:, None] & self.input_varies
