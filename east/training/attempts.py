"""The attempts at a run: what each computed and how long it took, and how far that makes the run's bytes repeatable."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch

from east.config.run import ImagesSpec, RunSpec
from east.data.catalog import is_streamed
from east.reproducibility import Reproducibility, weakest
from east.training.assembly import Training
from east.training.describe import engine_of_run
from east.training.hooks import Ending, Hook
from east.training.journal import Beginning, now_text
from east.training.provenance import Origin, device_name
from east.training.records import EpochRecord, TimingRecord, UpdateRecord, as_dicts

_LISTS = ("changes", "plugins")
_CODE_AND_DATA = ("code_digest", "dataset_digest", "plugins")
_PROCESSOR = ("device", "instruction_set", "threads", "torch")
_SURROUNDINGS: Mapping[Reproducibility, tuple[str, ...]] = {
    Reproducibility.ANY_PROCESSOR: (),
    Reproducibility.THIS_PROCESSOR: _PROCESSOR,
    Reproducibility.THIS_DEVICE: (*_PROCESSOR, "platform", "versions"),
    Reproducibility.STATISTICAL: (),
}
"""Class -> what decides the bytes of an attempt of it, beside code and data."""


@dataclass(frozen=True)
class AttemptRecord:
    """What computed a part of a run: one process.

    Attributes:
        attempt: which one, counted from 1.
        first_step: the first optimizer step that it did, counted from 1.
        last_step: the last one, as far as a checkpoint holds it; less than the first where it only evaluated.
        started: when it began, in UTC.
        ended: when what it had done was last saved.
        choice: the engine that was made: `auto`, `sparse` or `dense`.
        engine: what executed, see `Executed`; so are the next five.
        threads: CPU threads of PyTorch.
        device: name of the processor or GPU.
        platform: system and processor architecture.
        versions: of Python, this package, and the libraries that compute.
        commit: of the checkout that the code was read from, where it was one; so are the next two, see `Origin`.
        code_digest: of the code that decides numbers.
        dataset_digest: of the prepared data set.
        plugins: SHA-256 of each plugin that the run uses.
    """

    attempt: int
    first_step: int
    last_step: int
    choice: str
    engine: str
    reproducibility: Reproducibility
    executions: Mapping[str, int]
    instruction_set: str | None
    compiler: str | None
    extra_flags: str | None
    threads: int
    device: str
    platform: str
    versions: Mapping[str, str]
    commit: str | None
    code_digest: str
    dataset_digest: str | None
    changes: tuple[str, ...] = ()
    checkout: str = ""
    plugins: tuple[str, ...] = ()
    started: str = ""
    ended: str = ""

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        lists = {name: tuple(saved.get(name, ())) for name in _LISTS}
        return cls(**{**saved, **lists, "reproducibility": Reproducibility(saved["reproducibility"])})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        return asdict(self) | lists | {"reproducibility": str(self.reproducibility)}


def class_of_data(images: ImagesSpec | str) -> Reproducibility:
    """The strongest class that a run on a data set can have."""
    return Reproducibility.THIS_PROCESSOR if is_streamed(images) else Reproducibility.ANY_PROCESSOR


def class_on_cpu(spec: RunSpec) -> Reproducibility:
    """How far the bytes of a run can be repeated that `auto` trains on a CPU with a compiler."""
    of_engine = {"sparse": Reproducibility.ANY_PROCESSOR, "dense": Reproducibility.THIS_PROCESSOR}[engine_of_run(spec)]
    return weakest([of_engine, class_of_data(spec.dataset), class_of_plugins(spec)])


def class_of_plugins(spec: RunSpec) -> Reproducibility:
    """The strongest class that a run can have with what it uses of plugins, which compute by PyTorch's operations."""
    return Reproducibility.THIS_PROCESSOR if spec.plugins else Reproducibility.ANY_PROCESSOR


def class_of_run(attempts: Sequence[AttemptRecord], images: ImagesSpec | str) -> Reproducibility:
    """The class of a whole run: the weakest of its data and attempts.

    It is statistical where attempts differ in what that class takes to be equal, since no one training repeats them:
    in code or data; in the engine that was chosen, unless its bytes are those of any processor throughout; in the
    surroundings of attempts whose bytes depend on them.
    """
    data = class_of_data(images)
    found = weakest([data, *(record.reproducibility for record in attempts)])
    everywhere = Reproducibility.ANY_PROCESSOR
    bound = [record for record in attempts if weakest([data, record.reproducibility]) != everywhere]
    agree = (
        _agree(attempts, _CODE_AND_DATA)
        and (found == everywhere or _agree(attempts, ("choice",)))
        and _agree(bound, _SURROUNDINGS[found])
    )
    return found if agree else Reproducibility.STATISTICAL


