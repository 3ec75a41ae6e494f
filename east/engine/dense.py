"""The reference engine: PyTorch's own layers on weights that are zero where the mask is off."""

import logging
import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from east.engine.arithmetic import PyTorchArithmetic
from east.engine.base import Executed, GradientRequest, Gradients
from east.engine.formats import in_format, network_format, set_convolution_precision
from east.engine.machine import cache_folder, folder_of_process, own_cache
from east.reproducibility import Reproducibility
from east.sparse.active import ActiveWeights, take_gradients

LOG = logging.getLogger(__name__)

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
MOST_VARIANTS = 64
"""Variants that are compiled in a process: of a network, one for each size of a batch and set of trained parameters."""


class DenseEngine:
    """Executes every position of every weight, active or not.

    Args:
        model: the network; whatever training or evaluation mode it is in holds.
        active: the active weights of its masked layers, by name.
        numerics: `tf32`, `fp32` or `bf16`; only CUDA distinguishes them.
        device: where the network is.
        lay_out: bring the weights into the format of the images; otherwise they stay as they are, which is a little
            slower.
        compiled: compile forward and backward pass of the batches that are trained on; evaluation is not worth it.
    """

    name = "dense"

    def __init__(
        self,
        model: nn.Module,
        active: Mapping[str, ActiveWeights],
        *,
        numerics: str,
        device: torch.device,
        lay_out: bool = True,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self._training: Callable[[Tensor], Tensor] = CompiledNetwork(model) if compiled else model
        self.active = active
        self.arithmetic = PyTorchArithmetic()
        self._format = network_format(model, device)
        if lay_out:
            model.to(memory_format=self._format)  # type: ignore[call-overload]
            for weights in active.values():
                weights.read()
        self._on_cpu = device.type == "cpu"
        self.autocast = device.type == "cuda" and numerics == "bf16"
        set_convolution_precision(numerics, device)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), in fp32 where the network is not in fp64."""
        return self._logits(self.model, images)

    def gradients(self, images: Tensor, criterion: Callable[[Tensor], Tensor], request: GradientRequest) -> Gradients:
        """Forward and backward pass; dense gradients are there whether they are requested or not."""
        return differentiate(self._logits(self._training, images), criterion, self.active, request)

    def masks_changed(self) -> None:
        """Nothing depends on the masks: off weights are zeros like any other value."""

    def signature(self, images: Tensor) -> Hashable:
        """Nothing but the contents of tensors decides what is executed."""
        return ()

    def executed(self) -> Executed:
        """All layers densely: on a CPU the bytes depend on its instructions, on threads and on PyTorch's libraries."""
        return Executed(
            engine=self.name,
            reproducibility=Reproducibility.THIS_PROCESSOR if self._on_cpu else Reproducibility.STATISTICAL,
            executions={"dense": len(self.active)},
            instruction_set=torch.backends.cpu.get_cpu_capability() if self._on_cpu else None,
        )

    def _logits(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast):
            logits = network(in_format(images, self._format))
        return logits.float() if self.autocast else logits


class CompiledNetwork:
    """Calls a network that is compiled when it is first called with images of some shape.

    Weights, masks and β are read from memory whenever it is called, so a change of them compiles nothing. What is
    compiled is kept in a folder of the project's cache, unless the user names one, and serves later processes too, but
    not where others can write to it. Where it cannot be compiled, the network is called as it is, and a line says why.

    It is called in training mode only.
    """

    def __init__(self, model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
        if CACHE_VARIABLE not in os.environ:
            cache = cache_folder()
            kept = own_cache(cache and cache / "inductor", "the network is compiled for this process alone")
            os.environ[CACHE_VARIABLE] = str(kept or folder_of_process())
        self._model = model
        self._compiled: Callable[[Tensor], Tensor] | None = torch.compile(
            model, backend=backend, fullgraph=True, dynamic=False
        )

    @property
    def is_compiled(self) -> bool:
        """Whether nothing has kept it from being compiled so far."""
        return self._compiled is not None

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), whose gradient is compiled as well."""
        if self._compiled is not None:
            from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

            try:
                # The backward pass is compiled now rather than when it is needed: should it fail, nothing is done yet.
                with (
                    torch._functorch.config.patch(force_non_lazy_backward_lowering=True),
                    torch._dynamo.config.patch(recompile_limit=MOST_VARIANTS),
                ):
                    return self._compiled(images)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                self._give_up(error)
        logits: Tensor = self._model(images)
        return logits

    def _give_up(self, error: Exception) -> None:
        reason = " ".join(str(error).split("\n\n")[0].split())
        LOG.warning("the network is not compiled: %s", reason)
        self._compiled = None


def differentiate(
    logits: Tensor,
    criterion: Callable[[Tensor], Tensor],
    active: Mapping[str, ActiveWeights],
    request: GradientRequest,
) -> Gradients:
    """The backward pass of an engine whose logits PyTorch can differentiate with respect to dense weights.

    The gradients of masked layers are left in `active`.
    """
    loss = criterion(logits)
    loss.backward()  # type: ignore[no-untyped-call]
    take_gradients(active.values())
    squared_norms = None
    if request.signs is not None:
        dense = {name: weights.layer.weight.grad for name, weights in active.items()}
        found = {name: gradient for name, gradient in dense.items() if gradient is not None}
        squared_norms = sum_squared_norms(found, request.signs)
    return Gradients(loss.detach(), logits.detach(), squared_norms)


def sum_squared_norms(gradients: Mapping[str, Tensor], signs: Mapping[str, Tensor]) -> Tensor:
    """For each probe s, ||s dW||^2 summed over layers: an unbiased estimate of the squared norm of all gradients.

    With independent signs, E[s s'] is the identity, so that E||s dW||^2 = tr(dW' dW) = ||dW||^2. The signs go over
    output channels because those of a gradient are nearly orthogonal to each other and very different in size, which
    makes the estimate sharp; input channels, which a ReLU leaves positive, are not (docs/reproduction-notes.md).

    Args:
        gradients: layer name -> dW of shape (out, in, ...), not empty.
        signs: layer name -> s, of shape (probes, out), each +1 or -1.

    Returns:
        (probes,) in float64.
    """
    products = []
    for name, gradient in gradients.items():
        # The order (in, ...) does not matter, so that of channels-last memory is taken, which needs no copy.
        rows = gradient.movedim(1, -1).flatten(1) if gradient.dim() > 2 else gradient
        products.append(signs[name].to(rows.dtype) @ rows)
    if products[0].is_cuda:
        # There the number of operations counts, not their size.
        return torch.cat(products, dim=1).double().square().sum(1)
    return torch.stack([product.double().square().sum(1) for product in products]).sum(0)
