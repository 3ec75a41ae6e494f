"""The module of a description: masked layers, batch norms and activations under the names that it gives them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from east.errors import EastError
from east.models.dct import DCTConv2d, DCTLinear
from east.models.description import Description, Feature, Scope, Shape
from east.models.dyrelu import DyReLU
from east.sparse.layers import MaskedConv2d, MaskedLayer, MaskedLinear

Conv = MaskedConv2d | DCTConv2d
Masked = MaskedConv2d | MaskedLinear | DCTConv2d | DCTLinear
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


@dataclass(frozen=True)
class Parts:
    """The kinds of layer and activation that a network is made of."""

    dct: bool
    dyrelu: bool

    def module_of(self, feature: Feature, head: Feature) -> nn.Module | None:
        """The module of a feature's operation; None for a plain ReLU.

        A linear layer has no bias, except the classifier of DCTpS networks.
        """
        channels = feature.inputs[0].shape[0]
        match feature.operation:
            case "conv":
                assert feature.window is not None  # noqa: S101 - for the type checker
                kernel, stride, padding = feature.window
                kind = DCTConv2d if self.dct else MaskedConv2d
                return kind(channels, feature.shape[0], kernel, stride=stride, padding=padding)
            case "linear":
                if self.dct:
                    return DCTLinear(channels, feature.shape[0], bias=feature is head)
                return MaskedLinear(channels, feature.shape[0])
            case "norm":
                return (nn.BatchNorm1d if feature.is_flat else nn.BatchNorm2d)(channels)
            case _:
                return DyReLU(channels) if self.dyrelu else None


class Block(nn.Module):
    """A block of a network. It owns its modules, and the factors of weights that it reuses.

    Such a factor (`scale1`, ...) is drawn from U(0, 1); with DCT layers it also owns `alpha1`, ...
    """

    def __init__(self, scope: Scope, parts: Parts) -> None:
        super().__init__()
        self.scope = scope
        for i in range(1, 1 + len(scope.masked) * (scope.source is not None)):
            self.register_parameter(f"scale{i}", nn.Parameter(torch.rand(())))
            if parts.dct:
                self.register_parameter(f"alpha{i}", nn.Parameter(torch.ones(())))

    def forward(self, x: Tensor, network: "DescribedNetwork") -> Tensor:
        """Apply the block to x, with the modules of the network that it belongs to."""
        return network.run(self.scope, x)


class DescribedNetwork(nn.Module):
    """A network as its description has it.

    Args:
        describe: gives the description for images of a shape (C, H, W).
        image_shape: of the images that it is built for. Others will do if they need the same weights.
        parts: kinds of layer and activation.

    Attributes:
        description: for those images.
    """

    def __init__(self, describe: Callable[[Shape], Description], image_shape: Shape, parts: Parts) -> None:
        super().__init__()
        self._describe = describe
        self.description = describe(image_shape)
        self._modules_of: dict[str, nn.Module] = {}
        registered = self.description.registered()
        blocks = {scope.name: Block(scope, parts) for scope in self.description.root.blocks}
        places = _places([*(one.name for one in registered), *blocks])
        for feature in registered:
            module = parts.module_of(feature, self.description.head)
            if module is not None:
                self._register(feature.name, module, blocks, places)
        for name, block in blocks.items():  # those without a module of their own
            self._container(name, blocks, places)
            self._modules_of[name] = block

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W)."""
        return self.run(self.description.root, images)

    def run(self, scope: Scope, x: Tensor) -> Tensor:
        """What the network, or a block of it, makes of its input."""
        values = {scope.input.number: x}
        last = scope.last_uses
        for place, item in enumerate(scope.items):
            if isinstance(item, Scope):
                inputs = [item.input.number]
                values[item.output.number] = self._modules_of[item.name](values[inputs[0]], self)
            else:
                inputs = [one.number for one in item.inputs]
                values[item.number] = self._operate(item, [values[number] for number in inputs])
            for number in inputs:
                if last[number] == place:
                    values.pop(number, None)
        return values[scope.output.number]

    def describe(self, image_shape: Shape) -> Description:
        """The network for images of a shape (C, H, W).

        Raises:
            EastError: it takes other images.
        """
        own = self.description
        if image_shape == own.image_shape:
            return own
        if image_shape[0] != own.image_shape[0]:
            raise EastError(f"the network takes images of {own.image_shape[0]} channels, not of {image_shape[0]}.")
        found = self._describe(image_shape)
        if found.size() != own.size():
            built = " x ".join(map(str, own.image_shape))
            raise EastError(f"the network takes images of {built}, not of {' x '.join(map(str, image_shape))}.")
        return found

    def module_of(self, feature: Feature) -> nn.Module | None:
        """The module of a feature's operation, of another place where its weight is used again; None without any."""
        return self._modules_of.get((feature.shares or feature).name)

    def masked_of(self, feature: Feature) -> Masked:
        """The layer of a convolution or linear layer, of another place where its weight is used again."""
        return cast(Masked, self.module_of(feature))

    def factor(self, feature: Feature, of: str = "scale") -> nn.Parameter | None:
        """The factor of a weight that is used again, or of the DCT matrix beside it; None at its own place."""
        if not feature.scale:
            return None
        place, _, name = feature.scale.rpartition(".")
        return getattr(self._modules_of[place], name.replace("scale", of), None)

    def _operate(self, feature: Feature, inputs: list[Tensor]) -> Tensor:
        x, window, module = inputs[0], feature.window, self.module_of(feature)
        match feature.operation:
            case "conv" | "linear" if feature.shares is not None:
                scale, alpha = self.factor(feature), self.factor(feature, "alpha")
                reuse = cast("Callable[..., Tensor]", self.masked_of(feature).reuse)
                return reuse(x, scale) if alpha is None else reuse(x, scale, alpha)
            case "act" if module is None:
                return F.relu(x)
            case "act" if feature.is_flat:
                unit: Callable[[Tensor], Tensor] = cast(DyReLU, module)
                return unit(x[..., None, None]).flatten(1)
            case "add":
                return x + inputs[1]
            case "mean":
                return x if feature.inputs[0].is_flat else x.mean(dim=(2, 3))
            case "flatten":
                return x.flatten(1)
        if feature.operation == "max_pool" and window is not None:
            return F.max_pool2d(x, window.kernel, window.stride, window.padding)
        if feature.operation == "identity" and window is not None:
            taken = x[:, :, :: window.stride, :: window.stride]
            return F.pad(taken, (0, 0, 0, 0, 0, feature.shape[0] - taken.shape[1]))
        assert module is not None  # noqa: S101 - for the type checker
        made: Tensor = module(x)
        return made

    def _register(self, name: str, module: nn.Module, blocks: dict[str, Block], lists: set[str]) -> None:
        place, _, last = name.rpartition(".")
        self._container(place, blocks, lists).add_module(last, module)
        self._modules_of[name] = module

    def _container(self, name: str, blocks: dict[str, Block], lists: set[str]) -> nn.Module:
        """What holds the modules of a place: the network, a block, or a list."""
        if not name:
            return self
        place, _, last = name.rpartition(".")
        outer = self._container(place, blocks, lists)
        if last not in dict(outer.named_children()):
            made = blocks.get(name) or (nn.ModuleList() if name in lists else nn.Module())
            outer.add_module(last, made)
        return outer.get_submodule(last)


def masked_part(layer: Masked) -> MaskedLayer:
    """The layer that holds the mask."""
    return layer.sparse if isinstance(layer, DCTConv2d | DCTLinear) else layer


def _places(names: Iterable[str]) -> set[str]:
    """The containers all of whose modules are called by numbers."""
    inner: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts)):
            inner.setdefault(".".join(parts[:depth]), set()).add(parts[depth])
    return {place for place, children in inner.items() if all(child.isdigit() for child in children)}
