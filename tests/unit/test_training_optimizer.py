import copy

import pytest
import torch
from torch import nn

from east.engine.arithmetic import PyTorchArithmetic
from east.engine.cpu.arithmetic import KernelArithmetic
from east.engine.cpu.bindings import KernelSet
from east.plugins import digest_of, load
from east.seeding import generator, torch_generator
from east.sparse.active import active_weights
from east.sparse.layers import MaskedConv2d, MaskedLinear, apply_masks, masked_layers
from east.sparse.topology import TOPOLOGIES, drop_and_grow, highest
from tests.unit.optimizers import Adam, AdamW, Sgd, make

SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}
STEPS = 24


def make_sgd(model, active, arithmetic=None):
    return Sgd(model.parameters(), active, arithmetic=arithmetic or PyTorchArithmetic(), **SGD)


def make_adam(model, active, arithmetic=None):
    return Adam(model.parameters(), active, arithmetic=arithmetic or PyTorchArithmetic(), weight_decay=1e-2)


def make_adamw(model, active, arithmetic=None):
    return AdamW(model.parameters(), active, arithmetic=arithmetic or PyTorchArithmetic(), weight_decay=1e-2)


def torch_sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, fused=True, **SGD)


def torch_adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=1e-2, fused=True)


def torch_adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=1e-2, fused=True)


EITHER = pytest.mark.parametrize("make", [make_sgd, make_adam, make_adamw], ids=["sgd", "adam", "adamw"])


def network(memory_format=torch.channels_last, density=0.1):
    torch.manual_seed(3)
    # Sizes are multiples of 16: PyTorch computes what is left over by instructions that round otherwise.
    layers = MaskedConv2d(16, 8, 3), nn.BatchNorm2d(8), MaskedConv2d(8, 32, 1), nn.Flatten(), MaskedLinear(32, 10)
    model = nn.Sequential(*layers)
    for layer in masked_layers(model).values():
        layer.mask.copy_(torch.rand(layer.mask.shape) < density)
    apply_masks(masked_layers(model))
    return model.to(memory_format=memory_format)


def set_gradients(model, step):
    """Gradients that depend on step and place alone, not on the memory format."""
    draw = torch_generator(0, "gradient", step)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=draw))


def take_gradients(active):
    for weights in active.values():
        weights.take_gradient()


