import pytest
import torch
import torch.nn.functional as F

from east.engine import GradientRequest, make_engine
from east.engine.dense import sum_squared_norms
from east.models import build_model
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


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (4, 7)])
def test_the_sketch_is_unbiased(shape):
    """The mean over many signs is the exact squared norm within four standard errors, and not just any number."""
    gradient = torch.randn(shape, generator=generator(0, "gradient"))
    found = sum_squared_norms({"layer": gradient}, {"layer": signs_of(4000, shape[0], "signs")})
    error = found.std() / len(found) ** 0.5
    exact = gradient.double().square().sum()
    assert abs(found.mean() - exact) < 4 * error
    assert 4 * error < 0.1 * exact
