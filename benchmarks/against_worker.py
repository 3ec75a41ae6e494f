"""Times steps of one checkout for `benchmarks.against`, by what old checkouts have as well."""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import torch
import torch.nn.functional as F
from torch import nn

from east.config import load_plan
from east.data.prepare import store_images
from east.data.source import SourceImages
from east.engine import Engine, GradientRequest, make_engine
from east.models import build_model
from east.sparse.active import active_weights
from east.sparse.distribution import erk
from east.sparse.layers import masked_layers
from east.sparse.masks import initialise_masks

BATCH, CLASSES = 128, 100
REPEATED = 3
RUN = "table2/static/seed17"
EAST = [sys.executable, "-c", f"import sys; sys.path.insert(0, {sys.argv[1]!r}); from east.cli import main; main()"]


@cache
def engine_of(density: float) -> tuple[nn.Module, Engine, dict[str, torch.Tensor]]:
    """A ResNet-34 of full width, the sparse engine that executes it, and signs for its sketch."""
    torch.manual_seed(0)
    model = build_model("resnet34", CLASSES, activation="relu", sharing_ratio=None, dct=False, width=64)
    layers = masked_layers(model)
    initialise_masks(layers, erk({name: tuple(layer.weight.shape) for name, layer in layers.items()}, density), seed=3)
    active = active_weights(layers)
    engine = make_engine("sparse", model, active, numerics="fp32", device=torch.device("cpu"))
    signs = {name: torch.randint(2, (1, len(layer.weight))) * 2.0 - 1 for name, layer in layers.items()}
    return model, engine, signs


def seconds(kind: str, density: float, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Of the fastest of a few steps."""
    model, engine, signs = engine_of(density)
    model.train(kind != "evaluation")
    requests = {
        "plain": GradientRequest(),
        "sketch": GradientRequest(signs=signs),
        "exact": GradientRequest(dense=True),
    }
    found = []
    for _ in range(1 if kind == "exact" else REPEATED):
        model.zero_grad()
        started = time.perf_counter()
        if kind == "evaluation":
            engine(images)
        else:
            engine.gradients(images, lambda logits: F.cross_entropy(logits, labels), requests[kind])
        found.append(time.perf_counter() - started)
    return min(found)


def epoch(density: float, threads: str) -> float:
    """Of the first epoch of the paper's static ResNet-34, with evaluations, on random images instead of CIFAR-10."""
    spec = next(run.spec for run in load_plan() if run.id == RUN).model_dump(mode="json")
    spec["sparsity"]["density"] = density
    spec["training"] |= {"epochs": 1, "lr_drop_epochs": []}
    with tempfile.TemporaryDirectory() as folder:
        store_images("cifar10", Path(folder), random_cifar10)
        train = ["train", "--run", json.dumps(spec), "--out", f"{folder}/run", "--data-dir", folder]
        train += ["--device", "cpu", "--threads", threads]
        subprocess.run([*EAST, *train], check=True, stdout=subprocess.DEVNULL)
        (row,) = csv.DictReader(Path(folder, "run", "timing.csv").read_text().splitlines())
    return float(row["seconds"])


def random_cifar10() -> SourceImages:
    """Noise of the shape of CIFAR-10."""

    def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8), torch.randint(10, (count,))

    return SourceImages(*images(50_000), *images(10_000), sources=())


def main() -> None:
    """Answer each line of standard input, a kind and a density, with seconds."""
    os.chdir(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))
    for line in sys.stdin:
        kind, density = json.loads(line)
        found = epoch(density, sys.argv[2]) if kind == "epoch" else seconds(kind, density, images, labels)
        print(found, flush=True)


if __name__ == "__main__":
    main()
