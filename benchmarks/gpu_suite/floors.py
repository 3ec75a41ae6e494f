"""What a training step must compute and move, counted; with rates, the least time it can take."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from benchmarks.floor import FLOAT_BYTES, bytes_per_step
from benchmarks.gpu_suite.findings import EngineOrAuthors, Work
from benchmarks.gpu_suite.traffic import bytes_moved, step_launches
from east.config.run import ClipSpec, Numerics, RunSpec
from east.cost.flops import layer_work, training_flops
from east.data.catalog import DATASETS
from east.engine.cpu.network import Activation, Network, Unit, describe
from east.models import ResNet
from east.training.assembly import initial_model
from east.training.describe import mask_updater, network_shape

STORED: dict[Numerics, torch.dtype] = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
"""The type in which activations are stored."""


@dataclass(frozen=True)
class Floor:
    """Seconds that a step takes at the least, for two reasons.

    Args:
        arithmetic: operations over the rate of matrix products; 0 for the sparse engine, whose few operations no rate
            of matrix products bounds.
        memory: bytes over the rate of a copy.
        kernels: bytes that our kernels move over the same rate; 0 where PyTorch's work.
    """

    arithmetic: float
    memory: float
    kernels: float


def count_work(label: str, spec: RunSpec, batch: int) -> Work:
    """Count the step of a network without DyReLU and DCT, with the masks of the start of a training."""
    image_shape = DATASETS[spec.dataset.name].image_shape
    model = masked_model(spec)
    return Work(
        network=label,
        batch=batch,
        density=spec.sparsity.density,
        flops=batch * training_flops(layer_work(network_shape(spec), image_shape)),
        dense_numbers=batch * dense_numbers(describe(model, image_shape)),
        least_numbers=bytes_per_step(model, image_shape, batch) / FLOAT_BYTES,
        sparse_bytes=sparse_bytes(model, image_shape, batch, spec.training.gradient_clip),
    )


@lru_cache(maxsize=2)
def masked_model(spec: RunSpec) -> ResNet:
    """The run's network with its masks of the start; it is not to be changed."""
    model = initial_model(spec, DATASETS[spec.dataset.name].num_classes)
    mask_updater(model, spec, 1).initialise()
    return model


def dense_numbers(network: Network) -> int:
    """Numbers of activations and of gradients at them that a dense training step moves for one image: all `passes`."""
    return sum(one.numbers for unit in network.units for one in passes(unit, network))


@dataclass(frozen=True)
class DensePass:
    """One kernel, or what can be fused into one, on a unit: for one image.

    Args:
        name: what it is.
        numbers: of activations and gradients at them, read and written.
        products: multiplications with weights.
    """

    name: str
    numbers: int
    products: int = 0


def passes(unit: Unit, network: Network) -> list[DensePass]:
    """What a dense training step does to a unit.

    Every convolution and both its gradients read and write memory, as library kernels do; all that comes between two
    convolutions is taken to be fused into as few passes as batch norm allows, which needs statistics of a whole
    channel in either direction. With x the input and z the output of a convolution, y the activation behind it, and
    r the residual, the terms are:

    - forward: read x, write z; read z for the statistics; read z and r, write y;
    - backward: read the gradient at y and z for the sums; read both again, write the gradient at z, and that at r,
      which is read once more where it is added;
    - convolution's gradients: read the gradient at z, write that at x (not at the images); read x and the gradient at
      z for the weights.

    Weights are left out: they are a few percent of this.
    """
    x, z = _numbers(unit.x), _numbers(unit.y)
    r = 0 if unit.residual is None else _numbers(unit.residual)
    products = unit.conv.weight.numel() * unit.y.height * unit.y.width
    at_input = [] if unit.x is network.images else [DensePass("convolution, gradient at the input", z + x, products)]
    return [
        DensePass("convolution, forward", x + z, products),
        DensePass("batch norm, residual and ReLU, forward", 3 * z + r),
        DensePass("batch norm, residual and ReLU, backward", 5 * z + 2 * r),
        *at_input,
        DensePass("convolution, gradient of the weights", x + z, products),
    ]


def sparse_bytes(
    model: ResNet, image_shape: tuple[int, int, int], batch: int, clip: ClipSpec | None
) -> dict[Numerics, float]:
    """Bytes that the kernels of the sparse engine on CUDA move in a step, the clip's estimate of its norm included."""
    probes = clip.probes if clip is not None and clip.scope == "dense" and clip.estimator == "sketch" else 0
    return {
        numerics: bytes_moved(step_launches(model, image_shape, batch, STORED[numerics], probes=probes))
        for numerics in STORED
    }


def floor(work: Work, engine: EngineOrAuthors, numerics: Numerics, rates: Mapping[str, float]) -> Floor:
    """The floor of a way, at measured or given rates.

    Args:
        work: what is to be done.
        engine: `dense` executes every weight, as do the authors; `sparse` the non-zeros alone.
        numerics: the type of products and of stored activations.
        rates: `copy` in bytes a second; `bf16`, `tf32` and `fp32` in operations a second.
    """
    if engine == "sparse":
        least = work.least_numbers * STORED[numerics].itemsize / rates["copy"]
        return Floor(0.0, least, work.sparse_bytes[numerics] / rates["copy"])
    return Floor(work.flops / rates[numerics], work.dense_numbers * STORED[numerics].itemsize / rates["copy"], 0.0)


def _numbers(activation: Activation) -> int:
    return activation.channels * activation.height * activation.width
