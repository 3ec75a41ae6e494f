"""A network as a description, written from a small vocabulary; everything else about it follows from that.

A `Feature` is what one image becomes at a place in the network. Its methods are the vocabulary: `conv`, `linear`,
`norm`, `act`, `max_pool`, `mean`, `flatten`, `identity`, `+`, and `repeat` for blocks. Without PyTorch, so that a plan
can be checked before anything is loaded; `east.models.described` builds the module of a description.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, NamedTuple

from east.errors import EastError

Operation = Literal["images", "conv", "linear", "norm", "act", "max_pool", "mean", "flatten", "add", "identity"]
MASKED = ("conv", "linear")
"""Operations that have a masked weight."""

PREFIXES = {"conv": "conv", "linear": "linear", "norm": "bn", "act": "act"}
"""How modules are called that are not given a name, with a number behind it."""

LARGEST_KERNEL = 7
"""That the sparse engines' kernels know."""

Shape = tuple[int, int, int]
"""Channels, height and width; numbers without positions have a height and width of 1."""


class Window(NamedTuple):
    """What a square convolution or pool looks at: kernel size, stride and padding."""

    kernel: int
    stride: int
    padding: int

    def outputs(self, size: int) -> int:
        """Outputs along a side of the input."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


POINT = Window(kernel=1, stride=1, padding=0)
"""What a linear layer looks at."""


@dataclass(frozen=True, eq=False)
class Feature:
    """What one image is at a place in the network, and the operation that makes it.

    Attributes:
        number: how many features were described before it.
        operation: what makes it.
        inputs: what of.
        shape: channels, height, width.
        is_flat: whether it has features only, and no positions.
        name: of the operation's module; empty where it has none of its own.
        window: of a convolution or pool.
        shares: the feature whose weight is used here again.
        scale: the name of the factor of that weight here.
    """

    number: int
    operation: Operation
    inputs: tuple["Feature", ...]
    shape: Shape
    is_flat: bool
    sketch: "_Sketch" = field(repr=False)
    name: str = ""
    window: Window | None = None
    shares: "Feature | None" = None
    scale: str = ""

    def conv(
        self, channels: int, kernel: int = 3, *, stride: int = 1, padding: int | None = None, name: str = ""
    ) -> "Feature":
        """A masked square convolution without bias; by default the image keeps its size, apart from the stride."""
        if not 1 <= kernel <= LARGEST_KERNEL:
            raise EastError(f"a convolution has a kernel of 1 to {LARGEST_KERNEL}, not of {kernel}.")
        window = Window(kernel, stride, kernel // 2 if padding is None else padding)
        return self.sketch.add("conv", self, self._within(window, channels), window=window, name=name)

    def linear(self, features: int, *, name: str = "") -> "Feature":
        """A masked linear layer without bias, behind `mean` or `flatten`."""
        if not self.is_flat:
            raise EastError(f"a linear layer takes no image ({self}). Put .mean() or .flatten() before it.")
        return self.sketch.add("linear", self, (features, 1, 1), window=POINT, name=name, is_flat=True)

    def norm(self, *, name: str = "") -> "Feature":
        """Batch norm."""
        return self.sketch.add("norm", self, self.shape, name=name)

    def act(self, *, name: str = "") -> "Feature":
        """The activation that the configuration chooses."""
        return self.sketch.add("act", self, self.shape, name=name)

    def max_pool(self, kernel: int = 2, *, stride: int | None = None, padding: int = 0) -> "Feature":
        """The largest number of each window; by default windows lie side by side."""
        window = Window(kernel, kernel if stride is None else stride, padding)
        return self.sketch.add("max_pool", self, self._within(window, self.shape[0]), window=window)

    def mean(self) -> "Feature":
        """The mean of each channel over all positions."""
        return self.sketch.add("mean", self, (self.shape[0], 1, 1), is_flat=True)

    def flatten(self) -> "Feature":
        """All numbers of an image, channel by channel."""
        return self.sketch.add("flatten", self, (prod(self.shape), 1, 1), is_flat=True)

    def identity(self, channels: int, *, stride: int = 1) -> "Feature":
        """This feature itself at every so many positions, with channels of zeros behind its own."""
        if channels < self.shape[0]:
            raise EastError(f"{self} has more than {channels} channels.")
        window = Window(1, stride, 0)
        return self.sketch.add("identity", self, self._within(window, channels), window=window)

    def __add__(self, other: "Feature") -> "Feature":
        """The sum of two features of one shape."""
        if (self.shape, self.is_flat) != (other.shape, other.is_flat):
            raise EastError(f"features of different shapes cannot be added: {self} and {other}.")
        return self.sketch.add("add", self, self.shape, other)

    def block(self, make: Callable[["Feature"], "Feature"], *, name: str) -> "Feature":
        """What a function makes of this feature, as a module of its own; it must read nothing else."""
        return self.sketch.block(self, make, name, None)

    def repeat(self, count: int, make: Callable[["Feature", int], "Feature"], *, name: str) -> "Feature":
        """Blocks one behind the other; the function is called with the feature before each, and its index.

        With weight sharing, blocks from the configured number on use the weights of the last one before, each times a
        factor of its own.
        """
        return self.sketch.repeat(self, count, make, name)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the weight, of a convolution or linear layer."""
        ends = self.shape[0], self.inputs[0].shape[0]
        return ends if self.operation == "linear" or self.window is None else (*ends, *[self.window.kernel] * 2)

    @property
    def positions(self) -> int:
        """Positions of a channel."""
        return self.shape[1] * self.shape[2]

    def __deepcopy__(self, memo: object) -> "Feature":
        """Itself: copies of a network share its description."""
        return self

    def __str__(self) -> str:
        """For messages."""
        return f"{self.name or self.operation} of {' x '.join(map(str, self.shape))}"

    def _within(self, window: Window, channels: int) -> Shape:
        if self.is_flat:
            raise EastError(f"a convolution or pool takes an image, and {self} has no positions any more.")
        if min(channels, window.kernel, window.stride) < 1 or window.padding < 0:
            raise EastError(f"channels, kernel and stride must be at least 1 ({channels}, {tuple(window)}).")
        height, width = (window.outputs(size) for size in self.shape[1:])
        if height < 1 or width < 1:
            raise EastError(
                f"the images are too small for this network: a window of {window.kernel} x {window.kernel} does not "
                f"fit into {self}."
            )
        return channels, height, width


