"""The ways to execute a training step that are compared on a GPU, each a training of its own in one process."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from benchmarks.gpu_suite.conditions import with_numerics
from benchmarks.gpu_suite.findings import EngineOrAuthors, Stepping, WayName
from east.config.run import Numerics, RunSpec
from east.data.catalog import DATASETS
from east.engine import Engine, Workload, make_engine
from east.engine.auto import AutoEngine
from east.engine.choose import machine_costs
from east.engine.compiled import CompiledNetwork
from east.engine.costs.choose import Cheapest
from east.engine.dense import DenseEngine
from east.errors import EastError
from east.models import ResNet
from east.models.blocks import BASIC, Parts
from east.models.dyrelu import retire_dyrelu
from east.models.initialise import initialise
from east.seeding import torch_generator
from east.sparse.active import ActiveWeights, active_weights
from east.sparse.layers import masked_layers
from east.training.assembly import initial_model
from east.training.captured import CapturedStep, Work, make_step
from east.training.clip import GradientClip
from east.training.describe import expected_workload, mask_updater
from east.training.optimizer import Optimizer, make_optimizer
from east.training.step import Step, TrainingStep


def way(engine: EngineOrAuthors, stepping: Stepping, numerics: Numerics) -> WayName:
    """A way in one line."""
    return WayName(engine=engine, stepping=stepping, numerics=numerics)


AUTHORS_FP32, AUTHORS_TF32 = (way("authors", "eager", numerics) for numerics in ("fp32", "tf32"))


@dataclass(frozen=True)
class Switches:
    """What PyTorch keeps for the whole process and ways set differently; put back whenever a way goes on.

    Args:
        precision: of float32 convolutions.
        benchmark: whether cuDNN chooses its algorithms by timing them.
        deterministic: whether it may only choose deterministic ones.
    """

    precision: str
    benchmark: bool
    deterministic: bool

    @classmethod
    def now(cls) -> "Switches":
        """As they are."""
        cudnn: Any = torch.backends.cudnn
        return cls(cudnn.conv.fp32_precision, cudnn.benchmark, cudnn.deterministic)

    def put(self) -> None:
        """Set them."""
        cudnn: Any = torch.backends.cudnn
        cudnn.conv.fp32_precision = self.precision
        cudnn.benchmark = self.benchmark
        cudnn.deterministic = self.deterministic


class Training(Protocol):
    """One training, to be carried on step by step."""

    model: ResNet
    way: WayName
    spec: RunSpec

    @property
    def executed_by(self) -> str:
        """The engine that executes it now."""
        ...

    def resume(self) -> None:
        """Called when another training of the process has worked in between."""
        ...

    def require_as_named(self) -> None:
        """See, after some steps, that it is executed as its name says.

        Raises:
            EastError: it is not.
        """
        ...

    def train(self, images: Tensor, labels: Tensor, number: int, lr: float, *, dense_gradients: bool = False) -> Tensor:
        """One step on a batch on the device; `number` counts from 1. Returns the summed loss, 0-d."""
        ...


class OurTraining:
    """A training as the product makes it, by one of its engines and one way of stepping.

    Args:
        name: engine, stepping and numerics.
        spec: the run.
        device: where it computes. The CPU is for rehearsals: the network has few layers, sparse kernels run in
            Triton's interpreter, and what is recorded is executed anew.
        batch_size: images of a full batch.
        faded: whether DyReLU is a plain ReLU already.
        steps_per_epoch: by which the timetable of mask updates goes.
        double: compute in float64, as a reference.
    """

    def __init__(
        self,
        name: WayName,
        spec: RunSpec,
        device: torch.device,
        *,
        batch_size: int,
        faded: bool = False,
        steps_per_epoch: int = 1,
        double: bool = False,
    ) -> None:
        Switches("tf32", benchmark=False, deterministic=False).put()
        self.way = name
        self._batch_size = batch_size
        self.spec = with_numerics(spec, name.numerics)
        self.model = masked_model(self.spec, device, steps_per_epoch=steps_per_epoch, faded=faded)
        if double:
            self.model.double()
        self.sparsity = mask_updater(self.model, self.spec, steps_per_epoch)
        self.active = active_weights(masked_layers(self.model), self.sparsity.peak_counts())
        workload = expected_workload(self.spec.training.model_copy(update={"batch_size": batch_size}))
        self.engine = _engine(name, self.model, self.active, device, workload)
        self.optimizer = make_optimizer(
            self.model.parameters(), self.active, self.spec.training, self.engine.arithmetic
        )
        clip = self.spec.training.gradient_clip
        self.clip = None if clip is None else GradientClip(clip, self.active, self.spec.seed, self.engine.arithmetic)
        self.step = _step(name, self.engine, self.optimizer, self.active, self.clip, device)
        self._switches = Switches.now()

    @property
    def executed_by(self) -> str:
        """The engine that executes it now."""
        if not isinstance(self.engine, AutoEngine):
            return self.engine.name
        image_shape = DATASETS[self.spec.dataset.name].image_shape
        return self.engine.decide(torch.empty(self._batch_size, *image_shape, device="meta")).name

    @property
    def recorded(self) -> int:
        """Steps that were recorded so far."""
        return self.step.recorded if isinstance(self.step, CapturedStep) else 0

    def require_as_named(self) -> None:
        """See that the product has not fallen back to another way, which it only warns of.

        Raises:
            EastError: it has.
        """
        if self.way.engine == "sparse" and self.engine.name != "sparse":
            raise EastError(f"the engine fell back to {self.engine.name}.")
        if self.way.stepping != "eager" and self.recorded == 0:
            raise EastError("no step was recorded: it fell back to eager.")
        if self.way.stepping == "compiled" and not _is_compiled(self.engine):
            raise EastError("the network was not compiled.")

    def resume(self) -> None:
        """Set the switches of the process as this training found them."""
        self._switches.put()

    def train(self, images: Tensor, labels: Tensor, number: int, lr: float, *, dense_gradients: bool = False) -> Tensor:
        """One step; the gradients are in place afterwards."""
        loss, _ = self.step(images, labels, lr, number, dense_gradients=dense_gradients)
        return loss


class Repeater:
    """Records work by remembering it, for rehearsals without a GPU."""

    def warm_up(self, work: Work) -> None:
        """Do it."""
        work()

    def record(self, work: Work) -> Work:
        """Remember it."""
        return work


class _RehearsedCompiling(DenseEngine):
    """The dense engine with its network traced as for compiling, but executed by PyTorch: the CPU compiles slowly."""

    def __init__(
        self, model: ResNet, active: Mapping[str, ActiveWeights], *, numerics: str, device: torch.device
    ) -> None:
        super().__init__(model, active, numerics=numerics, device=device)
        self._training = CompiledNetwork(model, backend="aot_eager")


class AuthorsTraining:
    """A training in the authors' way, in float32 or with TF32 convolutions."""

    executed_by = "authors"

    def __init__(
        self, name: WayName, spec: RunSpec, device: torch.device, *, batch_size: int, faded: bool = False
    ) -> None:
        # torchvision is imported only where it is needed.
        from benchmarks.gpu_suite.authors import AuthorsStep

        self.way = name
        self.spec = with_numerics(spec, name.numerics)
        self.model = masked_model(self.spec, device, faded=faded)
        self._step = AuthorsStep(self.model, self.spec)
        self._switches = Switches("ieee" if name.numerics == "fp32" else "tf32", benchmark=True, deterministic=True)

    def require_as_named(self) -> None:
        """There is nothing that it could fall back to."""

    def resume(self) -> None:
        """Set the switches of the process as the authors' code does."""
        self._switches.put()

    def train(self, images: Tensor, labels: Tensor, number: int, lr: float, *, dense_gradients: bool = False) -> Tensor:
        """One step, at the learning rate that the optimizer has."""
        self._step(images, labels)
        return torch.tensor(self._step.loss_sum)


