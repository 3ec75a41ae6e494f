"""The launches of a training step of the sparse engine on CUDA, with the bytes that each moves, counted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from east.engine.cpu.network import Activation, Network, Unit, describe
from east.engine.cuda import traffic
from east.engine.cuda.traffic import Launch, Reader
from east.errors import EastError
from east.models import ResNet
from east.sparse.layers import masked_layers

Phase = Literal["forward", "backward", "clip"]


@dataclass(frozen=True)
class Counted:
    """A launch and the pass that it belongs to."""

    phase: Phase
    launch: Launch


def step_launches(
    model: ResNet, image_shape: tuple[int, int, int], batch: int, dtype: torch.dtype, *, probes: int
) -> list[Counted]:
    """All launches on activations of a training step, in order, with the masks that the network has.

    Layers are executed by their non-zeros alone. The classifier and the optimizer are left out: they work on vectors.

    Args:
        model: a network of convolutions, batch norms and ReLUs.
        image_shape: (3, H, W).
        batch: images a step.
        dtype: the type in which activations are stored.
        probes: random signs for each output channel, by which the clip estimates its norm; 0 for no clip.

    Raises:
        EastError: the network has other parts.
    """
    network = describe(model, image_shape)
    if len(network.units) < len(network.nodes) or any(unit.dct or unit.dynamic for unit in network.units):
        raise EastError("launches are counted for networks of convolutions, batch norms and ReLUs only.")
    counter = _Counter(network, {name: layer.mask for name, layer in masked_layers(model).items()}, batch, dtype)
    return list(counter.forward()) + list(counter.backward(probes))


def bytes_moved(launches: list[Counted]) -> int:
    """By all of them, in both directions."""
    return sum(counted.launch.total for counted in launches)


class _Counter:
    """Follows the engine's own order, `east.engine.cuda.units`."""

    def __init__(self, network: Network, masks: Mapping[str, Tensor], batch: int, dtype: torch.dtype) -> None:
        self._network, self._batch, self._dtype = network, batch, dtype
        # (out, in) -> non-zeros.
        self._counts = {unit.layer: masks[unit.layer].flatten(2).sum(2) for unit in network.units}
        self._residuals = {unit.residual for unit in network.units if unit.residual is not None}

    def forward(self) -> Iterator[Counted]:
        for unit in self._network.units:
            shape, nonzeros, stored = self._shape(unit.y), self._nonzeros(unit), self._stored(unit)
            constant = int(self._counts[unit.layer].sum(0)[~self._written(unit.x)].sum())
            for launch in traffic.convolve(shape, self._dtype, nonzeros, stored, constant=constant):
                yield Counted("forward", launch)
            if self._is_kept(unit.y):
                residual = 0 if unit.residual is None else int(self._written(unit.residual).sum())
                for launch in traffic.finish_block(shape, self._dtype, stored, residual):
                    yield Counted("forward", launch)

    def backward(self, probes: int) -> Iterator[Counted]:
        for unit in reversed(self._network.units):
            direct = unit.y is self._network.head.x or unit.y in self._residuals
            reached = torch.full((unit.y.channels,), direct)
            for reader in unit.y.readers:
                reached |= self._counts[reader.layer].sum(0).bool()
            launches = traffic.through_unit(
                self._shape(unit.y),
                self._dtype,
                self._stored(unit),
                [Reader(self._nonzeros(reader), self._shape(reader.y)) for reader in unit.y.readers],
                read=int(reached.sum()),
                live=int((reached & self._counts[unit.layer].sum(1).bool()).sum()),
                direct=direct,
                activation=unit.residual is not None,
                rectify=unit.rectify,
                keep=unit.residual is not None,
                everything=probes > 0,
            )
            for launch in launches:
                yield Counted("backward", launch)
            if probes:
                yield Counted("clip", self._sketch(unit, probes))
        for unit in self._network.images.readers:
            for launch in traffic.value_gradients(
                self._shape(unit.y), self._dtype, self._nonzeros(unit), self._stored(unit)
            ):
                yield Counted("backward", launch)

    def _sketch(self, unit: Unit, probes: int) -> Launch:
        """The gradient at the output is summed by signs into a map a probe, and the maps are multiplied by the input.

        The maps are taken to stay in the cache while they are used for every tap and channel.
        """
        plane_of_z, plane_of_x = (
            activation.height * activation.width * self._batch * self._dtype.itemsize for activation in (unit.y, unit.x)
        )
        read = unit.y.channels * plane_of_z + probes * plane_of_z + int(self._written(unit.x).sum()) * plane_of_x
        return Launch("sketch, some launches each", read, probes * plane_of_z)

    def _shape(self, activation: Activation) -> tuple[int, int, int, int]:
        return (*activation.shape, self._batch)

    def _nonzeros(self, unit: Unit) -> int:
        return int(self._counts[unit.layer].sum())

    def _stored(self, unit: Unit) -> int:
        return int(self._counts[unit.layer].sum(1).bool().sum())

    def _is_kept(self, activation: Activation) -> bool:
        """Whether it is stored itself, and not found anew from a convolution's output wherever it is read."""
        producer = activation.producer
        has_residual = isinstance(producer, Unit) and producer.residual is not None
        return activation is self._network.head.x or has_residual

    def _written(self, activation: Activation) -> Tensor:
        """(channels,) which planes are read where it is; the others are constant."""
        producer = activation.producer
        if not isinstance(producer, Unit) or self._is_kept(activation):
            return torch.ones(activation.channels, dtype=torch.bool)
        return self._counts[producer.layer].sum(1).bool()
