"""DyReLU-B: a ReLU whose slopes and intercepts depend on the image, and which fades into a plain ReLU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCTION = 4
"""Channels divided by the width of the hidden layer that computes the coefficients."""


class DyReLU(nn.Module):
    """max(a1 x + b1, a2 x + b2) with coefficients per image and channel (DyReLU-B, two lines, reduction 4).

    The coefficients are (1, 0, 0, 0) + beta * (1, 1, 0.5, 0.5) * r in the order (a1, a2, b1, b2), with r in (-1, 1)
    computed from the channel means. This blends the coefficients as beta * dynamic + (1 - beta) * plain: at beta = 0
    the unit is exactly a ReLU. Its linear layers keep PyTorch's default initialisation and are never masked.

    Args:
        channels: channels C of the input; the unit has 1.25 C^2 + 4.25 C parameters where 4 divides C.
    """

    beta: Tensor
    ranges: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.retired = False
        self.fc1 = nn.Linear(channels, hidden)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden, 4 * channels)
        self.sigmoid = nn.Sigmoid()
        # A tensor, so that captured CUDA graphs and compiled steps see it change.
        self.register_buffer("beta", torch.ones(()))
        self.register_buffer("ranges", torch.tensor([1.0, 1.0, 0.5, 0.5]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Activate x of shape (N, C, H, W)."""
        if self.retired:
            return F.relu(x)
        coefficients = self.coefficients(x.mean(dim=(2, 3)))
        a1, a2, b1, b2 = (coefficients[..., k, None, None] for k in range(4))
        return torch.maximum(a1 * x + b1, a2 * x + b2)

    def coefficients(self, means: Tensor) -> Tensor:
        """(a1, a2, b1, b2) for every image and channel, of shape (N, C, 4), from the channel means (N, C) of x."""
        images, channels = means.shape
        code = self.sigmoid(self.fc2(self.relu(self.fc1(means))))
        offsets = self.beta * self.ranges * (2 * code - 1).view(images, channels, 4)
        return torch.cat([offsets[..., :1] + 1, offsets[..., 1:]], dim=-1)

    def retire(self) -> list[nn.Parameter]:
        """Become a plain ReLU with an empty state dict; return the parameters given up."""
        removed = list(self.parameters())
        for name in ("fc1", "relu", "fc2", "sigmoid", "beta", "ranges"):
            delattr(self, name)
        self.retired = True
        return removed


def dyrelu_units(model: nn.Module) -> list[DyReLU]:
    """The DyReLU units of a network that are not retired."""
    return [unit for unit in model.modules() if isinstance(unit, DyReLU) and not unit.retired]


def set_beta(model: nn.Module, beta: float) -> None:
    """Set how dynamic every unit is: 1 is DyReLU, 0 a plain ReLU (Section A, DyReLU phasing)."""
    for unit in dyrelu_units(model):
        unit.beta.fill_(beta)


def retire_dyrelu(model: nn.Module) -> list[nn.Parameter]:
    """Turn every unit into a plain ReLU for good, once beta is 0.

    Returns:
        The parameters that left the network, for the optimizer to drop.
    """
    return [parameter for unit in dyrelu_units(model) for parameter in unit.retire()]
