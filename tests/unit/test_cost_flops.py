import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from east.cost.flops import inference_flops, layer_work, training_flops
from east.models import DescribedNetwork, build_model
from east.models.dct import set_fused
from east.sparse.distribution import erk
from east.sparse.layers import masked_layers

NETWORKS = [
    pytest.param("resnet34", {}, 32, id="resnet34"),
    pytest.param("resnet34", {"activation": "dyrelu"}, 32, id="dyrelu"),
    pytest.param("resnet34", {"sharing_ratio": 2}, 32, id="sharing"),
    pytest.param("resnet50", {}, 32, id="resnet50"),
    pytest.param("resnet50", {"activation": "dyrelu", "sharing_ratio": 2, "dct": True}, 16, id="everything"),
    pytest.param("resnet50_imagenet", {}, 224, id="imagenet"),
]


def on_meta(name: str, **settings) -> DescribedNetwork:
    with torch.device("meta"):
        return build_model(name, 10, **settings)


def erk_counts(model: DescribedNetwork, density: float) -> dict[str, int]:
    return erk({name: tuple(layer.weight.shape) for name, layer in masked_layers(model).items()}, density)


@pytest.mark.parametrize(("name", "settings", "size"), NETWORKS)
def test_dense_flops_are_those_that_pytorch_counts(name, settings, size):
    model = on_meta(name, **settings)
    work = layer_work(model, (3, size, size))
    images = torch.empty(2, 3, size, size, device="meta")
    with FlopCounterMode(display=False) as forward:
        loss = model(images).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert 2 * inference_flops(work) == forward.get_total_flops()
    assert 2 * training_flops(work) == forward.get_total_flops() + backward.get_total_flops()


def test_sparse_flops_by_hand():
    """Counts of ERK at density 0.0005 per tensor, times positions of each stage, times two."""
    model = on_meta("resnet34")
    counts = erk_counts(model, 0.0005)
    by_stage = {32: 0, 16: 0, 8: 0, 4: 0, 1: 0}
    for name, count in counts.items():
        size = 32 if name == "conv1" else 1 if name == "classifier" else 32 // 2 ** int(name.split(".")[1])
        by_stage[size] += count
    work = layer_work(model, (3, 32, 32))
    macs = sum(size**2 * count for size, count in by_stage.items())
    assert macs == pytest.approx(1.26e6, rel=0.005)
    assert inference_flops(work, counts) == 2 * macs
    # Three passes, less the gradient of the image.
    assert training_flops(work, counts) == 3 * 2 * macs - 2 * 32**2 * counts["conv1"]


def test_dense_gradients_are_paid_for_on_their_share_of_steps():
    model = on_meta("resnet34", activation="dyrelu")
    work = layer_work(model, (3, 32, 32))
    counts = erk_counts(model, 0.001)
    masked = sum(2 * layer.positions * (layer.weights - counts[layer.name]) for layer in work if layer.masked)
    without, always = training_flops(work, counts), training_flops(work, counts, 1.0)
    assert always - without == pytest.approx(masked)
    assert training_flops(work, counts, 0.25) == pytest.approx(0.75 * without + 0.25 * always)


@pytest.mark.parametrize("fused", [True, False])
def test_the_dct_stays_dense_and_gets_no_weight_gradient(fused):
    plain, dct = on_meta("resnet34"), on_meta("resnet34", dct=True)
    set_fused(dct, fused)
    plain_work, work = (layer_work(model, (3, 32, 32)) for model in (plain, dct))
    plain_counts, counts = (erk_counts(model, 0.001) for model in (plain, dct))
    dense, stem = inference_flops(plain_work), 2 * 32**2 * 3 * 64 * 9
    assert inference_flops(work) == dense
    assert inference_flops(work, counts) == dense + inference_flops(plain_work, plain_counts)
    assert training_flops(work, counts) == 2 * dense - stem + training_flops(plain_work, plain_counts)
