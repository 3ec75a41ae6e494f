"""Training one run from its spec alone: epochs, evaluation, checkpoints, and the summary at the end."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from east.config.run import RunSpec
from east.data.batches import Batches
from east.data.open import Splits, open_dataset
from east.engine import Engine
from east.errors import EastError
from east.files import write_atomically
from east.models import ResNet, build_model
from east.models.dyrelu import dyrelu_units, retire_dyrelu, set_beta
from east.models.initialise import initialise
from east.models.liveness import liveness
from east.models.parameters import count_parameters
from east.sparse.layers import masked_layers
from east.sparse.masks import MaskChange, nonzeros
from east.sparse.phasing import phasing_beta
from east.training.assembly import assemble
from east.training.attempts import AttemptRecord, class_of_run
from east.training.captured import choose_step
from east.training.checkpoint import Checkpoints
from east.training.folder import (
    METRICS,
    RUN,
    TIMING,
    TRACE,
    UPDATES,
    WEIGHTS,
    discard_summary,
    discard_temporaries,
    finished_summary,
    locked,
    write_summary,
)
from east.training.interrupt import Interruption, Stopped
from east.training.memory import keep_freed_memory, peak_memory_mb
from east.training.provenance import Origin, device_name
from east.training.recipe import learning_rate
from east.training.records import (
    EpochRecord,
    RunSummary,
    TimingRecord,
    TraceRecord,
    UpdateRecord,
    as_dicts,
    write_records,
)
from east.training.sparsity import SparseTraining
from east.training.state import StateFile
from east.training.sums import EpochSums
from east.training.trace import Tracer, is_traced


@dataclass(frozen=True)
class Resources:
    """Where and how a run executes; none of it belongs to the run's identity.

    Args:
        device: `auto`, `cpu` or `cuda`.
        engine: `auto` or the name of an engine.
        threads: CPU threads of PyTorch.
        data_dir: where prepared data sets are.
        image_folder: ImageNet's folder, where that is the data set.
        gpu: the GPU that was leased for this process, as CUDA_VISIBLE_DEVICES names it.
        runs_per_device: trainings that may share the device with this one, itself included.
        step: how a step is executed: `auto`, `eager`, `captured` or `compiled`.
    """

    device: str = "auto"
    engine: str = "auto"
    threads: int = 1
    data_dir: Path = Path("data")
    image_folder: Path | None = None
    gpu: str | None = None
    runs_per_device: int = 1
    step: str = "auto"


@dataclass
class Progress:
    """What a training has reached, besides the network itself.

    Attributes:
        epoch: epochs that are done.
        part: the steps that are done of the next one, once it has begun.
        attempt: which attempt at the run this is.
        runs_per_device: the most trainings that may have shared a device in any attempt.
        diverged_at_step: the step at the end of the first epoch in which a loss, a logit of the evaluation, or the
            network itself is no longer finite; there the run ends.
        attempts: what computed each part of it; attempts that computed nothing are left out.
    """

    epoch: int = 0
    part: EpochSums | None = None
    attempt: int = 1
    runs_per_device: int = 1
    diverged_at_step: int | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    updates: list[UpdateRecord] = field(default_factory=list)
    trace: list[TraceRecord] = field(default_factory=list)
    timing: list[TimingRecord] = field(default_factory=list)

    @property
    def diverged(self) -> bool:
        """Whether the run has ended for want of finite numbers."""
        return self.diverged_at_step is not None

    @property
    def seconds(self) -> float:
        """Seconds of training and evaluation over all attempts, as far as they led to a checkpoint."""
        return math.fsum(row.seconds for row in self.timing)

    @property
    def steps_of_part(self) -> int:
        """Steps that are done of the epoch that is not."""
        return 0 if self.part is None else self.part.steps

    @property
    def seconds_of_last_epoch(self) -> float | None:
        """Seconds of the last epoch that is done, over all attempts at it."""
        found = [row.seconds for row in self.timing if row.epoch == self.epoch]
        return math.fsum(found) if found else None


def train(
    spec: RunSpec,
    folder: Path,
    resources: Resources,
    report: Callable[[EpochRecord], None] = lambda record: None,
    interruption: Interruption | None = None,
) -> RunSummary:
    """Train a run in its folder and return its summary; resume it if the folder holds a checkpoint of the same run.

    Args:
        spec: the run.
        folder: gets run.json, state.json, metrics.csv, updates.csv, trace.csv, timing.csv, weights.safetensors and,
            last, summary.json.
        resources: device, engine, threads and data.
        report: called with the record of every epoch that is finished.
        interruption: may ask the training to stop, within an epoch as well.

    Raises:
        EastError: the device or data are not there, or the network cannot hold the density.
        Stopped: the training was interrupted, and is as it was then in a checkpoint.
    """
    # Before this process waits for anything: it goes on with the modules that it has imported.
    origin = Origin.of_this_process()
    with locked(folder):
        discard_temporaries(folder)
        summary = finished_summary(folder, spec.fingerprint)
        if summary is None:
            state = StateFile.begin(
                folder,
                epochs=spec.training.epochs,
                device=resources.device,
                threads=resources.threads,
                gpu=resources.gpu,
                runs_per_device=resources.runs_per_device,
            )
            with state.failures_noted():
                summary = _Training(spec, folder, resources, origin, state, interruption or Interruption()).run(report)
        Checkpoints(folder, spec.fingerprint).clear()
        return summary


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` is the GPU where there is one.

    Raises:
        EastError: CUDA is asked for and PyTorch finds none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise EastError("device: cuda was asked for, but PyTorch finds no GPU. Use device: auto or cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def initial_model(spec: RunSpec, num_classes: int) -> ResNet:
    """The run's network as it is before training, all weights on; it depends on the run's seed and nothing else."""
    # PyTorch's own draw is overwritten, and nobody's global random state moved by it.
    with torch.random.fork_rng(devices=[]):
        model = build_model(spec.model.name, num_classes, **spec.model.model_dump(exclude={"name"}))
    initialise(model, spec.seed)
    return model


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of a data set.

    Attributes:
        accuracy: in percent.
        finite: whether all logits are.
    """

    accuracy: float
    finite: bool


