"""What a run will be, told before it is trained: its masked tensors and its mask updates."""

import math
from typing import Any

import torch

from east.config.run import ModelSpec, RunSpec
from east.data.catalog import DATASETS
from east.models import ResNet, build_model
from east.models.parameters import count_parameters
from east.sparse.phasing import phasing_beta
from east.training.recipe import learning_rate
from east.training.sparsity import SparseTraining


def steps_per_epoch(spec: RunSpec) -> int:
    """Optimizer steps of an epoch; the last, smaller batch counts."""
    return math.ceil((DATASETS[spec.dataset.name].train_images - spec.dataset.validation) / spec.training.batch_size)


def network_shape(spec: RunSpec) -> ResNet:
    """A run's network on the meta device: every shape and no number, at no cost."""
    return meta_network(spec.model, DATASETS[spec.dataset.name].num_classes)


def meta_network(model: ModelSpec, num_classes: int) -> ResNet:
    """A network on the meta device."""
    with torch.device("meta"):
        return build_model(model.name, num_classes, **model.model_dump(exclude={"name"}))


def describe_network(spec: RunSpec) -> dict[str, Any]:
    """Every masked tensor of a run at its target density, and the totals; nothing is computed or allocated.

    Returns:
        `tensors`: name, shape, density and non-zeros of each; `totals`: weights and non-zeros over all of them, and
        the parameters that are never masked.
    """
    model = network_shape(spec)
    sparsity = SparseTraining.of(model, spec, steps_per_epoch(spec))
    counts = sparsity.allocation.counts(spec.sparsity.density)
    tensors = [
        {"name": name, "shape": list(shape), "density": counts[name] / math.prod(shape), "nonzeros": counts[name]}
        for name, shape in sparsity.allocation.shapes.items()
    ]
    stored = sum(math.prod(shape) for shape in sparsity.allocation.shapes.values())
    unmasked = count_parameters(model, sum(counts.values()))
    return {
        "tensors": tensors,
        "totals": {
            "density": spec.sparsity.density,
            "dense_weights": sparsity.allocation.dense_weights,
            "stored_weights": stored,
            "nonzeros": sum(counts.values()),
            "batch_norm_parameters": unmasked.batch_norm,
            "dyrelu_parameters": unmasked.dyrelu,
            "other_parameters": unmasked.other,
        },
    }


def mask_updates(spec: RunSpec) -> list[dict[str, float]]:
    """Step, epoch, density, drop fraction, learning rate and β at each mask update of a run, in order."""
    steps = steps_per_epoch(spec)
    sparsity = SparseTraining.of(network_shape(spec), spec, steps)
    rows = []
    for update in sparsity.timetable:
        epoch = math.ceil(update.step / steps)
        rows.append(
            {
                "step": update.step,
                "epoch": epoch,
                "density": update.density,
                "drop_fraction": sparsity.drop_fraction(update.step),
                "lr": learning_rate(epoch, spec.training),
                "beta": phasing_beta(epoch, spec.phasing.start, spec.phasing.end) if spec.phasing else 0.0,
            }
        )
    return rows
