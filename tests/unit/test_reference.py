"""The sparse engine equals, to the last bit, the second implementation of docs/arithmetic.md."""

import ast
import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from east.config.run import ClipSpec, OptimizerSpec, TrainingSpec
from east.engine.arithmetic import PyTorchArithmetic
from east.engine.base import CrossEntropy, GradientRequest
from east.engine.cpu.engine import CpuEngine
from east.models.described import Parts
from east.models.dyrelu import set_beta
from east.models.networks import BASIC, BOTTLENECK, Design
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import apply_masks, masked_layers
from east.training.clip import GradientClip
from east.training.optimizer import make_optimizer
from east.training.step import TrainingStep
from tests import reference
from tests.reference import sums
from tests.reference.network import evaluate, train
from tests.reference.training import Recipe, Training
from tests.unit.reference_networks import as_reference
from tests.unit.residual_networks import residual_network
from tests.unit.sparse_engines import CPU, ON_CPU

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = 7
LR = 0.1
STEPS = (1, 2)
PARTS = ("gradients", "nonzeros", "dense", "statistics")
IMAGENET_STEM = {"stem_kernel": 7, "stem_stride": 2, "max_pool": True}


@dataclass(frozen=True)
class Case:
    """A network, a batch, and a recipe.

    In steep images each row is larger than the one above, so that sums of segments round in double.
    Spoilt ones have a NaN among them, and the network a channel of many non-zeros that nothing reads.
    """

    name: str
    batch: int
    size: tuple[int, int]
    over: str = "sketch"
    optimizer: str = "sgd"
    nesterov: bool = False
    limit: float = 1.0
    design: Design = BASIC
    blocks: tuple[int, ...] = (1, 1)
    width: int = 4
    dyrelu: bool = False
    beta: float = 1.0
    sharing: int | None = None
    imagenet_stem: bool = False
    numerics: str = "fp32"
    steep: bool = False
    spoilt: bool = False


SEGMENTED = Case("partial segments", 40, (12, 12), nesterov=True, width=3, blocks=(1,))
SHARED = Case("shared dynamic", 5, (8, 8), over="all", blocks=(1, 3), dyrelu=True, sharing=2)
BOTTLENECKS = Case("bottleneck", 33, (6, 6), design=BOTTLENECK, width=3, nesterov=True)
WIDER = Case("wider", 5, (4, 4), blocks=(1,), width=5)
STEEP = Case("steep", 3, (5, 65), width=2, blocks=(1,), steep=True)
CASES = [
    STEEP,
    Case("one segment", 5, (8, 8), over="all", nesterov=True),
    Case("two groups", 33, (8, 8), optimizer="adam"),
    Case("decoupled decay", 3, (5, 4), optimizer="adamw", width=3, blocks=(1,)),
    SEGMENTED,
    Case("odd sizes", 33, (9, 7), over="nonzeros", limit=1e6),
    Case("rows longer than a segment", 3, (2, 67), over="all"),
    SHARED,
    Case("shared fading", 40, (6, 5), optimizer="adam", blocks=(3,), dyrelu=True, sharing=2, beta=0.37),
    BOTTLENECKS,
    Case("max-pool", 5, (17, 13), over="all", design=BOTTLENECK, width=2, imagenet_stem=True, dyrelu=True),
    Case("wide", 2, (4, 4), width=17, blocks=(1,)),
    replace(SEGMENTED, name="bf16", numerics="bf16"),
    replace(SHARED, name="bf16, shared dynamic", numerics="bf16"),
    Case(
        "bf16, max-pool", 5, (17, 13), over="nonzeros", design=BOTTLENECK, width=2, imagenet_stem=True, numerics="bf16"
    ),
]
LARGE = [
    Case("planes written past the caches", 128, (28, 29), width=1, blocks=(1,)),
    Case("more channels than a block", 2, (4, 4), width=70, blocks=(1,)),
    Case("bf16 past the caches", 128, (28, 29), width=2, blocks=(1,), numerics="bf16"),
]


def random_case(seed):
    """Images of any size, one position or column among them, and parts of a network that suit each other."""
    draw = random.Random(seed)
    design = draw.choice((BASIC, BASIC, BOTTLENECK))
    blocks, sharing = draw.choice((((1,), None), ((1, 1), None), ((2,), None), ((3,), 2)))
    return Case(
        str(seed),
        draw.choice((2, 3, 5, 19, 32, 33, 40)),
        draw.choice(((1, 1), (1, 7), (2, 1), (2, 65), (3, 20), (5, 3), (8, 8), (9, 13), (17, 9), (33, 5))),
        design=design,
        blocks=blocks,
        sharing=sharing,
        width=draw.choice((1, 2, 3)) if design is BOTTLENECK else draw.choice((3, 5, 7, 9)),
        dyrelu=draw.random() < 0.3,
        imagenet_stem=draw.random() < 0.2,
        numerics="bf16" if seed % 2 else "fp32",
    )


