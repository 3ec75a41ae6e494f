"""Under which a part of the suite works: device, sizes, time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.gpu_suite.findings import WayName
from east.config import RunSpec, load_plan, read_config
from east.config.plan import method_specs
from east.config.run import CycleSpec, ModelName
from east.data.catalog import DATASETS

ROOT = Path(__file__).parents[2]

NETWORKS: dict[str, ModelName] = {"ResNet-34": "resnet34", "ResNet-50": "resnet50"}
"""How the tables call the networks -> their names in the config."""

RIGL = "RigL"
"""The method of Table 6 that adds nothing."""

DRY_WIDTH, DRY_DENSITY = 2, 0.25


@dataclass(frozen=True)
class Conditions:
    """What a part is given.

    Args:
        device: `cuda`, or `cpu` in a rehearsal.
        dry: whether it is a rehearsal: tiny shapes, few repetitions, no measurement.
        seconds: after so many it should end by itself; it is stopped soon after.
        scratch: an empty folder for files that are not kept.
        started: when the part began, on the monotonic clock; every part has a process of its own.
    """

    device: str
    dry: bool
    seconds: float
    scratch: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def where(self) -> torch.device:
        """The device."""
        return torch.device(self.device)

    def left(self) -> float:
        """Seconds until the part should end."""
        return self.started + self.seconds - time.monotonic()

    @property
    def batches(self) -> tuple[int, int]:
        """Images of a full batch and of the last one of an epoch of CIFAR."""
        return (3, 2) if self.dry else (128, 72)

    @property
    def networks(self) -> dict[str, ModelName]:
        """The networks that are timed."""
        return {"ResNet-34": "resnet34"} if self.dry else NETWORKS

    def ways(self, ways: Sequence[WayName]) -> Sequence[WayName]:
        """Those of the ways that are taken: in a rehearsal one of each pair of numerics."""
        return [name for name in ways if not self.dry or name.numerics == "bf16" or name.engine == "authors"]

    def methods(self, model: ModelName) -> dict[str, RunSpec]:
        """Table 6's methods: name -> a training by it; made narrow, on images of 12 x 12, in a rehearsal."""
        specs = method_specs(read_config(), model, "cifar10")
        return {name: narrow(spec) for name, spec in specs.items()} if self.dry else specs

    def plain(self, model: ModelName) -> RunSpec:
        """The training of Tables 2-5 without a density cycle."""
        return self.methods(model)[RIGL]


def narrow(spec: RunSpec) -> RunSpec:
    """A training of the same network of few channels, on small images, at a density that leaves it some weights."""
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"width": DRY_WIDTH}),
            "dataset": spec.dataset.model_copy(update={"name": "digits", "validation": 144}),
            "sparsity": spec.sparsity.model_copy(update={"density": DRY_DENSITY}),
            "cycle": None,
        }
    )


def one_cycle(length: float, update_period: int) -> CycleSpec:
    """A density cycle of so many epochs, with three times the density as its peak and the target at its end."""
    return CycleSpec(
        pattern="cosine",
        multiplier=3,
        cycles=1,
        cycle_length=length,
        length_multiplier=1,
        update_period=update_period,
        end="target",
    )


def with_numerics(spec: RunSpec, numerics: str) -> RunSpec:
    """The run in other numerics."""
    return spec.model_copy(update={"training": spec.training.model_copy(update={"numerics": numerics})})


def with_density(spec: RunSpec, density: float) -> RunSpec:
    """The run at another, constant density."""
    return spec.model_copy(update={"sparsity": spec.sparsity.model_copy(update={"density": density}), "cycle": None})


def training_images(spec: RunSpec) -> int:
    """Images of an epoch."""
    return DATASETS[spec.dataset.name].train_images - spec.dataset.validation


def paper_runs() -> list[RunSpec]:
    """The runs of Tables 2-5."""
    return [run.spec for run in load_plan() if run.table in ("table2", "table3", "table4", "table5")]
