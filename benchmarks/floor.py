"""The floor of a training step: bytes that must move through memory, and how fast this machine copies."""

import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from east.engine.graph.network import Activation, Network, Unit, network_of
from east.errors import EastError
from east.models import ResNet
from east.sparse.layers import MaskedLayer, masked_layers

FLOAT_BYTES, BFLOAT16_BYTES = 4, 2
PARAMETER_MOVES = 4
"""Value and momentum of a parameter, each read and written once by the optimizer."""

COPIED_BYTES = 2**28
COPIES = 7


def bytes_per_step(
    model: ResNet, image_shape: tuple[int, int, int], batch: int, number_bytes: int = FLOAT_BYTES
) -> int:
    """Bytes that a training step with batch statistics moves at least, unit by unit, without caches.

    A unit is a convolution with the batch norm, residual and activation behind it. A plane is one channel of an
    activation for the whole batch: H * W * N numbers. Each pass through a unit moves a plane at most once, and
    everything within the unit is taken to stay in the cache: the convolution's own output, its statistics, the signs
    of activations, and the convolution of a shortcut, which its block's last unit adds. Per activation (the output of
    the stem or of a unit in a block) and unit, the terms are:

    - forward, reads: each distinct input plane that a live non-zero of the unit reads; the residual's planes;
    - forward, writes: the planes that are needed;
    - backward, reads: the unit's input planes again, for the gradient of its weights and for the convolution's output,
      which is computed anew; the gradient at the activation, as many planes as are needed of it;
    - backward, writes: that gradient, except at the last activation, where it is one number for an image and channel.

    All planes of the outputs of stem and blocks are needed, because the identity path carries them on. Inside a block
    those are needed that a live non-zero reads and that are not constant. A non-zero is live if its input plane is not
    constant and its output plane is needed. A plane inside a block is constant if its channel has no non-zeros with
    inputs that are not constant (what a constant input leaves along the border is the same for all images).

    Beside planes, each active weight and each other parameter moves four floats: value and momentum, read and
    written once.

    Args:
        model: a network without DyReLU, DCT layers or max-pool, with its masks.
        image_shape: (3, H, W).
        batch: images a step, N.
        number_bytes: of a number of a plane.

    Raises:
        EastError: the network has other parts than those.
    """
    network = network_of(model, image_shape)
    if len(network.units) < len(network.nodes) or any(unit.dct or unit.dynamic for unit in network.units):
        raise EastError("the floor is counted for networks of convolutions, batch norms and ReLUs only.")
    connected = {name: _connected(layer) for name, layer in masked_layers(model).items()}
    varies = _varying(network, connected)
    needed = _needed(network, connected, varies)

    numbers = 0
    for unit in network.units:
        live = connected[unit.layer] & varies[unit.x] & needed[unit.y][:, None]
        numbers += 2 * _planes(unit.x, live.any(dim=0))
        if _is_shortcut(unit):
            continue
        if unit.residual is not None and not _is_shortcut(unit.residual.producer):
            numbers += _planes(unit.residual, needed[unit.residual])
        passes = 1 if unit.y is network.head.x else 3
        numbers += passes * _planes(unit.y, needed[unit.y])
    off = sum(layer.mask.numel() - int(layer.mask.sum()) for layer in masked_layers(model).values())
    trained = sum(parameter.numel() for parameter in model.parameters()) - off
    return number_bytes * batch * numbers + FLOAT_BYTES * PARAMETER_MOVES * trained


def copy_bandwidth() -> float:
    """Bytes a second that PyTorch's copy of a large array moves, read and written, with the threads it has now."""
    source = torch.ones(COPIED_BYTES // FLOAT_BYTES)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(COPIES):
        started = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - started)
    return 2 * COPIED_BYTES / statistics.median(seconds)


def _connected(layer: MaskedLayer) -> Tensor:
    """(out, in) whether a non-zero reads an input channel for an output channel."""
    return layer.mask.flatten(2).any(dim=2) if layer.mask.dim() > 2 else layer.mask


def _varying(network: Network, connected: Mapping[str, Tensor]) -> dict[Activation, Tensor]:
    """Activation -> (channels,) whether a plane is not constant."""
    varies = {network.images: torch.ones(network.images.channels, dtype=torch.bool)}
    for unit in network.units:
        found = (connected[unit.layer] & varies[unit.x]).any(dim=1)
        varies[unit.y] = torch.ones_like(found) if unit.y.lasting else found
    return varies


def _needed(
    network: Network, connected: Mapping[str, Tensor], varies: Mapping[Activation, Tensor]
) -> dict[Activation, Tensor]:
    """Activation -> (channels,) whether a plane must be in memory."""
    read = {unit.y: torch.full((unit.y.channels,), unit.y.lasting) for unit in network.units}
    for unit in reversed(network.units):
        if unit.x.producer is not None:
            live = connected[unit.layer] & read[unit.y][:, None]
            read[unit.x] |= live.any(dim=0) & varies[unit.x]
    return read


def _is_shortcut(node: object) -> bool:
    return isinstance(node, Unit) and not node.rectify


def _planes(activation: Activation, counted: Tensor) -> int:
    """Numbers in the counted planes of an activation, for one image."""
    return int(counted.sum()) * activation.height * activation.width
