"""The networks whose training step is timed."""

from dataclasses import dataclass
from typing import Literal

from east.config import RunSpec, load_plan

VariantName = Literal["sparse", "dense", "pytorch", "pytorch-channels-last", "peer"]
"""A way to execute a training step: a function of `benchmarks.variants`."""

DENSE_VARIANTS: tuple[VariantName, ...] = ("pytorch", "pytorch-channels-last", "dense", "peer")
"""Those whose time does not depend on the density."""

SHORT_WIDTH = 16
"""Not less: strided 1x1 convolutions of fewer channels than a vector has numbers corrupt memory in channels-last
(https://github.com/uxlfoundation/oneDNN/issues/6035)."""


@dataclass(frozen=True)
class TimedNetwork:
    """A network whose training step is timed.

    Args:
        label: how the tables call it.
        spec: a training of it, at a constant density.
        faded: whether DyReLU is a plain ReLU already.
        compared: the dense variants that are timed beside the sparse engine.
        only_density: the one density it is timed at; None for all.
        all_threads_only: whether it is timed with all threads and no other number of them.
    """

    label: str
    spec: RunSpec
    faded: bool = False
    compared: tuple[VariantName, ...] = DENSE_VARIANTS
    only_density: float | None = None
    all_threads_only: bool = False

    def at(self, density: float) -> RunSpec:
        """Its training at a density."""
        return self.spec.model_copy(
            update={"sparsity": self.spec.sparsity.model_copy(update={"density": density}), "cycle": None}
        )


def timed_networks(*, short: bool = False) -> dict[str, TimedNetwork]:
    """The networks by name: plain RigL as in Tables 2 and 4, and EAST's, at its density alone.

    Args:
        short: the same networks made narrow, on images of 12 x 12: they show that everything runs, not how fast.
    """
    resnet34, resnet50 = (_static_run(table) for table in ("table2", "table4"))
    if short:
        resnet34, resnet50 = _narrow(resnet34), _narrow(resnet50)
    components = {"activation": "dyrelu", "sharing_ratio": 2}
    east = resnet34.model_copy(update={"model": resnet34.model.model_copy(update=components)})
    paper = resnet34.sparsity.density
    return {
        "resnet34": TimedNetwork("ResNet-34", resnet34),
        "resnet50": TimedNetwork("ResNet-50", resnet50),
        "east-dyrelu": TimedNetwork("EAST's ResNet-34, DyReLU active (β = 1)", east, False, ("dense",), paper, True),
        "east-relu": TimedNetwork("EAST's ResNet-34, DyReLU faded into ReLU", east, True, ("dense",), paper, True),
    }


def _static_run(table: str) -> RunSpec:
    return next(run for run in load_plan() if run.table == table and run.row == "static").spec


def _narrow(spec: RunSpec) -> RunSpec:
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"width": SHORT_WIDTH}),
            "dataset": spec.dataset.model_copy(update={"name": "digits"}),
        }
    )
