"""What makes the steps of a run, put together from its spec: engine, optimizer and clip, and the step of all three."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from east.config.run import RunSpec
from east.engine import Engine, make_engine
from east.models import ResNet
from east.sparse.active import ActiveWeights, active_weights
from east.training.captured import StepKind, make_step
from east.training.clip import GradientClip
from east.training.optimizer import Optimizer, make_optimizer
from east.training.sparsity import SparseTraining
from east.training.step import Step
from east.training.workload import expected_workload


@dataclass(frozen=True)
class Assembly:
    """What makes the steps of a run.

    Attributes:
        engine: executes the network.
        active: the active weights of its masked layers, by name.
        optimizer: over its parameters.
        clip: scales gradients; None for no clip.
        step: does all of it with a batch.
    """

    engine: Engine
    active: Mapping[str, ActiveWeights]
    optimizer: Optimizer
    clip: GradientClip | None
    step: Step


def assemble(
    spec: RunSpec, model: ResNet, sparsity: SparseTraining, *, device: torch.device, engine: str, kind: StepKind
) -> Assembly:
    """Put together what makes the steps of a run; the masks are those of the moment.

    Args:
        spec: the run.
        model: its network, on the device.
        sparsity: of the network.
        device: where steps compute.
        engine: `auto` or the name of an engine.
        kind: how steps are executed.

    Raises:
        EastError: the engine does not run on the device.
    """
    # On a GPU the vectors of active weights keep their memory when masks change: CUDA graphs know it by address.
    active = active_weights(sparsity.layers, sparsity.peak_counts() if device.type == "cuda" else None)
    chosen = make_engine(
        engine,
        model,
        active,
        numerics=spec.training.numerics,
        device=device,
        workload=expected_workload(spec.training),
        compiled=kind == "compiled",
    )
    # After the engine, which may lay the weights out anew.
    optimizer = make_optimizer(model.parameters(), active, spec.training, chosen.arithmetic)
    clip = spec.training.gradient_clip
    gradient_clip = None if clip is None else GradientClip(clip, active, spec.seed, chosen.arithmetic)
    step = make_step(kind, chosen, optimizer, active, gradient_clip, device)
    return Assembly(chosen, active, optimizer, gradient_clip, step)
