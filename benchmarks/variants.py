"""The networks whose training step is timed, and the ways to execute it, each bound to one batch of random images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.sgd import sgd

from east.config import RunSpec, load_plan
from east.cost.measure import make_training_step, one_batch, with_batch_size
from east.data.catalog import info_of
from east.engine.arithmetic import PyTorchArithmetic
from east.engine.dense import sum_squared_norms
from east.models import DescribedNetwork
from east.models.build import own_width
from east.models.dyrelu import retire_dyrelu
from east.seeding import torch_generator
from east.sparse.kinds import network
from east.sparse.layers import masked_layers
from east.training.assembly import initial_model
from east.training.describe import mask_updater
from east.training.optimizer import make_optimizer
from east.training.step import TrainingStep

CPU = torch.device("cpu")

VariantName = Literal["sparse", "sparse-bf16", "dense", "pytorch", "pytorch-channels-last", "pytorch-bf16", "peer"]
"""A way to execute a training step: a function below."""

DENSE_VARIANTS: tuple[VariantName, ...] = ("pytorch", "pytorch-channels-last", "pytorch-bf16", "dense", "peer")
"""Those whose time does not depend on the density."""

PAPERS = ("resnet34", "resnet50")

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

    @property
    def in_bfloat16(self) -> "TimedNetwork":
        """The same with activations in bfloat16."""
        return replace(self, spec=changed(self.spec, training={"numerics": "bf16"}))

    def at(self, density: float) -> RunSpec:
        """Its training at a density."""
        return changed(self.spec, sparsity={"density": density}).model_copy(update={"cycle": None})


def timed_networks(*, short: bool = False) -> dict[str, TimedNetwork]:
    """The networks by name: plain RigL as in Tables 2 and 4, and EAST's, at its density alone.

    Short ones are narrow and take images of 12 x 12: they show that everything runs, not how fast.
    """
    static = {run.table: run.spec for run in load_plan() if run.row == "static"}
    resnet34, resnet50 = static["table2"], static["table4"]
    if short:
        small: dict[str, dict[str, Any]] = {"model": {"width": SHORT_WIDTH}, "dataset": {"name": "digits"}}
        resnet34, resnet50 = changed(resnet34, **small), changed(resnet50, **small)
    east = changed(resnet34, model={"activation": "dyrelu", "sharing_ratio": 2})
    paper = resnet34.sparsity.density
    return {
        "resnet34": TimedNetwork("ResNet-34", resnet34),
        "resnet50": TimedNetwork("ResNet-50", resnet50),
        "east-dyrelu": TimedNetwork("EAST's ResNet-34, DyReLU active (β = 1)", east, False, ("dense",), paper, True),
        "east-relu": TimedNetwork("EAST's ResNet-34, DyReLU faded into ReLU", east, True, ("dense",), paper, True),
    }


def other_networks(*, short: bool = False) -> dict[str, TimedNetwork]:
    """The registered networks that are not the paper's, by name, of their own width and with the recipe of Table 2."""
    like = timed_networks(short=short)["resnet34"].spec
    found = {}
    for entry in network:
        if entry.name not in PAPERS:
            width = own_width(entry)
            own = {"name": entry.name, "width": width and min(width, SHORT_WIDTH if short else width)}
            found[entry.name] = TimedNetwork(entry.facts.label, changed(like, model=own))
    return found


def changed(spec: RunSpec, **parts: Mapping[str, Any]) -> RunSpec:
    """The run with some fields of some of its parts replaced."""
    return spec.model_copy(update={name: getattr(spec, name).model_copy(update=new) for name, new in parts.items()})


NumberedStep = Callable[[int], object]
"""Does something once; takes the number of the training step, counted from 1."""


@dataclass(frozen=True)
class DenseStep:
    """A training step that executes every weight, whatever the density.

    Attributes:
        model: the network that it trains.
        step: forward, loss, backward, optimizer and, where there are masks, masking.
        clip: what the clip adds to it. The gradients are in place after the step, so it is run and timed by itself,
            and the step with the clip takes the sum of both. None where the variant has no clip.
    """

    model: nn.Module
    step: NumberedStep
    clip: NumberedStep | None

    def __call__(self, number: int) -> None:
        """The step and its clip."""
        self.step(number)
        if self.clip is not None:
            self.clip(number)


class SparseSteps:
    """The training step of the sparse engine at one density after the other, in the same memory.

    Attributes:
        model: the network that they train, with the masks of the density in use.
        plain: the step without the clip.
        clipped: the step with the run's clip.
    """

    def __init__(self, network: TimedNetwork, densities: Sequence[float], batch_size: int) -> None:
        self._states = {
            density: masked_model(network.at(density), faded=network.faded).state_dict() for density in densities
        }
        step, batch, lr = _training_step(network, densities[0], "sparse", batch_size)
        self.model = _model_of(step)
        self._step = step
        self.clipped: NumberedStep = partial(step, *batch, lr, dense_gradients=False)
        self.plain: NumberedStep = partial(replace(step, clip=None), *batch, lr, dense_gradients=False)

    def use(self, density: float) -> None:
        """Take the weights and masks of the beginning of a training at this density."""
        self.model.load_state_dict(self._states[density])
        self._step.masks_changed()


def masked_dense(network: TimedNetwork, density: float, batch_size: int) -> DenseStep:
    """Our dense engine: PyTorch's convolutions on weights that stay zero off the mask, optimizer on the active ones."""
    step, batch, lr = _training_step(network, density, "dense", batch_size)
    clip = step.clip

    def clip_alone(number: int) -> None:
        if clip is None:
            return
        request = clip.request(number, dense=False)
        gradients = {name: weights.layer.weight.grad for name, weights in step.active.items()}
        found = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        squared_norms = None if request.signs is None else sum_squared_norms(found, request.signs)
        clip.apply(number, step.optimizer.plain_gradients(), squared_norms)

    plain = partial(replace(step, clip=None), *batch, lr, dense_gradients=False)
    return DenseStep(_model_of(step), plain, None if clip is None else clip_alone)


