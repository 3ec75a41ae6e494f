"""A network as a list of units in the order of execution, with the activations between them.

A description becomes units: a convolution or linear layer with the batch norm, sum and activation behind it. What
stands alone (a batch norm before its convolution, an activation behind a pool) is a unit too, whose convolution is the
identity. Such a unit also copies an activation where one has more readers than kernels know, so that afterwards:

- at most two units read an activation by their convolutions;
- a pool, a mean or the classifier is the only one to read its input;
- a sum is the last to read what it adds, so that the gradient there is that behind the sum, in one memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from torch import Tensor, nn

from east.errors import EastError
from east.models.dct import DCTConv2d, DCTLinear
from east.models.described import BatchNorm, DescribedNetwork, masked_part
from east.models.description import MASKED, POINT, Description, Feature, Window
from east.models.dyrelu import DyReLU
from east.sparse.active import ActiveWeights
from east.sparse.layers import MaskedLayer, MaskedLinear, masked_layers

GradientKey = tuple[int, int, int, int]
"""The place of a gradient among those of its shape, and the shape."""

MOST_READERS = 2
"""Convolutions that may read one activation."""


@dataclass(eq=False)
class Activation:
    """What units read and write.

    Attributes:
        channels, height, width: its size for one image.
        lasting: whether all of it is needed: as the output of a block or of the stem, say, and not one inside a block,
            of which a single convolution reads the channels that it has non-zeros for.
        place: its gradient's, among those of its shape.
        producer: the node that writes it; None for the images.
        readers: the units whose convolution reads it.
    """

    channels: int
    height: int
    width: int
    lasting: bool = True
    place: int = 0
    producer: "Node | None" = field(default=None, repr=False)
    readers: list["Unit"] = field(default_factory=list, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def gradient_key(self) -> GradientKey:
        """Activations with the same key have their gradients in the same memory: no two are needed at one time.

        Along sums of one size, a gradient becomes that of what is added in place.
        """
        return (self.place, *self.shape)


@dataclass(eq=False)
class Unit:
    """One use of a convolution or linear layer, with the batch norm, sum and activation that follow it.

    Attributes:
        layer: name of the masked layer; of the identity a name of its own.
        masked: the layer itself; None for the identity, of each of the input's channels.
        window: what the convolution looks at.
        dct: the DCT layer that the masked one is part of, if it is.
        alpha: the factor of the DCT matrix here.
        scale: the factor of a shared weight here; None for 1.
        norm: the batch norm; None for none.
        dyrelu: the activation, where it is a DyReLU (which may be retired); None for a ReLU.
        rectify: whether there is an activation at all.
        x, y: input and output.
        residual: added before the activation.
    """

    layer: str
    masked: MaskedLayer | None
    window: Window
    dct: DCTConv2d | DCTLinear | None
    alpha: Tensor | None
    scale: nn.Parameter | None
    norm: BatchNorm | None
    dyrelu: DyReLU | None
    rectify: bool
    x: Activation
    y: Activation
    residual: Activation | None

    @property
    def dynamic(self) -> DyReLU | None:
        """The DyReLU as long as it is not retired."""
        return None if self.dyrelu is None or self.dyrelu.retired else self.dyrelu

    @property
    def weights(self) -> int:
        """Weights of the layer, on and off; the identity has none."""
        return 0 if self.masked is None else self.masked.weight.numel()

    def nonzeros(self, of_layers: Mapping[str, int]) -> int:
        """Numbers that the convolution multiplies with at each position."""
        return self.x.channels if self.masked is None else of_layers[self.layer]

    def own_weight(self) -> Tensor:
        """The layer's weight (out, in, kernel, kernel), off ones included.

        Raises:
            RuntimeError: the identity has none.
        """
        if self.masked is None:
            raise RuntimeError("the identity has no weights")
        return self.masked.weight.detach().view(self.y.channels, self.x.channels, *[self.window.kernel] * 2)

    def dense_weight(self) -> Tensor:
        """The weight (out, in, kernel, kernel) of this use, off ones included: scale * S, or that + alpha * D."""
        weight = self.own_weight()
        if self.scale is not None:
            weight = weight * self.scale.detach()
        if self.dct is not None and self.alpha is not None:
            weight = weight + self.alpha.detach() * self.dct.dct.weight.view(weight.shape)
        return weight


@dataclass(eq=False)
class Pool:
    """A max-pool."""

    x: Activation
    y: Activation
    window: Window


@dataclass(eq=False)
class Reshape:
    """From an image to numbers without positions: the means of its channels, or all of its numbers."""

    x: Activation
    y: Activation
    is_mean: bool


Node = Unit | Pool | Reshape


@dataclass(eq=False)
class Head:
    """The classifier on the means of the last activation.

    Attributes:
        layer: name of the masked layer.
        linear: the layer itself.
        dct: the DCT layer that the masked one is part of, if it is.
        x: its input before the mean.
    """

    layer: str
    linear: MaskedLinear
    dct: DCTLinear | None
    x: Activation


@dataclass(eq=False)
class Network:
    """A network in the order of execution."""

    images: Activation
    nodes: list[Node]
    head: Head

    @property
    def units(self) -> list[Unit]:
        """The nodes that are units."""
        return [node for node in self.nodes if isinstance(node, Unit)]

    @property
    def uses(self) -> dict[str, list[Unit]]:
        """The units of each masked layer but the classifier, by its name; a shared one has several."""
        found: dict[str, list[Unit]] = {}
        for unit in self.units:
            found.setdefault(unit.layer, []).append(unit)
        return found

    @property
    def identities(self) -> dict[str, Unit]:
        """The units without a masked layer, by the name that takes its place."""
        return {unit.layer: unit for unit in self.units if unit.masked is None}


def network_of(model: nn.Module, image_shape: tuple[int, int, int]) -> Network:
    """A network for images of this shape (C, H, W).

    Raises:
        EastError: the network is of a kind that the sparse engine does not know, or takes other images.
    """
    if not is_described(model):
        raise EastError(
            f"the sparse engine executes the networks of east.models, not a {type(model).__name__}; use engine: dense."
        )
    return _Describer(model, model.describe(image_shape)).network()


def is_described(model: nn.Module) -> TypeGuard[DescribedNetwork]:
    """Whether a network has a description, which sparse engines go by."""
    return isinstance(model, DescribedNetwork)


def executes_everything(model: nn.Module, active: Mapping[str, ActiveWeights]) -> bool:
    """Whether there is no zero to leave out: each masked layer has a full mask or a dense part."""
    within = {module.sparse for module in model.modules() if isinstance(module, DCTConv2d | DCTLinear)}
    return all(weights.is_full or weights.layer in within for weights in active.values())


@dataclass
class _Chain:
    """What becomes one unit: an operation and those before it that nothing else reads."""

    masked: Feature | None = None
    norm: Feature | None = None
    added: Feature | None = None
    act: Feature | None = None
    source: Feature | None = None


class _Describer:
    def __init__(self, model: DescribedNetwork, description: Description) -> None:
        self.model, self.description = model, description
        self.names = {layer: name for name, layer in masked_layers(model).items()}
        self.consumers = description.consumers()
        self.made: dict[Feature, Activation] = {}
        self.nodes: list[Node] = []

    def network(self) -> Network:
        images = self.made[self.description.features[0]] = Activation(*self.description.image_shape)
        head = self.description.head
        for feature in self.description.features[1:]:
            if feature is not head and not self._is_taken_up(feature):
                self._make(feature)
        layer = self.model.masked_of(head)
        linear = masked_part(layer)
        assert isinstance(linear, MaskedLinear)  # noqa: S101 - for the type checker
        dct = layer if isinstance(layer, DCTLinear) else None
        before = head.inputs[0]
        if self._is_taken_up(before):  # the mean is the classifier's own
            before = before.inputs[0]
        network = Network(images, self.nodes, Head(self.names[linear], linear, dct, self.made[before]))
        _part_readers(network)
        _place_gradients(network)
        return network

    def _is_taken_up(self, feature: Feature) -> bool:
        """Whether a feature is made on the way to the only one that reads it."""
        readers = self.consumers[feature]
        if len(readers) != 1:
            return False
        (reader,) = readers
        match reader.operation:
            case "norm":
                return feature.operation in MASKED
            case "add":
                return feature is self._main_of(reader)
            case "act":
                return feature.operation in (*MASKED, "norm", "add")
            case "linear":
                return reader is self.description.head and feature.operation == "mean"
        return False

    def _main_of(self, addition: Feature) -> Feature | None:
        """The summand that a sum is found with, in one unit; None where both are found before."""
        for one in addition.inputs:
            if one.operation in (*MASKED, "norm") and len(self.consumers[one]) == 1:
                return one
        return None

    def _make(self, feature: Feature) -> None:
        """Add the node that makes a feature."""
        x = self.made.get(feature.inputs[0])
        match feature.operation:
            case "mean" | "flatten" if x is not None and feature.inputs[0].is_flat:
                self.made[feature] = x
            case "mean" | "flatten" if x is not None:
                self._add(Reshape(x, Activation(*feature.shape), feature.operation == "mean"), feature)
            case "max_pool" if x is not None and feature.window is not None:
                self._add(Pool(x, Activation(*feature.shape), feature.window), feature)
            case _:
                self._add(self._unit(feature), feature)

    def _add(self, node: Node, feature: Feature) -> None:
        node.y.producer = node
        self.nodes.append(node)
        self.made[feature] = node.y

    def _unit(self, feature: Feature) -> Unit:
        chain = self._chain(feature)
        masked, window, layer = None, POINT, f"identity {feature.number}"
        dct = alpha = scale = None
        if chain.masked is not None:
            module = self.model.masked_of(chain.masked)
            masked = masked_part(module)
            layer, window, scale = self.names[masked], chain.masked.window or POINT, self.model.factor(chain.masked)
            if isinstance(module, DCTConv2d | DCTLinear):
                dct, alpha = module, self.model.factor(chain.masked, "alpha")
                alpha = module.alpha if alpha is None else alpha
        elif feature.operation == "identity":
            window = feature.window or POINT
        norm = None if chain.norm is None else self.model.module_of(chain.norm)
        assert norm is None or isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)  # noqa: S101 - for the type checker
        dyrelu = None if chain.act is None else self.model.module_of(chain.act)
        assert dyrelu is None or isinstance(dyrelu, DyReLU)  # noqa: S101 - for the type checker
        assert chain.source is not None  # noqa: S101 - for the type checker
        return Unit(
            layer=layer,
            masked=masked,
            window=window,
            dct=dct,
            alpha=alpha,
            scale=scale,
            norm=norm,
            dyrelu=dyrelu,
            rectify=chain.act is not None,
            x=self.made[chain.source],
            y=Activation(*feature.shape),
            residual=None if chain.added is None else self.made[chain.added],
        )

    def _chain(self, end: Feature) -> _Chain:
        """From the last operation of a unit back to its convolution."""
        chain = _Chain()
        at: Feature | None = end
        if end.operation == "act":
            chain.act, at = end, self._before(end, chain)
        if at is not None and at.operation == "add":
            main = self._main_of(at)
            first, second = at.inputs
            if main is None:
                chain.added, chain.source, at = second, first, None
            else:
                chain.added = second if main is first else first
                at = main
        if at is not None and at.operation == "norm":
            chain.norm, at = at, self._before(at, chain)
        if at is not None and at.operation in (*MASKED, "identity"):
            chain.masked = at if at.operation in MASKED else None
            chain.source = at.inputs[0]
        return chain

    def _before(self, feature: Feature, chain: _Chain) -> Feature | None:
        """What a unit goes on with before an operation; where that is another unit's, it is where this one begins."""
        before = feature.inputs[0]
        if self._is_taken_up(before):
            return before
        chain.source = before
        return None


