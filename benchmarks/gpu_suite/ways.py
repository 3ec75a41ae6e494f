"""The ways to execute a training step that are compared on a GPU: ours as the trainer has them, and the authors'."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.gpu_suite.suite import Setting
from benchmarks.machine import cores
from benchmarks.variants import changed, masked_model
from east.config import RunSpec, read_config
from east.config.plan import method_specs
from east.config.vocabulary import ModelName
from east.data.batches import TensorBatches
from east.data.catalog import info_of
from east.errors import EastError
from east.sparse.layers import masked_layers
from east.training.assembly import assemble
from east.training.captured import CapturedStep, StepKind
from east.training.describe import mask_updater

PLAIN, EVERYTHING = "RigL", "EAST Combined"
"""Methods of Table 6: that which adds nothing to RigL, and all components together."""

MODELS: dict[str, ModelName] = {"ResNet-34": "resnet34", "ResNet-50": "resnet50"}
"""How tables call the networks -> their names in the config."""

SMALL_WIDTH, SMALL_DENSITY = 2, 0.25
MOST_WORKERS = 8
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class Way:
    """How a training step is executed: `authors` or an engine, a way of stepping, numerics."""

    engine: str
    stepping: str
    numerics: str

    def __str__(self) -> str:
        return f"{self.engine}, {self.stepping}, {self.numerics}"


AUTHORS = (Way("authors", "eager", "tf32"), Way("authors", "eager", "fp32"))
EAGER = tuple(Way(engine, "eager", numerics) for numerics in ("tf32", "bf16") for engine in ("dense", "sparse"))
CAPTURED = tuple(Way(way.engine, "captured", way.numerics) for way in EAGER)
AUTO = (Way("auto", "captured", "tf32"), Way("auto", "captured", "bf16"))
COMPILED = (Way("dense", "compiled", "tf32"), Way("dense", "compiled", "bf16"))


def spec_of(setting: Setting, model: ModelName, method: str = PLAIN, density: float | None = None) -> RunSpec:
    """A training by a method of Table 6, without a density cycle; in a rehearsal of few channels on small images."""
    spec = method_specs(read_config(), model, "cifar10")[method]
    if setting.small:
        spec = changed(spec, model={"width": SMALL_WIDTH}, dataset={"name": "digits", "validation": 144})
        density = SMALL_DENSITY
    sparsity = {} if density is None else {"density": density}
    return changed(spec, sparsity=sparsity).model_copy(update={"cycle": None})


class OurTraining:
    """A training of ours.

    In a rehearsal on the CPU steps are eager and numbers float32, whatever the way. `double` computes in float64, as a
    reference.
    """

    def __init__(self, way: Way, spec: RunSpec, setting: Setting, *, faded: bool = False, double: bool = False) -> None:
        if setting.where.type == "cpu":
            way = Way(way.engine, "eager", "fp32")
        self._way = way
        self.resume()
        model = copy.deepcopy(_masked_model(spec, faded=faded)).to(setting.where)
        if double:
            model.double()
        own = changed(spec, training={"batch_size": setting.batches[0], "numerics": way.numerics})
        masks = mask_updater(model, own, steps_per_epoch=1)
        kind = cast(StepKind, way.stepping)
        self._made = assemble(own, model, masks, device=setting.where, engine=way.engine, kind=kind)

    def resume(self) -> None:
        """Set the switches of the process as ours are."""
        _set_switches(self._way.numerics, benchmark=False, deterministic=False)

    def train(self, images: Tensor, labels: Tensor, number: int, lr: float) -> Tensor:
        """One step on a batch on the device; `number` counts from 1. Returns the summed loss, 0-d."""
        return self._made.step(images, labels, lr, number, dense_gradients=False)[0]

    def executed_by(self) -> str:
        """The engine that has executed it.

        Raises:
            EastError: not what its way says: the product has fallen back to another, of which it only warns.
        """
        engine, step = self._made.engine, self._made.step
        executed = engine.executed().engine
        if self._way.engine in ("dense", "sparse") and executed != self._way.engine:
            raise EastError(f"the engine fell back to {executed}.")
        if self._way.stepping != "eager" and not (isinstance(step, CapturedStep) and step.recorded):
            raise EastError("no step was recorded: it fell back to eager.")
        compiled = [part.is_compiled for part in vars(engine).values() if hasattr(part, "is_compiled")]
        if self._way.stepping == "compiled" and not any(compiled):
            raise EastError("the network was not compiled.")
        return executed

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that the last step left, each kind as one vector in float64, whatever the weights' layout."""
        active = self._made.active.values()
        kinds = {
            "active weights": [one.to_row_major(one.gradient) for one in active if one.gradient is not None],
            "other parameters": [one.contiguous() for one in self._made.optimizer.plain_gradients()],
        }
        return {kind: torch.cat([one.detach().flatten().double() for one in found]) for kind, found in kinds.items()}


