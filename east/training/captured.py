"""The step of a training as CUDA graphs: recorded once, then issued as a whole."""

import logging
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Literal, Protocol, cast
from weakref import WeakSet

import torch
from torch import Tensor

from east.engine import Engine, GradientRequest
from east.errors import EastError
from east.sparse.active import ActiveWeights
from east.training.clip import GradientClip
from east.training.optimizer import Optimizer
from east.training.step import Step, TrainingStep

LOG = logging.getLogger(__name__)

STEPS = ("auto", "eager", "captured", "compiled")
"""The names in the config. `auto` is the fastest one."""

StepKind = Literal["eager", "captured", "compiled"]
"""Operation by operation; as CUDA graphs; as CUDA graphs of a network that PyTorch has compiled."""

Operations = Callable[[], None]
"""Operations on tensors whose memory stays; it reads nothing back."""


def choose_step(name: str, device: torch.device) -> StepKind:
    """How the steps of a training are executed on a device; where that is not as asked for, a line says so.

    Raises:
        EastError: there is no such way.
    """
    if name not in STEPS:
        raise EastError(f"there is no step '{name}'. Choose one of {', '.join(STEPS)}.")
    if device.type != "cuda":
        if name in ("captured", "compiled"):
            LOG.warning("step %s needs a GPU and falls back to eager", name)
        return "eager"
    return "compiled" if name == "auto" else cast(StepKind, name)


def make_step(
    kind: StepKind,
    engine: Engine,
    optimizer: Optimizer,
    active: Mapping[str, ActiveWeights],
    clip: GradientClip | None,
    device: torch.device,
) -> Step:
    """The step of a training.

    Only a GPU has other kinds than `eager`. Whether the network is compiled is the engine's business.
    """
    step = TrainingStep(engine, optimizer, active, clip)
    return step if kind == "eager" else CapturedStep(step, CudaGraphs(device), device)


class Recorder(Protocol):
    """Records work once and repeats it, on the same memory."""

    def warm_up(self, work: Operations) -> None:
        """Do the work once as it will be recorded, so that all that it needs is there."""

    def record(self, work: Operations) -> Operations:
        """Record the work without doing it.

        Returns:
            What repeats it.

        Raises:
            RuntimeError: it cannot be recorded; nothing has been done.
        """


class CudaGraphs:
    """Records CUDA graphs, which share their memory: of two that are repeated in turn, the larger one decides."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def warm_up(self, work: Operations) -> None:
        """Do the work on the stream on which it will be recorded: libraries keep their memory by stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def record(self, work: Operations) -> Operations:
        """Record a graph.

        Only this thread must not wait for the device meanwhile (`thread_local`): others may load images.
        """
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._graphs), None)
        # PyTorch leaves its stream current where a recording fails, so it is put back here.
        with (
            torch.cuda.stream(torch.cuda.current_stream(self._device)),
            torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()
        self._graphs.add(graph)
        return graph.replay


class CapturedStep:
    """Issues a step as a whole, because issuing its operations one by one may take the CPU longer than they take.

    There is a recording for each size of a batch, and one more where the clip does not measure its norm. Of each kind
    the first step is executed as usual, the second one is recorded. Images, labels, learning rate and signs are copied
    into memory that stays, and whatever else changes between steps (masks, β, state) changes in place, so a recording
    is good until parameters leave the network or are trained no longer, or until the engine or the active weights
    move to other memory. Steps that leave dense gradients behind for an update of the masks are executed as usual.

    Attributes:
        recorded: how many recordings have been made so far.
    """

    def __init__(self, step: TrainingStep, recorder: Recorder, device: torch.device) -> None:
        self._step = step
        self._recorder: Recorder | None = recorder
        # Kind of step -> what it depends on beyond the contents of tensors, and what issues it once it is recorded.
        self._recordings: dict[Hashable, tuple[Hashable, Operations | None]] = {}
        self._batches: dict[torch.Size, tuple[Tensor, Tensor]] = {}
        # The types that PyTorch's fused optimizers read, see `Optimizer.step`.
        self._lr = torch.zeros((), dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device)
        self._lr_is: float | None = None
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self.recorded = 0

    def __call__(
        self, images: Tensor, labels: Tensor, lr: float, number: int, *, dense_gradients: bool
    ) -> tuple[Tensor, Tensor]:
        """Train on one batch, see `Step`."""
        if dense_gradients or self._recorder is None:
            return self._step(images, labels, lr, number, dense_gradients=dense_gradients)
        request = self._step.request(number, dense_gradients=False)
        if lr != self._lr_is:
            self._lr.fill_(lr)
            self._lr_is = lr
        work = partial(self._execute, *self._copy(images, labels), number, request)
        clip = self._step.clip
        kind = images.shape, clip is not None and clip.measures(number)
        versions = tuple(weights.version for weights in self._step.active.values())
        self._perform(self._recorder, work, kind, (self._step.engine.signature(images), versions))
        return self._loss, self._correct

    def masks_changed(self) -> None:
        """Follow the masks; recordings stay good as long as memory does, which is looked at before they are issued."""
        self._step.masks_changed()

    def phase_changed(self) -> None:
        """Forget all recordings: the network is another one."""
        self._recordings.clear()

    def _perform(self, recorder: Recorder, work: Operations, kind: Hashable, situation: Hashable) -> None:
        """Do the work, if need be as the first of its kind."""
        known, repeat = self._recordings.get(kind, (None, None))
        if known != situation:
            self._recordings.pop(kind, None)
            recorder.warm_up(work)
            self._recordings[kind] = situation, None
            return
        if repeat is None:
            try:
                repeat = recorder.record(work)
                self._recordings[kind] = situation, repeat
                self.recorded += 1
            except RuntimeError as error:
                self._give_up(error)
        (repeat or work)()

    def _give_up(self, error: RuntimeError) -> None:
        LOG.warning("step captured falls back to eager: %s", str(error).partition("\n")[0])
        self._recorder = None
        self._recordings.clear()

    def _execute(self, images: Tensor, labels: Tensor, number: int, request: GradientRequest) -> None:
        loss, correct = self._step.execute(images, labels, self._lr, number, request)
        self._loss.copy_(loss)
        self._correct.copy_(correct)

    def _copy(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch in the memory of all batches of its size."""
        if images.shape not in self._batches:
            self._batches[images.shape] = torch.empty_like(images), torch.empty_like(labels)
        own = self._batches[images.shape]
        for memory, given in zip(own, (images, labels), strict=True):
            memory.copy_(given)
        return own