def _part_readers(network: Network) -> None:
    """Note who reads what, and put copies where more read an activation than may."""
    number = 0
    while (found := _first_crowded(network)) is not None:
        at, activation = found
        copy = Activation(*activation.shape)
        copy.producer = _copy_of(activation, copy, f"copy {number}")
        number += 1
        network.nodes.insert(at, copy.producer)
        users = network.nodes[at + 1 :]
        readers = [node for node in users if node.x is activation]
        if at == len(network.nodes) - 1:
            network.head.x = copy
            continue
        user = network.nodes[at + 1]
        if isinstance(user, Unit) and user.residual is activation:
            user.residual = copy
        elif isinstance(user, Unit):
            for reader in readers:
                reader.x = copy
        else:
            user.x = copy
    for activation in (network.images, *(node.y for node in network.nodes)):
        activation.readers = [unit for unit in network.units if unit.x is activation]
        others = [use for use in _uses(network, activation) if not (isinstance(use[1], Unit) and use[2] == "reads")]
        with_sum = isinstance(activation.producer, Unit) and activation.producer.residual is not None
        inner = isinstance(activation.producer, Unit) and not with_sum and not others and len(activation.readers) == 1
        activation.lasting = not inner


def _copy_of(x: Activation, y: Activation, name: str) -> Unit:
    return Unit(name, None, POINT, None, None, None, None, None, False, x, y, None)


