"""From the name of a network, and what is added to it, to the network: its description, its size, its module."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from east.config.choices import WIDTH, Choice, named
from east.errors import EastError
from east.models.description import Description, Feature, NetworkSize, Shape, describe
from east.plugins import blamed
from east.registry import Entry
from east.sparse.kinds import network

IMAGE_SHAPE: Shape = (3, 32, 32)
"""Of CIFAR's images, for which a network is built if nothing else is said."""

ACTIVATIONS = ("relu", "dyrelu")


def own_width(entry: Entry) -> int | None:
    """The width that a network has if nothing else is said; None where it has none."""
    return next((one.default for one in entry.parameters if one.name == WIDTH), None)


@cache
def description_of(
    name: str | Choice,
    num_classes: int,
    image_shape: Shape = IMAGE_SHAPE,
    *,
    width: int | None = None,
    sharing_ratio: int | None = None,
) -> Description:
    """The description of a network; arguments as for `build_model`.

    Raises:
        EastError: it is in a plugin that is not loaded, is no network for such images, or shares no weight.
    """
    entry, make = maker_of(name, width)
    with blamed(entry, "when it described the network"):
        return describe(make, image_shape, num_classes, sharing_ratio=sharing_ratio)


@cache
def network_size(
    name: str | Choice,
    num_classes: int,
    image_shape: Shape = IMAGE_SHAPE,
    *,
    width: int | None = None,
    sharing_ratio: int | None = None,
    dct: bool = False,
) -> NetworkSize:
    """The masked tensors of a network, without building it; arguments as for `build_model`."""
    return description_of(name, num_classes, image_shape, width=width, sharing_ratio=sharing_ratio).size(dct=dct)


def maker_of(name: str | Choice, width: int | None = None) -> tuple[Entry, Callable[[Feature, int], Any]]:
    """The entry of a network, and what makes it of the images and the number of classes.

    Raises:
        EastError: there is no such network, it is in a plugin that is not loaded, or a parameter is not as it wants it.
    """
    called, parameters, plugin = named(name)
    entry = network.find(called, plugin)
    try:
        return entry, entry.bind(parameters | ({} if width is None else {WIDTH: width}))
    except ValueError as error:
        raise EastError(f"{entry.place}: {error}.") from None


def build_model(
    name: str | Choice,
    num_classes: int,
    activation: str = "relu",
    sharing_ratio: int | None = None,
    dct: bool = False,
    width: int | None = None,
    image_shape: Shape = IMAGE_SHAPE,
) -> Any:
    """Build a network with all weights on and PyTorch's default initialisation, from the global random state.

    Args:
        name: of a registered network, or its name with parameters.
        num_classes: outputs of the classifier.
        activation: `relu` or `dyrelu`.
        sharing_ratio: blocks of a repetition that own weights, at least 2; None for no sharing.
        dct: add a fixed DCT matrix to every masked layer (DCTpS).
        width: of its first layer; None for the network's own.
        image_shape: channels, height, width of its images.

    Returns:
        A `DescribedNetwork`; or the `nn.Module` that a plugin gives, with its layers masked.

    Raises:
        EastError: the name or activation is unknown, or a number is out of range.
    """
    # Not at the top: a plan is checked without PyTorch.
    from east.models.described import DescribedNetwork, Parts
    from east.models.ordinary import masked_module

    if activation not in ACTIVATIONS:
        raise EastError(f"unknown activation '{activation}'. Choose one of {', '.join(ACTIVATIONS)}.")
    if sharing_ratio is not None and sharing_ratio < 2:
        raise EastError(
            f"sharing_ratio {sharing_ratio} is too small: the first block of a stage has a different input width from "
            "the rest, so at least 2 blocks must own weights."
        )
    if num_classes < 1 or (width is not None and width < 1):
        raise EastError(f"num_classes ({num_classes}) and width ({width}) must be at least 1.")
    entry, make = maker_of(name, width)
    if entry.facts.module:
        with blamed(entry, "when it made the network"):
            return masked_module(make, image_shape, num_classes, entry.title)
    if entry.plugin is not None and sharing_ratio is not None:
        # Of the project's own the plan knows it.
        repeats = description_of(name, num_classes, image_shape, width=width).repeats
        if repeats <= sharing_ratio:
            raise EastError(
                f"{entry.title} repeats {repeats} blocks, so that sharing_ratio {sharing_ratio} shares nothing."
            )
    described = partial(_described, name, num_classes, width=width, sharing_ratio=sharing_ratio)
    return DescribedNetwork(described, image_shape, Parts(dct=dct, dyrelu=activation == "dyrelu"))


def _described(
    name: str | Choice, num_classes: int, image_shape: Shape, *, width: int | None, sharing_ratio: int | None
) -> Description:
    return description_of(name, num_classes, image_shape, width=width, sharing_ratio=sharing_ratio)
