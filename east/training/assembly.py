"""A run put together from its spec: network, masks, engine, optimizer, clip and their step; and how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from east.config.run import RunSpec
from east.data.catalog import info_of
from east.data.open import Splits
from east.engine import Engine, make_engine
from east.models.dyrelu import dyrelu_units, retire_dyrelu
from east.models.initialise import initialise
from east.models.liveness import liveness
from east.models.ordinary import drawn_for
from east.sparse.active import ActiveWeights, active_weights
from east.sparse.masks import MaskChange, MaskUpdater, nonzeros
from east.sparse.schedule import Schedule
from east.training.captured import StepKind, make_step
from east.training.clip import GradientClip
from east.training.describe import build_network, engine_of_run, expected_workload, mask_updater
from east.training.optimizer import Optimizer, make_optimizer
from east.training.records import EpochRecord, UpdateRecord, as_dicts
from east.training.step import EpochSums, Step


def initial_model(spec: RunSpec, num_classes: int) -> nn.Module:
    """The run's network as it is before training, all weights on; it depends on the run's seed and nothing else.

    An ordinary module of a plugin keeps the weights that it begins with, which PyTorch draws by the run's seed.
    """
    model = built_model(spec, num_classes)
    if not spec.model.ordinary:
        initialise(model, spec.seed)
    return model


def built_model(spec: RunSpec, num_classes: int) -> nn.Module:
    """The run's network with the values that PyTorch draws, which something else is to take the place of."""
    with drawn_for(spec.seed):
        return build_network(spec.model, num_classes, info_of(spec.dataset).image_shape)


@dataclass(frozen=True)
class Assembly:
    """What makes the steps of a run."""

    engine: Engine
    active: Mapping[str, ActiveWeights]
    optimizer: Optimizer
    clip: GradientClip | None
    step: Step

    def state_of(self, layer: str, name: str) -> Tensor:
        """Optimizer state of a masked layer under a name, in the shape of its weight; zero where the mask is off.

        Raises:
            KeyError: the optimizer keeps nothing of that name.
        """
        return self.optimizer.dense_state(self.active[layer], name)


def assemble(
    spec: RunSpec, model: nn.Module, masks: MaskUpdater, *, device: torch.device, engine: str, kind: StepKind
) -> Assembly:
    """Put together what makes the steps of a run; with the current masks.

    On a CPU the engine `auto` is one engine from the first step to the last.

    Raises:
        EastError: the engine does not run on the device, or the numerics do not exist there.
    """
    on_cpu = device.type == "cpu"
    # On a GPU the vectors of active weights keep their memory when masks change: CUDA graphs know it by address.
    active = active_weights(masks.layers, None if on_cpu else masks.peak_counts())
    chosen = make_engine(
        engine_of_run(spec) if engine == "auto" and on_cpu else engine,
        model,
        active,
        numerics=spec.training.numerics,
        device=device,
        workload=expected_workload(spec.training, spec.sparsity.topology),
        compiled=kind == "compiled",
    )
    # After the engine, which may lay out the weights in another way.
    optimizer = make_optimizer(model.parameters(), active, spec.training, chosen.arithmetic)
    clip = spec.training.gradient_clip
    gradient_clip = None if clip is None else GradientClip(clip, active, spec.seed, chosen.arithmetic)
    step = make_step(kind, chosen, optimizer, active, gradient_clip, device)
    return Assembly(chosen, active, optimizer, gradient_clip, step)