def _uses(network: Network, activation: Activation) -> list[tuple[int, Node | Head, str]]:
    """Where in the network an activation is used, by what, and whether that reads it or adds it."""
    found: list[tuple[int, Node | Head, str]] = []
    for place, node in enumerate(network.nodes):
        if node.x is activation:
            found.append((place, node, "reads"))
        if isinstance(node, Unit) and node.residual is activation:
            found.append((place, node, "adds"))
    if network.head.x is activation:
        found.append((len(network.nodes), network.head, "reads"))
    return found


def _first_crowded(network: Network) -> tuple[int, Activation] | None:
    """Before which node an activation must be copied, if any must."""
    for activation in (network.images, *(node.y for node in network.nodes)):
        uses = _uses(network, activation)
        if len(uses) < 2:
            continue
        last = max(place for place, _, _ in uses)
        for place, user, how in uses:
            if how == "adds" and (place != last or sum(other[0] == place for other in uses) > 1):
                return place, activation
            if not isinstance(user, Unit):
                return place, activation
        reading = [place for place, _, how in uses if how == "reads"]
        if len(reading) > MOST_READERS:
            return reading[MOST_READERS - 1], activation
    return None


def _place_gradients(network: Network) -> None:
    """Give gradients of one shape that are needed at the same time different places.

    A gradient is needed, in the order of the backward pass, from the last unit that reads the activation to the one
    that wrote it; that at a sum and at what it adds are in one place.
    """
    spans: list[tuple[int, int, list[Activation]]] = []
    group_of: dict[Activation, int] = {}
    for place, node in enumerate(network.nodes):
        end = max(use[0] for use in _uses(network, node.y))
        added = node.residual if isinstance(node, Unit) else None
        if added is not None and added in group_of:
            group = group_of[added]
            begin, before, members = spans[group]
            spans[group] = (begin, max(before, end), [*members, node.y])
        else:
            group = len(spans)
            spans.append((place, end, [node.y]))
        group_of[node.y] = group
    taken: dict[tuple[tuple[int, int, int], int], int] = {}
    for begin, end, members in spans:
        place, shape = 0, members[0].shape
        while taken.get((shape, place), -1) >= begin:
            place += 1
        taken[shape, place] = end
        for member in members:
            member.place = place
