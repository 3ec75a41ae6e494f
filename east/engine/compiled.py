"""The forward pass of a network, compiled by PyTorch, and its backward pass with it."""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from east.engine.cpu.library import cache_folder

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
MOST_VARIANTS = 64
"""Variants that are compiled in a process: of a network, one for each size of a batch and set of trained parameters."""


class CompiledNetwork:
    """Calls a network that is compiled when it is first called with images of some shape.

    Weights, masks and β are read from memory whenever it is called, so a change of them compiles nothing. What is
    compiled is kept in a folder of the project's cache, unless the user names one, and serves later processes too.
    Where it cannot be compiled, the network is called as it is, and a line says why.

    Args:
        model: the network; it is called in training mode only.
        backend: of `torch.compile`.
    """

    def __init__(self, model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
        folder = cache_folder()
        if folder is not None:
            os.environ.setdefault(CACHE_VARIABLE, str(folder / "inductor"))
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
        print(f"warning: the network is not compiled: {reason}", file=sys.stderr, flush=True)
        self._compiled = None
