"""Whole networks under the sparse engine for GPUs against the dense one in double precision.

Without a GPU, Triton's interpreter executes the kernels, one number block after the other: networks are tiny.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from east.engine import GradientRequest
from east.engine.cuda.engine import GPU_EVALUATION_BATCH as EVALUATION_BATCH
from east.engine.cuda.engine import CudaEngine
from east.engine.cuda.operands import Source
from east.engine.cuda.sketch import sketched
from east.engine.dense import DenseEngine
from east.engine.graph.network import Window
from east.errors import EastError
from east.models.blocks import BASIC, BOTTLENECK, Parts
from east.models.dyrelu import retire_dyrelu, set_beta
from east.models.resnet import ResNet
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import apply_masks, masked_layers
from east.sparse.masks import Allocation, initialise_masks
from east.training.clip import GradientClip
from east.training.optimizer import make_optimizer
from east.training.step import TrainingStep
from tests.unit.test_engine_sparse import agree, gradients

pytestmark = pytest.mark.usefixtures("one_thread")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network(
    design=BASIC, blocks=(1, 1), density=0.1, dtype=torch.float64, beta=1.0, dyrelu=False, dct=False, width=2, **parts
):
    """A sparse network whose batch norms differ from channel to channel."""
    torch.manual_seed(0)
    model = ResNet(design, blocks, 10, width=width, parts=Parts(dct=dct, dyrelu=dyrelu), **parts)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    change_masks(model, density)
    set_beta(model, beta)
    if beta == 0:
        retire_dyrelu(model)
    return model.to(DEVICE, dtype)


def change_masks(model, density, seed=1):
    """Random masks, and values for weights that are new."""
    layers = masked_layers(model)
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    allocation = Allocation(shapes, "erk", sum(layer.weight.numel() for layer in layers.values()))
    initialise_masks(layers, allocation.counts(density), seed)
    with torch.no_grad():
        for name, layer in layers.items():
            drawn = torch.randn(layer.weight.shape, generator=generator(seed, name)) / 2
            layer.weight.copy_(drawn.to(layer.weight) * layer.mask)


def fused(network, active):
    """Kernels execute what has no dense part."""
    return {unit.layer: "fused" if unit.dct is None else "dense" for unit in network.units}


def mixed(network, active):
    """Every other convolution is executed by PyTorch."""
    return {unit.layer: ("dense", "fused")[number % 2] for number, unit in enumerate(network.units)}


def cuda_engine(model, choose=fused, numerics="fp32", capacities=None):
    active = active_weights(masked_layers(model), capacities)
    return CudaEngine(model, active, numerics=numerics, device=DEVICE, choose=choose)


def dense_engine(model):
    return DenseEngine(model, active_weights(masked_layers(model)), numerics="fp32", device=DEVICE)


def both_engines(model, choose=fused, capacities=None):
    """The sparse and the dense engine, on networks of their own that are alike."""
    return cuda_engine(copy.deepcopy(model), choose, capacities=capacities), dense_engine(model)


def batch(images=3, size=4, dtype=torch.float64, number=0):
    draw = generator(0, "batch", number)
    drawn = torch.randn(images, 3, size, size, generator=draw).to(DEVICE, dtype)
    return drawn, torch.randint(10, (images,), generator=draw).to(DEVICE)


def signs_for(engine, probes=2):
    return {
        name: (2.0 * torch.randint(2, (probes, len(weights.layer.weight)), generator=generator(0, name)) - 1).to(DEVICE)
        for name, weights in engine.active.items()
    }


def without_statistics(found):
    """All but what depends on the steps before."""
    return {name: tensor for name, tensor in found.items() if "running" not in name and "tracked" not in name}


def evaluate_both(sparse, dense, images, tolerance=1e-9):
    for engine in (sparse, dense):
        engine.model.eval()
    with torch.inference_mode():
        agree({"logits": sparse(images)}, {"logits": dense(images)}, tolerance)
    for engine in (sparse, dense):
        engine.model.train()


def check(model, choose=fused, size=4):
    """Compare all that both engines find for one batch, and in evaluation after it."""
    sparse, dense = both_engines(model, choose)
    inputs, signs = batch(size=size), signs_for(sparse)
    agree(gradients(sparse, *inputs, dense=True, signs=signs), gradients(dense, *inputs, dense=True, signs=signs))
    evaluate_both(sparse, dense, inputs[0])


NETWORKS = {
    "basic": {},
    "bottleneck": {"design": BOTTLENECK, "width": 1},
    "max-pool": {"max_pool": True, "stem_kernel": 7, "stem_stride": 2, "blocks": (1,)},
    "sharing": {"blocks": (3,), "sharing_ratio": 1},
    "DyReLU": {"dyrelu": True, "blocks": (1,)},
    "fading DyReLU": {"dyrelu": True, "beta": 0.3, "blocks": (1,), "max_pool": True},
    "retired DyReLU": {"dyrelu": True, "beta": 0.0, "blocks": (1,)},
    "DCT": {"dct": True},
    "combined": {"design": BOTTLENECK, "width": 1, "blocks": (3,), "dyrelu": True, "sharing_ratio": 2, "dct": True},
}
"""Every kind of network."""


@pytest.mark.parametrize("keys", NETWORKS.values(), ids=NETWORKS)
def test_every_network_equals_the_dense_engine(keys):
    check(network(**keys), size=9 if "max_pool" in keys else 4)


@pytest.mark.slow
@pytest.mark.parametrize("keys", NETWORKS.values(), ids=NETWORKS)
def test_larger_networks_equal_the_dense_engine(keys):
    check(network(**{**keys, "width": 4}), size=13 if "max_pool" in keys else 6)


@pytest.mark.parametrize("keys", [{}, {"dyrelu": True, "blocks": (2,), "sharing_ratio": 1}], ids=str)
def test_executions_mix(keys):
    """Each unit reads what another kind of execution has written, and sends its gradient to another kind."""
    check(network(**keys), mixed)


def test_few_nonzeros_equal_the_dense_engine():
    """Many channels have no non-zero, and many are read by none."""
    check(network(density=0.04, width=4, blocks=(1,)))


def test_all_weights_active_equal_the_dense_engine():
    check(network(density=1.0, blocks=(1,), width=1), size=3)


@pytest.mark.parametrize(
    "off", [("conv1",), ("stages.0.0.conv1", "stages.1.0.shortcut.0"), ("stages.1.0.conv2", "classifier")], ids=str
)
def test_layers_without_nonzeros_equal_the_dense_engine(off):
    model = network()
    layers = {name: masked_layers(model)[name] for name in off}
    for layer in layers.values():
        layer.mask.zero_()
    apply_masks(layers)
    check(model)


def test_a_request_for_more_does_not_change_the_rest():
    """Channels without non-zeros have no gradient at their convolution unless those of off weights count."""
    sparse, dense = both_engines(network(density=0.06, blocks=(1,)))
    plain, expected = gradients(sparse, *batch()), gradients(dense, *batch())
    agree(plain, expected)
    for request in ({"dense": True}, {"signs": signs_for(sparse)}):
        more = gradients(sparse, *batch(), **request)
        agree({name: more[name] for name in without_statistics(plain)}, without_statistics(plain))


@pytest.mark.parametrize(
    ("channels", "shape", "kernel", "stride", "padding", "probes"),
    [(3, (5, 6, 3), 3, 1, 1, 1), (70, (4, 3, 2), 1, 2, 0, 2), (5, (7, 6, 5), 3, 2, 1, 2), (3, (9, 9, 2), 7, 2, 3, 1)],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_a_sketch_is_the_dense_gradient_times_signs(channels, shape, kernel, stride, padding, probes, dtype, tolerance):
    draw = generator(0, "sketch")
    height, width, images = shape
    size = [(side + 2 * padding - kernel) // stride + 1 for side in (height, width)]
    x, dz = (
        torch.randn(c, *s, images, generator=draw).to(DEVICE, dtype) for c, s in ((channels, shape[:2]), (6, size))
    )
    signs = (2.0 * torch.randint(2, (probes, 6), generator=draw) - 1).to(DEVICE)
    scale, shift = torch.randn(2, channels, generator=draw).to(DEVICE, torch.promote_types(dtype, torch.float32))
    empty = [number % 4 == 1 for number in range(channels)]
    stored = torch.tensor([0] + [not one for one in empty]).cumsum(0).int().to(DEVICE)
    source = Source(x.clone(), scale, shift, rectify=True, stored=stored)
    source.data[empty] = float("nan")
    found = sketched(source, dz, signs, Window(kernel, stride, padding))
    x[empty] = 0
    value = (x.double() * scale.double().view(-1, 1, 1, 1) + shift.double().view(-1, 1, 1, 1)).relu()
    weight = torch.zeros(6, channels, kernel, kernel, dtype=torch.float64, device=DEVICE, requires_grad=True)
    out = F.conv2d(value.permute(3, 0, 1, 2), weight, None, stride, padding)
    (gradient,) = torch.autograd.grad(out, weight, dz.double().permute(3, 0, 1, 2))
    expected = torch.einsum("oit,po->ipt", gradient.flatten(2), signs.double())
    agree({"products": found}, {"products": expected}, tolerance)


def test_dense_gradients_are_there_in_the_step_that_asks_for_them_alone():
    sparse = cuda_engine(network(blocks=(1,)))
    for dense in (False, True, False):
        gradients(sparse, *batch(), dense=dense)
        for weights in sparse.active.values():
            assert (weights.layer.weight.grad is not None) == dense


def test_batches_of_any_size_equal_the_dense_engine():
    sparse, dense = both_engines(network(blocks=(1,)))
    for number, images in enumerate((3, 5)):
        inputs = batch(images, number=number)
        agree(gradients(sparse, *inputs), gradients(dense, *inputs))
    evaluate_both(sparse, dense, batch(7)[0])


def test_evaluation_needs_no_training_first():
    sparse, dense = both_engines(network(blocks=(1,), width=1, dyrelu=True))
    evaluate_both(sparse, dense, batch(EVALUATION_BATCH + 3, 2)[0])
    agree(gradients(sparse, *batch(3, 2)), gradients(dense, *batch(3, 2)))


def test_single_precision_agrees_with_double():
    inputs = batch(5)
    single = gradients(cuda_engine(network(dtype=torch.float32)), inputs[0].float(), inputs[1])
    double = gradients(dense_engine(network()), *inputs)
    agree({name: tensor.double() for name, tensor in single.items()}, double, 1e-4)


def test_half_precision_agrees_roughly_with_double():
    """Activations are stored in bfloat16, which has three digits; parameters and their gradients are not."""
    inputs, keys = batch(5, 6), {"width": 4, "blocks": (1,)}
    half = gradients(cuda_engine(network(dtype=torch.float32, **keys), numerics="bf16"), inputs[0].float(), inputs[1])
    double = gradients(dense_engine(network(**keys)), *inputs)
    assert half["logits"].dtype == half["conv1, active"].dtype == torch.float32
    agree({"logits": half["logits"].double()}, {"logits": double["logits"]}, 0.03)
    for name in ("conv1, active", "stages.0.0.conv2, active", "classifier, active", "stages.0.0.bn1.weight"):
        difference = (half[name].double() - double[name]).norm() / double[name].norm()
        assert difference < 0.3, name


@pytest.mark.parametrize("static", [False, True], ids=["as many as there are", "with room for more"])
def test_after_a_change_of_the_masks_all_follows_them(static):
    model = network(blocks=(2,), sharing_ratio=1, density=0.1)
    capacities = {name: layer.weight.numel() // 4 for name, layer in masked_layers(model).items()} if static else None
    sparse, dense = both_engines(model, capacities=capacities)
    for number, density in enumerate((0.3, 0.05)):
        for engine in (sparse, dense):
            change_masks(engine.model, density, seed=number)
            for weights in engine.active.values():
                weights.read()
            engine.masks_changed()
        inputs = batch(number=number)
        agree(gradients(sparse, *inputs, dense=number == 2), gradients(dense, *inputs, dense=number == 2))


def test_steps_before_and_after_an_update_of_the_masks_equal_the_dense_engine(tiny_spec):
    """The optimizer writes into the memory that kernels read."""
    model = network(blocks=(1,))
    capacities = {name: layer.weight.numel() // 2 for name, layer in masked_layers(model).items()}
    found = []
    for engine in both_engines(model, capacities=capacities):
        optimizer = make_optimizer(engine.model.parameters(), engine.active, tiny_spec.training, engine.arithmetic)
        clip = GradientClip(tiny_spec.training.gradient_clip, engine.active, 0, engine.arithmetic)
        step = TrainingStep(engine, optimizer, engine.active, clip)
        for number in (1, 2, 3):
            step(*batch(number=number), 0.1, number, dense_gradients=False)
            if number == 2:
                change_masks(engine.model, 0.2, seed=2)
                step.masks_changed()
        found.append({name: tensor.double() for name, tensor in engine.model.state_dict().items()})
    agree(*found, 1e-8)


TRANSIENT = ("_features", "_indices", "weights.gradient")
"""What each step makes anew, and a captured one in memory of its own."""


def memory_of(engine, batch_size):
    """The addresses of everything that lasts from step to step and that kernels read or write."""
    found = {}

    def walk(value, name):
        if isinstance(value, torch.Tensor):
            if not name.endswith(TRANSIENT):
                found[name] = value.data_ptr()
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{name}[{key if isinstance(key, str) else id(key)}]")
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                walk(item, f"{name}[{number}]")
        elif type(value).__module__.startswith(("east.engine", "east.sparse.active")) and id(value) not in seen:
            seen.add(id(value))
            for key, item in vars(value).items():
                walk(item, f"{name}.{key}")

    seen = set()
    walk(engine._programs[batch_size, engine._dense], "program")
    walk(engine._indices, "indices")
    return found


def test_memory_stays_in_place_while_there_is_room_for_the_masks():
    model = network(density=0.1, blocks=(2,), sharing_ratio=1)
    capacities = {name: layer.weight.numel() * 3 // 4 for name, layer in masked_layers(model).items()}
    sparse = cuda_engine(model, capacities=capacities)
    images, labels = batch(3)
    lasting = None
    signatures = []
    for number, density in enumerate((0.1, 0.2)):
        change_masks(model, density, seed=number)
        for weights in sparse.active.values():
            weights.read()
        sparse.masks_changed()
        signatures.append(sparse.signature(images))
        gradients(sparse, images, labels)
        sparse.model.eval()
        sparse(batch(2)[0])
        sparse.model.train()
        found = memory_of(sparse, 3)
        assert len(found) > 100
        lasting = lasting or found
        assert {name: address for name, address in found.items() if address != lasting[name]} == {}
    assert len(set(signatures)) == 1


def test_the_signature_changes_with_what_a_captured_step_depends_on():
    model = network(density=0.1, blocks=(1,), dyrelu=True)
    capacities = {name: layer.weight.numel() // 4 for name, layer in masked_layers(model).items()}
    chosen = ["fused"]
    sparse = cuda_engine(model, lambda network, active: dict.fromkeys(active, chosen[0]), capacities=capacities)
    images = batch(3)[0]
    signatures = [sparse.signature(images)]
    assert sparse.signature(batch(2)[0]) == signatures[0]
    for density, executed, size in ((0.1, "dense", 3), (0.5, "dense", 3), (0.5, "dense", 600)):
        chosen[0], images = executed, batch(size)[0]
        change_masks(model, density)
        for weights in sparse.active.values():
            weights.read()
        sparse.masks_changed()
        signatures.append(sparse.signature(images))
    retire_dyrelu(model)
    signatures.append(sparse.signature(images))
    assert len(set(signatures)) == len(signatures)
    chosen[0] = "fused"
    sparse.masks_changed()
    back = sparse.signature(images)
    chosen[0] = "dense"
    sparse.masks_changed()
    assert sparse.signature(images) == signatures[-1] != back


def test_weights_that_are_loaded_are_used():
    """Checkpoints are loaded into the network that an engine holds; and the optimizer writes new values."""
    sparse, dense = both_engines(network(blocks=(2,), sharing_ratio=1, density=0.05))
    gradients(sparse, *batch())
    with torch.no_grad():
        for engine in (sparse, dense):
            for parameter in engine.model.parameters():
                parameter.mul_(1.1)
            for weights in engine.active.values():
                weights.read()
    found, expected = (without_statistics(gradients(engine, *batch())) for engine in (sparse, dense))
    agree(found, expected)


def test_a_dyrelu_that_freezes_and_retires_while_training_equals_the_dense_engine():
    sparse, dense = both_engines(network(dyrelu=True, blocks=(1,)))
    for beta in (1.0, 0.5, 0.0):
        for engine in (dense, sparse):
            set_beta(engine.model, beta)
            if beta == 0:
                retire_dyrelu(engine.model)
        agree(gradients(sparse, *batch()), gradients(dense, *batch()))


def test_an_image_that_is_no_number_gives_a_loss_that_is_none():
    sparse = cuda_engine(network(blocks=(1,), density=0.5, dtype=torch.float32))
    images, labels = batch(dtype=torch.float32)
    images[1, :, 3, 3] = float("nan")
    assert not gradients(sparse, images, labels)["loss"].isfinite()


def test_another_kind_of_network_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).to(DEVICE)
    with pytest.raises(EastError, match="not a Sequential; use engine: dense"):
        cuda_engine(model)(batch(dtype=torch.float32)[0])


def test_images_of_another_type_are_refused():
    with pytest.raises(EastError, match=r"images are torch.float32, but the network is torch.float64"):
        cuda_engine(network(blocks=(1,)))(batch(dtype=torch.float32)[0])


def test_training_on_one_number_a_channel_is_refused():
    sparse = cuda_engine(network(blocks=(1,)))
    with pytest.raises(EastError, match="a batch of 2 or more"):
        sparse.gradients(*batch(1, 1)[:1], torch.Tensor.sum, GradientRequest())


def test_gradients_in_evaluation_are_refused():
    sparse = cuda_engine(network(blocks=(1,)))
    sparse.model.eval()
    with pytest.raises(EastError, match="training mode only"):
        gradients(sparse, *batch())
