"""Weight sharing in numbers: which weights are used more than once, and how many non-zeros a network stores."""

from torch import nn

from east.errors import EastError
from east.models.described import DescribedNetwork, masked_part
from east.sparse.distribution import budget
from east.sparse.layers import masked_layers


def reuse_counts(model: nn.Module) -> dict[str, int]:
    """How many times each masked layer is reused elsewhere: name -> count, 0 without sharing."""
    layers = masked_layers(model)
    names = {layer: name for name, layer in layers.items()}
    counts = dict.fromkeys(layers, 0)
    if isinstance(model, DescribedNetwork):
        for feature in model.description.masked:
            if feature.shares is not None:
                counts[names[masked_part(model.masked_of(feature))]] += 1
    return counts


def owned_weights(model: nn.Module) -> int:
    """Weights of all masked layers, on and off."""
    return sum(layer.weight.numel() for layer in masked_layers(model).values())


def virtual_weights(model: nn.Module) -> int:
    """Weights of the dense network that are not stored, because a layer is reused in their place."""
    layers = masked_layers(model)
    return sum(count * layers[name].weight.numel() for name, count in reuse_counts(model).items())


def stored_nonzeros(model: nn.Module, density: float) -> int:
    """The exact number of non-zeros that a network stores at a density of the dense network.

    With sharing, that is a density of density * (owned + virtual) / owned among the stored weights.

    Raises:
        EastError: with sharing, the network stores fewer weights than that.
    """
    owned, virtual = owned_weights(model), virtual_weights(model)
    nonzeros = budget(density, owned + virtual)
    if nonzeros > owned:
        raise EastError(
            f"density {density:g} asks for {nonzeros} non-zeros, but with weight sharing the network stores {owned} "
            f"weights. Choose a density of at most {owned / (owned + virtual):.3g}."
        )
    return nonzeros
