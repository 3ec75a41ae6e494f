"""What the sparse engine for GPUs has alone: sketches, half precision, and memory that stays in place."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from east.engine.cuda.convolutions import ResidentIndex
from east.engine.cuda.operands import Source
from east.engine.cuda.sketch import sketched
from east.engine.graph.network import Window
from east.models.dyrelu import retire_dyrelu
from east.seeding import torch_generator as generator
from east.sparse.active import ActiveWeights
from east.sparse.layers import masked_layers
from east.training.clip import GradientClip
from east.training.optimizer import make_optimizer
from east.training.step import TrainingStep
from tests.unit.sparse_engines import ON_GPU, agree, change_masks, draw_weights, gradients

pytestmark = pytest.mark.usefixtures("one_thread")


def room_for(model, share):
    """Memory for this share of all weights."""
    return {name: int(layer.weight.numel() * share) for name, layer in masked_layers(model).items()}


@pytest.mark.parametrize(
    ("channels", "shape", "kernel", "stride", "padding", "probes"),
    [(3, (5, 6, 3), 3, 1, 1, 1), (70, (4, 3, 2), 1, 2, 0, 2), (5, (7, 6, 5), 3, 2, 1, 2), (3, (9, 9, 2), 7, 2, 3, 1)],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_a_sketch_is_the_dense_gradient_times_signs(
    channels, shape, kernel, stride, padding, probes, dtype, tolerance, device
):
    draw, window = generator(0, "sketch"), Window(kernel, stride, padding)
    *image, images = shape
    x, dz = (
        torch.randn(count, *size, images, generator=draw).to(device, dtype)
        for count, size in ((channels, image), (6, map(window.outputs, image)))
    )
    signs = (2.0 * torch.randint(2, (probes, 6), generator=draw) - 1).to(device)
    scale, shift = torch.randn(2, channels, generator=draw).to(device, torch.promote_types(dtype, torch.float32))
    empty = [number % 4 == 1 for number in range(channels)]
    stored = torch.tensor([0] + [not one for one in empty]).cumsum(0).int().to(device)
    source = Source(x.clone(), scale, shift, rectify=True, stored=stored)
    source.data[empty] = float("nan")
    found = sketched(source, dz, signs, window)
    x[empty] = 0
    value = (x.double() * scale.double().view(-1, 1, 1, 1) + shift.double().view(-1, 1, 1, 1)).relu()
    weight = torch.zeros(6, channels, kernel, kernel, dtype=torch.float64, device=device, requires_grad=True)
    out = F.conv2d(value.permute(3, 0, 1, 2), weight, None, stride, padding)
    (gradient,) = torch.autograd.grad(out, weight, dz.double().permute(3, 0, 1, 2))
    expected = torch.einsum("oit,po->ipt", gradient.flatten(2), signs.double())
    agree({"products": found}, {"products": expected}, tolerance)


def test_half_precision_agrees_roughly_with_double():
    """Activations are stored in bfloat16, which has three digits; parameters and their gradients are not."""
    images, labels = ON_GPU.batch(5, 6)
    half = gradients(
        ON_GPU.sparse(ON_GPU.network(dtype=torch.float32, width=4), numerics="bf16"), images.float(), labels
    )
    double = gradients(ON_GPU.dense(ON_GPU.network(width=4)), images, labels)
    assert half["logits"].dtype == half["conv1, active"].dtype == torch.float32
    agree({"logits": half["logits"].double()}, {"logits": double["logits"]}, 0.03)
    for name in ("conv1, active", "stages.0.0.conv2, active", "classifier, active", "stages.0.0.bn1.weight"):
        difference = (half[name].double() - double[name]).norm() / double[name].norm()
        assert difference < 0.3, name


def test_steps_before_and_after_an_update_of_the_masks_equal_the_dense_engine(tiny_spec):
    """The optimizer writes into the memory that kernels read."""
    model = ON_GPU.network()
    found = []
    for engine in ON_GPU.both(model, capacities=room_for(model, 0.5)):
        optimizer = make_optimizer(engine.model.parameters(), engine.active, tiny_spec.training, engine.arithmetic)
        clip = GradientClip(tiny_spec.training.gradient_clip, engine.active, 0, engine.arithmetic)
        step = TrainingStep(engine, optimizer, engine.active, clip)
        for number in (1, 2, 3):
            step(*ON_GPU.batch(number=number), 0.1, number, dense_gradients=False)
            if number == 2:
                draw_weights(engine.model, 0.2, seed=2)
                step.masks_changed()
        found.append({name: tensor.double() for name, tensor in engine.model.state_dict().items()})
    agree(*found, 1e-8)


@pytest.mark.parametrize(
    ("numbers", "room", "images"),
    [
        (10**6, 0, 512),
        (4 * 10**6, 0, 128),
        (10**7, 0, 53),
        (6 * 10**8, 0, 1),
        (10**7, 700 * 10**6, 64),
        (8388608, 0, 64),
        (10**7, 10**10, 512),
    ],
)
def test_so_many_images_are_evaluated_at_once_as_there_is_memory_for(monkeypatch, numbers, room, images):
    engine = ON_GPU.sparse(ON_GPU.network(dtype=torch.float32))
    monkeypatch.setattr(engine, "_shapes", lambda network, batch: {"a": (batch, numbers)})
    engine._arena = SimpleNamespace(dtype=torch.float32, room=room)
    assert engine._evaluation_batch(None) == images
    assert engine._numbers_needed(None, 3) >= max(3, images) * numbers


def test_lists_of_nonzeros_begin_at_sixteen_bytes_and_take_no_more():
    model = ON_GPU.network(dtype=torch.float32, width=3)
    weights = ON_GPU.sparse(model, capacities=room_for(model, 0.75)).active["conv1"]
    index = ResidentIndex(weights)
    assert index.capacity == len(weights.values) > weights.count
    lists = [getattr(by, name) for by in (index.by_output, index.by_input) for name in vars(by)]
    sizes = [size for groups in (3, 3) for size in (groups + 1, *[index.capacity] * 3)]
    assert [len(one) for one in lists] == sizes
    begins = [(one.data_ptr() - lists[0].data_ptr()) // 4 for one in lists]
    assert begins == [sum(-(-size // 4) * 4 for size in sizes[:number]) for number in range(8)]
    assert index.still_fits
    assert not ResidentIndex(ActiveWeights(weights.layer)).still_fits


TRANSIENT = ("_features", "_indices", "weights.gradient")
"""What each step makes, and a captured one in memory of its own."""


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
    model = ON_GPU.network(**ON_GPU.networks["sharing"])
    sparse = ON_GPU.sparse(model, capacities=room_for(model, 0.75))
    images, labels = ON_GPU.batch()
    lasting = None
    signatures = []
    for number, density in enumerate((0.1, 0.2)):
        change_masks(sparse, density, seed=number)
        signatures.append(sparse.signature(images))
        gradients(sparse, images, labels)
        sparse.model.eval()
        sparse(ON_GPU.batch(2)[0])
        sparse.model.train()
        found = memory_of(sparse, len(images))
        assert len(found) > 100
        lasting = lasting or found
        assert {name: address for name, address in found.items() if address != lasting[name]} == {}
    assert len(set(signatures)) == 1


def test_the_signature_changes_with_what_a_captured_step_depends_on():
    model = ON_GPU.network(dyrelu=True)
    chosen = ["fused"]
    choose = lambda network, nonzeros: dict.fromkeys(nonzeros, chosen[0])  # noqa: E731
    sparse = ON_GPU.sparse(model, choose, capacities=room_for(model, 0.25))
    images = ON_GPU.batch()[0]
    signatures = [sparse.signature(images)]
    assert sparse.signature(ON_GPU.batch(2)[0]) == signatures[0]
    for density, executed, size in ((0.1, "dense", 3), (0.5, "dense", 3), (0.5, "dense", 600)):
        chosen[0], images = executed, ON_GPU.batch(size)[0]
        change_masks(sparse, density)
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
