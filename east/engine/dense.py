"""The reference engine: PyTorch's own layers on weights that are zero where the mask is off."""

import torch
from torch import Tensor, nn


class DenseEngine:
    """Executes every position of every weight, active or not.

    Args:
        model: the network; whatever training or evaluation mode it is in holds.
        numerics: `tf32`, `fp32` or `bf16`; only CUDA distinguishes them.
        device: where the network is.
    """

    name = "dense"

    def __init__(self, model: nn.Module, *, numerics: str, device: torch.device) -> None:
        # Channels-last is the layout in which convolutions of this size run fastest, on the CPU and on tensor cores.
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.autocast = device.type == "cuda" and numerics == "bf16"
        if device.type == "cuda":
            torch.backends.cudnn.conv.fp32_precision = "ieee" if numerics == "fp32" else "tf32"  # type: ignore[attr-defined]

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), in fp32."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast):
            logits: Tensor = self.model(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def masks_changed(self) -> None:
        """Nothing depends on the masks: off weights are zeros like any other value."""