@dataclass(eq=False)
class Scope:
    """The whole network, or a block of it.

    Attributes:
        name: of its module; empty for the network.
        input, output: its only ones.
        items: features and blocks in the order of description.
        source: the block whose weights this one uses.
        result: the output, once it is described.
        last_uses: number of a feature -> the place of the last item that reads it; beyond all for the output.
    """

    name: str
    input: Feature
    source: "Scope | None" = None
    items: list["Feature | Scope"] = field(default_factory=list)
    result: Feature | None = None
    last_uses: dict[int, int] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def __deepcopy__(self, memo: object) -> "Scope":
        """Itself: copies of a network share its description."""
        return self

    @property
    def output(self) -> Feature:
        """What comes out."""
        if self.result is None:
            raise RuntimeError("the description is not complete")
        return self.result

    @property
    def features(self) -> list[Feature]:
        """Those that are directly in it."""
        return [item for item in self.items if isinstance(item, Feature)]

    @property
    def masked(self) -> list[Feature]:
        """Convolutions and linear layers directly in it, reused ones included."""
        return [item for item in self.features if item.operation in MASKED]

    def close(self, output: Feature) -> None:
        """Note what comes out, once all is described."""
        self.result = output
        for place, item in enumerate(self.items):
            inputs = [item.input] if isinstance(item, Scope) else item.inputs
            self.last_uses.update({one.number: place for one in inputs})
        self.last_uses[output.number] = len(self.items)

    @property
    def blocks(self) -> list["Scope"]:
        """The blocks in it, at any depth, in order."""
        inner = [item for item in self.items if isinstance(item, Scope)]
        return [found for block in inner for found in (block, *block.blocks)]

    def named(self, operation: Operation) -> str:
        """A name for the next operation of a kind."""
        self._numbers[operation] = self._numbers.get(operation, 0) + 1
        return f"{PREFIXES[operation]}{self._numbers[operation]}"


