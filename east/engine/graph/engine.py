"""The engine that executes only the non-zeros: what it keeps from step to step, whatever device executes its units."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor, nn

from east.engine.arithmetic import Arithmetic
from east.engine.base import ExecutionLog, GradientRequest, Gradients
from east.engine.graph.index import IdentityWeights, Weights
from east.engine.graph.memory import Arena, Piece, numbers_needed
from east.engine.graph.network import Network, network_of
from east.engine.graph.program import Choose, Execution, Pass, Program
from east.errors import EastError
from east.sparse.active import ActiveWeights

PieceShapes = dict[Piece, tuple[int, ...]]
"""Of what is stored, as it is laid out in memory."""


class GraphEngine(ABC):
    """Binds a network to memory once for each batch size, and again when masks, activations or images have changed."""

    name = "sparse"

    def __init__(
        self,
        model: nn.Module,
        active: Mapping[str, ActiveWeights],
        *,
        arithmetic: Arithmetic,
        arena: Arena,
        choose: Choose,
    ) -> None:
        self.model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.active = active
        for weights in active.values():
            weights.read()
        self.arithmetic = arithmetic
        self._dtype = next(model.parameters()).dtype
        self._arena = arena
        self._choose = choose
        self._log = ExecutionLog()
        self._identities: dict[str, IdentityWeights] = {}
        self._network: Network | None = None
        self._dynamic: tuple[bool, ...] = ()
        self._masks_changed = True
        self._variant: Hashable = None
        self._programs: dict[tuple[int, Hashable], Program] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), in the mode that the network is in.

        Raises:
            EastError: the network is of a kind that this engine does not know, or the images do not fit it.
        """
        this = Pass(training=self.model.training)
        # In evaluation an image's result depends on no other image.
        most = len(images) if this.training else self._evaluation_batch(self._describe(images))
        with torch.no_grad():
            return torch.cat([self._program(part).forward(part, this) for part in torch.split(images, most)])

    def gradients(self, images: Tensor, criterion: Callable[[Tensor], Tensor], request: GradientRequest) -> Gradients:
        """Forward and backward pass of one batch, in training mode.

        Raises:
            EastError: the network is in evaluation mode, of a kind that this engine does not know, or the images or
                labels do not fit it.
        """
        if not self.model.training:
            raise EastError("the sparse engine finds gradients in training mode only.")
        this = Pass(training=True, learns=True, request=request)
        with torch.no_grad():
            program = self._program(images)
            logits = program.forward(images, this)
            loss, gradient = program.head.loss(logits, criterion)
            program.backward(gradient, this)
            this.hand_over(self.active)
            return Gradients(loss, logits, self._squared_norms(this.products) if this.products else None)

    def masks_changed(self) -> None:
        """Find the non-zeros again when the next images come."""
        self._masks_changed = True

    @abstractmethod
    def _evaluation_batch(self, network: Network) -> int:
        """Images at once when nothing is learnt."""

    @abstractmethod
    def _follow_masks(self, network: Network, executions: Mapping[str, Execution]) -> Hashable:
        """Find the non-zeros again.

        Returns:
            What distinguishes the programs that hold from now on from earlier ones that may hold again.
        """

    @abstractmethod
    def _shapes(self, network: Network, batch: int) -> PieceShapes:
        """What a program stores."""

    @abstractmethod
    def _bind(self, network: Network, batch: int, memory: dict[Piece, Tensor]) -> Program:
        """The network bound to memory of these shapes."""

    @abstractmethod
    def _squared_norms(self, products: list[Tensor]) -> Tensor:
        """(probes,) in float64, summed over layers, from their dense gradients contracted with signs."""

    def _discard(self) -> None:
        """Forget all programs: what they are bound to is gone."""
        self._programs = {}

    def _program(self, images: Tensor) -> Program:
        """The network bound to memory for this many images."""
        network = self._describe(images)
        if self._masks_changed:
            self._take_masks(network)
        key = len(images), self._variant
        if key not in self._programs:
            self._programs[key] = self._make_program(network, len(images))
        return self._programs[key]

    def _describe(self, images: Tensor) -> Network:
        """The network for images of this size."""
        self._check(images)
        _, channels, height, width = images.shape
        if self._network is None or self._network.images.shape != (channels, height, width):
            self._network = network_of(self.model, (channels, height, width))
            self._discard()
            self._masks_changed = True
        dynamic = tuple(unit.dynamic is not None for unit in self._network.units)
        if dynamic != self._dynamic:
            self._dynamic = dynamic
            self._discard()
        return self._network

    def _check(self, images: Tensor) -> None:
        """Refuse what the kernels would misread."""
        if images.dtype != self._dtype:
            raise EastError(f"images are {images.dtype}, but the network is {self._dtype}.")
        if images.dim() != 4 or len(images) == 0:
            raise EastError(f"images must have the shape (N, C, H, W) with N at least 1, not {tuple(images.shape)}.")

    @torch.inference_mode(False)  # what is made outlives an evaluation
    @torch.no_grad()
    def _take_masks(self, network: Network) -> None:
        like = next(self.model.parameters())
        self._identities = {
            name: IdentityWeights(unit.x.channels, unit.y.channels, like) for name, unit in network.identities.items()
        }
        executions = self._choose(network, {name: weights.count for name, weights in self._weights.items()})
        self._log.note({name: how for name, how in executions.items() if name in self.active})
        self._variant = self._follow_masks(network, executions)
        self._masks_changed = False

    @property
    def _weights(self) -> dict[str, Weights]:
        """What convolutions multiply with, by name of the layer."""
        return {**self.active, **self._identities}

    @torch.inference_mode(False)  # its memory outlives an evaluation
    @torch.no_grad()
    def _make_program(self, network: Network, batch: int) -> Program:
        needed = self._numbers_needed(network, batch)
        if needed > self._arena.room:
            self._discard()
            self._arena.reserve(needed)
        return self._bind(network, batch, self._arena.take(self._shapes(network, batch)))

    def _numbers_needed(self, network: Network, batch: int) -> int:
        """What the arena must have room for before a program is made."""
        return numbers_needed(self._shapes(network, batch).values(), self._arena.dtype)