def change_masks(model, step):
    """A RigL exchange; returns how many weights came back at once, and which were dropped and which grown."""
    at_once, dropped, grown = 0, {}, {}
    for name, layer in masked_layers(model).items():
        draw = generator(0, "exchange", name, step)
        old = layer.mask.clone()
        kept = highest(layer.weight.detach().abs(), old, int(old.sum()) // 2, draw)
        layer.mask.copy_(drop_and_grow(layer.weight.detach(), layer.weight.grad, old, 0.5, draw, TOPOLOGIES["rigl"]))
        at_once += int((layer.mask & old & ~kept).sum())
        dropped[name], grown[name] = old & ~layer.mask, layer.mask & ~old
    apply_masks(masked_layers(model))
    return at_once, dropped, grown


def mask_state(model, optimizer):
    """What a masked dense optimizer does after each step."""
    apply_masks(masked_layers(model))
    for layer in masked_layers(model).values():
        for value in optimizer.state.get(layer.weight, {}).values():
            if value.shape == layer.mask.shape:
                value.mul_(layer.mask)


BOTH = pytest.mark.parametrize(
    ("make", "reference"),
    [(make_sgd, torch_sgd), (make_adam, torch_adam), (make_adamw, torch_adamw)],
    ids=["sgd", "adam", "adamw"],
)


def check_against_torch(model, dense, make, reference, *, equal, arithmetic=None, kind_of_lr=float, room=None):
    """Steps over changes of the masks in which weights come back at once, and others later."""
    layers = masked_layers(model)
    capacities = {name: int((room or 0) * layer.weight.numel()) for name, layer in layers.items()}
    active = active_weights(layers, capacities if room else None)
    optimizer, expected = make(model, active, arithmetic), reference(dense)
    at_once = later = 0
    ever_dropped = {name: torch.zeros_like(layer.mask) for name, layer in layers.items()}
    for step in range(STEPS):
        lr = 0.1 if step < STEPS // 2 else 0.01
        set_gradients(model, step)
        set_gradients(dense, step)
        take_gradients(active)
        optimizer.step(kind_of_lr(lr))
        for group in expected.param_groups:
            group["lr"] = lr
        expected.step()
        mask_state(dense, expected)
        if step % 4 == 3:
            back, dropped, grown = change_masks(model, step)
            optimizer.masks_changed()
            change_masks(dense, step)
            mask_state(dense, expected)
            at_once += back
            for name in grown:
                later += int((grown[name] & ever_dropped[name]).sum())
                ever_dropped[name] |= dropped[name]
        for (name, ours), theirs in zip(model.named_parameters(), dense.parameters(), strict=True):
            assert equal(ours, theirs), (step, name)
    assert at_once > 0
    assert later > 0


@pytest.mark.parametrize("room", [None, 0.2], ids=["fitting", "with room"])
@pytest.mark.parametrize("kind_of_lr", [float, lambda lr: torch.tensor(lr, dtype=torch.float64)], ids=["float", "0-d"])
@BOTH
def test_every_step_equals_a_masked_dense_step_of_torch_optim(make, reference, kind_of_lr, room):
    """Bit for bit."""
    check_against_torch(network(), network(), make, reference, equal=torch.equal, kind_of_lr=kind_of_lr, room=room)


@BOTH
def test_steps_by_the_kernels_equal_those_of_torch_optim(make, reference):
    """But for rounding."""
    arithmetic = KernelArithmetic(KernelSet(torch.float64))
    # The kernels take contiguous tensors, as the sparse engine lays weights out.
    model, dense = (network(torch.contiguous_format).double() for _ in range(2))

    def equal(ours, theirs):
        return torch.allclose(ours, theirs, rtol=0, atol=1e-12)

    check_against_torch(model, dense, make, reference, equal=equal, arithmetic=arithmetic)


@EITHER
def test_where_all_weights_are_active_the_state_is_that_of_the_dense_weight(make):
    model, dense = network(density=1.1), network(density=1.1)
    optimizer, expected = make(model, active := active_weights(masked_layers(model))), make(dense, {})
    for step in range(4):
        set_gradients(model, step)
        set_gradients(dense, step)
        take_gradients(active)
        optimizer.step(0.1)
        expected.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True))


