"""A few steps each of trainings that together use everything the compiled kernels do, recorded on a tape."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from east.config import RunSpec
from east.models.dyrelu import retire_dyrelu, set_beta
from east.training.assembly import assemble, initial_model
from east.training.describe import mask_updater
from tests.arm64.tape import Recorder
from tests.unit.test_training_loop import changed

CLASSES = 10


@dataclass(frozen=True)
class Training:
    """A training on random images.

    Args:
        name: for people.
        sections: in what its spec differs from the test's run.
        betas: of the DyReLUs, step by step; at 0 they are retired.
        size: height and width of images.
        batch: images of a step: the last group of 32 is partly empty.
    """

    name: str
    sections: dict
    betas: tuple[float, ...]
    size: tuple[int, int]
    batch: int


TRAININGS = (
    Training(
        "ResNet-34 with DyReLU and sharing, sketched clip",
        {
            "model": {"width": 4, "activation": "dyrelu", "sharing_ratio": 2},
            "sparsity": {"density": 0.05, "update_period": 1},
            "training": {"gradient_clip": {"norm": 0.1, "scope": "dense", "estimator": "sketch", "probes": 2}},
        },
        betas=(1.0, 0.5, 0.0),
        size=(8, 8),
        batch=40,
    ),
    Training(
        "ResNet-50 with Adam, exact clip",
        {
            "model": {"name": "resnet50", "width": 4},
            "sparsity": {"density": 0.02, "update_period": 1},
            "training": {
                "gradient_clip": {"norm": 0.1, "scope": "dense", "estimator": "exact"},
                "optimizer": {"name": "adam"},
                "lr": 0.003,
            },
        },
        betas=(0.0,) * 3,
        size=(8, 8),
        batch=33,
    ),
    Training(
        "ResNet-50 for large images, no clip",
        {
            "model": {"name": "resnet50_imagenet", "width": 4},
            "sparsity": {"density": 0.1, "update_period": 1},
            "training": {"gradient_clip": None},
        },
        betas=(0.0,) * 2,
        size=(33, 35),
        batch=5,
    ),
    Training(
        "ResNet-50 for large images with DyReLU in bfloat16, sketched clip",
        {
            "model": {"name": "resnet50_imagenet", "width": 4, "activation": "dyrelu"},
            "sparsity": {"density": 0.1, "update_period": 1},
            "training": {
                "gradient_clip": {"norm": 0.1, "scope": "dense", "estimator": "sketch"},
                "numerics": "bf16",
            },
        },
        betas=(1.0, 0.5),
        size=(33, 35),
        batch=5,
    ),
)


def record(path: Path, spec: RunSpec) -> Recorder:
    """Record all trainings on a tape.

    Args:
        path: of the tape.
        spec: any run of the test plan, from which those of the trainings follow.
    """
    with path.open("wb") as file:
        recorder = Recorder(file)
        for training in TRAININGS:
            _record(recorder, training, spec)
    return recorder


def _record(recorder: Recorder, training: Training, plan: RunSpec) -> None:
    """Steps with an update of the masks after each but the first, and an evaluation after the last."""
    spec = changed(plan, cycle=None, **training.sections)
    random = torch.Generator().manual_seed(17)
    images = torch.randn(len(training.betas) + 1, training.batch, 3, *training.size, generator=random)
    labels = torch.randint(CLASSES, images.shape[:2], generator=random)
    model = initial_model(spec, CLASSES)
    sparsity = mask_updater(model, spec, steps_per_epoch=20)
    sparsity.initialise()
    with recorder.recording():
        parts = assemble(spec, model, sparsity, device=torch.device("cpu"), engine="sparse", kind="eager")
        for number, beta in zip(count(1), training.betas, strict=False):
            recorder.begin(f"{training.name}, step {number}")
            if beta:
                set_beta(model, beta)
            elif removed := retire_dyrelu(model):
                parts.optimizer.remove(removed)
                parts.step.phase_changed()
            dense = number > 1
            parts.step(images[number - 1], labels[number - 1], spec.training.lr, number, dense_gradients=dense)
            if dense and sparsity.update(number) is not None:
                parts.step.masks_changed()
            recorder.compare_everything()
        recorder.begin(f"{training.name}, evaluation")
        model.eval()
        with torch.inference_mode():
            parts.engine(images[-1])
        recorder.compare_everything()