def network(case):
    """Output channels have from 0 to 5 and many non-zeros."""
    torch.manual_seed(0)
    parts, stem = Parts(dct=False, dyrelu=case.dyrelu), IMAGENET_STEM if case.imagenet_stem else {}
    model = residual_network(
        case.design, case.blocks, CLASSES, width=case.width, parts=parts, sharing_ratio=case.sharing, **stem
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -0.5, 1.5)
            nn.init.normal_(module.bias)
    layers = masked_layers(model)
    for layer in layers.values():
        for channel, mask in enumerate(layer.mask.flatten(1)):
            wanted = (1, 3, 0, 4, len(mask) // 2, 2, 5)[channel % 7]
            mask.copy_(torch.randperm(len(mask)).argsort() < wanted)
    if case.spoilt:
        layers["stages.0.0.conv2"].mask[:, 3:] = False
    apply_masks(layers)
    set_beta(model, case.beta)
    return model.train()


def batch(case, number=0):
    draw = generator(0, "batch", number)
    images = torch.randn(case.batch, 3, *case.size, generator=draw)
    if case.steep:
        images *= 4096.0 ** torch.arange(case.size[0])[:, None]
    if case.spoilt:
        images[0, 0, 0, 0] = torch.nan
    return images, torch.randint(CLASSES, (case.batch,), generator=draw)


def recipes(case):
    """The recipe for the package and for the reference."""
    scope, estimator = {"all": ("dense", "exact"), "sketch": ("dense", "sketch"), "nonzeros": ("active", "exact")}[
        case.over
    ]
    momentum, decay = (0.9, 5e-4) if case.optimizer == "sgd" else (0.0, 5e-4)
    probes = 3 if case.over == "sketch" else 1
    spec = TrainingSpec(
        epochs=1,
        batch_size=case.batch,
        lr=LR,
        lr_drop_epochs=(),
        lr_drop_factor=0.1,
        optimizer=OptimizerSpec(name=case.optimizer, momentum=momentum, nesterov=case.nesterov),
        weight_decay=decay,
        gradient_clip=ClipSpec(norm=case.limit, scope=scope, estimator=estimator, probes=probes),
        numerics=case.numerics,
    )
    return spec, Recipe(case.limit, case.over, case.optimizer, momentum, case.nesterov, decay)


def sparse_engine(case, model, active, execution):
    return CpuEngine(model, active, device=CPU, choose=ON_CPU.executions[execution], numerics=case.numerics)


def differences(found, wanted):
    """Names of what differs; zeros of either sign are equal, and so are all NaNs."""
    assert found.keys() == wanted.keys()
    return [name for name in found if not np.array_equal(np.asarray(found[name]), wanted[name], equal_nan=True)]


def reference_numbers(training):
    """Parameters, running statistics and the optimizer's vectors."""
    state = {f"{name} {i}": vector for name, slots in training.state.items() for i, vector in enumerate(slots)}
    return training.network.parameters | training.network.statistics | state


def engine_numbers(model, optimizer):
    """The same of a network trained by the engine."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    statistics = {name: buffer for name, buffer in model.named_buffers() if "running" in name}
    slots = [[vector for slot, vector in each.items() if slot != "steps"] for each in optimizer.state_dict()]
    state = {
        f"{name} {i}": vector for name, each in zip(parameters, slots, strict=True) for i, vector in enumerate(each)
    }
    return parameters | statistics | state


@cache
def reference_steps(case):
    """After each of two steps the loss and all numbers, and at last the logits of an evaluation."""
    model = network(case)
    spec, recipe = recipes(case)
    training = Training(as_reference(model, case.numerics), recipe)
    clip = GradientClip(spec.gradient_clip, active_weights(masked_layers(model)), 0, PyTorchArithmetic())
    steps = []
    for number in STEPS:
        images, labels = (tensor.numpy() for tensor in batch(case, number))
        signs = clip.request(number, dense=False).signs or {}
        found = training.step(images, labels, LR, {name: sign.numpy() for name, sign in signs.items()})
        steps.append((found.loss, reference_numbers(training)))
    return steps, evaluate(training.network, images)


@pytest.mark.parametrize("execution", ON_CPU.executions)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_two_steps_and_an_evaluation_are_the_references(case, execution):
    model, (spec, _) = network(case), recipes(case)
    active = active_weights(masked_layers(model))
    engine = sparse_engine(case, model, active, execution)
    optimizer = make_optimizer(model.parameters(), active, spec, engine.arithmetic)
    step = TrainingStep(engine, optimizer, active, GradientClip(spec.gradient_clip, active, 0, engine.arithmetic))
    steps, logits = reference_steps(case)
    for number, (wanted_loss, wanted) in zip(STEPS, steps, strict=True):
        images, labels = batch(case, number)
        loss, _ = step(images, labels, LR, number, dense_gradients=False)
        assert float(loss) == wanted_loss * case.batch
        assert differences(engine_numbers(model, optimizer), wanted) == []
    model.eval()
    assert np.array_equal(engine(images), logits)


def signs_for(model):
    draw = generator(0, "signs")
    layers = masked_layers(model).items()
    return {name: 2.0 * torch.randint(2, (2, len(layer.weight)), generator=draw) - 1 for name, layer in layers}


def reference_gradients(case):
    """All that a forward and backward pass finds, by name."""
    model = network(case)
    images, labels = (tensor.numpy() for tensor in batch(case))
    signs = {name: sign.numpy() for name, sign in signs_for(model).items()}
    step = train(as_reference(model, case.numerics), images, labels, dense=True, signs=signs)
    parts = {f"{part} {name}": found for part in PARTS for name, found in getattr(step, part).items()}
    return parts | {"loss": step.loss, "logits": step.logits, "squared_norms": step.squared_norms}


def engine_gradients(case, execution, *, everything=True):
    """The same of the engine; without dense gradients and norms if these are not asked for."""
    model = network(case)
    active = active_weights(masked_layers(model))
    images, labels = batch(case)
    request = GradientRequest(dense=True, signs=signs_for(model)) if everything else GradientRequest()
    found = sparse_engine(case, model, active, execution).gradients(images, CrossEntropy(labels), request)
    weights = {f"{name}.weight" for name in active}
    plain = {name: parameter.grad for name, parameter in model.named_parameters() if name not in weights}
    parts = {f"gradients {name}": gradient for name, gradient in plain.items()}
    parts |= {f"nonzeros {name}": each.gradient for name, each in active.items()}
    parts |= {f"statistics {name}": buffer for name, buffer in model.named_buffers() if "running" in name}
    parts |= {"loss": found.loss, "logits": found.logits}
    if everything:
        parts |= {f"dense {name}": each.layer.weight.grad for name, each in active.items()}
        parts["squared_norms"] = found.squared_norms
    return parts


@pytest.mark.parametrize("case", [SHARED, *LARGE, *map(random_case, range(28))], ids=lambda case: case.name)
def test_all_gradients_are_the_references(case):
    """Channels that nothing reads are left out unless more is asked for."""
    wanted = reference_gradients(case)
    asked_for = {name: found for name, found in wanted.items() if not name.startswith(("dense", "squared"))}
    for execution in ON_CPU.executions:
        assert differences(engine_gradients(case, execution), wanted) == []
        assert differences(engine_gradients(case, execution, everything=False), asked_for) == []


@pytest.mark.parametrize("numerics", ["fp32", "bf16"])
@pytest.mark.parametrize("case", [SEGMENTED, WIDER], ids=lambda case: case.name)
def test_executions_agree_where_numbers_are_not_finite(case, numerics):
    spoilt = replace(case, spoilt=True, numerics=numerics)
    fused, rows = (engine_gradients(spoilt, execution) for execution in ("fused", "rows"))
    assert differences(fused, rows) == []


def from_left(numbers):
    """`halving_tree`, one number after another."""
    total = numbers[..., 0]
    for place in range(1, numbers.shape[-1]):
        total = total + numbers[..., place]
    return total


@pytest.mark.parametrize(
    ("name", "otherwise"),
    [("halving_tree", from_left), ("SEGMENT", 130)],
    ids=["lanes from the left", "larger segments"],
)
def test_another_order_of_one_sum_has_other_bits(monkeypatch, name, otherwise):
    monkeypatch.setattr(sums, name, otherwise)
    assert differences(engine_gradients(STEEP, "fused"), reference_gradients(STEEP)) != []


def test_the_reference_knows_nothing_of_the_package():
    for file in Path(reference.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("east", "torch") for name in names), file