def _agree(attempts: Sequence[AttemptRecord], names: Sequence[str]) -> bool:
    facts = [record.as_dict() | {"torch": record.versions.get("torch")} for record in attempts]
    return all(fact[name] == facts[0][name] for fact in facts for name in names)


class AttemptLog(Hook):
    """Keeps the records of all attempts at a run, this process's among them once it has computed something of the run.

    Attributes:
        device: where this process computes.
        attempt: number of this attempt, counted from 1.
        records: of the attempts that computed something.
        timing: seconds that each spent on each epoch.
        runs_per_device: the most trainings that may have shared a device in any attempt.

    Args:
        origin: the program of this process.
        device: where it computes.
        threads: CPU threads of PyTorch.
        runs_per_device: trainings that may share the device.
        state: what the last checkpoint has of earlier attempts.
        begun: all attempts as they began, this one the last; where it is empty, this one begins now.
        check: called after the first step, when all code that it takes is in memory.
    """

    def __init__(
        self,
        origin: Origin,
        device: torch.device,
        threads: int,
        runs_per_device: int,
        state: Mapping[str, Any] | None = None,
        *,
        begun: Sequence[Beginning] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._origin, self._threads, self._begun, self._check = origin, threads, tuple(begun), check
        self.device = device
        self._has_computed = False
        self._epoch_started: float | None = None
        self.attempt = 1 if state is None else state["attempt"] + 1
        self._started = now_text()
        if begun:
            self.attempt, self._started = begun[-1].attempt, begun[-1].started
        self.runs_per_device = runs_per_device if state is None else max(runs_per_device, state["runs_per_device"])
        self.records = [] if state is None else [AttemptRecord.load(row) for row in state["attempts"]]
        self.timing = [] if state is None else [TimingRecord(**row) for row in state["timing"]]

    def before_epoch(self, training: Training) -> None:
        """Start the clock."""
        self._epoch_started = time.perf_counter()

    def after_step(self, training: Training, update: UpdateRecord | None) -> None:
        """Note the first step."""
        if not self._has_computed:
            self._check()
            self._note(training, first_step=training.steps_done)

    def after_epoch(self, training: Training, record: EpochRecord) -> None:
        """Note the time; an attempt that only evaluated has computed something as well."""
        self._stop_clock(record.epoch)
        self._note(training, first_step=training.steps_done + 1)

    def on_end(self, training: Training, ending: Ending) -> None:
        """Note what this attempt has done of an epoch that is cut."""
        if training.sums.steps:
            self._stop_clock(training.epoch + 1)
            if self._has_computed:
                self._note(training, first_step=training.steps_done)

    @property
    def seconds(self) -> float:
        """Seconds of training and evaluation over all attempts, as far as they led to a checkpoint."""
        return math.fsum(row.seconds for row in self.timing)

    def seconds_of(self, epoch: int) -> float | None:
        """Seconds of an epoch over all attempts at it; None where none was spent on it."""
        found = [row.seconds for row in self.timing if row.epoch == epoch]
        return math.fsum(found) if found else None

    def all_attempts(self) -> list[dict[str, Any]]:
        """The records of all attempts; of one that left nothing, what was known when it began."""
        done = {record.attempt: record.as_dict() for record in self.records}
        nothing = dict.fromkeys(("first_step", "last_step"))
        lost = {one.attempt: one.model_dump(mode="json") | nothing for one in self._begun if one.attempt not in done}
        return [row for _, row in sorted({**done, **lost}.items())]

    def state_dict(self) -> dict[str, Any]:
        """What the next attempt goes on from."""
        return {
            "attempt": self.attempt,
            "runs_per_device": self.runs_per_device,
            "attempts": [record.as_dict() for record in self.records],
            "timing": as_dicts(self.timing),
        }

    def _stop_clock(self, epoch: int) -> None:
        # An attempt that is stopped before it begins an epoch has spent no time on it.
        if self._epoch_started is not None:
            elapsed = time.perf_counter() - self._epoch_started
            self.timing.append(TimingRecord(epoch, round(elapsed, 4), self.attempt))

    def _note(self, training: Training, first_step: int) -> None:
        """Record what this process has computed so far; its first step is known after the first time."""
        if self._has_computed:
            first_step = self.records.pop().first_step
        self._has_computed = True
        executed, spec = training.parts.engine.executed(), training.spec
        self.records.append(
            AttemptRecord(
                attempt=self.attempt,
                first_step=first_step,
                last_step=training.steps_done,
                choice=training.parts.engine.name,
                **vars(executed) | {"reproducibility": weakest([executed.reproducibility, class_of_plugins(spec)])},
                plugins=tuple(sorted(spec.plugins)),
                threads=self._threads,
                device=device_name(self.device),
                **vars(self._origin),
                dataset_digest=training.data.digest,
                started=self._started,
                ended=now_text(),
            )
        )
