"""What a run will be, from its spec alone: shapes of its network, sizes of its masks, the engine that trains it."""

import math
from collections import Counter
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from east.config.choices import FIXED, Choice, TopologySpec, is_plugins
from east.config.run import ImagesSpec, ModelSpec, RunSpec, TrainingSpec, stand_in
from east.data.catalog import DatasetInfo, info_of, steps_per_epoch
from east.engine import Workload
from east.engine.cpu.cost import is_sparse_cheaper
from east.engine.graph.network import Network, network_of
from east.errors import EastError
from east.models.build import build_model
from east.models.parameters import count_parameters
from east.models.sharing import owned_weights, stored_nonzeros, virtual_weights
from east.sparse.layers import masked_layers
from east.sparse.masks import Allocation, MaskUpdater
from east.sparse.schedule import Schedule
from east.sparse.timetable import Timetable, rule_facts

MOMENTS = 32
"""Moments of a training, evenly spread, at which its density is looked at."""


def network_shape(spec: RunSpec) -> nn.Module:
    """A run's network on the meta device: every shape and no number, at no cost."""
    return _meta_network(spec.model, info_of(spec.dataset))


def build_network(model: ModelSpec, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """A run's network for such images, from the global random state.

    Raises:
        EastError: there is none for such images; it is in a plugin that is not loaded, or that fails.
    """
    settings = model.model_dump(exclude={"name", "ordinary"})
    built: nn.Module = build_model(model.name, num_classes, image_shape=image_shape, **settings)
    return built


def make_allocation(model: nn.Module, distribution: str | Choice) -> Allocation:
    """How a budget is spread over the masked layers of a network; densities refer to its dense size."""
    shapes = {name: tuple(layer.weight.shape) for name, layer in masked_layers(model).items()}
    return Allocation(shapes, distribution, owned_weights(model) + virtual_weights(model))


def mask_updater(model: nn.Module, spec: RunSpec, steps_per_epoch: int) -> MaskUpdater:
    """What moves the masks of a run on its network, for a data set of this many steps an epoch.

    Raises:
        EastError: the peak density asks for more weights than a network with weight sharing stores; a density schedule
            does not end at the target.
    """
    schedule = Schedule.of(spec, steps_per_epoch)
    if schedule.density_schedule is not None and schedule.resizing_end_step > schedule.total_steps:
        raise EastError(
            f"density schedule {schedule.density_schedule} has not reached the target, {spec.sparsity.density:g}, by "
            "the last mask update. Let it end earlier."
        )
    stored_nonzeros(model, schedule.peak_density)
    allocation = make_allocation(model, spec.sparsity.distribution)
    return MaskUpdater(masked_layers(model), allocation, Timetable(schedule), spec.seed)


def describe_network(spec: RunSpec) -> dict[str, Any]:
    """Every masked tensor of a run at its target density, and the totals; nothing is computed or allocated.

    Returns:
        `tensors`: name, shape, density and non-zeros of each; `totals`: weights and non-zeros over all of them, and
        the parameters that are never masked.
    """
    model = network_shape(spec)
    allocation = mask_updater(model, spec, steps_per_epoch(spec)).allocation
    counts = allocation.counts(spec.sparsity.density)
    tensors = [
        {"name": name, "shape": list(shape), "density": counts[name] / math.prod(shape), "nonzeros": counts[name]}
        for name, shape in allocation.shapes.items()
    ]
    unmasked = count_parameters(model, sum(counts.values()))
    return {
        "tensors": tensors,
        "totals": {
            "density": spec.sparsity.density,
            "dense_weights": allocation.dense_weights,
            "stored_weights": sum(math.prod(shape) for shape in allocation.shapes.values()),
            "nonzeros": sum(counts.values()),
            "batch_norm_parameters": unmasked.batch_norm,
            "dyrelu_parameters": unmasked.dyrelu,
            "other_parameters": unmasked.other,
        },
    }


def expected_workload(training: TrainingSpec, topology: str | TopologySpec = FIXED) -> Workload:
    """An average step of a training: its batch, what the clip measures, and rules that look at every gradient.

    Updates of masks are too rare to count.
    """
    clip = training.gradient_clip
    if any(facts.gradient == "steps" for facts in rule_facts(topology).values()):
        return Workload(training.batch_size, dense=1.0)
    if clip is None or clip.scope == "active":
        return Workload(training.batch_size)
    if clip.estimator == "exact":
        return Workload(training.batch_size, dense=1 / clip.every)
    return Workload(training.batch_size, probes=clip.probes / clip.every)


def engine_of_run(spec: RunSpec) -> Literal["sparse", "dense"]:
    """The engine that `auto` stands for on a CPU, from the first step to the last: by counted work.

    A plugin's network is the sparse engine's where it has a description. Networks with DCT layers have a dense part
    everywhere, so that no zero could be left out. With `numerics: bf16` all others are the sparse engine's, as no other
    has them on a CPU.
    """
    # Nothing that differs between seeds counts, nor what a plugin gives: it follows from the description alone.
    if spec.model.ordinary:
        return "dense"
    if is_plugins(spec.model.name):
        return "dense" if spec.model.dct else "sparse"
    return _engine_of(stand_in(spec).model_copy(update={"seed": 0}).canonical_json())


@lru_cache(maxsize=1024)
def _engine_of(canonical: str) -> Literal["sparse", "dense"]:
    spec = RunSpec.model_validate_json(canonical)
    if spec.model.dct or spec.training.numerics == "bf16":
        return "dense" if spec.model.dct else "sparse"
    model, network = _described_network(spec.model, spec.dataset.images)
    masks = mask_updater(model, spec, steps_per_epoch(spec))
    steps = masks.schedule.total_steps
    densities = Counter(masks.schedule.density((2 * k + 1) * steps // (2 * MOMENTS)) for k in range(MOMENTS))
    phases = [(count / MOMENTS, masks.allocation.counts(density)) for density, count in densities.items()]
    workload = expected_workload(spec.training, spec.sparsity.topology)
    return "sparse" if is_sparse_cheaper(network, phases, workload) else "dense"


@lru_cache(maxsize=32)
def _described_network(model: ModelSpec, images: ImagesSpec) -> tuple[nn.Module, Network]:
    """The network's shapes and its description, which are only read."""
    info = info_of(images)
    shapes = _meta_network(model, info)
    return shapes, network_of(shapes, info.image_shape)


def _meta_network(model: ModelSpec, info: DatasetInfo) -> nn.Module:
    with torch.device("meta"):
        return build_network(model, info.num_classes, info.image_shape)
