"""Networks of `east.models` as the reference takes them."""

from torch import nn

from east.models.blocks import Block as ModelBlock
from east.models.dyrelu import DyReLU
from east.models.resnet import ResNet
from east.sparse.layers import masked_layers
from tests.reference.network import Block, Network, Unit


def as_reference(model: ResNet, numerics: str = "fp32") -> Network:
    """The network with a copy of its numbers."""
    names = {module: name for name, module in model.named_modules()}
    blocks = []
    for block, owner in model.blocks():
        place, owns = names[block], block is owner
        units = tuple(
            Unit(
                names[conv],
                f"{place}.bn{i}",
                conv.stride[0],
                conv.padding[0],
                None if owns else f"{place}.scale{i}",
                _dynamic(names, getattr(block, f"act{i}")),
            )
            for i, conv in enumerate(owner.convs, start=1)
        )
        blocks.append(Block(units, _shortcut(names, block)))
    stem = Unit("conv1", "bn1", model.conv1.stride[0], model.conv1.padding[0], None, _dynamic(names, model.act1))
    return Network(
        stem,
        tuple(blocks),
        "classifier",
        model.max_pool,
        {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()},
        {name: layer.mask.numpy().copy() for name, layer in masked_layers(model).items()},
        {name: buffer.numpy().copy() for name, buffer in model.named_buffers() if "running" in name},
        {names[unit]: float(unit.beta) for unit in names if isinstance(unit, DyReLU) and not unit.retired},
        numerics == "bf16",
    )


def _dynamic(names: dict[nn.Module, str], unit: DyReLU | None) -> str | None:
    return None if unit is None or unit.retired else names[unit]


def _shortcut(names: dict[nn.Module, str], block: nn.Module) -> Unit | None:
    if not isinstance(block, ModelBlock) or block.shortcut is None:
        return None
    conv, norm = block.shortcut
    return Unit(names[conv], names[norm], conv.stride[0], conv.padding[0], is_activated=False)
