"""Residual networks of `east.models` as the reference takes them."""

from east.models.described import DescribedNetwork
from east.models.description import Feature, Scope
from east.models.dyrelu import DyReLU
from east.sparse.layers import masked_layers
from tests.reference.network import Block, Network, Unit


def as_reference(model: DescribedNetwork, numerics: str = "fp32") -> Network:
    """The network with a copy of its numbers."""
    description, named = model.description, dict(model.named_modules())
    convs = [one for one in description.root.features if one.operation == "conv"]
    return Network(
        _unit(model, description.root, convs[0], "bn1", "act1"),
        tuple(_block(model, scope) for scope in description.root.blocks),
        "classifier",
        any(one.operation == "max_pool" for one in description.features),
        {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()},
        {name: layer.mask.numpy().copy() for name, layer in masked_layers(model).items()},
        {name: buffer.numpy().copy() for name, buffer in model.named_buffers() if "running" in name},
        {name: float(unit.beta) for name, unit in named.items() if isinstance(unit, DyReLU) and not unit.retired},
        numerics == "bf16",
    )


def _block(model: DescribedNetwork, scope: Scope) -> Block:
    own = [one for one in scope.masked if "shortcut" not in one.name]
    units = (_unit(model, scope, conv, f"bn{i}", f"act{i}") for i, conv in enumerate(own, start=1))
    shortcut = next((one for one in scope.masked if "shortcut" in one.name), None)
    projection = None if shortcut is None else _unit(model, scope, shortcut, "shortcut.1", None)
    return Block(tuple(units), projection)


def _unit(model: DescribedNetwork, scope: Scope, conv: Feature, norm: str, act: str | None) -> Unit:
    place = f"{scope.name}.".lstrip(".")
    dyrelu = None if act is None else dict(model.named_modules()).get(f"{place}{act}")
    dynamic = isinstance(dyrelu, DyReLU) and not dyrelu.retired
    return Unit(
        (conv.shares or conv).name,
        f"{place}{norm}",
        conv.window.stride,
        conv.window.padding,
        conv.scale or None,
        f"{place}{act}" if dynamic else None,
        act is not None,
    )
