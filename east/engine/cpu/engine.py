"""The engine that executes only the non-zeros, on the CPU, by the arithmetic of docs/arithmetic.md."""

import shlex
from collections.abc import Hashable, Mapping

import torch
from torch import Tensor, nn

from east.engine.base import Executed
from east.engine.cpu import bindings as k
from east.engine.cpu.arithmetic import KernelArithmetic
from east.engine.cpu.library import load_kernels
from east.engine.cpu.program import bind_to_cpu
from east.engine.cpu.storage import Layer, Storage
from east.engine.graph.engine import GraphEngine, PieceShapes
from east.engine.graph.index import NonzeroIndex
from east.engine.graph.memory import Arena, Piece
from east.engine.graph.network import Network
from east.engine.graph.program import Choose, Execution, Program
from east.errors import EastError
from east.models.dct import has_dct
from east.reproducibility import Reproducibility
from east.sparse.active import ActiveWeights

CPU_EVALUATION_BATCH = 128
"""Images at once when nothing is learnt: activations stay small."""


class CpuEngine(GraphEngine):
    """Executes a network in groups of 32 images, where each non-zero is a multiply-add over contiguous numbers.

    Args:
        model: a network of `east.models` without DCT layers, on the CPU, in float32 or float64.
        active: the active weights of its masked layers, by name.
        device: where the network is.
        choose: how each layer is executed, asked after every change of the masks; it decides no number.
        numerics: `bf16` keeps activations and the gradients at them in bfloat16; with others they are what the network
            is.

    Raises:
        KernelsUnavailable: the kernels cannot be compiled here.
        EastError: the network is not on the CPU, or has DCT layers.
    """

    def __init__(
        self,
        model: nn.Module,
        active: Mapping[str, ActiveWeights],
        *,
        device: torch.device,
        choose: Choose,
        numerics: str = "fp32",
    ) -> None:
        if device.type != "cpu":
            raise EastError(f"the sparse engine runs on the CPU, not on {device.type}; use engine: dense.")
        if has_dct(model):
            raise EastError("engine: sparse does not execute DCT layers, which are dense; use engine: auto or dense.")
        dtype = next(model.parameters()).dtype
        kept = torch.bfloat16 if numerics == "bf16" else dtype
        self._kernels, self._doubles = k.KernelSet(kept), k.KernelSet(torch.float64)
        self._toolchain = load_kernels().toolchain
        self._layers: dict[str, Layer] = {}
        super().__init__(model, active, arithmetic=KernelArithmetic(self._kernels), arena=Arena(kept), choose=choose)

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

    def _evaluation_batch(self, network: Network) -> int:
        return CPU_EVALUATION_BATCH

    def _follow_masks(self, network: Network, executions: Mapping[str, Execution]) -> Hashable:
        self._discard()
        self._layers = {
            name: Layer(weights, executions[name], NonzeroIndex.of(weights)) for name, weights in self._weights.items()
        }
        return None

    def _shapes(self, network: Network, batch: int) -> PieceShapes:
        """With gaps between channels as kernels expect."""
        groups = k.groups_of(batch)
        return {
            piece: (channels, k.plane_stride(groups, height, width))
            for piece, (channels, height, width) in Storage(network, self._layers).shapes().items()
        }

    def _bind(self, network: Network, batch: int, memory: dict[Piece, Tensor]) -> Program:
        groups, storage = k.groups_of(batch), Storage(network, self._layers)
        planes = {
            piece: memory[piece][:, : groups * height * width * k.LANES].view(channels, groups, height, width, k.LANES)
            for piece, (channels, height, width) in storage.shapes().items()
        }
        return bind_to_cpu(storage, batch, planes, self._kernels)

    def _squared_norms(self, products: list[Tensor]) -> Tensor:
        totals = [0.0] * products[0].shape[1]
        for found in products:
            sums = torch.empty(found.shape[1], dtype=torch.float64)
            found = found.contiguous()
            self._doubles("probe_squares", k.ProbeSquares(*found.shape, found, sums))
            totals = [total + part for total, part in zip(totals, sums.tolist(), strict=True)]
        return torch.tensor(totals, dtype=torch.float64)
