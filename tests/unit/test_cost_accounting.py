import pytest
import torch
from torch import nn

from east.cost.accounting import torchsummary_memory, trace_outputs
from east.models import build_model
from east.models.dct import set_fused
from east.models.dyrelu import retire_dyrelu


@pytest.mark.parametrize(
    ("settings", "beta", "param_size", "est_total"),
    [
        pytest.param({}, 1, 81.36, 100.44, id="RigL, and w/ Cyclic"),
        pytest.param({"dct": True}, 1, 162.66, 197.36, id="DCTpS"),
        pytest.param({"activation": "dyrelu"}, 0, 81.36, 107.81, id="w/ DyReLU"),
        pytest.param({"sharing_ratio": 2}, 1, 42.83, 58.78, id="w/ WS"),
        pytest.param({"activation": "dyrelu", "sharing_ratio": 2}, 1, 54.96, 78.78, id="Combined"),
        pytest.param({"activation": "dyrelu"}, 1, 93.50, 120.44, id="w/ DyReLU while it is active"),
    ],
)
def test_table_6_of_the_paper_to_the_printed_digit(settings, beta, param_size, est_total):
    with torch.device("meta"):
        model = build_model("resnet34", 100, **settings)
    set_fused(model, False)
    if beta == 0:
        retire_dyrelu(model)
    memory = torchsummary_memory(model, (3, 32, 32))
    assert (round(memory.param_mb, 2), round(memory.total_mb, 2)) == (param_size, est_total)


class Composite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.unused = nn.Linear(1000, 1000)
        self.scale = nn.Parameter(torch.ones(500))

    def forward(self, x):
        return torch.relu(self.conv(x))


def test_the_rule_on_a_network_counted_by_hand():
    model = nn.Sequential(Composite(), nn.Sequential(nn.BatchNorm2d(4), nn.Flatten()))
    memory = torchsummary_memory(model, (2, 5, 5))
    # Convolution 2*4*9 + 4 and batch norm 8; four outputs of 4*5*5 (convolution, composite, batch norm, flatten).
    assert memory.param_mb == (72 + 4 + 8) * 4 / 2**20
    assert memory.activations_mb == 2 * 4 * 100 * 4 / 2**20
    assert memory.input_mb == 50 * 4 / 2**20
    assert memory.total_mb == memory.param_mb + memory.activations_mb + memory.input_mb


def test_tracing_leaves_the_network_as_it_was():
    model = build_model("resnet34", 10, activation="dyrelu", sharing_ratio=2, width=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = trace_outputs(model, (3, 16, 16))
    assert trace_outputs(model, (3, 16, 16)) == first
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert {output.name: output.shape for output in first}["stages.1.0"] == (8, 8, 8)
