"""Both sparse engines beside the dense one, on networks and batches of a size that suits each, and how they compare.

Without a GPU, Triton's interpreter executes the kernels of the engine for GPUs, one block after the other: its networks
are tiny.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from east.engine import CrossEntropy, GradientRequest
from east.engine.cpu.cost import cheapest
from east.engine.cpu.engine import CPU_EVALUATION_BATCH, CpuEngine
from east.engine.cuda.engine import GPU_EVALUATION_BATCH, CudaEngine
from east.engine.dense import DenseEngine
from east.models import build_model
from east.models.described import Parts
from east.models.dyrelu import retire_dyrelu, set_beta
from east.models.networks import BASIC, BOTTLENECK
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import masked_layers
from east.sparse.masks import Allocation, initialise_masks
from tests.unit.residual_networks import residual_network
from tests.unit.small_networks import small_network

CPU = torch.device("cpu")
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def executing(execution):
    """Every layer in this way."""
    return lambda network, nonzeros: dict.fromkeys(nonzeros, execution)


def cpu_mixed(network, nonzeros):
    """Each unit reads what another kind of execution has written."""
    return {name: ("fused", "rows")[number // 2 % 2] for number, name in enumerate(nonzeros)}


def fused(network, nonzeros):
    """Kernels execute what has no dense part."""
    return {unit.layer: "fused" if unit.dct is None else "dense" for unit in network.units}


def gpu_mixed(network, nonzeros):
    """Every other convolution is executed by PyTorch."""
    return {unit.layer: ("dense", "fused")[number % 2] for number, unit in enumerate(network.units)}  # but identities


CPU_SIZE, GPU_SIZE = 12, 4


def _cpu_model(name="resnet34", width=8, small=None, **parts):
    if small is not None:
        return small_network(small, width=width, size=CPU_SIZE, **parts)
    return build_model(name, 10, width=width, **parts)


def _gpu_model(design=BASIC, blocks=(1,), width=2, *, small=None, dyrelu=False, dct=False, **parts):
    if small is not None:
        return small_network(small, width=width, size=GPU_SIZE, dyrelu=dyrelu, dct=dct, **parts)
    return residual_network(design, blocks, 10, width=width, parts=Parts(dct=dct, dyrelu=dyrelu), **parts)


def _cpu_engine(model, choose=cheapest, capacities=None):
    return CpuEngine(model, active_weights(masked_layers(model), capacities), device=CPU, choose=choose)


def _gpu_engine(model, choose=fused, capacities=None, numerics="fp32"):
    active = active_weights(masked_layers(model), capacities)
    return CudaEngine(model, active, numerics=numerics, device=GPU, choose=choose)


@dataclass(frozen=True)
class Kind:
    """A sparse engine, with networks and batches for it.

    Attributes:
        name: in the names of tests.
        device: where it runs.
        sparse: from a network, and how each layer is executed, to the engine.
        model: from the keys of a network to one.
        networks: name -> the keys of every kind of network that it executes.
        executions: name -> a choice of how layers are executed, whatever it is chosen by otherwise.
        density: of a network, if not said otherwise.
        images, size: of a batch.
        evaluation: images at once when nothing is learnt.
        requests: what is asked for, step by step, where both engines are compared.
    """

    name: str
    device: torch.device
    sparse: Callable
    model: Callable
    networks: dict
    executions: dict
    density: float
    images: int
    size: int
    evaluation: int
    requests: tuple

    def __str__(self):
        return self.name

    def network(self, density=None, dtype=torch.float64, beta=1.0, **keys):
        """A sparse network whose batch norms differ from channel to channel."""
        torch.manual_seed(0)
        model = self.model(**keys)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
        draw_masks(model, density or self.density)
        set_beta(model, beta)
        if beta == 0:
            retire_dyrelu(model)
        return model.to(self.device, dtype)

    def dense(self, model):
        return DenseEngine(model, active_weights(masked_layers(model)), numerics="fp32", device=self.device)

    def both(self, model, choose=None, capacities=None):
        """The sparse and the dense engine, on networks of their own that are alike."""
        chosen = {} if choose is None else {"choose": choose}
        return self.sparse(copy.deepcopy(model), capacities=capacities, **chosen), self.dense(model)

    def batch(self, images=None, size=None, dtype=torch.float64, number=0):
        draw = generator(0, "batch", number)
        count, side = images or self.images, size or self.size
        drawn = torch.randn(count, 3, side, side, generator=draw).to(self.device, dtype)
        return drawn, torch.randint(10, (count,), generator=draw).to(self.device)

    def check(self, model, choose=None, size=None):
        """Compare both engines for every request, and in evaluation after it."""
        sparse, dense = self.both(model, choose)
        for number, asked in enumerate(self.requests):
            request = {"dense": "dense" in asked, "signs": signs_for(sparse) if "signs" in asked else None}
            inputs = self.batch(size=size, number=number)
            agree(gradients(sparse, *inputs, **request), gradients(dense, *inputs, **request))
        evaluate_both(sparse, dense, inputs[0])


ON_CPU = Kind(
    name="cpu",
    device=CPU,
    sparse=_cpu_engine,
    model=_cpu_model,
    networks={
        "resnet34": {},
        "resnet50": {"name": "resnet50"},
        "max-pool": {"name": "resnet50_imagenet"},
        "sharing": {"sharing_ratio": 2},
        "DyReLU": {"activation": "dyrelu"},
        "fading DyReLU": {"activation": "dyrelu", "beta": 0.3},
        "retired DyReLU": {"activation": "dyrelu", "beta": 0.0},
        "combined": {"name": "resnet50", "activation": "dyrelu", "sharing_ratio": 2},
        "pools": {"small": "pools"},
        "pre-activation": {"small": "pre-activation", "sharing_ratio": 2},
        "perceptron": {"small": "perceptron", "sharing_ratio": 2, "dyrelu": True},
        "crowded": {"small": "crowded", "dyrelu": True},
        "crowded, ReLU": {"small": "crowded"},
    },
    executions={"fused": executing("fused"), "rows": executing("rows"), "mixed": cpu_mixed},
    density=0.02,
    images=5,
    size=CPU_SIZE,
    evaluation=CPU_EVALUATION_BATCH,
    requests=((), ("signs",), ("dense", "signs")),
)

ON_GPU = Kind(
    name="gpu",
    device=GPU,
    sparse=_gpu_engine,
    model=_gpu_model,
    networks={
        "basic": {"blocks": (1, 1)},
        "bottleneck": {"design": BOTTLENECK, "width": 1, "blocks": (1, 1)},
        "max-pool": {"max_pool": True, "stem_kernel": 7, "stem_stride": 2},
        "sharing": {"blocks": (3,), "sharing_ratio": 1},
        "DyReLU": {"dyrelu": True},
        "fading DyReLU": {"dyrelu": True, "beta": 0.3, "max_pool": True},
        "retired DyReLU": {"dyrelu": True, "beta": 0.0},
        "DCT": {"dct": True, "blocks": (1, 1)},
        "combined": {"design": BOTTLENECK, "width": 1, "blocks": (3,), "dyrelu": True, "sharing_ratio": 2, "dct": True},
        "pools": {"small": "pools"},
        "pre-activation": {"small": "pre-activation", "sharing_ratio": 2},
        "perceptron": {"small": "perceptron", "sharing_ratio": 2, "dct": True},
        "crowded": {"small": "crowded", "dyrelu": True},
    },
    executions={"mixed": gpu_mixed},
    density=0.1,
    images=3,
    size=GPU_SIZE,
    evaluation=GPU_EVALUATION_BATCH,
    requests=(("dense", "signs"),),
)


def draw_masks(model, density, seed=1):
    layers = masked_layers(model)
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    allocation = Allocation(shapes, "erk", sum(layer.weight.numel() for layer in layers.values()))
    initialise_masks(layers, allocation.counts(density), seed)
    return layers


def draw_weights(model, density, seed=1):
    """Random masks, and new values for all weights that they leave on."""
    with torch.no_grad():
        for name, layer in draw_masks(model, density, seed).items():
            drawn = torch.randn(layer.weight.shape, generator=generator(seed, name))
            layer.weight.copy_(drawn.to(layer.weight) * layer.mask)


def change_masks(engine, density, seed=1):
    """Random masks and values, which the engine follows."""
    draw_weights(engine.model, density, seed)
    for weights in engine.active.values():
        weights.read()
    engine.masks_changed()


def signs_for(engine, probes=2):
    return {
        name: (
            2.0 * torch.randint(2, (probes, len(weights.layer.weight)), generator=generator(0, "signs", name)) - 1
        ).to(weights.layer.weight.device)
        for name, weights in engine.active.items()
    }


def gradients(engine, images, labels, *, dense=False, signs=None):
    """One pass of an engine: what it returns, and everything that it leaves, by name."""
    engine.model.zero_grad()
    found = engine.gradients(images, CrossEntropy(labels), GradientRequest(dense, signs))
    left = {"loss": found.loss, "logits": found.logits}
    if signs is not None:
        left["squared norms"] = found.squared_norms
    for name, weights in engine.active.items():
        assert not weights.gradient[weights.count :].any()
        left[f"{name}, active"] = weights.to_row_major(weights.gradient)
        if dense:
            left[f"{name}, dense"] = weights.layer.weight.grad
    masked = {f"{name}.weight" for name in engine.active}
    left |= {name: parameter.grad for name, parameter in engine.model.named_parameters() if name not in masked}
    left |= {name: buffer for name, buffer in engine.model.named_buffers() if "running" in name or "tracked" in name}
    return {name: tensor.clone() for name, tensor in left.items()}


def without_statistics(found):
    """All but what depends on the steps before."""
    return {name: tensor for name, tensor in found.items() if "running" not in name and "tracked" not in name}


def agree(found, expected, tolerance=1e-9):
    """Compare tensors by name; gradients that are nothing but rounding are compared on the scale of the largest one."""
    assert found.keys() == expected.keys()
    largest = max(float(tensor.abs().max()) for tensor in expected.values() if tensor.numel())
    for name, tensor in expected.items():
        scale = float(tensor.abs().max()) if tensor.numel() else 0.0
        bound = tolerance * scale + 1e-4 * tolerance * largest
        assert found[name].shape == tensor.shape
        error = float((found[name] - tensor).abs().max()) if tensor.numel() else 0.0
        assert error <= bound, f"{name}: {error:.2g}, allowed {bound:.2g}, largest {scale:.2g}"


def evaluate_both(sparse, dense, images):
    for engine in (sparse, dense):
        engine.model.eval()
    with torch.inference_mode():
        agree({"logits": sparse(images)}, {"logits": dense(images)})
    for engine in (sparse, dense):
        engine.model.train()
