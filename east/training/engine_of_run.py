"""Which engine trains a run on a CPU, known from the run alone."""

from collections import Counter
from functools import lru_cache
from typing import Literal

from east.config.run import ModelSpec, RunSpec
from east.data.catalog import DATASETS
from east.engine.cpu.cost import is_sparse_cheaper
from east.engine.graph.network import Network, describe
from east.models import ResNet
from east.reproducibility import Reproducibility, weakest
from east.training.attempts import class_of_data
from east.training.describe import meta_network, steps_per_epoch
from east.training.sparsity import SparseTraining
from east.training.workload import expected_workload

MOMENTS = 32
"""Moments of a training, evenly spread, at which its density is looked at."""


def engine_of_run(spec: RunSpec) -> Literal["sparse", "dense"]:
    """The engine that `auto` stands for on a CPU, from the first step to the last: by counted work.

    Networks with DCT layers have a dense part everywhere, so that no zero could be left out.
    """
    # Nothing that differs between seeds counts.
    return _engine_of(spec.model_copy(update={"seed": 0}).canonical_json())


def class_on_cpu(spec: RunSpec) -> Reproducibility:
    """How far the bytes of a run can be repeated that `auto` trains on a CPU with a compiler."""
    of_engine = {"sparse": Reproducibility.ANY_PROCESSOR, "dense": Reproducibility.THIS_PROCESSOR}[engine_of_run(spec)]
    return weakest([of_engine, class_of_data(spec.dataset.name)])


@lru_cache(maxsize=1024)
def _engine_of(canonical: str) -> Literal["sparse", "dense"]:
    spec = RunSpec.model_validate_json(canonical)
    if spec.model.dct:
        return "dense"
    model, network = _network_of(spec.model, spec.dataset.name)
    sparsity = SparseTraining.of(model, spec, steps_per_epoch(spec))
    steps = sparsity.timetable.total_steps
    moments = ((2 * k + 1) * steps // (2 * MOMENTS) for k in range(MOMENTS))
    densities = Counter(sparsity.timetable.scheduled_density(step) for step in moments)
    phases = [(count / MOMENTS, sparsity.allocation.counts(density)) for density, count in densities.items()]
    return "sparse" if is_sparse_cheaper(network, phases, expected_workload(spec.training)) else "dense"


@lru_cache(maxsize=32)
def _network_of(model: ModelSpec, dataset: str) -> tuple[ResNet, Network]:
    """The network's shapes and its description, which are only read."""
    info = DATASETS[dataset]
    shapes = meta_network(model, info.num_classes)
    return shapes, describe(shapes, info.image_shape)
