import pytest
import torch

from east.models import build_model
from east.models.dyrelu import DyReLU, dyrelu_units, retire_dyrelu, set_beta


def slow_dyrelu(unit: DyReLU, x: torch.Tensor, beta: float) -> torch.Tensor:
    """DyReLU-B as the paper describes it, value by value, blending whole coefficients."""
    images, channels, height, width = x.shape
    out = torch.empty_like(x)
    for n in range(images):
        mean = x[n].flatten(1).mean(1)
        hidden = (unit.fc1.weight @ mean + unit.fc1.bias).clamp(min=0)
        code = 2 * torch.sigmoid(unit.fc2.weight @ hidden + unit.fc2.bias) - 1
        for c in range(channels):
            dynamic = [
                init + reach * code[4 * c + k].item()
                for k, (init, reach) in enumerate([(1, 1), (0, 1), (0, 0.5), (0, 0.5)])
            ]
            a1, a2, b1, b2 = (beta * d + (1 - beta) * p for d, p in zip(dynamic, (1, 0, 0, 0), strict=True))
            for i in range(height):
                for j in range(width):
                    out[n, c, i, j] = max(a1 * float(x[n, c, i, j]) + b1, a2 * float(x[n, c, i, j]) + b2)
    return out


@pytest.mark.parametrize("beta", [1.0, 0.3, 0.0])
def test_a_unit_is_its_formula(beta):
    torch.manual_seed(0)
    unit = DyReLU(8).double()
    set_beta(unit, beta)
    x = torch.randn(2, 8, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(unit(x), slow_dyrelu(unit, x, beta))


@pytest.mark.parametrize(("channels", "parameters"), [(64, 5_392), (128, 21_024), (256, 83_008), (512, 329_856)])
def test_parameters_of_a_unit(channels, parameters):
    with torch.device("meta"):
        unit = DyReLU(channels)
    assert sum(parameter.numel() for parameter in unit.parameters()) == parameters


def test_a_unit_of_few_channels_has_one_hidden_number():
    assert [DyReLU(channels).fc1.out_features for channels in (1, 3, 4, 8)] == [1, 1, 1, 2]


def test_the_network_starts_dynamic_and_is_a_relu_network_at_beta_zero():
    torch.manual_seed(0)
    dynamic = build_model("resnet34", 10, activation="dyrelu", width=4).eval()
    plain = build_model("resnet34", 10, width=4).eval()
    plain.load_state_dict(dynamic.state_dict(), strict=False)
    x = torch.randn(2, 3, 8, 8)
    assert not torch.allclose(dynamic(x), plain(x))
    set_beta(dynamic, 0.0)
    torch.testing.assert_close(dynamic(x), plain(x), rtol=0, atol=0)


def test_beta_is_changed_in_place_and_stored():
    model = build_model("resnet34", 10, activation="dyrelu", width=4)
    before = [unit.beta for unit in dyrelu_units(model)]
    set_beta(model, 0.25)
    assert all(unit.beta is beta for unit, beta in zip(dyrelu_units(model), before, strict=True))
    assert {float(value) for name, value in model.state_dict().items() if name.endswith("beta")} == {0.25}


def test_retirement_leaves_a_relu_network_and_hands_back_its_parameters():
    torch.manual_seed(0)
    model = build_model("resnet34", 10, activation="dyrelu", width=4).eval()
    of_units = {id(parameter) for unit in dyrelu_units(model) for parameter in unit.parameters()}
    set_beta(model, 0.0)
    x = torch.randn(2, 3, 8, 8)
    before = model(x)

    removed = retire_dyrelu(model)

    assert {id(parameter) for parameter in removed} == of_units
    assert not of_units & {id(parameter) for parameter in model.parameters()}
    assert model.state_dict().keys() == build_model("resnet34", 10, width=4).state_dict().keys()
    assert torch.equal(model(x), before)
    assert retire_dyrelu(model) == []
