import math

import pytest
import torch
from torch import nn

from east.config.run import ClipSpec
from east.engine.arithmetic import PyTorchArithmetic
from east.engine.dense import sum_squared_norms
from east.sparse.active import active_weights
from east.sparse.layers import MaskedLinear, masked_layers
from east.training.clip import GradientClip

EXACT = {"scope": "dense", "estimator": "exact"}


@pytest.fixture
def network():
    """Layers with masked gradients (3, 4), of which 3 is active, and (0, 2), both active, and a plain one (12, 0)."""
    sparse, full, plain = MaskedLinear(1, 2), MaskedLinear(1, 2), nn.Linear(2, 1, bias=False)
    sparse.mask.copy_(torch.tensor([[True], [False]]))
    sparse.weight.grad = torch.tensor([[3.0], [4.0]])
    full.weight.grad = torch.tensor([[0.0], [2.0]])
    plain.weight.grad = torch.tensor([[12.0, 0.0]])
    return nn.ModuleList([sparse, full, plain])


@pytest.fixture
def active(network):
    found = active_weights(masked_layers(network))
    for weights in found.values():
        weights.take_gradient()
    return found


def clip_of(spec, active, seed=1):
    return GradientClip(spec, active, seed, PyTorchArithmetic())


def apply(clip, network, active, step=1):
    """Answer the clip's request as an engine does, and clip."""
    request = clip.request(step, dense=False)
    squared_norms = None
    if request.signs is not None:
        dense = {name: weights.layer.weight.grad for name, weights in active.items()}
        squared_norms = sum_squared_norms(dense, request.signs)
    clip.apply(step, [network[2].weight.grad], squared_norms)


@pytest.mark.parametrize(
    ("clip", "norm"),
    [
        (ClipSpec(norm=1.0, **EXACT), math.sqrt(9 + 16 + 4 + 144)),
        (ClipSpec(norm=1.0, scope="active"), math.sqrt(9 + 4 + 144)),
        (ClipSpec(norm=100.0, **EXACT), 100.0),
    ],
    ids=["dense", "active", "loose"],
)
def test_gradients_are_scaled_by_the_norm_of_the_chosen_scope(network, active, clip, norm):
    apply(clip_of(clip, active), network, active)
    scale = clip.norm / norm
    assert active["0"].gradient.tolist() == pytest.approx([3 * scale], rel=1e-5)
    assert active["1"].gradient.tolist() == pytest.approx([0.0, 2 * scale], rel=1e-5)
    assert network[2].weight.grad.tolist()[0] == pytest.approx([12 * scale, 0.0], rel=1e-5)


def test_an_exact_norm_is_that_of_torch_to_the_last_bit(network, active):
    gradients = [network[2].weight.grad.clone(), *(weights.layer.weight.grad.clone() for weights in active.values())]
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    nn.utils.clip_grad_norm_(parameters, 1.0)
    apply(clip_of(ClipSpec(norm=1.0, **EXACT), active), network, active)
    assert torch.equal(network[2].weight.grad, parameters[0].grad)


def test_each_estimator_asks_the_engine_for_what_it_needs(active):
    requests = {
        name: clip_of(ClipSpec(norm=1.0, **keys), active).request(1, dense=False)
        for name, keys in {"exact": EXACT, "sketch": {"scope": "dense"}, "active": {"scope": "active"}}.items()
    }
    assert {name: (request.dense, request.signs is not None) for name, request in requests.items()} == {
        "exact": (True, False),
        "sketch": (False, True),
        "active": (False, False),
    }


@pytest.mark.parametrize("spec", [{"scope": "active"}, {"scope": "dense"}, EXACT | {"every": 2}])
@pytest.mark.parametrize("step", [1, 2])
def test_dense_gradients_that_growth_needs_are_asked_for_whatever_the_clip(active, spec, step):
    assert clip_of(ClipSpec(norm=1.0, **spec), active).request(step, dense=True).dense


def test_signs_are_plus_and_minus_one_and_depend_on_seed_and_step_alone(active):
    def signs(seed, step):
        spec = ClipSpec(norm=1.0, scope="dense", probes=64)
        return clip_of(spec, active, seed).request(step, dense=False).signs["0"]

    assert signs(1, 1).shape == (64, 2)
    assert signs(1, 1).dtype == torch.float32
    assert sorted(signs(1, 1).unique().tolist()) == [-1.0, 1.0]
    assert torch.equal(signs(1, 1), signs(1, 1))
    assert not torch.equal(signs(1, 1), signs(1, 2))
    assert not torch.equal(signs(1, 1), signs(2, 1))


def test_layers_and_probes_have_signs_of_their_own(active):
    spec = ClipSpec(norm=1.0, scope="dense", probes=64)
    signs = clip_of(spec, active).request(1, dense=False).signs
    assert not torch.equal(signs["0"], signs["1"])
    assert len(signs["0"].unique(dim=0)) == 4


def test_signs_and_norm_have_the_same_memory_at_every_step(network, active):
    clip = clip_of(ClipSpec(norm=1.0, scope="dense"), active)
    signs = [clip.request(step, dense=False).signs["1"] for step in (1, 2)]
    assert signs[0].data_ptr() == signs[1].data_ptr()
    before = clip.state_dict()["norm"].data_ptr()
    apply(clip, network, active)
    clip.load_state_dict({"norm": torch.tensor(2.0, dtype=torch.float64)})
    assert clip.state_dict()["norm"].data_ptr() == before
    assert clip.state_dict()["norm"] == 2


def test_a_sketch_of_many_probes_comes_close_to_the_exact_norm(network, active):
    apply(clip := clip_of(ClipSpec(norm=1.0, scope="dense", probes=20_000), active), network, active)
    assert float(clip.state_dict()["norm"]) == pytest.approx(math.sqrt(9 + 16 + 4 + 144), rel=0.01)


def test_the_norm_is_measured_at_every_kth_step_and_used_until_the_next(network, active):
    clip = clip_of(ClipSpec(norm=1.0, **EXACT, every=3), active)
    norms = []
    for step in range(1, 8):
        for gradient, size in ((network[2].weight.grad, step), *((w.layer.weight.grad, 0) for w in active.values())):
            gradient.fill_(size)
        assert clip.request(step, dense=False).dense is (step in {1, 4, 7})
        clip.apply(step, [network[2].weight.grad], None)
        norms.append(float(clip.state_dict()["norm"]) / math.sqrt(2))
        assert network[2].weight.grad[0, 0] == pytest.approx(step / (norms[-1] * math.sqrt(2)), rel=1e-5)
    assert norms == pytest.approx([1, 1, 1, 4, 4, 4, 7], rel=1e-6)


def test_a_resumed_clip_uses_the_norm_that_was_measured_before(network, active):
    spec = ClipSpec(norm=1.0, **EXACT, every=3)
    first, second = clip_of(spec, active), clip_of(spec, active)
    apply(first, network, active)
    second.load_state_dict(first.state_dict())
    network[2].weight.grad.fill_(7)
    apply(second, network, active, step=2)
    assert network[2].weight.grad[0, 0] == pytest.approx(7 / math.sqrt(9 + 16 + 4 + 144), rel=1e-5)


@pytest.mark.parametrize("spec", [{"scope": "dense"}, EXACT])
def test_a_gradient_that_is_no_number_makes_all_of_them_so(network, active, spec):
    active["0"].layer.weight.grad[1, 0] = math.nan
    apply(clip_of(ClipSpec(norm=1.0, **spec), active), network, active)
    assert network[2].weight.grad.isnan().all()
    assert active["0"].gradient.isnan().all()
