import copy

import pytest
import torch
from torch import nn

from east.seeding import generator
from east.training.optimizer import Adam, Sgd

SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}


def network():
    torch.manual_seed(3)
    # Channels-last weights, as the dense engine has them: a state of another layout would be paired up wrongly.
    layers = nn.Conv2d(5, 7, 3), nn.ReLU(), nn.Conv2d(7, 3, 1)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def gradients(model, step):
    model.zero_grad()
    images = torch.randn(4, 5, 4, 4, generator=generator(0, "x", step))
    model(images).square().mean().backward()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda p: Sgd(p, **SGD), lambda p: torch.optim.SGD(p, lr=0.1, fused=True, **SGD)),
        (lambda p: Adam(p, weight_decay=1e-2), lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=1e-2, fused=True)),
    ],
    ids=["sgd", "adam"],
)
def test_every_step_equals_that_of_torch_optim(ours, theirs):
    first, second = network(), network()
    optimizer, reference = ours(first.parameters()), theirs(second.parameters())
    for step in range(20):
        lr = 0.1 if step < 10 else 0.01
        gradients(first, step)
        gradients(second, step)
        optimizer.step(lr)
        for group in reference.param_groups:
            group["lr"] = lr
        reference.step()
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("make", [lambda p: Sgd(p, **SGD), lambda p: Adam(p, weight_decay=1e-2)], ids=["sgd", "adam"])
def test_saved_state_continues_the_same_way(make):
    model = network()
    optimizer = make(model.parameters())
    for step in range(3):
        gradients(model, step)
        optimizer.step(0.1)
    twin = copy.deepcopy(model)
    resumed = make(twin.parameters())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(3, 6):
        for one, other in ((model, optimizer), (twin, resumed)):
            gradients(one, step)
            other.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_parameter_without_a_gradient_or_removed_stays_as_it_is():
    model = network()
    optimizer = Sgd(model.parameters(), **SGD)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gradients(model, 0)
    model[0].weight.grad = None
    optimizer.remove([model[2].weight])
    optimizer.step(0.1)
    unchanged = [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert unchanged == [True, False, True, False]


def test_reset_forgets_the_momentum():
    model = network()
    optimizer = Sgd(model.parameters(), **SGD)
    gradients(model, 0)
    optimizer.step(0.1)
    assert optimizer.state[model[0].weight]["momentum"].any()
    optimizer.reset([model[0].weight])
    assert not optimizer.state[model[0].weight]["momentum"].any()
    assert optimizer.state[model[2].weight]["momentum"].any()
