"""The memory of a network as the paper's Table 6 counts it: by the rule of the torchsummary package."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

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


@dataclass(frozen=True)
class ModuleOutput:
    """What one call of a module returned.

    Args:
        name: the module's name in the network; empty for the network itself.
        module: the module.
        shape: shape of its output for one image, without the batch.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def trace_outputs(model: nn.Module, image_shape: tuple[int, ...]) -> list[ModuleOutput]:
    """Run a network on meta tensors and list the calls of its modules, in the order in which they returned.

    Only calls of modules are seen: functions such as `relu`, and weights that are reused, leave no trace. The network
    itself stays as it is, wherever it is.
    """
    outputs: list[ModuleOutput] = []
    handles = []
    for name, module in model.named_modules():

        def note(module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
            outputs.append(ModuleOutput(name, module, tuple(output.shape[1:])))

        handles.append(module.register_forward_hook(note))
    tensors = [*model.named_parameters(), *model.named_buffers()]
    shadow = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    # Two images, as batch norm in training mode refuses a single value per channel.
    images = torch.empty(2, *image_shape, device="meta")
    try:
        with torch.no_grad():
            functional_call(model, shadow, images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _mb(values: int) -> float:
    return values * BYTES_PER_VALUE / BYTES_PER_MB
