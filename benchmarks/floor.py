"""The floor of a training step: bytes that must move through memory, and how fast this machine copies.

And what a step of layers executed row by row moves: `python -m benchmarks.floor` prints it for ResNet-34.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.results import markdown
from east.engine.graph.network import Activation, Network, Unit, network_of
from east.errors import EastError
from east.models import build_model
from east.sparse.layers import MaskedLayer, masked_layers

FLOAT_BYTES, BFLOAT16_BYTES = 4, 2
PARAMETER_MOVES = 4
"""Value and momentum of a parameter, each read and written once by the optimizer."""

COPIED_BYTES = 2**28
COPIES = 7


def bytes_per_step(
    model: nn.Module, image_shape: tuple[int, int, int], batch: int, number_bytes: int = FLOAT_BYTES
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
    _check(network)
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


@dataclass(frozen=True)
class Moved:
    """Bytes that a unit reads and writes in a pass."""

    read: int
    written: int


def moved_by_rows(network: Network, batch: int, number_bytes: int = FLOAT_BYTES) -> dict[Unit, tuple[Moved, Moved]]:
    """Bytes that each unit moves forward and backward where every layer is executed row by row.

    Every channel is taken to have non-zeros, as nearly all have where that execution is chosen. What is read twice
    while it is in a cache counts once. z is the output of a convolution before batch norm; the units that read an
    activation find it from z.

    - Forward, a unit reads what its input is found from: z, and the residual where there is one. The first unit that
      reads the output of a block or of the stem stores it. It writes its own z.
    - Backward, it reads the gradient at its output, its z, and the input as above or as it was stored. If no other unit
      is to add to the gradient at its input, it also reads the z behind that. It writes the gradient at its input, to
      which it adds what is there already.

    The last unit's output is stored, and its gradient taken through the activation, by itself.

    Raises:
        EastError: the network has other parts than convolutions, batch norms and ReLUs.
    """
    _check(network)
    found = {}
    for unit in network.units:
        x, y = unit.x.producer, _numbers(unit.y)
        read = {"forward": 0, "backward": 2 * y}
        written = {"forward": y, "backward": 0}
        is_first = unit.x.readers[0] is unit
        if not isinstance(x, Unit):
            read["forward"] += _numbers(unit.x)
            read["backward"] += _numbers(unit.x)
        else:
            size = _numbers(unit.x)
            stores = unit.x.lasting and is_first
            read["forward"] += size + (size if stores and x.residual is not None else 0)
            written["forward"] += size if stores else 0
            finishes = size if unit.x.lasting and is_first else 0
            adds = size if unit.residual is None and unit.x.lasting and (len(unit.x.readers) == 1 or is_first) else 0
            read["backward"] += size + finishes + adds
            written["backward"] += size
        if unit.y is network.head.x:
            read["forward"] += 2 * y
            written["forward"] += y
            read["backward"] += 3 * y
            written["backward"] += y
        if _is_shortcut(unit):
            read["backward"] += 2 * y  # the sums that its own batch norm needs
        forward, backward = (
            Moved(batch * number_bytes * read[way], batch * number_bytes * written[way])
            for way in ("forward", "backward")
        )
        found[unit] = forward, backward
    return found


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


def _check(network: Network) -> None:
    if len(network.units) < len(network.nodes) or any(
        unit.dct or unit.dynamic or unit.masked is None or unit.norm is None for unit in network.units
    ):
        raise EastError("the floor is counted for networks of convolutions, batch norms and ReLUs only.")


def _numbers(activation: Activation) -> int:
    """Of an activation, for one image."""
    return activation.channels * activation.height * activation.width


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


def main() -> None:
    """Print what a step of ResNet-34 at batch 128 moves, layers of one size together."""
    model = build_model("resnet34", 100, activation="relu", sharing_ratio=None, dct=False, width=64)
    sizes: dict[tuple[int, int], list[tuple[Moved, Moved]]] = {}
    for unit, moved in moved_by_rows(network_of(model, (3, 32, 32)), 128).items():
        sizes.setdefault((unit.y.channels, unit.y.height), []).append(moved)
    rows = []
    for (channels, height), units in sizes.items():
        parts = [getattr(moved[way], kind) for way in (0, 1) for kind in ("read", "written") for moved in units]
        sums = [sum(parts[k : k + len(units)]) for k in range(0, len(parts), len(units))]
        cells = [f"{part / 1e6:,.0f}" for part in (*sums, sum(sums))]
        rows.append([f"{channels} x {height} x {height}", str(len(units)), *cells])
    header = ["output", "convolutions", "forward: read", "written", "backward: read", "written", "all, MB"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