def pytorch(
    network: TimedNetwork, density: float, batch_size: int, *, channels_last: bool, bfloat16: bool = False
) -> DenseStep:
    """PyTorch alone: all weights on, no masks, fused SGD over dense tensors, and its own clip by the exact norm.

    In bfloat16 by its autocast, which takes a processor's matrix units where it has any.
    """
    spec = network.at(density)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = initial_network(spec, faded=network.faded).to(memory_format=layout)  # type: ignore[call-overload]
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters, {}, spec.training, PyTorchArithmetic())
    images, labels = _measured_batch(spec, batch_size)
    images = images.contiguous(memory_format=layout)

    def step(number: int) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(spec.training.lr)

    clip = spec.training.gradient_clip
    return DenseStep(model, step, None if clip is None else lambda number: clip_grad_norm_(parameters, clip.norm))


def peer(network: TimedNetwork, density: float, batch_size: int) -> DenseStep:
    """Dense tensors times masks, as rigl-torch and In-Time Over-Parameterization do; no clip.

    Gradients are multiplied by float masks before a dense SGD step, momentum and weights after it, so that the next
    forward pass finds weights that are zero off the mask. Like theirs, SGD goes tensor by tensor.
    """
    spec = network.at(density)
    model = masked_model(spec, faded=network.faded)
    parameters: list[Tensor] = list(model.parameters())
    momenta: list[Tensor | None] = [torch.zeros_like(parameter) for parameter in parameters]
    masks: dict[Tensor, Tensor] = {layer.weight: layer.mask.float() for layer in masked_layers(model).values()}
    images, labels = _measured_batch(spec, batch_size)
    recipe = spec.training

    def step(number: int) -> None:
        for parameter in parameters:
            parameter.grad = None
        F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter, mask in masks.items():
                cast(Tensor, parameter.grad).mul_(mask)
            sgd(
                parameters,
                [cast(Tensor, parameter.grad) for parameter in parameters],
                momenta,
                foreach=False,
                weight_decay=recipe.weight_decay,
                momentum=recipe.optimizer.momentum,
                lr=recipe.lr,
                dampening=0.0,
                nesterov=recipe.optimizer.nesterov,
                maximize=False,
            )
            for parameter, momentum in zip(parameters, momenta, strict=True):
                if parameter in masks:
                    parameter.mul_(masks[parameter])
                    cast(Tensor, momentum).mul_(masks[parameter])

    return DenseStep(model, step, None)


MAKE_DENSE: dict[VariantName, Callable[[TimedNetwork, float, int], DenseStep]] = {
    "dense": masked_dense,
    "pytorch": partial(pytorch, channels_last=False),
    "pytorch-channels-last": partial(pytorch, channels_last=True),
    "pytorch-bf16": partial(pytorch, channels_last=True, bfloat16=True),
    "peer": peer,
}
"""The dense variants by name."""


def make_variant(network: TimedNetwork, variant: VariantName, density: float, batch_size: int) -> NumberedStep:
    """The step of a variant by itself, with its clip where it has one."""
    if variant in ("sparse", "sparse-bf16"):
        network = network if variant == "sparse" else network.in_bfloat16
        step, batch, lr = _training_step(network, density, "sparse", batch_size)
        return partial(step, *batch, lr, dense_gradients=False)
    return MAKE_DENSE[variant](network, density, batch_size)


def _training_step(
    network: TimedNetwork, density: float, engine: str, batch_size: int
) -> tuple[TrainingStep, tuple[Tensor, Tensor], float]:
    """The product's own step, its batch and its learning rate."""
    bound = make_training_step(
        network.at(density), batch_size=batch_size, device=CPU, engine=engine, faded=network.faded
    )
    step = cast("partial[object]", bound)
    images, labels, lr = step.args
    return cast(TrainingStep, step.func), (images, labels), lr


def _model_of(step: TrainingStep) -> nn.Module:
    """The network of one of our engines, each of which keeps it as `model`."""
    return cast(DescribedNetwork, step.engine.model)  # type: ignore[attr-defined]


def initial_network(spec: RunSpec, *, faded: bool = False) -> nn.Module:
    """The run's network, all weights on; `faded` makes DyReLU a plain ReLU."""
    model = initial_model(spec, info_of(spec.dataset).num_classes)
    if faded:
        retire_dyrelu(model)
    return model


def masked_model(spec: RunSpec, *, faded: bool = False) -> nn.Module:
    """The run's network with its masks of the start."""
    model = initial_network(spec, faded=faded)
    mask_updater(model, spec, steps_per_epoch=1).initialise()
    return model


def _measured_batch(spec: RunSpec, batch_size: int) -> tuple[Tensor, Tensor]:
    """The batch of the product's own measured step."""
    return next(iter(one_batch(with_batch_size(spec, batch_size), CPU).train.epoch(1)))


def random_batch(
    spec: RunSpec, batch_size: int, device: torch.device, purpose: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """Normally distributed images, and labels, drawn for a purpose of one's own."""
    info = info_of(spec.dataset)
    draw = torch_generator(spec.seed, "cost", *purpose)
    images = torch.randn(batch_size, *info.image_shape, generator=draw)
    return images.to(device), torch.randint(info.num_classes, (batch_size,), generator=draw).to(device)
