"""The memory of a network as the paper's Table 6 counts it: by the rule of the torchsummary package."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from east.cost.trace import trace_outputs

BYTES_PER_VALUE = 4
BYTES_PER_MB = 2**20


@dataclass(frozen=True)
class Memory:
    """Sizes in MB of 2^20 bytes, four bytes a value, for one image.

    Args:
        param_mb: "Params size".
        activations_mb: "Forward/backward pass size".
        input_mb: "Input size".
    """

    param_mb: float
    activations_mb: float
    input_mb: float

    @property
    def total_mb(self) -> float:
        """The "Estimated Total Size"."""
        return self.param_mb + self.activations_mb + self.input_mb


def torchsummary_memory(model: nn.Module, image_shape: tuple[int, ...]) -> Memory:
    """Count memory by torchsummary's rule (Section D, Table 6).

    Every module that is called counts, leaf or composite, except the network itself, `Sequential` and `ModuleList`.
    It adds the sizes of its own `weight` and `bias`, trained or not, and twice the size of its output (forward and
    backward). Bare parameters, functions and reused weights are invisible, so this is an accounting and not a
    measurement. DCT layers must be executed unfused to be counted as in the published implementation.

    Args:
        model: the network.
        image_shape: (C, H, W) of one image.
    """
    parameters = activations = 0
    for output in trace_outputs(model, image_shape):
        if output.module is model or isinstance(output.module, nn.Sequential | nn.ModuleList):
            continue
        activations += math.prod(output.shape)
        parameters += sum(
            tensor.numel()
            for name in ("weight", "bias")
            if isinstance(tensor := getattr(output.module, name, None), Tensor)
        )
    return Memory(_mb(parameters), _mb(2 * activations), _mb(math.prod(image_shape)))


def _mb(values: int) -> float:
    return values * BYTES_PER_VALUE / BYTES_PER_MB
