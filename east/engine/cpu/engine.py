"""The engine that executes only the non-zeros, on the CPU, by the arithmetic of docs/arithmetic.md."""

import shlex
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor, nn

from east.engine.base import CrossEntropy, GradientRequest, Gradients
from east.engine.cpu import kernels as k
from east.engine.cpu.arithmetic import KernelArithmetic
from east.engine.cpu.buffers import Layer, Pass
from east.engine.cpu.choose import Choose
from east.engine.cpu.index import NonzeroIndex
from east.engine.cpu.library import find_toolchain
from east.engine.cpu.memory import Arena
from east.engine.cpu.network import Network, describe
from east.engine.cpu.program import Program, memory_needed
from east.engine.executed import Executed, ExecutionLog
from east.errors import EastError
from east.models.dct import has_dct
from east.reproducibility import Reproducibility
from east.sparse.active import ActiveWeights

EVALUATION_BATCH = 128
"""Images at once when nothing is learnt: activations stay small. An image's result depends on no other image."""


class SparseEngine:
    """Executes a network in groups of 32 images, where each non-zero is a multiply-add over contiguous numbers.

    Args:
        model: a network of `east.models` without DCT layers, on the CPU, in float32 or float64.
        active: the active weights of its masked layers, by name.
        device: where the network is.
        choose: how each layer is executed, asked after every change of the masks; it decides no number.

    Raises:
        KernelsUnavailable: the kernels cannot be compiled here.
        EastError: the network is not on the CPU, or of a kind that this engine does not know.
    """

    name = "sparse"

    def __init__(
        self, model: nn.Module, active: Mapping[str, ActiveWeights], *, device: torch.device, choose: Choose
    ) -> None:
        if device.type != "cpu":
            raise EastError(f"the sparse engine runs on the CPU, not on {device.type}; use engine: dense.")
        if has_dct(model):
            raise EastError("engine: sparse does not execute DCT layers, which are dense; use engine: auto or dense.")
        self.model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.active = active
        for weights in active.values():
            weights.read()
        dtype = next(model.parameters()).dtype
        self._kernels = k.KernelSet(dtype)
        self._doubles = k.KernelSet(torch.float64)
        self.arithmetic = KernelArithmetic(self._kernels)
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
        most = len(images) if this.training else EVALUATION_BATCH
        with torch.no_grad():
            parts = torch.split(images, most)
            return torch.cat([_by_image(self._program(part).forward(part, this), len(part)) for part in parts])

    def gradients(self, images: Tensor, criterion: Callable[[Tensor], Tensor], request: GradientRequest) -> Gradients:
        """Forward and backward pass of one batch, in training mode."""
        if not self.model.training:
            raise EastError("the sparse engine finds gradients in training mode only.")
        this = Pass(training=True, request=request)
        program = self._program(images)
        with torch.no_grad():
            logits = program.forward(images, this)
            by_image = _by_image(logits, len(images))
            if isinstance(criterion, CrossEntropy):
                loss, gradient = self._cross_entropy(logits, criterion.labels)
            else:
                loss, gradient = _differentiate(by_image, criterion, logits.shape)
            program.backward(gradient, this)
        this.hand_over(self.active)
        return Gradients(loss, by_image, self._squared_norms(this.products))

    def masks_changed(self) -> None:
        """Find the non-zeros again before the next step."""
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

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = torch.empty(1, dtype=torch.float64), torch.empty_like(logits)
        labels = labels.to(torch.int64).contiguous()
        least, most = torch.aminmax(labels)
        if least < 0 or most >= len(logits):
            raise EastError(f"labels must be from 0 to {len(logits) - 1}, not {int(least)} to {int(most)}.")
        addresses = (k.address(tensor) for tensor in (logits, labels, loss, gradient))
        self._kernels("cross_entropy", k.CrossEntropy(len(logits), len(labels), *addresses))
        return loss[0] / len(labels), gradient

    def _squared_norms(self, products: list[Tensor]) -> Tensor | None:
        """(probes,) the squared norms of all layers' projections."""
        if not products:
            return None
        totals = [0.0] * products[0].shape[1]
        for found in products:
            sums = torch.empty(found.shape[1], dtype=torch.float64)
            found = found.contiguous()
            self._doubles("probe_squares", k.ProbeSquares(*found.shape, k.address(found), k.address(sums)))
            totals = [total + part for total, part in zip(totals, sums.tolist(), strict=True)]
        return torch.tensor(totals, dtype=torch.float64)

    @torch.inference_mode(False)  # its memory outlives an evaluation
    def _program(self, images: Tensor) -> Program:
        """The network bound to memory for this many images; made again when masks or activations have changed."""
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
            if self._arena.reserve(memory_needed(self._network, self._layers, batch, self._arena.dtype)):
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
        executions = self._choose(network, {name: weights.count for name, weights in self.active.items()})
        self._log.note(executions)
        return {
            name: Layer(weights, executions[name], NonzeroIndex.of(weights)) for name, weights in self.active.items()
        }


def _by_image(logits: Tensor, images: int) -> Tensor:
    """Logits (classes, G, 32) as (N, classes): a copy."""
    return logits.flatten(1)[:, :images].T.contiguous()


def _differentiate(by_image: Tensor, criterion: Callable[[Tensor], Tensor], shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Any other criterion's value, and its gradient at the logits (classes, G, 32)."""
    with torch.enable_grad():
        logits = by_image.detach().requires_grad_()
        loss = criterion(logits)
    (found,) = torch.autograd.grad(loss, logits)
    gradient = found.new_zeros(shape)
    gradient.flatten(1)[:, : len(found)] = found.T
    return loss.detach(), gradient
