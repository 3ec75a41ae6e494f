"""What makes the steps of a run, put together from its spec: engine, optimizer and clip, and the step of all three."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from east.config.run import RunSpec
from east.config.vocabulary import Numerics
from east.engine import Engine, make_engine
from east.errors import EastError
from east.models import ResNet
from east.sparse.active import ActiveWeights, active_weights
from east.training.captured import StepKind, make_step
from east.training.clip import GradientClip
from east.training.engine_of_run import engine_of_run
from east.training.optimizer import Optimizer, make_optimizer
from east.training.sparsity import SparseTraining
from east.training.step import Step
from east.training.workload import expected_workload


def refuse_missing_numerics(numerics: Numerics, device: torch.device) -> None:
    """Refuse to train under the name of numerics that the device does not have.

    Raises:
        EastError: bf16 on a CPU; `tf32` stands for float32 there.
    """
    if numerics == "bf16" and device.type == "cpu":
        raise EastError(
            "numerics: bf16 exists on GPUs alone; on this CPU the run would train in float32 under another name. "
            "Set readings.numerics to tf32 or fp32, or train on a GPU."
        )


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
        engine: `auto` or the name of an engine. On a CPU `auto` is one engine from the first step to the last.
        kind: how steps are executed.

    Raises:
        EastError: the engine does not run on the device, or the numerics do not exist there.
    """
    refuse_missing_numerics(spec.training.numerics, device)
    # On a GPU the vectors of active weights keep their memory when masks change: CUDA graphs know it by address.
    active = active_weights(sparsity.layers, sparsity.peak_counts() if device.type == "cuda" else None)
    chosen = make_engine(
        engine_of_run(spec) if engine == "auto" and device.type == "cpu" else engine,
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
