"""The engine that executes only the non-zeros, on the CPU."""

import shlex
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor, nn

from east.engine.base import GradientRequest, Gradients
from east.engine.costs.choose import Choose
from east.engine.executed import Executed, ExecutionLog
from east.engine.sparse.buffers import Layer, Pass
from east.engine.sparse.index import NonzeroIndex
from east.engine.sparse.kernels import KernelSet
from east.engine.sparse.library import find_toolchain
from east.engine.sparse.memory import Arena
from east.engine.sparse.network import Network, describe
from east.engine.sparse.program import Program, memory_needed
from east.errors import EastError
from east.reproducibility import Reproducibility
from east.sparse.active import ActiveWeights

EVALUATION_BATCH = 128
"""Images at once when nothing is learnt and no training batch has been seen: activations stay small."""


class SparseEngine:
    """Executes a network in the layout (C, H, W, N), where each non-zero is a multiply-add over contiguous numbers.

    Args:
        model: a network of `east.models`, on the CPU, in float32 or float64.
        active: the active weights of its masked layers, by name.
        numerics: only CUDA distinguishes them.
        device: where the network is.
        choose: how each layer is executed, asked after every change of the masks.

    Raises:
        KernelsUnavailable: the kernels cannot be compiled here.
        EastError: the network is not on the CPU, or of a kind that this engine does not know.
    """

    name = "sparse"

    def __init__(
        self,
        model: nn.Module,
        active: Mapping[str, ActiveWeights],
        *,
        numerics: str,
        device: torch.device,
        choose: Choose,
    ) -> None:
        if device.type != "cpu":
            raise EastError(f"the sparse engine runs on the CPU, not on {device.type}; use engine: dense.")
        self.model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.active = active
        for weights in active.values():
            weights.read()
        dtype = next(model.parameters()).dtype
        self._kernels = KernelSet(dtype)
        self._toolchain = find_toolchain()
        self._arena = Arena(dtype)
        self._choose = choose
        self._log = ExecutionLog()
        self._network: Network | None = None
        self._layers: dict[str, Layer] = {}
        self._programs: dict[int, Program] = {}
        self._dynamic: tuple[bool, ...] = ()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), in the mode that the network is in."""
        this = Pass(training=self.model.training)
        # In evaluation an image's result depends on no other image.
        most = len(images) if this.training else max(self._programs, default=EVALUATION_BATCH)
        with torch.no_grad():
            return torch.cat([self._program(part).forward(part, this).T for part in torch.split(images, most)])

    def gradients(self, images: Tensor, criterion: Callable[[Tensor], Tensor], request: GradientRequest) -> Gradients:
        """Forward and backward pass of one batch, in training mode."""
        if not self.model.training:
            raise EastError("the sparse engine finds gradients in training mode only.")
        this = Pass(training=True, request=request)
        program = self._program(images)
        with torch.no_grad():
            logits = program.forward(images, this).T.contiguous().requires_grad_()
        with torch.enable_grad():
            loss = criterion(logits)
        (at_logits,) = torch.autograd.grad(loss, logits)
        program.backward(at_logits.T.contiguous(), this)
        this.hand_over(self.active)
        squares = [products.square().sum(dim=(0, 2)) for products in this.products]
        return Gradients(loss.detach(), logits.detach(), torch.stack(squares).sum(0) if squares else None)

    def masks_changed(self) -> None:
        """Find the non-zeros anew before the next step."""
        self._layers = {}
        self._programs = {}

    def signature(self, images: Tensor) -> Hashable:
        """Nothing: on a CPU no step is captured."""
        return ()

    def executed(self) -> Executed:
        """Layers by their kind of execution, and what compiled the kernels."""
        return Executed(
            engine=self.name,
            reproducibility=Reproducibility.ANY_PROCESSOR,
            executions=self._log.counts(),
            instruction_set=self._toolchain.vector,
            compiler=self._toolchain.version.partition("\n")[0],
            extra_flags=shlex.join(self._toolchain.extra_flags),
        )

    @torch.inference_mode(False)  # its memory outlives an evaluation
    def _program(self, images: Tensor) -> Program:
        """The network bound to memory for this many images; made anew when masks or activations have changed."""
        self._check(images)
        if self._network is None or self._network.images.shape != images.shape[1:]:
            _, channels, height, width = images.shape
            self._network = describe(self.model, (channels, height, width))
            self._programs = {}
        dynamic = tuple(unit.dynamic is not None for unit in self._network.units)
        if dynamic != self._dynamic:
            self._dynamic, self._programs = dynamic, {}
        if not self._layers:
            self._layers = self._make_layers(self._network)
        batch = len(images)
        if batch not in self._programs:
            dtype = next(self.model.parameters()).dtype
            if self._arena.reserve(memory_needed(self._network, self._layers, batch, dtype)):
                self._programs = {}
            self._programs[batch] = Program(self._network, self._layers, batch, self._arena, self._kernels)
        return self._programs[batch]

    def _check(self, images: Tensor) -> None:
        """Refuse what the kernels would read out of bounds."""
        if images.dtype != self._arena.dtype:
            raise EastError(f"images are {images.dtype}, but the network is {self._arena.dtype}.")
        if images.dim() != 4 or len(images) == 0:
            raise EastError(f"images must have the shape (N, C, H, W) with N at least 1, not {tuple(images.shape)}.")

    def _make_layers(self, network: Network) -> dict[str, Layer]:
        executions = self._choose(network, self.active)
        self._log.note(executions)
        return {
            name: Layer(weights, executions[name], None if executions[name] == "dense" else NonzeroIndex.of(weights))
            for name, weights in self.active.items()
        }