def make_training(
    name: WayName, spec: RunSpec, device: torch.device, *, batch_size: int, faded: bool = False
) -> Training:
    """A training by one of the ways.

    Raises:
        EastError: the engine does not run here.
    """
    kind = AuthorsTraining if name.engine == "authors" else OurTraining
    training: Training = kind(name, spec, device, batch_size=batch_size, faded=faded)
    return training


def random_batch(spec: RunSpec, batch_size: int, device: torch.device, *purpose: int) -> tuple[Tensor, Tensor]:
    """Normally distributed images, and labels."""
    info = DATASETS[spec.dataset.name]
    draw = torch_generator(spec.seed, "cost", *purpose)
    images = torch.randn(batch_size, *info.image_shape, generator=draw)
    labels = torch.randint(info.num_classes, (batch_size,), generator=draw)
    return images.to(device), labels.to(device)


def gradients(training: OurTraining) -> dict[Literal["active weights", "other parameters"], Tensor]:
    """The gradients that the last step left, each kind as one vector in float64, whatever the weights' layout."""
    masked = [
        weights.to_row_major(weights.gradient) for weights in training.active.values() if weights.gradient is not None
    ]
    plain = training.optimizer.plain_gradients()
    return {
        "active weights": _joined(masked),
        "other parameters": _joined([gradient.contiguous() for gradient in plain]),
    }


