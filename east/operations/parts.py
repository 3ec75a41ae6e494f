"""What a configuration may name, with its parameters: the contents of the registries."""

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel

from east.config.run import CycleSpec, DatasetSpec, ModelSpec, OptimizerSpec, SparsitySpec
from east.data.catalog import DATASETS
from east.models.designs import NETWORKS
from east.models.resnet import ACTIVATIONS
from east.sparse.distribution import DISTRIBUTIONS
from east.sparse.schedule import CYCLE_PATTERNS, LEARNING_RATES
from east.sparse.topology import TOPOLOGIES

OF_A_MASK_UPDATE = ("drop_fraction", "drop_fraction_end", "update_period", "update_on_last_step")


def registered() -> Iterator[dict[str, Any]]:
    """Every part, by kind: its name in the configuration, what it is (empty where the name says all), and parameters.

    These may be set beside it, and have their defaults; None where one must be given.
    """
    network = _parameters(ModelSpec, "name", "activation")
    for name, settings in NETWORKS.items():
        kernels = " and ".join(f"{size} x {size}" for size in settings["design"].kernels)
        yield _part("networks", name, network, f"blocks of {kernels} convolutions")
    for name in ACTIVATIONS:
        yield _part("activations", name)
    for name in DISTRIBUTIONS:
        yield _part("distributions", name)
    moves = {key: value for key, value in _parameters(SparsitySpec).items() if key in OF_A_MASK_UPDATE}
    for name, rule in TOPOLOGIES.items():
        yield _part("topologies", name, moves, _summary(rule.grow))
    yield _part("topologies", "fixed", about="the random masks of the start, never changed")
    for name, rate in LEARNING_RATES.items():
        yield _part("learning rates", name, about=_summary(rate))
    for name, pattern in CYCLE_PATTERNS.items():
        yield _part("density cycles", name, _parameters(CycleSpec, "pattern"), _summary(pattern))
    for name in get_args(OptimizerSpec.model_fields["name"].annotation):
        yield _part("optimizers", name, _parameters(OptimizerSpec, "name") if name == "sgd" else {})
    for name, info in DATASETS.items():
        size = f"{info.train_images:,} + {info.test_images:,} images of {' x '.join(map(str, info.image_shape))}"
        about = f"{info.label}: {size}, {info.num_classes:,} classes"
        yield _part("data sets", name, _parameters(DatasetSpec, "name"), about)


def _part(
    kind: str, name: str, parameters: Mapping[str, Any] = MappingProxyType({}), about: str = ""
) -> dict[str, Any]:
    return {"kind": kind, "name": name, "parameters": dict(parameters), "about": about}


def _parameters(spec: type[BaseModel], *without: str) -> dict[str, Any]:
    fields = {name: field for name, field in spec.model_fields.items() if name not in without}
    return {name: None if field.is_required() else field.default for name, field in fields.items()}


def _summary(function: object) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
