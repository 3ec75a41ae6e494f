"""The sparse engine equals, to the last bit, the second implementation of docs/arithmetic.md."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from east.config.run import ClipSpec, OptimizerSpec, TrainingSpec
from east.engine.sparse.engine import SparseEngine
from east.models.blocks import BASIC, BOTTLENECK, Design, Parts
from east.models.dyrelu import set_beta
from east.models.resnet import ResNet
from east.seeding import generator
from east.sparse.active import active_weights
from east.sparse.layers import apply_masks, masked_layers
from east.training.clip import GradientClip
from east.training.optimizer import make_optimizer
from east.training.step import TrainingStep
from tests.reference.network import evaluate
from tests.reference.training import Recipe, Training
from tests.unit.reference_networks import as_reference

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = 7
LR = 0.1
IMAGENET_STEM = {"stem_kernel": 7, "stem_stride": 2, "max_pool": True}


@dataclass(frozen=True)
class Case:
    """A network, a batch, and a recipe."""

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
    stem: dict = field(default_factory=dict)


CASES = [
    Case("one segment", 5, (8, 8), over="all", nesterov=True),
    Case("two groups", 33, (8, 8), optimizer="adam"),
    Case("partial segments", 40, (12, 12), nesterov=True),
    Case("odd sizes", 33, (9, 7), over="nonzeros", limit=1e6),
    Case("rows longer than a segment", 3, (2, 67), over="all"),
    Case("shared dynamic", 5, (8, 8), over="all", blocks=(1, 3), dyrelu=True, sharing=2),
    Case("shared fading", 40, (6, 5), optimizer="adam", blocks=(3,), dyrelu=True, sharing=2, beta=0.37),
    Case("bottleneck", 33, (6, 6), design=BOTTLENECK, width=3, nesterov=True),
    Case("max-pool", 5, (17, 13), over="all", design=BOTTLENECK, width=2, stem=IMAGENET_STEM, dyrelu=True),
    Case("wide", 2, (4, 4), width=17, blocks=(1,)),
]


def network(case):
    """Output channels have 0, 1, 3, 4 and many non-zeros."""
    torch.manual_seed(0)
    parts = Parts(dct=False, dyrelu=case.dyrelu)
    model = ResNet(
        case.design, case.blocks, CLASSES, width=case.width, parts=parts, sharing_ratio=case.sharing, **case.stem
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -0.5, 1.5)
            nn.init.normal_(module.bias)
    layers = masked_layers(model)
    for layer in layers.values():
        for channel, mask in enumerate(layer.mask.flatten(1)):
            wanted = (1, 3, 0, 4, len(mask) // 2)[channel % 5]
            mask.copy_(torch.randperm(len(mask)).argsort() < wanted)
    apply_masks(layers)
    set_beta(model, case.beta)
    return model.train()


def batch(case, number=0):
    draw = generator(0, "batch", number)
    return torch.randn(case.batch, 3, *case.size, generator=draw), torch.randint(CLASSES, (case.batch,), generator=draw)


def executed(execution):
    """Every layer in this way, or both ways in turn."""
    ways = ("fused", "rows") if execution == "mixed" else (execution,)
    return lambda network, nonzeros: {name: ways[i % len(ways)] for i, name in enumerate(nonzeros)}


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
        numerics="fp32",
    )
    return spec, Recipe(case.limit, case.over, case.optimizer, momentum, case.nesterov, decay)


def same(found, wanted):
    """Whether numbers are equal, zeros of either sign too."""
    return np.array_equal(np.asarray(found), np.asarray(wanted), equal_nan=True)


def differences(found, wanted):
    """Names of what differs."""
    assert found.keys() == wanted.keys()
    return [name for name, numbers in found.items() if not same(numbers.detach(), wanted[name])]


def numbers(training):
    """The reference's parameters and statistics."""
    return training.network.parameters | training.network.statistics


def model_numbers(model, wanted):
    return {name: number for name, number in model.state_dict().items() if name in wanted}


def states(optimizer, model):
    """Vectors of the optimizer's state by parameter and slot."""
    names = [name for name, _ in model.named_parameters()]
    slots = [[value for slot, value in each.items() if slot != "steps"] for each in optimizer.state_dict()]
    return {f"{name} {i}": value for name, each in zip(names, slots, strict=True) for i, value in enumerate(each)}


@pytest.mark.parametrize("execution", ["fused", "rows", "mixed"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_two_steps_and_an_evaluation_are_the_references(case, execution):
    model = network(case)
    spec, recipe = recipes(case)
    training = Training(as_reference(model), recipe)
    active = active_weights(masked_layers(model))
    engine = SparseEngine(model, active, device=torch.device("cpu"), choose=executed(execution))
    clip = GradientClip(spec.gradient_clip, active, 0, engine.arithmetic)
    optimizer = make_optimizer(model.parameters(), active, spec, engine.arithmetic)
    step = TrainingStep(engine, optimizer, active, clip)
    for number in (1, 2):
        images, labels = batch(case, number)
        request = step.request(number, dense_gradients=False)
        signs = {name: sign.numpy().copy() for name, sign in (request.signs or {}).items()}
        wanted = training.step(images.numpy(), labels.numpy(), LR, signs)
        loss, _ = step.execute(images, labels, LR, number, request)
        assert float(loss) == wanted.loss * case.batch
        assert differences(model_numbers(model, numbers(training)), numbers(training)) == []
        state = {f"{name} {i}": value for name, each in training.state.items() for i, value in enumerate(each)}
        assert differences(states(optimizer, model), state) == []
    model.eval()
    assert same(engine(images), evaluate(training.network, images.numpy()))