@dataclass(frozen=True, eq=False)
class Description:
    """A network for images of one size.

    Attributes:
        root: the network.
        features: all of them, in the order of description, from the images to the logits.
        repeats: blocks of the longest repetition; 0 without any.
    """

    root: Scope
    features: tuple[Feature, ...]
    repeats: int

    def __deepcopy__(self, memo: object) -> "Description":
        """Itself: copies of a network share its description."""
        return self

    @property
    def image_shape(self) -> Shape:
        """Channels, height and width of the images."""
        return self.root.input.shape

    @property
    def head(self) -> Feature:
        """The classifier."""
        return self.root.output

    @property
    def masked(self) -> list[Feature]:
        """All convolutions and linear layers, reused ones included, in the order of description."""
        return [one for one in self.features if one.operation in MASKED]

    def consumers(self) -> dict[Feature, list[Feature]]:
        """Feature -> those that are made of it."""
        found: dict[Feature, list[Feature]] = {one: [] for one in self.features}
        for one in self.features:
            for source in one.inputs:
                found[source].append(one)
        return found

    def registered(self) -> list[Feature]:
        """The features whose operation has a module, in the order in which the network registers modules.

        Batch norm and activation stand behind the convolution that they follow, whatever is added in between.
        """
        scope_of = {one: scope for scope in (self.root, *self.root.blocks) for one in scope.features}
        tree: dict[str, Any] = {}
        for one in sorted(self.features, key=lambda one: (_owner(one, scope_of).number, one.number)):
            if one.name and one.shares is None:
                *path, last = one.name.split(".")
                branch = tree
                for part in path:
                    branch = branch.setdefault(part, {})
                branch[last] = one
        return list(_leaves(tree))

    def size(self, *, dct: bool = False) -> "NetworkSize":
        """What the network stores; with DCT layers weights are called after their sparse part."""
        part = ".sparse" if dct else ""
        own = [one for one in self.registered() if one.operation in MASKED]
        shared = sum(prod(one.weight_shape) for one in self.masked if one.shares is not None)
        shapes = {f"{one.name}{part}": one.weight_shape for one in own}
        return NetworkSize(shapes, sum(map(prod, shapes.values())) + shared)

    @property
    def fewest_positions(self) -> int:
        """Positions of the smallest image that a batch norm sees."""
        return min((one.positions for one in self.features if one.operation == "norm"), default=2)


@dataclass(frozen=True)
class NetworkSize:
    """What a network stores, and what it stands for.

    Attributes:
        shapes: name -> shape of every masked tensor, in the order of the network.
        dense_weights: weights of the dense network; with weight sharing more than are stored.
    """

    shapes: dict[str, tuple[int, ...]]
    dense_weights: int

    @property
    def stored_weights(self) -> int:
        """Weights of all masked tensors, on and off."""
        return sum(map(prod, self.shapes.values()))


def describe(
    make: Callable[[Feature, int], Any], image_shape: Shape, num_classes: int, *, sharing_ratio: int | None = None
) -> Description:
    """The description of a network for images of this size.

    Args:
        make: from the images and the number of classes to the logits.
        image_shape: channels, height, width.
        num_classes: outputs of the classifier.
        sharing_ratio: blocks of a repetition that own weights; later ones use those of the last owner. None: all.

    Raises:
        EastError: what is described is not a network.
    """
    sketch = _Sketch(sharing_ratio)
    images = sketch.begin(image_shape)
    output = make(images, num_classes)
    if not isinstance(output, Feature):
        raise EastError(f"a network must give its logits, a Feature, and not a {type(output).__name__}.")
    return sketch.finish(output, num_classes)


def images_of(shape: Shape) -> Feature:
    """The images of a network, of which nothing is made yet."""
    return _Sketch(None).begin(shape)


