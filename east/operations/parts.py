"""What a configuration may name, with its parameters: the contents of the registries."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from east.config.run import CycleSpec, DatasetSpec, ModelSpec, OptimizerSpec, SparsitySpec
from east.data.catalog import DATASETS
from east.models.resnet import ACTIVATIONS, NETWORKS
from east.sparse.distribution import DISTRIBUTIONS
from east.sparse.schedule import CYCLE_PATTERNS, LEARNING_RATES
from east.sparse.topology import TOPOLOGIES

OF_A_MASK_UPDATE = ("drop_fraction", "drop_fraction_end", "update_period", "update_on_last_step")


@dataclass(frozen=True)
class Part:
    """A member of a registry.

    Attributes:
        kind: of part, in the plural.
        name: as the configuration names it.
        parameters: those that a configuration may set beside it -> default; None where one must be given.
        about: what it is; empty where its name says all.
    """

    kind: str
    name: str
    parameters: dict[str, Any]
    about: str = ""


def registered() -> Iterator[Part]:
    """Every part, by kind."""
    network = _parameters(ModelSpec, "name", "activation")
    for name, settings in NETWORKS.items():
        kernels = " and ".join(f"{size} x {size}" for size in settings["design"].kernels)
        yield Part("networks", name, network, f"blocks of {kernels} convolutions")
    for name in ACTIVATIONS:
        yield Part("activations", name, {})
    for name in DISTRIBUTIONS:
        yield Part("distributions", name, {})
    moves = {key: value for key, value in _parameters(SparsitySpec).items() if key in OF_A_MASK_UPDATE}
    for name, rule in TOPOLOGIES.items():
        yield Part("topologies", name, moves, _summary(rule.grow))
    yield Part("topologies", "fixed", {}, "the random masks of the start, never changed")
    for name, rate in LEARNING_RATES.items():
        yield Part("learning rates", name, {}, _summary(rate))
    for name, pattern in CYCLE_PATTERNS.items():
        yield Part("density cycles", name, _parameters(CycleSpec, "pattern"), _summary(pattern))
    for name in get_args(OptimizerSpec.model_fields["name"].annotation):
        yield Part("optimizers", name, _parameters(OptimizerSpec, "name") if name == "sgd" else {})
    for name, info in DATASETS.items():
        size = f"{info.train_images:,} + {info.test_images:,} images of {' x '.join(map(str, info.image_shape))}"
        about = f"{info.label}: {size}, {info.num_classes:,} classes"
        yield Part("data sets", name, _parameters(DatasetSpec, "name"), about)


def _parameters(spec: type[BaseModel], *without: str) -> dict[str, Any]:
    fields = {name: field for name, field in spec.model_fields.items() if name not in without}
    return {name: None if field.is_required() else field.default for name, field in fields.items()}


def _summary(function: object) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
