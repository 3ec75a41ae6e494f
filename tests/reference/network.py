"""A residual network: its evaluation, and a forward and backward pass."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.reference.convolution import Geometry, add_gradient_at_input, convolution
from tests.reference.dyrelu import Dynamic, Linear, LinearGradients, dyrelu, dyrelu_backward
from tests.reference.head import cross_entropy, max_pool, max_pool_backward
from tests.reference.normalization import (
    Moments,
    Norm,
    batch_norm,
    batch_norm_backward,
    moments,
    updated_statistics,
)
from tests.reference.rounding import bfloat16, fma_double
from tests.reference.sums import Doubles, Floats, by_image, dot, into_groups, plane_means
from tests.reference.weights import dense_gradient, nonzero_gradients, projections


@dataclass(frozen=True)
class Unit:
    """A convolution, batch norm and activation, by the names of their parameters.

    Args:
        layer: owns the weight.
        norm: the batch norm.
        stride, padding: of the convolution.
        scale: what multiplies a shared weight; None where it is the layer's own place.
        dyrelu: the activation where it is dynamic.
        is_activated: False for a shortcut.
    """

    layer: str
    norm: str
    stride: int
    padding: int
    scale: str | None = None
    dyrelu: str | None = None
    is_activated: bool = True


@dataclass(frozen=True)
class Block:
    """Units after one another, and the shortcut (None for the identity)."""

    units: tuple[Unit, ...]
    shortcut: Unit | None


@dataclass(frozen=True)
class Network:
    """What a residual network is made of.

    Args:
        stem, blocks, classifier: its units, and the layer of the classifier.
        has_max_pool: whether a max-pool follows the stem.
        parameters: name -> numbers, masked weights among them, in the order of the clip.
        masks: layer -> which of its weights are on.
        statistics: name -> running mean or variance.
        betas: DyReLU -> β.
        in_bfloat16: whether activations and the gradients at them are kept so.
    """

    stem: Unit
    blocks: tuple[Block, ...]
    classifier: str
    has_max_pool: bool
    parameters: dict[str, Floats]
    masks: dict[str, NDArray[np.bool_]]
    statistics: dict[str, Floats]
    betas: dict[str, float]
    in_bfloat16: bool = False

    def kept(self, numbers: Floats) -> Floats:
        """Activations, or gradients at them, as they are read again."""
        return bfloat16(numbers) if self.in_bfloat16 else numbers

    def weight(self, layer: str) -> Floats:
        """The weight of a layer as (out, in, kernel, kernel)."""
        return _as_kernel(self.parameters[f"{layer}.weight"])

    def mask(self, layer: str) -> NDArray[np.bool_]:
        """The mask of a layer as (out, in, kernel, kernel)."""
        return _as_kernel(self.masks[layer])


@dataclass
class Step:
    """What a forward and backward pass leaves.

    Args:
        loss, logits: the mean loss; (N, classes).
        gradients: of parameters that are not masked, by name.
        nonzeros: of the non-zeros of each layer, in the order of its memory.
        dense: of all weights of each layer.
        statistics: running statistics after the step.
        squared_norms: of each probe.
    """

    loss: float
    logits: Floats
    gradients: dict[str, Floats] = field(default_factory=dict)
    nonzeros: dict[str, Floats] = field(default_factory=dict)
    dense: dict[str, Floats] = field(default_factory=dict)
    statistics: dict[str, Floats] = field(default_factory=dict)
    squared_norms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Record:
    """What the forward pass of a unit leaves for the backward pass.

    Args:
        unit, geometry, weight, mask: the unit, and its convolution with the weight as it is used here.
        x, z, y: input, output of the convolution, output of the unit.
        norm, moments: batch norm of this batch.
        dynamic: the activation where it is dynamic.
    """

    unit: Unit
    geometry: Geometry
    weight: Floats
    mask: NDArray[np.bool_]
    x: Floats
    z: Floats
    y: Floats
    norm: Norm
    moments: Moments
    dynamic: Dynamic | None

    @property
    def has_nonzeros(self) -> NDArray[np.bool_]:
        """Which output channels have any."""
        return self.mask.any(axis=(1, 2, 3))

    def is_read_by(self, reader: "Record") -> NDArray[np.bool_]:
        """Which output channels of a unit inside a block reach the next one; a DyReLU reads all of them."""
        return reader.mask.any(axis=(0, 2, 3)) | (self.dynamic is not None)


@dataclass(frozen=True)
class BlockRecord:
    """Those of a block."""

    units: list[Record]
    shortcut: Record | None


@dataclass(frozen=True)
class Forward:
    """Those of a network, with the features that the classifier gets."""

    stem: Record
    blocks: list[BlockRecord]
    features: Floats
    logits: Floats

    @property
    def records(self) -> Iterator[Record]:
        """Those of all units."""
        yield self.stem
        for block in self.blocks:
            yield from block.units
            if block.shortcut:
                yield block.shortcut


def evaluate(network: Network, images: Floats) -> Floats:
    """Logits (N, classes) with running statistics."""
    return by_image(_forward(network, images, training=False).logits, len(images))


def train(
    network: Network,
    images: Floats,
    labels: NDArray[np.int64],
    *,
    dense: bool = False,
    signs: Mapping[str, Floats] | None = None,
) -> Step:
    """A forward and backward pass.

    Args:
        network: which is not changed.
        images: (N, 3, H, W).
        labels: (N,).
        dense: whether the gradients of all weights are wanted.
        signs: layer -> (probes, out) where projections of them are.
    """
    passed = _forward(network, images, training=True)
    logits = by_image(passed.logits, len(images))
    loss, gradient = cross_entropy(logits, labels)
    step = Step(loss, logits)
    for record in passed.records:
        step.statistics |= _statistics(network, record, len(images))
    _Backward(network, len(images), step, dense, signs or {}).run(passed, into_groups(gradient))
    return step


def _forward(network: Network, images: Floats, *, training: bool) -> Forward:
    count = len(images)

    def run(unit: Unit, x: Floats, residual: Floats | None = None) -> Record:
        return _forward_unit(network, unit, x, residual, count, training)

    stem = run(network.stem, network.kept(into_groups(images)))
    x = max_pool(stem.y) if network.has_max_pool else stem.y
    blocks = []
    for block in network.blocks:
        shortcut = run(block.shortcut, x) if block.shortcut else None
        residual, units = shortcut.y if shortcut else x, []
        for unit in block.units[:-1]:
            units.append(run(unit, x))
            x = units[-1].y
        units.append(run(block.units[-1], x, residual))
        x = units[-1].y
        blocks.append(BlockRecord(units, shortcut))
    features = plane_means(count, x)
    head = network.classifier
    logits = convolution(features, network.weight(head), network.mask(head), Geometry(1, 1, 0, 1, 1))
    return Forward(stem, blocks, features, logits)


def _forward_unit(
    network: Network, unit: Unit, x: Floats, residual: Floats | None, count: int, training: bool
) -> Record:
    weight, mask = network.weight(unit.layer), network.mask(unit.layer)
    if unit.scale:
        weight = weight * network.parameters[unit.scale]
    geometry = Geometry(weight.shape[-1], unit.stride, unit.padding, *x.shape[2:4])
    z = network.kept(convolution(x, weight, mask, geometry))
    if training:
        found = moments(z, mask.any(axis=(1, 2, 3)), count)
    else:
        running = (network.statistics[f"{unit.norm}.running_{name}"] for name in ("mean", "var"))
        found = Moments(*(each.astype(np.float64) for each in running))
    parameters = (network.parameters[f"{unit.norm}.{name}"] for name in ("weight", "bias"))
    norm = batch_norm(*parameters, found.mean, found.variance)
    y = network.kept(norm(z) if residual is None else norm(z) + residual)
    dynamic = None
    if unit.dyrelu:
        dynamic = dyrelu(y, *_linears(network, unit.dyrelu), network.betas[unit.dyrelu], count)
        y = network.kept(dynamic.y)
    elif unit.is_activated:
        y = np.where(y <= 0, np.float32(0), y)
    return Record(unit, geometry, weight, mask, x, z, y, norm, found, dynamic)


class _Backward:
    """A backward pass, which fills in what a step leaves."""

    def __init__(self, network: Network, count: int, step: Step, dense: bool, signs: Mapping[str, Floats]) -> None:
        self._network = network
        self._count = count
        self._step = step
        self._dense = dense
        self._signs = signs
        self._products: dict[str, Doubles] = {}

    def run(self, passed: Forward, at_logits: Floats) -> None:
        head = self._network.classifier
        weight, mask, geometry = self._network.weight(head), self._network.mask(head), Geometry(1, 1, 0, 1, 1)
        self._add_nonzeros(head, nonzero_gradients(passed.features, at_logits, mask, geometry, self._count), None)
        self._add_requested(head, passed.features, at_logits, geometry, None)
        at_features = add_gradient_at_input(np.zeros_like(passed.features), at_logits, weight, mask, geometry)

        last = passed.blocks[-1].units[-1].y
        g = self._network.kept(np.broadcast_to(at_features / np.float32(last.shape[2] * last.shape[3]), last.shape))
        for block in reversed(passed.blocks):
            g = self._block(block, g)
        if self._network.has_max_pool:
            g = self._network.kept(max_pool_backward(g, passed.stem.y))
        self._unit(passed.stem, g)
        self._step.squared_norms = self._squared_norms()

    def _block(self, block: BlockRecord, g: Floats) -> Floats:
        """The gradient at the block's input, from that at its output."""
        first, *inner, last = block.units
        dz, residual = self._unit(last, g)
        g = self._through(last, dz, np.zeros_like(last.x))
        into = residual
        if block.shortcut:
            at_shortcut, _ = self._unit(block.shortcut, residual)
            into = self._through(block.shortcut, at_shortcut, np.zeros_like(first.x))
        reader = last
        for record in reversed(inner):
            dz, _ = self._unit(record, g, record.is_read_by(reader))
            g = self._through(record, dz, np.zeros_like(record.x))
            reader = record
        dz, _ = self._unit(first, g, first.is_read_by(reader))
        return self._through(first, dz, into)

    def _through(self, record: Record, dz: Floats, g: Floats) -> Floats:
        return self._network.kept(add_gradient_at_input(g, dz, record.weight, record.mask, record.geometry))

    def _unit(self, record: Record, g: Floats, is_read: NDArray[np.bool_] | bool = True) -> tuple[Floats, Floats]:
        """Gradients at the convolution's output and at the residual, from that at the unit's output.

        Args:
            record: of the unit.
            g: the gradient at its output.
            is_read: (C,) of an output inside a block, which channels have a reader.
        """
        unit = record.unit
        if unit.dyrelu and record.dynamic:
            g = self._network.kept(self._dyrelu(unit.dyrelu, record.dynamic, g))
        elif unit.is_activated:
            g = np.where(record.y <= 0, np.float32(0), g)
        is_reached = np.broadcast_to(is_read, len(record.mask))
        slope = batch_norm_backward(g, record.z, record.norm, record.has_nonzeros, is_reached, self._count)
        self._step.gradients |= {f"{unit.norm}.weight": slope.weight, f"{unit.norm}.bias": slope.bias}
        dz = np.where(is_reached[:, None, None, None, None], self._network.kept(slope.dz()), np.float32(0))
        found = nonzero_gradients(record.x, dz, record.mask, record.geometry, self._count, slope)
        found[~is_reached[np.nonzero(record.mask)[0]]] = 0
        self._add_nonzeros(unit.layer, found, unit.scale)
        self._add_requested(unit.layer, record.x, dz, record.geometry, unit.scale)
        return dz, g

    def _dyrelu(self, name: str, dynamic: Dynamic, dy: Floats) -> Floats:
        found = dyrelu_backward(dy, dynamic, *_linears(self._network, name), self._count)
        layers: dict[str, LinearGradients] = {"fc1": found.fc1, "fc2": found.fc2}
        for layer, gradients in layers.items():
            self._step.gradients |= {
                f"{name}.{layer}.weight": gradients.weight,
                f"{name}.{layer}.bias": gradients.bias,
            }
        return found.u

    def _add_nonzeros(self, layer: str, found: Floats, scale: str | None) -> None:
        if scale:
            values = self._network.weight(layer)[self._network.mask(layer)]
            self._step.gradients[scale] = np.float32(dot(found, values))
        _add(self._step.nonzeros, layer, self._scaled(found, scale))

    def _add_requested(self, layer: str, x: Floats, dz: Floats, geometry: Geometry, scale: str | None) -> None:
        if self._dense:
            shape = self._network.masks[layer].shape
            found = dense_gradient(x, dz, geometry, self._count).reshape(shape)
            _add(self._step.dense, layer, self._scaled(found, scale))
        if self._signs:
            products = projections(x, dz, self._signs[layer], geometry, self._count)
            _add(self._products, layer, self._scaled(products, scale))

    def _scaled(self, found: Floats, scale: str | None) -> Floats:
        return found * self._network.parameters[scale].astype(found.dtype) if scale else found

    def _squared_norms(self) -> list[float]:
        totals: list[float] = []
        for products in self._products.values():
            of_layer = [_squares(probe) for probe in products]
            totals = [a + b for a, b in zip(totals or [0.0] * len(of_layer), of_layer, strict=True)]
        return totals


def _squares(numbers: Doubles) -> float:
    """The sum of squares, one after another."""
    q = np.zeros(())
    for p in numbers.ravel():
        q = fma_double(p, p, q)
    return float(q)


def _add(to: dict, name: str, found: Floats) -> None:
    to[name] = to[name] + found if name in to else found


def _statistics(network: Network, record: Record, count: int) -> dict[str, Floats]:
    names = [f"{record.unit.norm}.running_{name}" for name in ("mean", "var")]
    before = (network.statistics[name] for name in names)
    return dict(zip(names, updated_statistics(*before, record.moments, record.z, count), strict=True))


def _linears(network: Network, name: str) -> list[Linear]:
    numbers = network.parameters
    return [Linear(numbers[f"{name}.{layer}.weight"], numbers[f"{name}.{layer}.bias"]) for layer in ("fc1", "fc2")]


def _as_kernel(weight: NDArray) -> NDArray:
    return weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
