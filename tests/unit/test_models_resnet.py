import pytest
import torch
from torch import nn

from east.errors import EastError
from east.models import DescribedNetwork, build_model
from east.models.dyrelu import dyrelu_units
from east.sparse.layers import masked_layers


def on_meta(*args, **kwargs) -> DescribedNetwork:
    with torch.device("meta"):
        return build_model(*args, **kwargs)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def masked_weights(model: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in masked_layers(model).values())


@pytest.mark.parametrize(
    ("name", "classes", "settings", "all_parameters", "masked", "tensors"),
    [
        ("resnet34", 10, {}, 21_282_112, 21_265_088, 37),
        ("resnet34", 100, {}, 21_328_192, 21_311_168, 37),
        ("resnet34", 10, {"activation": "dyrelu"}, 24_463_280, 21_265_088, 37),
        ("resnet34", 100, {"activation": "dyrelu"}, 24_509_360, 21_311_168, 37),
        ("resnet34", 10, {"sharing_ratio": 2}, 11_181_392, 11_164_352, 21),
        ("resnet34", 100, {"sharing_ratio": 2}, 11_227_472, 11_210_432, 21),
        ("resnet34", 100, {"dct": True}, 21_328_292 + 37, 21_311_168, 37),
        ("resnet50", 10, {}, 23_520_832, 23_467_712, 54),
        ("resnet50", 100, {}, 23_705_152, 23_652_032, 54),
        ("resnet50", 100, {"activation": "dyrelu"}, 52_099_952, 23_652_032, 54),
        ("resnet50", 10, {"sharing_ratio": 2}, 13_928_128 + 53_120 + 24, 13_928_128, 30),
        ("resnet50", 100, {"sharing_ratio": 2}, 14_112_448 + 53_120 + 24, 14_112_448, 30),
        # torchvision's ResNet-50 has 25,557,032 parameters, 1000 of them the bias of its classifier.
        ("resnet50_imagenet", 1000, {}, 25_556_032, 25_502_912, 54),
    ],
)
def test_parameter_counts(name, classes, settings, all_parameters, masked, tensors):
    model = on_meta(name, classes, **settings)
    assert parameters(model) == all_parameters
    assert masked_weights(model) == masked
    assert len(masked_layers(model)) == tensors


@pytest.mark.parametrize(("name", "units"), [("resnet34", 33), ("resnet50", 49), ("resnet50_imagenet", 49)])
@pytest.mark.parametrize("sharing_ratio", [None, 2])
def test_every_activation_is_a_unit_also_in_shared_blocks(name, units, sharing_ratio):
    model = on_meta(name, 10, activation="dyrelu", sharing_ratio=sharing_ratio)
    assert len(dyrelu_units(model)) == units


def test_only_first_blocks_project_their_shortcut():
    def projections(name: str) -> list[str]:
        return [layer for layer in masked_layers(on_meta(name, 10)) if "shortcut" in layer]

    assert projections("resnet34") == [f"stages.{stage}.0.shortcut.0" for stage in (1, 2, 3)]
    assert projections("resnet50") == [f"stages.{stage}.0.shortcut.0" for stage in (0, 1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "image", "sizes"),
    [
        ("resnet34", 32, [32, 32, 16, 8, 4]),
        ("resnet50", 32, [32, 32, 16, 8, 4]),
        ("resnet50_imagenet", 224, [112, 56, 28, 14, 7]),
    ],
)
def test_sizes_of_the_stem_and_of_each_stage(name, image, sizes):
    model = on_meta(name, 10)
    seen = []
    for module in (model.conv1, *(stage[-1] for stage in model.stages)):
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[-1]))
    assert model(torch.empty(1, 3, image, image, device="meta")).shape == (1, 10)
    assert seen == sizes


def test_the_middle_convolution_of_a_bottleneck_carries_the_stride():
    block = on_meta("resnet50", 10).stages[1][0]
    strides = [conv.stride[0] for conv in (block.conv1, block.conv2, block.conv3)]
    assert strides == [1, 2, 1]


def test_a_basic_block_is_its_formula():
    model = build_model("resnet34", 10, width=4).eval()
    block = model.stages[1][0]
    x = torch.randn(2, 4, 8, 8)
    hidden = torch.relu(block.bn1(block.conv1(x)))
    expected = torch.relu(block.bn2(block.conv2(hidden)) + block.shortcut[1](block.shortcut[0](x)))
    torch.testing.assert_close(block(x, model), expected)


def test_a_bottleneck_is_its_formula():
    model = build_model("resnet50", 10, width=4).eval()
    block = model.stages[0][1]
    x = torch.randn(2, 16, 8, 8)
    hidden = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))))
    torch.testing.assert_close(block(x, model), torch.relu(block.bn3(block.conv3(hidden)) + x))


def test_the_smallest_network_has_one_channel_and_one_class():
    assert build_model("resnet34", 1, width=1)(torch.randn(2, 3, 4, 4)).shape == (2, 1)


def test_plain_relu_is_a_function_and_not_a_module():
    assert not [module for module in on_meta("resnet34", 10).modules() if isinstance(module, nn.ReLU)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet17"}, "resnet17.*resnet34"),
        ({"activation": "gelu"}, "gelu.*dyrelu"),
        ({"sharing_ratio": 1}, "sharing_ratio 1"),
        ({"width": 0}, r"width \(0\)"),
    ],
)
def test_impossible_networks_are_refused_in_words(arguments, words):
    with pytest.raises(EastError, match=words):
        build_model(**{"name": "resnet34", "num_classes": 10, **arguments})