@torch.inference_mode()
def evaluate(engine: Engine, model: nn.Module, batches: Batches, epoch: int) -> Evaluation:
    """Evaluate the network on a data set; the device is waited for once, at the end."""
    model.eval()
    device = next(model.parameters()).device
    correct, total = torch.zeros((), dtype=torch.int64, device=device), 0
    finite = torch.ones((), dtype=torch.bool, device=device)
    for images, labels in batches.epoch(epoch):
        logits = engine(images)
        correct += (logits.argmax(1) == labels).sum()
        finite &= logits.isfinite().all()
        total += len(labels)
    model.train()
    return Evaluation(100 * int(correct) / total, bool(finite))


@torch.no_grad()
def is_finite(model: nn.Module) -> bool:
    """Whether all parameters and statistics of a network are finite numbers."""
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    # The extremes pass on what is not finite, and need no memory of the tensor's size.
    extremes = [torch.stack(torch.aminmax(tensor)) for tensor in tensors if tensor.numel()]
    return bool(torch.cat(extremes).isfinite().all())


class _Training:
    """One run in the making."""

    def __init__(
        self,
        spec: RunSpec,
        folder: Path,
        resources: Resources,
        origin: Origin,
        state: StateFile,
        interruption: Interruption,
    ) -> None:
        torch.set_num_threads(resources.threads)
        keep_freed_memory()
        self.spec = spec
        self.folder = folder
        self.resources = resources
        self.origin = origin
        self.state = state
        self.interruption = interruption
        self.device = choose_device(resources.device)
        self.data: Splits = open_dataset(
            spec.dataset,
            training_batch=spec.training.batch_size,
            seed=spec.seed,
            data_dir=resources.data_dir,
            device=self.device,
            folder=resources.image_folder,
        )
        self.model = initial_model(spec, self.data.num_classes).to(self.device)
        self.layers = masked_layers(self.model)
        self.sparsity = SparseTraining.of(self.model, spec, len(self.data.train))
        self.progress = Progress(runs_per_device=resources.runs_per_device)
        self.has_computed = False
        self.epoch_started = time.perf_counter()
        self.checkpoints = Checkpoints(folder, spec.fingerprint)
        loaded = self.checkpoints.load_latest()
        if loaded is None:
            self.sparsity.initialise()
        else:
            self._load_network(loaded[1])
        # After the masks, because it holds what is active.
        kind = choose_step(resources.step, self.device)
        assembly = assemble(spec, self.model, self.sparsity, device=self.device, engine=resources.engine, kind=kind)
        self.engine, self.optimizer = assembly.engine, assembly.optimizer
        self.clip, self.step = assembly.clip, assembly.step
        self.tracer = Tracer(self.model, assembly.active, self.optimizer, self.clip)
        if loaded is None:
            self._record_update("initial", 0, 0, MaskChange(nonzeros(self.layers), 0, 0, 0, 0, 0))
            self.progress.trace.append(self.tracer.record(0, 0, ["start"]))
        else:
            self._resume(*loaded)

    def run(self, report: Callable[[EpochRecord], None]) -> RunSummary:
        discard_summary(self.folder)
        write_atomically(self.folder / RUN, json.dumps(self.spec.model_dump(mode="json"), indent=2) + "\n")
        try:
            self.state.write(device=device_name(self.device))
            self._write_state("running")
            while self.progress.epoch < self.spec.training.epochs and not self.progress.diverged:
                self._run_epoch(report)
            summary = self._finish()
        except Stopped:
            if self.progress.part is not None:
                self._record_time(self.progress.epoch + 1)
            self._save()
            self._write_state("stopped")
            raise
        self._write_state("ended")
        return summary

    def _run_epoch(self, report: Callable[[EpochRecord], None]) -> None:
        self.epoch_started = time.perf_counter()
        record, finite = self._train_epoch(self.progress.epoch + 1)
        with self.interruption.postponed():
            self.progress.diverged_at_step = None if finite else record.step
            self.progress.epoch = record.epoch
            self.progress.part = None
            self.progress.epochs.append(record)
            self._record_time(record.epoch)
            self._save()
            self._write_state("running")
            report(record)

    def _load_network(self, state: dict[str, Any]) -> None:
        if state["retired"]:
            retire_dyrelu(self.model)
        self.model.load_state_dict(state["model"])

    def _resume(self, epoch: int, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.clip is not None:
            self.clip.load_state_dict(state["clip"])
        part = state.get("part")
        self.progress = Progress(
            epoch=epoch,
            part=None if part is None else EpochSums.load(part, self.device),
            attempt=state["attempt"] + 1,
            runs_per_device=max(state["runs_per_device"], self.resources.runs_per_device),
            diverged_at_step=state["diverged_at_step"],
            attempts=[AttemptRecord.load(row) for row in state["attempts"]],
            epochs=[EpochRecord(**row) for row in state["epochs"]],
            updates=[UpdateRecord(**row) for row in state["updates"]],
            trace=[TraceRecord(**row) for row in state["trace"]],
            timing=[TimingRecord(**row) for row in state["timing"]],
        )

    def _train_epoch(self, epoch: int) -> tuple[EpochRecord, bool]:
        """Train an epoch, or what is left of it, and evaluate the network; also whether all of it is finite.

        A stop is possible between any two steps and anywhere in the evaluation, which changes nothing.
        """
        with self.interruption.postponed():
            lr, beta = learning_rate(epoch, self.spec.training), self._set_phase(epoch)
            sums = self.progress.part = self.progress.part or EpochSums.begin(self.device)
        for images, labels in self.data.train.epoch(epoch, start=sums.steps):
            with self.interruption.postponed():
                self._train_batch(epoch, images, labels, lr, sums)
        self._note_attempt()
        return self._epoch_record(epoch, lr, beta, sums)

    def _train_batch(self, epoch: int, images: Tensor, labels: Tensor, lr: float, sums: EpochSums) -> None:
        self._note_attempt()
        step = (epoch - 1) * len(self.data.train) + sums.steps + 1
        loss, correct = self.step(images, labels, lr, step, dense_gradients=self.sparsity.needs_gradient(step))
        sums.add(loss, correct, len(labels))
        done = self.sparsity.update(step)
        if done is not None:
            update, change = done
            self.step.masks_changed()
            self._record_update(update.kind, step, epoch, change)
        happened = {"step": is_traced(step), "update": done is not None, "epoch": sums.steps == len(self.data.train)}
        events = [event for event, has_happened in happened.items() if has_happened]
        if events:
            self.progress.trace.append(self.tracer.record(step, epoch, events))

    def _epoch_record(self, epoch: int, lr: float, beta: float, sums: EpochSums) -> tuple[EpochRecord, bool]:
        """What an epoch has come to, all of whose steps are done, and whether all of it is finite."""
        steps = len(self.data.train)
        updates = [row for row in self.progress.updates if row.epoch == epoch]
        last = self.progress.updates[-1]
        validation = self.data.validation
        validated = None if validation is None else evaluate(self.engine, self.model, validation, epoch)
        tested = evaluate(self.engine, self.model, self.data.test, epoch)
        record = EpochRecord(
            epoch=epoch,
            step=epoch * steps,
            lr=lr,
            density=last.density,
            drop_fraction=self.sparsity.drop_fraction(epoch * steps),
            beta=beta,
            train_loss=sums.mean_loss,
            train_acc=sums.accuracy,
            val_acc=None if validated is None else validated.accuracy,
            test_acc=tested.accuracy,
            nonzeros=last.nonzeros,
            mask_updates=len(updates),
            grown=sum(row.grown for row in updates),
            blind_growth=sum(row.blind_growth for row in updates),
            active_zeros=last.active_zeros,
            frozen_layers=last.frozen_layers,
            live_channels=last.live_channels,
            live_weights=last.live_weights,
            dead_branches=last.dead_branches,
        )
        logits_are_finite = tested.finite and (validated is None or validated.finite)
        return record, math.isfinite(record.train_loss) and logits_are_finite and is_finite(self.model)

    def _set_phase(self, epoch: int) -> float:
        """Set β for an epoch; at β = 0 the DyReLU parameters leave the network and the optimizer."""
        phasing = self.spec.phasing
        if phasing is None:
            return 0.0
        beta = phasing_beta(epoch, phasing.start, phasing.end)
        set_beta(self.model, beta)
        if beta == 0:
            self._retire_dyrelu()
        # The authors' code compares epochs for equality, so a fade that starts between two epochs freezes nothing.
        elif phasing.freeze and phasing.start.is_integer() and epoch >= phasing.start:
            self._freeze_dyrelu()
        return beta

    def _retire_dyrelu(self) -> None:
        removed = retire_dyrelu(self.model)
        self.optimizer.remove(removed)
        if removed:
            self.step.phase_changed()

    def _freeze_dyrelu(self) -> None:
        parameters = [parameter for unit in dyrelu_units(self.model) for parameter in unit.parameters()]
        self.optimizer.reset(parameters)
        if any(parameter.requires_grad for parameter in parameters):
            for parameter in parameters:
                parameter.requires_grad_(False)
            self.step.phase_changed()

    def _record_update(self, kind: str, step: int, epoch: int, change: MaskChange) -> None:
        live = liveness(self.model)
        self.progress.updates.append(
            UpdateRecord(
                step=step,
                epoch=epoch,
                kind=kind,
                density=change.nonzeros / self.sparsity.allocation.dense_weights,
                drop_fraction=self.sparsity.drop_fraction(step),
                nonzeros=change.nonzeros,
                dropped=change.dropped,
                grown=change.grown,
                blind_growth=change.blind_growth,
                active_zeros=change.active_zeros,
                frozen_layers=change.frozen_layers,
                live_channels=live.live_channels,
                channels=live.channels,
                live_weights=live.live_weights,
                reachable_positions=live.reachable_positions,
                dead_branches=live.dead_branches,
                branches=live.branches,
            )
        )

    def _note_attempt(self) -> None:
        """Note that this process has a part in the run, once it computes something of it."""
        if not self.has_computed:
            self.has_computed = True
            self.progress.attempts.append(self._attempt_record(self.steps_done + 1))

    def _attempt_record(self, first_step: int) -> AttemptRecord:
        """What this process has computed so far."""
        return AttemptRecord(
            attempt=self.progress.attempt,
            first_step=first_step,
            last_step=self.steps_done,
            choice=self.engine.name,
            **vars(self.engine.executed()),
            threads=self.resources.threads,
            device=device_name(self.device),
            **vars(self.origin),
            dataset_digest=self.data.digest,
        )

    @property
    def steps_done(self) -> int:
        """Optimizer steps that are done."""
        return self.progress.epoch * len(self.data.train) + self.progress.steps_of_part

    def _record_time(self, epoch: int) -> None:
        """Note the time that this attempt has spent on an epoch."""
        elapsed = time.perf_counter() - self.epoch_started
        self.progress.timing.append(TimingRecord(epoch, round(elapsed, 4), self.progress.attempt))

    def _write_state(self, state: Literal["running", "stopped", "ended"]) -> None:
        """Tell those who watch how far the run is."""
        progress = self.progress
        self.state.write(
            state=state,
            attempt=progress.attempt,
            epoch=progress.epoch,
            step=self.steps_done,
            test_accuracy=progress.epochs[-1].test_acc if progress.epochs else None,
            seconds_per_epoch=progress.seconds_of_last_epoch,
        )

    def _save(self) -> None:
        """Write a checkpoint, and the records as it has them."""
        progress = self.progress
        if self.has_computed:
            progress.attempts[-1] = self._attempt_record(progress.attempts[-1].first_step)
        state = {
            "retired": self.spec.phasing is not None and not dyrelu_units(self.model),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "clip": None if self.clip is None else self.clip.state_dict(),
            "part": None if progress.part is None else progress.part.state_dict(),
            "attempt": progress.attempt,
            "runs_per_device": progress.runs_per_device,
            "diverged_at_step": progress.diverged_at_step,
            "attempts": [record.as_dict() for record in progress.attempts],
            "epochs": as_dicts(progress.epochs),
            "updates": as_dicts(progress.updates),
            "trace": as_dicts(progress.trace),
            "timing": as_dicts(progress.timing),
        }
        self.checkpoints.save(progress.epoch, state, steps=progress.steps_of_part)
        self._write_records()

    def _write_records(self) -> None:
        write_records(self.folder / METRICS, EpochRecord, self.progress.epochs)
        write_records(self.folder / UPDATES, UpdateRecord, self.progress.updates)
        write_records(self.folder / TRACE, TraceRecord, self.progress.trace)
        write_records(self.folder / TIMING, TimingRecord, self.progress.timing)

    def _finish(self) -> RunSummary:
        """Write every file of a run whose last epoch is in a checkpoint; as the very last act, the summary.

        All of them follow from that checkpoint, so whoever resumes it after a kill at any moment writes the same.
        """
        self._write_records()
        weights = {name: tensor.contiguous().cpu() for name, tensor in sorted(self.model.state_dict().items())}
        write_atomically(self.folder / WEIGHTS, save_tensors(weights))
        summary = self._summary()
        write_summary(self.folder, summary)
        return summary

    def _summary(self) -> RunSummary:
        progress, last, diverged = self.progress, self.progress.epochs[-1], self.progress.diverged
        best, ran = self._best_epoch(), progress.attempts[-1]
        return RunSummary(
            id="/".join(self.folder.absolute().parts[-3:]),
            run=self.spec.model_dump(mode="json"),
            fingerprint=self.spec.fingerprint,
            status="diverged" if diverged else "finished",
            diverged_at_epoch=last.epoch if diverged else None,
            diverged_at_step=progress.diverged_at_step,
            final_test_accuracy=None if diverged else last.test_acc,
            final_validation_accuracy=None if diverged else last.val_acc,
            best_test_accuracy=None if diverged or best is None else best.test_acc,
            best_epoch=None if diverged or best is None else best.epoch,
            epochs=last.epoch,
            steps=last.step,
            nonzeros=last.nonzeros,
            masked_weights=self.sparsity.allocation.dense_weights,
            parameters=asdict(count_parameters(self.model)),
            liveness=asdict(liveness(self.model)),
            seconds=round(progress.seconds, 3),
            attempts=progress.attempt,
            peak_memory_mb=round(peak_memory_mb(self.device), 1),
            runs_per_device=progress.runs_per_device,
            reproducibility=class_of_run(progress.attempts, self.spec.dataset.name),
            dataset_digest=ran.dataset_digest,
            engine=ran.engine,
            executions=dict(ran.executions),
            instruction_set=ran.instruction_set,
            threads=ran.threads,
            commit=ran.commit,
            code_digest=ran.code_digest,
            versions=dict(ran.versions),
            device=ran.device,
            platform=ran.platform,
            attempt_records=[record.as_dict() for record in progress.attempts],
        )

    def _best_epoch(self) -> EpochRecord | None:
        """The epoch of best validation accuracy among those of the final network: target density, DyReLU faded."""
        settled = [
            row
            for row in self.progress.epochs
            if row.val_acc is not None and row.step >= self.sparsity.timetable.cycle_end_step and row.beta == 0
        ]
        return max(settled, key=lambda row: (row.val_acc, row.epoch), default=None)