class AuthorsTraining:
    """The authors' way, written from the algorithm: masked dense tensors, weight x mask after every optimizer step.

    The host reads loss and number of correct predictions at every step. cuDNN chooses its algorithms by timing them and
    is held to deterministic ones, as in the authors' code.

    Args as of `OurTraining`; numerics are those of convolutions, float32 or TF32.
    """

    def __init__(self, way: Way, spec: RunSpec, setting: Setting, *, faded: bool = False) -> None:
        self._way = way
        self.model = copy.deepcopy(_masked_model(spec, faded=faded)).to(setting.where)
        recipe = spec.training
        self._clip = recipe.gradient_clip
        self._masks = {layer.weight: layer.mask.float() for layer in masked_layers(self.model).values()}
        # Adam is the optimizer of another recipe; nothing of Table 6 uses it.
        self._optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.lr,
            momentum=recipe.optimizer.momentum,
            nesterov=recipe.optimizer.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.loss_sum, self.correct = 0.0, 0

    def resume(self) -> None:
        """Set the switches of the process as the authors' code does."""
        _set_switches(self._way.numerics, benchmark=True, deterministic=True)

    def train(self, images: Tensor, labels: Tensor, number: int, lr: float) -> Tensor:
        """One step as `OurTraining` takes it, at the learning rate that the optimizer has."""
        self._optimizer.zero_grad()
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip.norm)
        self._optimizer.step()
        with torch.no_grad():
            for weight, mask in self._masks.items():
                weight.mul_(mask)
                self._optimizer.state[weight]["momentum_buffer"].mul_(mask)
        self.loss_sum += loss.item()
        self.correct += int((logits.argmax(1) == labels).sum().item())
        return loss.detach() * len(labels)

    def executed_by(self) -> str:
        """There is nothing that it could fall back to."""
        return "authors"


TimedTraining = OurTraining | AuthorsTraining

_masked_model = lru_cache(maxsize=2)(masked_model)
"""Drawing weights and masks takes longer than many steps on a GPU."""


def make_training(way: Way, spec: RunSpec, setting: Setting, *, faded: bool = False) -> TimedTraining:
    """A training by one of the ways."""
    return (AuthorsTraining if way.engine == "authors" else OurTraining)(way, spec, setting, faded=faded)


def our_batches(spec: RunSpec, count: int, setting: Setting) -> TensorBatches:
    """Batches of random images as the trainer makes them: on the device, augmented there."""
    return TensorBatches(
        *_random_images(spec, count),
        device=setting.where,
        mean=MEAN,
        std=STD,
        batch_size=setting.batches[0],
        margin=spec.dataset.margin,
        padding=spec.dataset.padding,
        flip=spec.dataset.flip,
        seed=spec.seed,
    )


class AuthorsBatches(Dataset[tuple[Tensor, int]]):
    """An epoch of images as the authors batch them: workers crop and mirror them one by one, with torchvision."""

    def __init__(self, spec: RunSpec, count: int, setting: Setting) -> None:
        # torchvision is imported only where it is needed.
        from torchvision import transforms

        pixels, labels = _random_images(spec, count)
        self._pixels, self._labels = pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        crop = transforms.RandomCrop(pixels.shape[2:], padding=spec.dataset.margin, padding_mode="reflect")
        mirror, normalise = transforms.RandomHorizontalFlip(), transforms.Normalize(MEAN, STD)
        self._transform = transforms.Compose([transforms.ToPILImage(), crop, mirror, transforms.ToTensor(), normalise])
        self._device = setting.where
        # A core each; they are kept between epochs, which is kind to the authors' way.
        workers = 1 if setting.small else min(MOST_WORKERS, cores())
        pin = setting.device == "cuda"
        self._loader = DataLoader(
            self, setting.batches[0], shuffle=True, num_workers=workers, pin_memory=pin, persistent_workers=True
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._pixels[index]), self._labels[index]

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, moved to the device one by one."""
        for images, labels in self._loader:
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


def _random_images(spec: RunSpec, count: int) -> tuple[Tensor, Tensor]:
    info = info_of(spec.dataset)
    draw = torch.Generator().manual_seed(spec.seed)
    pixels = torch.randint(256, (count, *info.image_shape), generator=draw, dtype=torch.uint8)
    return pixels, torch.randint(info.num_classes, (count,), generator=draw)


def _set_switches(numerics: str, *, benchmark: bool, deterministic: bool) -> None:
    """What PyTorch keeps for the whole process and ways set differently."""
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = "ieee" if numerics == "fp32" else "tf32"
    cudnn.benchmark, cudnn.deterministic = benchmark, deterministic
