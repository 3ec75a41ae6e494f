"""The engine that executes only the non-zeros, on a GPU."""

from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor, nn

from east.engine.arithmetic import PyTorchArithmetic
from east.engine.base import GradientRequest, Gradients
from east.engine.costs.choose import Choose
from east.engine.cpu.buffers import Pass
from east.engine.cpu.memory import Arena
from east.engine.cpu.network import Network, describe
from east.engine.cuda.index import ResidentIndex
from east.engine.cuda.memory import memory_needed
from east.engine.cuda.program import Program
from east.engine.cuda.sketch import sum_of_squares
from east.engine.executed import Executed, ExecutionLog
from east.engine.formats import set_convolution_precision
from east.errors import EastError
from east.reproducibility import Reproducibility
from east.sparse.active import ActiveWeights

EVALUATION_BATCH = 512
"""Images at once when nothing is learnt, at most: the more there are, the less it counts to issue kernels."""

EVALUATION_BYTES = 2**31
"""Memory that may be taken for them where training needs less."""

MULTIPLE = 64
"""Their number is a multiple of this where there is room for so many, so that vectors are loaded whole."""


class CudaSparseEngine:
    """Executes a network in the layout (C, H, W, N), where each non-zero is a multiply-add over contiguous numbers.

    A step launches kernels and nothing else, on memory that stays where it is as long as `signature` is the same, so
    that it can be captured in a CUDA graph.

    Args:
        model: a network of `east.models`, in float32 or float64.
        active: the active weights of its masked layers, by name.
        numerics: `tf32`, `fp32` or `bf16`; for bf16, activations and gradients at them are stored in bfloat16.
        device: where the network is: a GPU, or the CPU where Triton's interpreter is on.
        choose: how each layer is executed, asked after every change of the masks; what is not `dense` is executed by
            kernels.

    Raises:
        EastError: when images come, that the network is of a kind that this engine does not know.
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
        self.model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.active = active
        self.arithmetic = PyTorchArithmetic()
        for weights in active.values():
            weights.read()
        set_convolution_precision(numerics, device)
        self._dtype = next(model.parameters()).dtype
        stored = torch.bfloat16 if numerics == "bf16" and self._dtype == torch.float32 else self._dtype
        self._arena = Arena(stored, device)
        self._choose = choose
        self._log = ExecutionLog()
        self._network: Network | None = None
        self._indices: dict[str, ResidentIndex] = {}
        self._dense: frozenset[str] = frozenset()
        self._masks_changed = True
        self._dynamic: tuple[bool, ...] = ()
        self._programs: dict[tuple[int, frozenset[str]], Program] = {}
        self._generation = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), in the mode that the network is in."""
        training = self.model.training
        # In evaluation an image's result depends on no other image.
        most = len(images) if training else self._evaluation_batch(self._describe(images))
        with torch.no_grad():
            parts = torch.split(images, most)
            return torch.cat([self._program(part).forward(part, training=training, learns=False) for part in parts])

    def gradients(self, images: Tensor, criterion: Callable[[Tensor], Tensor], request: GradientRequest) -> Gradients:
        """Forward and backward pass of one batch, in training mode."""
        if not self.model.training:
            raise EastError("the sparse engine finds gradients in training mode only.")
        this = Pass(training=True, request=request)
        program = self._program(images)
        with torch.no_grad():
            logits = program.forward(images, training=True, learns=True).requires_grad_()
        with torch.enable_grad():
            loss = criterion(logits)
        (at_logits,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            program.backward(at_logits, this)
            this.hand_over(self.active)
            return Gradients(loss.detach(), logits.detach(), sum_of_squares(this.products))

    def masks_changed(self) -> None:
        """Find the non-zeros anew when the next images come, or their signature is asked for."""
        self._masks_changed = True

    def signature(self, images: Tensor) -> Hashable:
        """What a captured step depends on: which layers PyTorch executes, and where the memory is.

        The lists of non-zeros are brought up to date in place.
        """
        self._program(images)
        return self._generation, self._dense

    def executed(self) -> Executed:
        """Layers by kernels or by PyTorch's convolution; their sums go by tiles and atomics, so no bit is promised."""
        return Executed(self.name, Reproducibility.STATISTICAL, self._log.counts(), compiler="Triton")

    @torch.inference_mode(False)  # its memory outlives an evaluation
    @torch.no_grad()
    def _program(self, images: Tensor) -> Program:
        """The network bound to memory for this many images; made anew when memory has moved or the network changed."""
        network = self._describe(images)
        if self._masks_changed:
            self._follow_masks(network)
        batch = len(images)
        key = batch, self._dense
        if key not in self._programs:
            # With room for evaluation, which else would move all memory after the first epoch.
            most = max(batch, self._evaluation_batch(network))
            if self._arena.reserve(memory_needed(network, most, self._arena.dtype)):
                self._discard()
            self._programs[key] = Program(network, self._indices, self._dense, batch, self._arena)
        return self._programs[key]

    def _evaluation_batch(self, network: Network) -> int:
        """Images at once when nothing is learnt."""
        dtype = self._arena.dtype
        room = max(EVALUATION_BYTES // dtype.itemsize, self._arena.room)
        fit = min(EVALUATION_BATCH, max(1, room // memory_needed(network, 1, dtype)))
        return fit if fit < MULTIPLE else fit // MULTIPLE * MULTIPLE

    def _describe(self, images: Tensor) -> Network:
        """The network for images of this size."""
        self._check(images)
        _, channels, height, width = images.shape
        if self._network is None or self._network.images.shape != (channels, height, width):
            self._network = describe(self.model, (channels, height, width))
            self._discard()
            self._masks_changed = True
        dynamic = tuple(unit.dynamic is not None for unit in self._network.units)
        if dynamic != self._dynamic:
            self._dynamic = dynamic
            self._discard()
        return self._network

    def _follow_masks(self, network: Network) -> None:
        for name, weights in self.active.items():
            index = self._indices.get(name)
            if index is not None and index.still_fits:
                index.refill()
            else:
                self._indices[name] = ResidentIndex(weights)
                self._discard()
        executions = self._choose(network, self.active)
        self._log.note(executions)
        self._dense = frozenset(unit.layer for unit in network.units if executions[unit.layer] == "dense")
        self._masks_changed = False

    def _discard(self) -> None:
        """Forget all programs: what they are bound to is gone, and no captured graph may touch it again."""
        self._programs = {}
        self._generation += 1

    def _check(self, images: Tensor) -> None:
        """Refuse what would be misread."""
        if images.dtype != self._dtype:
            raise EastError(f"images are {images.dtype}, but the network is {self._dtype}.")
        if images.dim() != 4 or len(images) == 0:
            raise EastError(f"images must have the shape (N, C, H, W) with N at least 1, not {tuple(images.shape)}.")