@EITHER
@pytest.mark.parametrize("before", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("after", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels-last"])
def test_saved_state_continues_the_same_way_in_any_memory_format(make, before, after):
    def train(model, active, optimizer, steps):
        for step in steps:
            set_gradients(model, step)
            take_gradients(active)
            optimizer.step(0.1)
            if step % 2:
                change_masks(model, step)
                optimizer.masks_changed()

    model = network(before)
    optimizer = make(model, active := active_weights(masked_layers(model)))
    train(model, active, optimizer, range(4))
    resumed = network(after)
    resumed.load_state_dict(model.state_dict())
    resumed_optimizer = make(resumed, resumed_active := active_weights(masked_layers(resumed)))
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, active, optimizer, range(4, 8))
    train(resumed, resumed_active, resumed_optimizer, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("room", [None, 500], ids=["fitting", "with room"])
def test_saved_state_holds_active_weights_only(room):
    model = network()
    layers = masked_layers(model)
    optimizer = make_sgd(model, active := active_weights(layers, room and dict.fromkeys(layers, room)))
    saved = optimizer.state_dict()[0]["momentum"]
    assert len(saved) == active["0"].count == int(model[0].mask.sum())


@EITHER
def test_state_keeps_its_memory_when_masks_change_within_the_room(make):
    model = network()
    layers = masked_layers(model)
    optimizer = make(model, active := active_weights(layers, dict.fromkeys(layers, 1000)))
    before = {id(slot): slot.data_ptr() for slots in optimizer.state.values() for slot in slots.values()}
    for step in range(6):
        set_gradients(model, step)
        take_gradients(active)
        optimizer.step(0.1)
        for layer in layers.values():
            layer.mask.copy_(torch.rand(layer.mask.shape) < 0.05 * (1 + step % 3))
        apply_masks(layers)
        optimizer.masks_changed()
        for weights in active.values():
            momenta = [optimizer.state[weights.layer.weight][slot] for slot in optimizer._slots]
            assert not any(momentum[weights.count :].any() for momentum in momenta)
    after = {id(slot): slot.data_ptr() for slots in optimizer.state.values() for slot in slots.values()}
    assert after == before


def test_a_parameter_without_a_gradient_or_removed_stays_as_it_is():
    model = network()
    optimizer = make_sgd(model, active := active_weights(masked_layers(model)))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    set_gradients(model, 0)
    model[0].weight.grad = None
    model[1].bias.grad = None
    take_gradients(active)
    optimizer.remove([model[1].weight, model[2].weight])
    optimizer.step(0.1)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"4.weight"}


@pytest.mark.parametrize("room", [None, 1000], ids=["fitting", "with room"])
def test_only_weights_with_room_are_moved_into_memory_that_they_share(room):
    model = network()
    layers = masked_layers(model)
    before = [layer.weight.data_ptr() for layer in layers.values()]
    make_sgd(model, active_weights(layers, room and dict.fromkeys(layers, room)))
    assert (before == [layer.weight.data_ptr() for layer in layers.values()]) == (room is None)


def test_gradients_are_forgotten():
    model = network()
    optimizer = make_sgd(model, active := active_weights(masked_layers(model)))
    set_gradients(model, 0)
    take_gradients(active)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(weights.gradient is None for weights in active.values())


def test_reset_forgets_the_momentum():
    model = network()
    optimizer = make_sgd(model, active := active_weights(masked_layers(model)))
    set_gradients(model, 0)
    take_gradients(active)
    optimizer.step(0.1)
    assert optimizer.state[model[0].weight]["momentum"].any()
    optimizer.reset([model[0].weight])
    assert not optimizer.state[model[0].weight]["momentum"].any()
    assert optimizer.state[model[2].weight]["momentum"].any()


def test_options_reach_the_steps():
    model, dense = network(density=1.1), network(density=1.1)
    active = active_weights(masked_layers(model))
    optimizer = make("adam", model.parameters(), active, PyTorchArithmetic(), beta1=0.5, beta2=0.8, epsilon=1e-3)
    expected = torch.optim.Adam(dense.parameters(), lr=0.1, betas=(0.5, 0.8), eps=1e-3, fused=True)
    for step in range(3):
        set_gradients(model, step)
        set_gradients(dense, step)
        take_gradients(active)
        optimizer.step(0.1)
        expected.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True))


def test_state_can_be_seen_in_the_shape_of_a_weight():
    model = network()
    optimizer = make_sgd(model, active := active_weights(masked_layers(model)))
    set_gradients(model, 0)
    take_gradients(active)
    optimizer.step(0.1)
    dense = optimizer.dense_state(active["0"], "momentum")
    assert torch.equal(dense != 0, model[0].mask)
    assert torch.equal(active["0"].select(dense), optimizer.state[model[0].weight]["momentum"][: active["0"].count])
    with pytest.raises(KeyError):
        optimizer.dense_state(active["0"], "mean")


@pytest.mark.parametrize("room", [None, 0.2], ids=["fitting", "with room"])
def test_an_optimizer_of_a_plugin_cannot_move_weights_that_are_off(tmp_path, room):
    path = tmp_path / "mine.py"
    path.write_text(
        "from east.methods import Positive, optimizer\n\n\n"
        "@optimizer(state=('square',), counts_steps=True)\n"
        "def pushing(step, *, push: Positive = 1.0):\n"
        "    for count in step.counts:\n"
        "        count.add_(1)\n"
        "    for value, gradient, square in step:\n"
        "        square.add_(gradient * gradient)\n"
        "        value.sub_(step.lr * (gradient + push))\n"
    )
    load(path, digest_of(path))
    model = network()
    layers = masked_layers(model)
    capacities = {name: int((room or 0) * layer.weight.numel()) for name, layer in layers.items()}
    active = active_weights(layers, capacities if room else None)
    optimizer = make("pushing", model.parameters(), active, PyTorchArithmetic(), plugin=digest_of(path), push=2.0)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    set_gradients(model, 0)
    take_gradients(active)
    optimizer.step(0.5)
    for name, layer in layers.items():
        wanted = before[name] - 0.5 * (layer.weight.grad + 2.0)
        assert torch.equal(layer.weight.detach(), torch.where(layer.mask, wanted, 0.0))
        assert optimizer.state[layer.weight]["steps"] == 1
