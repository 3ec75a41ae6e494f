"""A network that a plugin gives as an ordinary module: its convolutions and linear layers become masked ones.

Nothing is known of it beyond that, so that PyTorch executes it with all its weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from east.errors import EastError
from east.models.description import Feature, Shape, images_of
from east.seeding import torch_generator
from east.sparse.layers import MaskedConv2d, MaskedLinear, masked_layers

MASKED = {nn.Conv2d: MaskedConv2d, nn.Linear: MaskedLinear}


@contextmanager
def drawn_for(seed: int) -> Iterator[None]:
    """Modules that are made meanwhile begin with weights that PyTorch draws by a run's seed.

    What they are depends on PyTorch's version too, and nobody's global random state is moved by it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_generator(seed, "initialise").initial_seed())
        yield


def masked_module(make: Callable[[Feature, int], Any], image_shape: Shape, num_classes: int, title: str) -> nn.Module:
    """The module that a network of a plugin gives, with a mask for each convolution and linear layer, all weights on.

    Args:
        make: from the images, of which it may ask the shape, and the number of classes to the module.
        image_shape: channels, height, width.
        num_classes: outputs of the classifier.
        title: what it is, for messages.

    Raises:
        EastError: it gives something else, or a module without such layers.
    """
    model = make(images_of(image_shape), num_classes)
    if not isinstance(model, nn.Module):
        raise EastError(
            f"{title} declares module=True and gives a {type(model).__name__}, which is none. Give an nn.Module, or "
            "leave the declaration out."
        )
    for layer in model.modules():
        if (kind := MASKED.get(type(layer))) is not None:
            # Its own attributes stay; a masked layer computes what it computed.
            layer.__class__ = kind
            layer.register_buffer("mask", torch.ones_like(layer.weight, dtype=torch.bool))  # type: ignore[arg-type]
    if not masked_layers(model):
        raise EastError(f"{title} has no nn.Conv2d and no nn.Linear, so that there is nothing to mask.")
    return model
