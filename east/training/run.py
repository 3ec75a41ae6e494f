"""One run in its folder: trained from its spec alone, resumed from its last checkpoint, with a summary at the end."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from east.checkout import sources
from east.config.run import RunSpec
from east.data.open import open_dataset
from east.errors import EastError
from east.files import read_regular, sha256_of, write_atomically
from east.locks import HeldLock
from east.models.liveness import liveness
from east.models.parameters import count_parameters
from east.plugins import load_needed
from east.sparse.schedule import Schedule
from east.training.assembly import Training
from east.training.attempts import AttemptLog, class_of_run
from east.training.captured import choose_step
from east.training.checkpoint import ChangedPlugin, Checkpoints
from east.training.device import choose_device, keep_freed_memory, peak_memory_mb
from east.training.folder import (
    ATTEMPTS,
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
    plugin_copy,
    write_summary,
)
from east.training.hooks import Ending, Hook
from east.training.journal import Beginning, attempts_begun, note_beginning, now_text
from east.training.loop import run_loop
from east.training.provenance import Origin, device_name, refuse_changes
from east.training.records import (
    EpochRecord,
    RunSummary,
    TimingRecord,
    TraceRecord,
    UpdateRecord,
    as_dicts,
    write_records,
)
from east.training.state import StateFile
from east.training.trace import Tracing


@dataclass(frozen=True)
class Resources:
    """Where and how a run executes; none of it belongs to the run's identity.

    Args:
        device: `auto`, `cpu` or `cuda`.
        engine: `auto` or the name of an engine.
        threads: CPU threads of PyTorch.
        data_dir: where prepared data sets are.
        image_folder: of images that are decoded while they are trained on.
        gpu: the GPU that was leased for this process, as CUDA_VISIBLE_DEVICES names it.
        runs_per_device: trainings that may share the device with this one, itself included.
        step: how a step is executed: `auto`, `eager`, `captured` or `compiled`.
        plugins: files, or folders of files, among which the run's plugins are looked for; after them the working
            directory and its folder config.
        changed_plugin: what happens to a checkpoint that was made with another content of a plugin, see `Checkpoints`.
    """

    device: str = "auto"
    engine: str = "auto"
    threads: int = 1
    data_dir: Path = Path("data")
    image_folder: Path | None = None
    gpu: str | None = None
    runs_per_device: int = 1
    step: str = "auto"
    plugins: tuple[Path, ...] = ()
    changed_plugin: ChangedPlugin = "refuse"


def train(
    spec: RunSpec,
    folder: Path,
    resources: Resources,
    hooks: Sequence[Hook] = (),
    *,
    began: Mapping[str, str] | None = None,
) -> RunSummary:
    """Train a run in its folder and return its summary; resume it if the folder holds a checkpoint of the same run.

    The folder gets run.json, state.json, metrics.csv, updates.csv, trace.csv, timing.csv, weights.safetensors and,
    last, summary.json. The hooks are called after those that write these files.

    Args:
        spec: the run.
        folder: where its files go.
        resources: where and how it executes.
        hooks: called at each moment of the loop.
        began: `east.checkout.sources` as they were before this process imported what computes; now, if it is None.

    Raises:
        EastError: the device or data are not there, or the network cannot hold the density, or the code has changed
            since the process began.
        SystemExit: a hook stopped the training, which is as it was then in a checkpoint.
    """
    # Before this process waits for anything: it goes on with the modules that it has imported.
    began = sources() if began is None else began
    origin = Origin.of_this_process(began)
    with locked(folder) as lock:
        discard_temporaries(folder)
        summary = finished_summary(folder, spec.fingerprint)
        if summary is None:
            state = StateFile(
                folder,
                epochs=spec.training.epochs,
                device=resources.device,
                threads=resources.threads,
                gpu=resources.gpu,
                runs_per_device=resources.runs_per_device,
            )
            with state.failures_noted():
                summary = _train(spec, folder, resources, origin, began, state, lock, hooks)
        Checkpoints(folder, spec.fingerprint).clear()
        (folder / ATTEMPTS).unlink(missing_ok=True)
        return summary


def open_and_begin(
    spec: RunSpec, resources: Resources, device: torch.device, state: dict[str, Any] | None = None
) -> Training:
    """A run on its own data, at its start or where it was left.

    Raises:
        EastError: the data, the engine or a plugin are not there, or the network cannot hold the density.
    """
    load_needed(spec.plugins, (*resources.plugins, Path(), Path("config")))
    data = open_dataset(
        spec.dataset,
        training_batch=spec.training.batch_size,
        seed=spec.seed,
        data_dir=resources.data_dir,
        device=device,
        folder=resources.image_folder,
    )
    kind = choose_step(resources.step, device)
    return Training.begin(spec, data, device=device, engine=resources.engine, kind=kind, state=state)


def keep_plugins(spec: RunSpec, folder: Path, resources: Resources) -> None:
    """Load the run's plugins, and keep a copy of each file in the run's folder, so that its description finds it there.

    Raises:
        EastError: one is not there with the content that the run was planned with, or cannot be executed.
    """
    found = load_needed(spec.plugins, (*resources.plugins, folder, Path(), Path("config")))
    for digest, path in found.items():
        if path.is_file():
            write_atomically(folder / plugin_copy(digest), read_regular(path))


def _train(
    spec: RunSpec,
    folder: Path,
    resources: Resources,
    origin: Origin,
    began: Mapping[str, str],
    state: StateFile,
    lock: HeldLock,
    hooks: Sequence[Hook],
) -> RunSummary:
    torch.set_num_threads(resources.threads)
    keep_freed_memory()
    device = choose_device(resources.device)
    keep_plugins(spec, folder, resources)
    kin = spec.kin if spec.plugins else ""
    checkpoints = Checkpoints(folder, spec.fingerprint, kin, resources.changed_plugin)
    saved = checkpoints.load_latest()
    earlier = attempts_begun(folder, spec.fingerprint)
    beginning = Beginning(
        attempt=1 + max([*(one.attempt for one in earlier), 0 if saved is None else saved["attempt"]]),
        started=now_text(),
        choice=resources.engine,
        threads=resources.threads,
        device=device_name(device),
        plugins=tuple(sorted(spec.plugins)),
        **vars(origin),
    )
    begun = (*earlier, beginning)
    note_beginning(folder, spec.fingerprint, begun)
    training = open_and_begin(spec, resources, device, saved)
    attempts = AttemptLog(
        origin,
        device,
        resources.threads,
        resources.runs_per_device,
        saved,
        begun=begun,
        check=partial(refuse_changes, began),
    )
    tracing = Tracing() if saved is None else Tracing([TraceRecord(**row) for row in saved["trace"]])
    state.write(device=device_name(device))
    files = RunFiles(checkpoints, attempts, tracing, state)
    run_loop(training, [attempts, tracing, FolderKept(lock), files, *hooks])
    if files.summary is None:
        raise RuntimeError("the loop ended before the run")
    return files.summary


class FolderKept(Hook):
    """Ends a training whose folder was removed: what is written there from then on would not be a whole run."""

    def __init__(self, lock: HeldLock) -> None:
        self._lock = lock

    def after_epoch(self, training: Training, record: EpochRecord) -> None:
        """Look before the checkpoint."""
        self._look()

    def on_end(self, training: Training, ending: Ending) -> None:
        """Look before the summary."""
        self._look()

    def _look(self) -> None:
        if not self._lock.is_there():
            folder = self._lock.file.parent
            raise EastError(f"{folder} was removed while its run was trained. The same command trains it again.")


class RunFiles(Hook):
    """Writes what a run leaves in its folder: a checkpoint and records after every epoch; weights and summary at last.

    `state.json` follows each of these, and says that the run goes on before the first.

    All of the end follows from the last checkpoint, so whoever resumes it after a kill at any moment writes the same.

    Attributes:
        summary: what was written at the end; None until then.
    """

    def __init__(self, checkpoints: Checkpoints, attempts: AttemptLog, tracing: Tracing, state: StateFile) -> None:
        self._checkpoints, self._folder = checkpoints, checkpoints.folder
        self._attempts, self._tracing, self._state = attempts, tracing, state
        self._digests: dict[str, str] = {}
        self.summary: RunSummary | None = None

    def on_begin(self, training: Training) -> None:
        """Say which run it is."""
        discard_summary(self._folder)
        self._write(RUN, (json.dumps(training.spec.model_dump(mode="json"), indent=2) + "\n").encode())
        self._write_state(training, "running")

    def after_epoch(self, training: Training, record: EpochRecord) -> None:
        """Save."""
        self._save(training)
        self._write_state(training, "running")

    def on_end(self, training: Training, ending: Ending) -> None:
        """Save a run that goes on later; of one that has ended write everything, the summary as the very last act."""
        if not training.is_over:
            self._save(training)
            self._write_state(training, "stopped")
            return
        self._write_records(training)
        weights = {name: tensor.contiguous().cpu() for name, tensor in sorted(training.model.state_dict().items())}
        self._write(WEIGHTS, save_tensors(weights))
        summary = summary_of(training, self._attempts, self._folder, self._digests)
        self.summary = write_summary(self._folder, summary)
        self._write_state(training, "ended")

    def _save(self, training: Training) -> None:
        """Write a checkpoint, and the records as it has them."""
        state = training.state_dict() | self._attempts.state_dict() | {"trace": as_dicts(self._tracing.rows)}
        self._checkpoints.save(training.epoch, state, steps=training.sums.steps)
        self._write_records(training)

    def _write_state(self, training: Training, state: str) -> None:
        self._state.write(
            state=state,
            attempt=self._attempts.attempt,
            epoch=training.epoch,
            step=training.steps_done,
            test_accuracy=training.epochs[-1].test_acc if training.epochs else None,
            seconds_per_epoch=self._attempts.seconds_of(training.epoch),
        )

    def _write_records(self, training: Training) -> None:
        self._digests |= {
            METRICS: write_records(self._folder / METRICS, EpochRecord, training.epochs),
            UPDATES: write_records(self._folder / UPDATES, UpdateRecord, training.updates),
            TRACE: write_records(self._folder / TRACE, TraceRecord, self._tracing.rows),
            TIMING: write_records(self._folder / TIMING, TimingRecord, self._attempts.timing),
        }

    def _write(self, name: str, content: bytes) -> None:
        write_atomically(self._folder / name, content)
        self._digests[name] = sha256_of(content)


def summary_of(training: Training, attempts: AttemptLog, folder: Path, files: Mapping[str, str]) -> RunSummary:
    """The summary of a run that has ended; its other files have these digests."""
    spec, last, diverged = training.spec, training.epochs[-1], training.diverged_at_step is not None
    best, ran = best_epoch(training.epochs, training.schedule), attempts.records[-1]
    return RunSummary(
        id="/".join(folder.absolute().parts[-3:]),
        run=spec.model_dump(mode="json"),
        fingerprint=spec.fingerprint,
        status="diverged" if diverged else "finished",
        diverged_at_epoch=last.epoch if diverged else None,
        diverged_at_step=training.diverged_at_step,
        final_test_accuracy=None if diverged else last.test_acc,
        final_validation_accuracy=None if diverged else last.val_acc,
        best_test_accuracy=None if diverged or best is None else best.test_acc,
        best_epoch=None if diverged or best is None else best.epoch,
        epochs=last.epoch,
        steps=last.step,
        nonzeros=last.nonzeros,
        masked_weights=training.masks.allocation.dense_weights,
        parameters=asdict(count_parameters(training.model)),
        liveness=asdict(liveness(training.model)),
        seconds=round(attempts.seconds, 3),
        attempts=attempts.attempt,
        peak_memory_mb=round(peak_memory_mb(attempts.device), 1),
        runs_per_device=attempts.runs_per_device,
        reproducibility=class_of_run(attempts.records, spec.dataset),
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
        attempt_records=attempts.all_attempts(),
        files=dict(sorted(files.items())),
    )


def best_epoch(epochs: Sequence[EpochRecord], schedule: Schedule) -> EpochRecord | None:
    """The epoch of best validation accuracy among those of the final network: target density, DyReLU faded.

    Of several equal ones it is the last.
    """
    settled = [row for row in epochs if row.val_acc is not None and schedule.is_settled(row.epoch)]
    return max(settled, key=lambda row: (row.val_acc, row.epoch), default=None)