def _engine(
    name: WayName, model: ResNet, active: Mapping[str, ActiveWeights], device: torch.device, workload: Workload
) -> Engine:
    compiled = name.stepping == "compiled"
    if device.type == "cuda" or (name.engine != "sparse" and not compiled):
        return make_engine(
            name.engine, model, active, numerics=name.numerics, device=device, workload=workload, compiled=compiled
        )
    if name.engine == "dense":
        return _RehearsedCompiling(model, active, numerics=name.numerics, device=device)
    # Not at the top: it imports Triton.
    from east.engine.cuda.engine import CudaSparseEngine

    choose = Cheapest(partial(machine_costs, device, name.numerics), workload, ("fused",))
    return CudaSparseEngine(model, active, numerics=name.numerics, device=device, choose=choose)


def _is_compiled(engine: Engine) -> bool:
    return any(isinstance(part, CompiledNetwork) and part.is_compiled for part in vars(engine).values())


def _step(
    name: WayName,
    engine: Engine,
    optimizer: Optimizer,
    active: Mapping[str, ActiveWeights],
    clip: GradientClip | None,
    device: torch.device,
) -> Step:
    if device.type == "cuda" or name.stepping == "eager":
        return make_step(name.stepping, engine, optimizer, active, clip, device)
    return CapturedStep(TrainingStep(engine, optimizer, active, clip), Repeater(), device)


def _joined(vectors: list[Tensor]) -> Tensor:
    return torch.cat([vector.detach().flatten().double() for vector in vectors])


def masked_model(spec: RunSpec, device: torch.device, *, steps_per_epoch: int = 1, faded: bool = False) -> ResNet:
    """The run's network with its masks of the start, on its device; in a rehearsal one of the same parts, few layers.

    Args:
        spec: the run.
        device: where it goes.
        steps_per_epoch: by which the density of the start goes.
        faded: whether DyReLU is a plain ReLU already.
    """
    # A copy, because drawing weights and masks takes longer than many steps on a GPU.
    model = copy.deepcopy(_masked_model(with_numerics(spec, "fp32"), device.type == "cuda", steps_per_epoch))
    if faded:
        retire_dyrelu(model)
    return model.to(device)


@lru_cache(maxsize=2)
def _masked_model(spec: RunSpec, whole: bool, steps_per_epoch: int) -> ResNet:
    classes = DATASETS[spec.dataset.name].num_classes
    model = initial_model(spec, classes) if whole else _few_layers(spec, classes)
    mask_updater(model, spec, steps_per_epoch).initialise()
    return model


def _few_layers(spec: RunSpec, classes: int) -> ResNet:
    """Triton's interpreter takes tens of milliseconds for a channel of a layer."""
    model = spec.model
    parts = Parts(dct=model.dct, dyrelu=model.activation == "dyrelu")
    blocks = (1, 1) if model.sharing_ratio is None else (model.sharing_ratio + 1,)
    network = ResNet(BASIC, blocks, classes, width=1, parts=parts, sharing_ratio=model.sharing_ratio)
    initialise(network, spec.seed)
    return network
