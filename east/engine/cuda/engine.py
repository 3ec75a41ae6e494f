"""The engine that executes only the non-zeros, on a GPU."""

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor, nn

from east.engine.arithmetic import PyTorchArithmetic
from east.engine.base import Executed
from east.engine.cuda.convolutions import ResidentIndex
from east.engine.cuda.program import bind_to_gpu, stored_on_gpu
from east.engine.formats import set_convolution_precision
from east.engine.graph.engine import GraphEngine, PieceShapes
from east.engine.graph.memory import Arena, Piece, numbers_needed
from east.engine.graph.network import Network
from east.engine.graph.program import Choose, Execution, Program
from east.reproducibility import Reproducibility
from east.sparse.active import ActiveWeights

GPU_EVALUATION_BATCH = 512
"""Images at once when nothing is learnt, at most: the more there are, the less it counts to issue kernels."""

EVALUATION_BYTES = 2**31
"""Memory that may be taken for them where training needs less."""

MULTIPLE = 64
"""Their number is a multiple of this where there is room for so many, so that vectors are loaded whole."""


class CudaEngine(GraphEngine):
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
    """

    def __init__(
        self,
        model: nn.Module,
        active: Mapping[str, ActiveWeights],
        *,
        numerics: str,
        device: torch.device,
        choose: Choose,
    ) -> None:
        dtype = next(model.parameters()).dtype
        stored = torch.bfloat16 if numerics == "bf16" and dtype == torch.float32 else dtype
        super().__init__(model, active, arithmetic=PyTorchArithmetic(), arena=Arena(stored, device), choose=choose)
        set_convolution_precision(numerics, device)
        self._indices: dict[str, ResidentIndex] = {}
        self._dense: frozenset[str] = frozenset()
        self._generation = 0

    def signature(self, images: Tensor) -> Hashable:
        """What a captured step depends on: where the memory is, and which layers PyTorch executes.

        The lists of non-zeros are brought up to date in place.
        """
        self._program(images)
        return self._generation, self._dense

    def executed(self) -> Executed:
        """Layers by kernels or by PyTorch's convolution; their sums go by tiles and atomics, so no bit is promised."""
        return Executed(self.name, Reproducibility.STATISTICAL, self._log.counts(), compiler="Triton")

    def _evaluation_batch(self, network: Network) -> int:
        dtype = self._arena.dtype
        room = max(EVALUATION_BYTES // dtype.itemsize, self._arena.room)
        fit = min(GPU_EVALUATION_BATCH, max(1, room // numbers_needed(self._shapes(network, 1).values(), dtype)))
        return fit if fit < MULTIPLE else fit // MULTIPLE * MULTIPLE

    def _follow_masks(self, network: Network, executions: Mapping[str, Execution]) -> Hashable:
        for name, weights in self._weights.items():
            index = self._indices.get(name)
            if index is not None and index.still_fits:
                index.refill()
            else:
                self._indices[name] = ResidentIndex(weights)
                self._discard()
        self._dense = frozenset(unit.layer for unit in network.units if executions[unit.layer] == "dense")
        return self._dense

    def _shapes(self, network: Network, batch: int) -> PieceShapes:
        return {piece: (*shape, batch) for piece, shape in stored_on_gpu(network).items()}

    def _numbers_needed(self, network: Network, batch: int) -> int:
        """With room for evaluation, which else would move all memory after the first epoch."""
        return super()._numbers_needed(network, max(batch, self._evaluation_batch(network)))

    def _bind(self, network: Network, batch: int, memory: dict[Piece, Tensor]) -> Program:
        return bind_to_gpu(network, self._indices, self._dense, memory)

    def _squared_norms(self, products: list[Tensor]) -> Tensor:
        return torch.cat([found.movedim(1, 0).flatten(1) for found in products], dim=1).square().sum(1)

    def _discard(self) -> None:
        """No captured graph may touch again what the programs were bound to."""
        super()._discard()
        self._generation += 1