class _Sketch:
    """A description in the making."""

    def __init__(self, sharing_ratio: int | None) -> None:
        self.sharing_ratio = sharing_ratio
        self.features: list[Feature] = []
        self.open: list[Scope] = []
        self.names: set[str] = set()
        self.repeats = 0

    def begin(self, image_shape: Shape) -> Feature:
        images = Feature(0, "images", (), image_shape, is_flat=False, sketch=self)
        self.features.append(images)
        self.open.append(Scope("", images))
        return images

    def add(
        self,
        operation: Operation,
        first: Feature,
        shape: Shape,
        *others: Feature,
        name: str = "",
        window: Window | None = None,
        is_flat: bool | None = None,
    ) -> Feature:
        scope = self.open[-1]
        inputs = (first, *others)
        for one in inputs:
            self._require_known(one, scope)
        shares, scale = None, ""
        if operation in PREFIXES:
            name = f"{scope.name}.".lstrip(".") + (name or scope.named(operation))
        if operation in MASKED and scope.source is not None:
            shares, scale = self._shared(scope, shape, window), f"{scope.name}.scale{len(scope.masked) + 1}"
        elif name:
            if name in self.names:
                raise EastError(f"two modules are called '{name}'. Name one of them otherwise.")
            self.names.add(name)
        flat = first.is_flat if is_flat is None else is_flat
        made = Feature(len(self.features), operation, inputs, shape, flat, self, name, window, shares, scale)
        if shares is not None and shares.weight_shape != made.weight_shape:
            raise EastError(
                f"{made} cannot use the weight of {shares}, which is another one. Do not repeat such blocks."
            )
        self.features.append(made)
        scope.items.append(made)
        return made

    def block(self, x: Feature, make: Callable[[Feature], Feature], name: str, source: Scope | None) -> Feature:
        outer = self.open[-1]
        self._require_known(x, outer)
        inner = Scope(f"{outer.name}.{name}".lstrip("."), x, source)
        outer.items.append(inner)
        self.open.append(inner)
        made = make(x)
        self.open.pop()
        if not isinstance(made, Feature) or made not in inner.features:
            raise EastError(f"block {inner.name} must end with something that it describes itself.")
        inner.close(made)
        if source is not None and len(inner.masked) != len(source.masked):
            raise EastError(f"block {inner.name} cannot use the weights of {source.name}, which has other layers.")
        return inner.output

    def repeat(self, x: Feature, count: int, make: Callable[[Feature, int], Feature], name: str) -> Feature:
        self.repeats = max(self.repeats, count)
        owner: Scope | None = None
        for index in range(count):
            shares = self.sharing_ratio is not None and index >= self.sharing_ratio

            def made(before: Feature, index: int = index) -> Feature:
                return make(before, index)

            x = self.block(x, made, f"{name}.{index}", owner if shares else None)
            if not shares:
                owner = next(item for item in reversed(self.open[-1].items) if isinstance(item, Scope))
        return x

    def finish(self, output: Feature, num_classes: int) -> Description:
        root = self.open[-1]
        root.close(output)
        if output.operation != "linear" or output.shape[0] != num_classes:
            raise EastError(
                f"a network ends with .linear(classes), here of {num_classes} features, and not with {output}."
            )
        found = Description(root, tuple(self.features), self.repeats)
        lost = [one for one, readers in found.consumers().items() if not readers and one is not output]
        if lost:
            raise EastError(f"nothing is made of {lost[0]}. Use it or leave it out.")
        return found

    def _shared(self, scope: Scope, shape: Shape, window: Window | None) -> Feature:
        source, place = scope.source, len(scope.masked)
        if source is None or place >= len(source.masked):
            raise EastError(f"block {scope.name} has more layers than the one whose weights it uses.")
        found = source.masked[place]
        if found.window != window or found.shape[0] != shape[0]:
            raise EastError(
                f"block {scope.name} is not like {source.name}, whose weights it uses. Do not repeat such blocks."
            )
        return found

    def _require_known(self, one: Feature, scope: Scope) -> None:
        if one.sketch is not self:
            raise EastError(f"{one} belongs to another network.")
        outputs = (item.output for item in scope.items if isinstance(item, Scope))
        if one is not scope.input and one not in scope.features and one not in outputs:
            raise EastError(
                f"block {scope.name} reads {one}, which is outside it. A block reads nothing but its input."
            )


def _owner(one: Feature, scope_of: Mapping[Feature, Scope]) -> Feature:
    """The convolution or linear layer in the same block that a batch norm or activation follows; else itself."""
    if one.operation not in ("norm", "act"):
        return one
    before = one
    while before.operation in ("norm", "act", "add"):
        before = before.inputs[0]
        if scope_of.get(before) is not scope_of.get(one):
            return one
    return before if before.operation in MASKED else one


def _leaves(tree: Mapping[str, Any]) -> Iterator[Feature]:
    for branch in tree.values():
        if isinstance(branch, Feature):
            yield branch
        else:
            yield from _leaves(branch)
