"""Classifies images by a trained network, which is executed sparsely where the engine of the CPU can."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from east.cells import guarded
from east.data.manifest import preparing
from east.engine import Engine, make_engine
from east.errors import EastError
from east.sparse.active import active_weights
from east.sparse.layers import masked_layers
from east.trained.load import TrainedNetwork

BATCH = 128
"""Images that are read before they are classified."""


@dataclass(frozen=True)
class Prediction:
    """The class that an image most likely shows.

    Attributes:
        file: the image.
        label: name of the class.
        probability: that of the class by the network's softmax, in [0, 1].
    """

    file: Path
    label: str
    probability: float


def engine_for(network: TrainedNetwork, engine: str = "auto") -> Engine:
    """What executes a trained network on the CPU: `auto` the non-zeros alone, where the network and the machine allow.

    Raises:
        EastError: there is no such engine, or it does not execute this network.
    """
    return make_engine(
        engine,
        network.network,
        active_weights(masked_layers(network.network)),
        numerics=network.run.training.numerics,
        device=torch.device("cpu"),
    )


def predict(network: TrainedNetwork, files: Sequence[Path], engine: Engine) -> Iterator[Prediction]:
    """Classify images, in their order.

    Args:
        network: what was trained.
        files: images; each is scaled to the size of those that the network was trained on.
        engine: see `engine_for`.

    Raises:
        EastError: nothing says how images are shown to the network, the network has diverged, or a file is no image.
    """
    if network.images is None:
        raise EastError(
            "nothing says how images are shown to the network, as its data set is not prepared here: "
            f"{preparing(network.run.dataset)}."
        )
    if network.summary.status == "diverged":
        raise EastError("the run has diverged, so its network tells nothing apart.")
    for first in range(0, len(files), BATCH):
        some = files[first : first + BATCH]
        pixels = torch.stack([network.images.pixels(path) for path in some])
        with torch.inference_mode():
            shares = engine(network.images.normalized(pixels)).double().softmax(1)
        highest, labels = shares.max(1)
        for path, probability, label in zip(some, highest.tolist(), labels.tolist(), strict=True):
            yield Prediction(path, network.classes[label], probability)


def predictions_csv(predictions: Sequence[Prediction], folder: Path) -> str:
    """A row an image: its path from the folder on, class and probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class", "probability"])
    for one in predictions:
        writer.writerow([guarded(one.file.relative_to(folder).as_posix()), guarded(one.label), repr(one.probability)])
    return text.getvalue()
