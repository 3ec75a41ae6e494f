import pytest
import torch
import torch.nn.functional as F

from east.engine import GradientRequest, make_engine
from east.engine.dense import DenseEngine, sum_squared_norms
from east.models import build_model
from east.reproducibility import Reproducibility
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from tests.unit.sparse_engines import CPU, draw_masks


def signs_of(probes, channels, *purpose):
    return 2.0 * torch.randint(2, (probes, channels), generator=generator(0, *purpose)) - 1


@pytest.fixture(params=[{}, {"sharing_ratio": 2, "dct": True}], ids=["plain", "sharing and DCT"])
def trained(request):
    """A sparse network, its active weights, its engine and a batch."""
    torch.manual_seed(0)
    model = build_model("resnet34", 10, width=4, **request.param)
    active = active_weights(draw_masks(model, 0.2))
    engine = make_engine("dense", model, active, numerics="fp32", device=CPU)
    return model, active, engine, torch.randn(4, 3, 8, 8, generator=generator(0, "images"))


def loss(logits):
    return F.cross_entropy(logits, torch.tensor([1, 2, 3, 4]))


def test_gradients_of_active_weights_are_those_of_autograd(trained):
    model, active, engine, images = trained
    found = engine.gradients(images, loss, GradientRequest())
    assert found.squared_norms is None
    assert not found.loss.requires_grad
    assert not found.logits.requires_grad
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    loss(model(images)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
    for name, weights in active.items():
        expected = gradients[f"{name}.weight"][weights.layer.mask]
        assert sorted(weights.gradient.tolist()) == sorted(expected.tolist())


def test_values_are_read_after_the_engine_has_laid_the_weights_out(trained):
    _, active, _, _ = trained
    for weights in active.values():
        weights.values.add_(1)
        weights.write_back()
        assert (weights.layer.weight != 0).equal(weights.layer.mask)


def test_squared_norms_are_those_of_the_dense_gradients_contracted_with_the_signs(trained):
    _, active, engine, images = trained
    signs = {name: signs_of(3, weights.layer.weight.shape[0], name) for name, weights in active.items()}
    found = engine.gradients(images, loss, GradientRequest(signs=signs))
    expected = 0
    for name, weights in active.items():
        dense = weights.layer.weight.grad.double()
        dense = dense.reshape(*dense.shape[:2], -1)
        expected += torch.einsum("oik,po->pik", dense, signs[name].double()).square().sum((1, 2))
    torch.testing.assert_close(found.squared_norms, expected, rtol=1e-5, atol=0)


@pytest.fixture
def precision():
    before = torch.backends.cudnn.conv.fp32_precision
    yield
    torch.backends.cudnn.conv.fp32_precision = before


@pytest.mark.parametrize(
    ("device", "numerics", "autocast", "precision_of_convolutions"),
    [
        ("cpu", "fp32", False, "none"),
        ("cpu", "bf16", False, "none"),
        ("cuda", "fp32", False, "ieee"),
        ("cuda", "tf32", False, "tf32"),
        ("cuda", "bf16", True, "tf32"),
    ],
)
@pytest.mark.usefixtures("precision")
def test_only_a_gpu_tells_numerics_apart_and_its_bits_are_promised_by_nobody(
    device, numerics, autocast, precision_of_convolutions
):
    torch.backends.cudnn.conv.fp32_precision = "none"
    model = build_model("resnet34", 10, width=4)
    active = active_weights(draw_masks(model, 0.2))
    engine = DenseEngine(model, active, numerics=numerics, device=torch.device(device))
    assert engine.autocast == autocast
    assert torch.backends.cudnn.conv.fp32_precision == precision_of_convolutions
    executed, on_cpu = engine.executed(), device == "cpu"
    assert executed.reproducibility == (Reproducibility.THIS_PROCESSOR if on_cpu else Reproducibility.STATISTICAL)
    assert executed.instruction_set == (torch.backends.cpu.get_cpu_capability() if on_cpu else None)
    assert (executed.engine, executed.executions) == ("dense", {"dense": 37})
    assert engine.signature(None) == ()


def test_under_autocast_logits_are_single_precision_of_half_precision(trained):
    _, _, engine, images = trained
    engine.model.eval()
    with torch.no_grad():
        exact = engine(images)
        engine.autocast = True
        found = engine(images)
    assert found.dtype == exact.dtype == torch.float32
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0.1)


def test_weights_stay_as_they_are_laid_out_where_that_is_asked_for():
    model = build_model("resnet34", 10, width=16)
    active, settings = active_weights(draw_masks(model, 0.2)), {"numerics": "fp32", "device": CPU}
    DenseEngine(model, active, **settings, lay_out=False)
    assert model.conv1.weight.is_contiguous()
    assert DenseEngine(model, active, **settings)(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert model.stages[0][0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (4, 7)])
def test_the_sketch_is_unbiased(shape):
    """The mean over many signs is the exact squared norm within four standard errors, and not just any number."""
    gradient = torch.randn(shape, generator=generator(0, "gradient"))
    found = sum_squared_norms({"layer": gradient}, {"layer": signs_of(4000, shape[0], "signs")})
    error = found.std() / len(found) ** 0.5
    exact = gradient.double().square().sum()
    assert abs(found.mean() - exact) < 4 * error
    assert 4 * error < 0.1 * exact
