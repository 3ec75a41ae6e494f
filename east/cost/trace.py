"""The output size of every module of a network, found by running it without numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call


@dataclass(frozen=True)
class Output:
    """What one call of a module returned.

    Args:
        name: the module's name in the network; empty for the network itself.
        module: the module.
        shape: shape of its output for one image, without the batch.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def trace_outputs(model: nn.Module, image_shape: tuple[int, ...]) -> list[Output]:
    """Run a network on meta tensors and list the calls of its modules, in the order in which they returned.

    Only calls of modules are seen: functions such as `relu`, and weights that are reused, leave no trace. The network
    itself stays as it is, wherever it is.

    Args:
        model: any network whose modules return tensors.
        image_shape: (C, H, W) of one image.
    """
    outputs: list[Output] = []
    handles = []
    for name, module in model.named_modules():

        def note(module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
            outputs.append(Output(name, module, tuple(output.shape[1:])))

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