@dataclass
class Training:
    """A run that is being trained, and how far it is.

    Attributes:
        spec: the run.
        data: what it is trained on and evaluated on.
        model: its network.
        masks: moves the network's masks.
        parts: what makes its steps.
        sums: the steps that are done of the epoch after `epoch`.
        epoch: epochs that are done.
        diverged_at_step: the step at the end of the first epoch in which a loss, a logit of the evaluation, or the
            network itself is not finite; there the run ends.
        epochs: a record of each epoch that is done.
        updates: a record of each mask update, the random masks of the start among them.
    """

    spec: RunSpec
    data: Splits
    model: nn.Module
    masks: MaskUpdater
    parts: Assembly
    sums: EpochSums
    epoch: int = 0
    diverged_at_step: int | None = None
    epochs: list[EpochRecord] = field(default_factory=list)
    updates: list[UpdateRecord] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        spec: RunSpec,
        data: Splits,
        *,
        device: torch.device,
        engine: str = "auto",
        kind: StepKind = "eager",
        state: Mapping[str, Any] | None = None,
    ) -> "Training":
        """A run at its start, or where it was left.

        The data are on the device; `state` is what `state_dict` gave.

        Raises:
            EastError: the network cannot hold the density, or see `assemble`.
        """
        model = initial_model(spec, data.num_classes).to(device)
        masks = mask_updater(model, spec, len(data.train))
        if state is None:
            masks.initialise()
        else:
            if state["retired"]:
                retire_dyrelu(model)
            model.load_state_dict(state["model"])
        # After the masks, because it holds what is active.
        parts = assemble(spec, model, masks, device=device, engine=engine, kind=kind)
        training = cls(spec, data, model, masks, parts, EpochSums.begin(device))
        if state is None:
            training.note_update("initial", 0, MaskChange(nonzeros(masks.layers), 0, 0, 0, 0, 0))
        else:
            training._resume(state, device)
        return training

    @property
    def schedule(self) -> Schedule:
        """The run's schedule."""
        return self.masks.schedule

    @property
    def steps_done(self) -> int:
        """Optimizer steps that are done."""
        return self.epoch * self.schedule.steps_per_epoch + self.sums.steps

    @property
    def is_over(self) -> bool:
        """Whether the run has ended: with its last epoch, or diverged."""
        return self.epoch == self.schedule.epochs or self.diverged_at_step is not None

    def note_update(self, kind: str, step: int, change: MaskChange) -> UpdateRecord:
        """Record what a mask update after step `step` has left; step 0 stands for the random masks of the start."""
        live = liveness(self.model)
        record = UpdateRecord(
            step=step,
            epoch=self.schedule.epoch_of(step),
            kind=kind,
            density=change.nonzeros / self.masks.allocation.dense_weights,
            drop_fraction=self.schedule.drop_fraction(step),
            **vars(change),
            live_channels=live.live_channels,
            channels=live.channels,
            live_weights=live.live_weights,
            reachable_positions=live.reachable_positions,
            dead_branches=live.dead_branches,
            branches=live.branches,
        )
        self.updates.append(record)
        return record

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on from here, for a checkpoint."""
        clip = self.parts.clip
        return {
            "epoch": self.epoch,
            "retired": self.spec.phasing is not None and not dyrelu_units(self.model),
            "model": self.model.state_dict(),
            "optimizer": self.parts.optimizer.state_dict(),
            "clip": None if clip is None else clip.state_dict(),
            "rules": self.masks.memory.kept,
            "part": self.sums.state_dict() if self.sums.steps else None,
            "diverged_at_step": self.diverged_at_step,
            "epochs": as_dicts(self.epochs),
            "updates": as_dicts(self.updates),
        }

    def _resume(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.parts.optimizer.load_state_dict(state["optimizer"])
        # A checkpoint from before rules could keep anything has none.
        self.masks.memory.load(state.get("rules", {}), device)
        if self.parts.clip is not None:
            self.parts.clip.load_state_dict(state["clip"])
        if (part := state["part"]) is not None:
            self.sums = EpochSums.load(part, device)
        self.epoch = state["epoch"]
        self.diverged_at_step = state["diverged_at_step"]
        self.epochs = [EpochRecord(**row) for row in state["epochs"]]
        self.updates = [UpdateRecord(**row) for row in state["updates"]]
