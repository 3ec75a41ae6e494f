"""Trained networks as files for other programs: state dicts in safetensors, and ONNX.

A state dict has float tensors under the names of the network's own, and one entry of metadata, `east`: a line of JSON
with the form, the run and its fingerprint, the names of the classes, and how images are shown to the network.
"""

import json
import shlex
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from east.data.manifest import preparing
from east.errors import EastError
from east.sparse.layers import masked_layers
from east.trained.load import TrainedNetwork

Form = Literal["dense", "masked", "nonzeros", "onnx"]
FORMS: tuple[Form, ...] = get_args(Form)

NEEDED_FOR_ONNX = ("onnx", "onnxscript")
"""Packages that PyTorch's exporter imports and does not bring."""

METADATA = "east"


def suffix(form: Form) -> str:
    """How the name of a file of this form ends."""
    return ".onnx" if form == "onnx" else f".{form}.safetensors"


def exported(network: TrainedNetwork, form: Form) -> bytes:
    """The content of a file.

    Args:
        network: what is written.
        form: `dense`: every parameter and statistic, weights zero where they are off. `masked`: the same, and of each
            masked layer the mask. `nonzeros`: of each masked weight `<name>.values`, its non-zeros, and
            `<name>.positions`, their row-major places in `<name>.shape`. `onnx`: a graph from normalized images to
            logits, for any number of images.

    Raises:
        EastError: ONNX needs packages that are not installed, or the size of images, which is not known.
    """
    if form == "onnx":
        return _onnx(network)
    tensors = {name: tensor.detach().contiguous() for name, tensor in sorted(network.network.state_dict().items())}
    masks = {f"{name}.mask": name for name in masked_layers(network.network)}
    if form == "dense":
        tensors = {name: tensor for name, tensor in tensors.items() if name not in masks}
    elif form == "nonzeros":
        tensors = nonzeros_alone(tensors, masks)
    # One entry, because those of several have no order.
    return save(tensors, {METADATA: json.dumps({"form": form} | facts_of(network), sort_keys=True)})


def facts_of(network: TrainedNetwork) -> dict[str, Any]:
    """What a program must know beside the tensors."""
    facts: dict[str, Any] = {
        "run": network.run.model_dump(mode="json"),
        "fingerprint": network.summary.fingerprint,
        "classes": list(network.classes),
    }
    if network.images is not None:
        images = network.images
        facts |= {"shape": list(images.shape), "mean": list(images.mean), "std": list(images.std)}
    return facts


def nonzeros_alone(tensors: Mapping[str, Tensor], masks: Mapping[str, str]) -> dict[str, Tensor]:
    """A state dict in which masked weights are lists of the weights that are on.

    Args:
        tensors: the state dict.
        masks: name of each mask in it -> name of its layer.
    """
    found = {name: tensor for name, tensor in tensors.items() if name not in masks}
    for mask, layer in masks.items():
        weight = found.pop(f"{layer}.weight")
        positions = tensors[mask].flatten().nonzero().squeeze(1)
        found[f"{layer}.weight.values"] = weight.flatten()[positions]
        found[f"{layer}.weight.positions"] = positions.to(torch.int32 if weight.numel() < 2**31 else torch.int64)
        found[f"{layer}.weight.shape"] = torch.tensor(weight.shape)
    return dict(sorted(found.items()))


def dense_again(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The dense state dict that `nonzeros_alone` was made of, without masks."""
    found = {}
    for name, tensor in tensors.items():
        stem, _, part = name.rpartition(".")
        if part == "shape" and f"{stem}.positions" in tensors:
            values = tensors[f"{stem}.values"]
            whole = values.new_zeros(tensor.tolist())
            whole.view(-1)[tensors[f"{stem}.positions"].long()] = values
            found[stem] = whole
        elif f"{stem}.positions" not in tensors:
            found[name] = tensor
    return found


def _onnx(network: TrainedNetwork) -> bytes:
    missing = [name for name in NEEDED_FOR_ONNX if find_spec(name) is None]
    if missing:
        raise EastError(
            f"ONNX needs {' and '.join(missing)}, not installed here: "
            f"`{shlex.quote(sys.executable)} -m pip install {' '.join(missing)}`."
        )
    if network.images is None:
        raise EastError(
            "ONNX needs the size of images, and the data set of the run is not prepared here: "
            f"{preparing(network.run.dataset)}."
        )
    program = torch.onnx.export(
        network.network,
        (torch.zeros(2, *network.images.shape),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("PyTorch's exporter gave no program")
    model = program.model_proto
    for name, value in sorted(facts_of(network).items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value, sort_keys=True)
    content: bytes = model.SerializeToString()
    return content
