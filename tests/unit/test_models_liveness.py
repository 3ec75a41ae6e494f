import pytest
import torch

from east.models import build_model
from east.models.liveness import Liveness, liveness
from east.sparse.layers import apply_masks, masked_layers
from tests.unit.sparse_engines import draw_masks


def sparse_network(name: str, density: float, seed: int, **settings):
    model = build_model(name, 10, **settings)
    draw_masks(model, density, seed)
    return model


@pytest.fixture(scope="module")
def resnet34():
    model = build_model("resnet34", 10)

    def mean_share(density: float) -> tuple[float, float]:
        found = []
        for seed in range(3):
            draw_masks(model, density, seed)
            found.append(liveness(model))
        channels = sum(x.live_channels for x in found) / sum(x.channels for x in found)
        positions = sum(x.reachable_positions for x in found) / sum(x.positions for x in found)
        return channels, positions

    return mean_share


@pytest.mark.parametrize(
    ("density", "channels", "positions"),
    [(0.001, 0.84, 0.87), (0.0005, 0.47, 0.55), (0.0003, 0.17, 0.23)],
)
def test_random_erk_masks_are_as_disconnected_as_measured(resnet34, density, channels, positions):
    """Expected values: mean of three seeds of an independent measurement, rounded to a percent."""
    found = resnet34(density)
    assert found[0] == pytest.approx(channels, abs=0.02)
    assert found[1] == pytest.approx(positions, abs=0.02)


@pytest.mark.slow
def test_a_random_resnet50_is_all_but_disconnected_at_the_papers_density():
    found = [liveness(sparse_network("resnet50", 0.0005, seed)) for seed in range(3)]
    live = sum(x.live_channels for x in found) / sum(x.channels for x in found)
    assert 0.0005 < live < 0.005  # about 0.2 %


def test_a_dense_network_is_live_throughout():
    model = build_model("resnet50", 10, width=4)
    weights = sum(layer.weight.numel() for layer in masked_layers(model).values())
    found = liveness(model)
    assert found == Liveness(
        channels=found.channels,
        live_channels=found.channels,
        weights=weights,
        live_weights=weights,
        branches=16,
        dead_branches=0,
        positions=weights,
        reachable_positions=weights,
    )


def test_a_single_thread_through_a_resnet34_by_hand():
    """One weight in every layer of the identity path keeps just that path alive, and no residual branch."""
    model = build_model("resnet34", 10, width=4)
    layers = masked_layers(model)
    for name, layer in layers.items():
        layer.mask.zero_()
        if name in ("conv1", "classifier") or "shortcut" in name:
            layer.mask.view(layer.mask.shape[0], -1)[0, 0] = True
    found = liveness(model)
    assert (found.live_channels, found.weights, found.live_weights) == (4, 5, 5)
    assert (found.branches, found.dead_branches) == (16, 16)

    model.stages[0][0].conv1.mask[2, 0, 1, 1] = True
    found = liveness(model)
    assert (found.live_channels, found.weights, found.live_weights) == (4, 6, 5)

    model.stages[0][0].conv2.mask[0, 2, 1, 1] = True
    found = liveness(model)
    assert (found.live_channels, found.weights, found.live_weights, found.dead_branches) == (6, 7, 7, 15)


@pytest.mark.parametrize(
    ("name", "density", "settings"),
    [
        ("resnet34", 0.01, {}),
        ("resnet34", 0.01, {"sharing_ratio": 2}),
        ("resnet50", 0.03, {}),
        ("resnet50", 0.03, {"sharing_ratio": 2}),
    ],
)
def test_reachable_positions_are_those_whose_gradient_depends_on_the_image(name, density, settings):
    """With positive weights and biases every ReLU is open and nothing cancels: only a missing path hides the image."""
    torch.manual_seed(0)
    model = sparse_network(name, density, seed=1, width=4, **settings).double().eval()
    layers = masked_layers(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.1, 1.0)
    apply_masks(layers)

    def gradients() -> list[torch.Tensor]:
        model(torch.rand(1, 3, 64, 64, dtype=torch.float64)).sum().backward()
        found = [layer.weight.grad.reshape(*layer.weight.shape[:2], -1) for layer in layers.values()]
        model.zero_grad()
        return found

    reached = live = 0
    for layer, first, second in zip(layers.values(), gradients(), gradients(), strict=True):
        pairs = (first != second).any(2, keepdim=True)
        reached += int(pairs.expand_as(first).sum())
        live += int((layer.mask.reshape(first.shape) & pairs).sum())
    found = liveness(model)
    assert 0 < found.reachable_positions < found.positions
    assert (found.reachable_positions, found.live_weights) == (reached, live)


def test_uses_of_a_shared_layer_are_counted_each():
    own, shared = (build_model("resnet34", 10, width=4, sharing_ratio=ratio) for ratio in (None, 2))
    assert liveness(shared).channels == liveness(own).channels


def test_dct_connects_every_channel_whatever_the_masks():
    model = sparse_network("resnet34", 0.001, seed=0, width=8, dct=True)
    found = liveness(model)
    assert found.live_channels == found.channels
    assert found.live_weights == found.weights < found.positions == found.reachable_positions
    assert found.dead_branches == 0
