"""The registered networks: their sizes, published and without building them, and what descriptions refuse."""

import itertools

import pytest
import torch
from torch import nn

from east.errors import EastError
from east.models import build_model
from east.models.build import description_of, network_size
from east.models.description import describe
from east.models.sharing import owned_weights, virtual_weights
from east.sparse.kinds import network
from east.sparse.layers import masked_layers

NETWORKS = [entry.name for entry in network]

PUBLISHED = [
    # He et al. 2016, Table 6: 0.27 M, 0.46 M, 0.85 M. Exactly, with a bias of the classifier:
    # https://github.com/akamaster/pytorch_resnet_cifar10 (its option A).
    ("resnet20", (3, 32, 32), 269_722 - 10),
    ("resnet32", (3, 32, 32), 464_154 - 10),
    ("resnet56", (3, 32, 32), 853_018 - 10),
    # https://github.com/kuangliu/pytorch-cifar, with a bias of the classifier.
    ("resnet18", (3, 32, 32), 11_173_962 - 10),
    ("resnet34", (3, 32, 32), 21_282_122 - 10),
    ("resnet50", (3, 32, 32), 23_520_842 - 10),
    # The same's VGG, which has biases in 4,224 channels as well.
    ("vgg16", (3, 32, 32), 14_728_266 - 4_224 - 10),
    ("vgg19", (3, 32, 32), 20_040_522 - 5_504 - 10),
    # Zagoruyko & Komodakis 2016, Table 4: 11.0 M.
    ("wrn16_8", (3, 32, 32), 10_961_370 - 10),
    # LeNet-300-100 on MNIST: 266,610 with 410 biases (LeCun et al. 1998).
    ("mlp", (1, 28, 28), 266_610 - 410),
]


def on_meta(name, classes=10, image_shape=(3, 32, 32), **keys):
    with torch.device("meta"):
        return build_model(name, classes, image_shape=image_shape, **keys)


@pytest.mark.parametrize(("name", "image_shape", "count"), PUBLISHED, ids=[name for name, *_ in PUBLISHED])
def test_a_network_has_as_many_parameters_as_published(name, image_shape, count):
    assert sum(parameter.numel() for parameter in on_meta(name, image_shape=image_shape).parameters()) == count


def test_a_wide_network_has_as_many_parameters_as_its_definition_says():
    """WideResNet-22-2: 1 stem, 3 stages of 3 blocks of 2 convolutions, 3 shortcuts; a batch norm before each."""
    ends = [(16, 32), *[(32, 32)] * 5, (32, 64), *[(64, 64)] * 5, (64, 128), *[(128, 128)] * 5]
    shortcuts = [(16, 32), (32, 64), (64, 128)]
    weights = 27 * 16 + sum(9 * a * b for a, b in ends) + sum(a * b for a, b in shortcuts) + 128 * 10
    norms = 2 * (sum(a for a, _ in ends) + 128)
    assert sum(parameter.numel() for parameter in on_meta("wrn22_2").parameters()) == weights + norms


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("sharing", "dct"), list(itertools.product((None, 2, 4), (False, True))))
def test_shapes_and_weights_are_those_of_the_network(name, sharing, dct):
    model = on_meta(name, 7, sharing_ratio=sharing, dct=dct)
    size = network_size(name, 7, sharing_ratio=sharing, dct=dct)
    layers = masked_layers(model)
    assert list(size.shapes.items()) == [(layer, tuple(layers[layer].weight.shape)) for layer in layers]
    assert size.stored_weights == owned_weights(model)
    assert size.dense_weights == owned_weights(model) + virtual_weights(model)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_fewest_positions_are_those_of_the_smallest_image_that_is_normalised(name):
    seen = []
    model = on_meta(name, 2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _given, output: seen.append(output.shape[2:].numel()))
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 2)
    assert description_of(name, 2).fewest_positions == min(seen, default=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_width_of_its_own_is_that_of_the_first_layer(name):
    if name != "mlp":
        assert next(iter(network_size(name, 7, width=5).shapes.values()))[0] == 5


def test_a_pre_activation_block_is_its_formula():
    model = build_model("wrn22_2", 10, width=2).eval()
    for number, (block, channels) in enumerate(((model.stages[0][0], 2), (model.stages[0][1], 4))):
        x = torch.randn(2, channels, 8, 8)
        activated = torch.relu(block.bn1(x))
        y = block.conv2(torch.relu(block.bn2(block.conv1(activated))))
        torch.testing.assert_close(block(x, model), y + (x if number else block.shortcut(activated)))


def test_a_shortcut_without_weights_takes_every_second_position_and_adds_zeros():
    model = build_model("resnet20", 10, width=2).eval()
    block, x = model.stages[1][0], torch.randn(2, 2, 6, 6)
    y = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    y[:, :2] += x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x, model), torch.relu(y))


def block_of_two(x, index):
    return x.conv(4).norm().act()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda images, classes: images.conv(4).linear(classes), "Put .mean"),
        (lambda images, classes: images.conv(4).mean(), "ends with .linear"),
        (lambda images, classes: images.mean().linear(classes + 1), "of 10 features"),
        (lambda images, classes: images.mean().conv(4), "no positions any more"),
        (lambda images, classes: images.conv(4, 9), "kernel of 1 to 7"),
        (lambda images, classes: images.max_pool(9), "too small"),
        (lambda images, classes: images.conv(4) + images, "different shapes"),
        (lambda images, classes: images.conv(4, name="a").conv(4, name="a"), "two modules are called 'a'"),
        (lambda images, classes: [images.conv(4), images.mean().linear(classes)][1], "nothing is made of conv1"),
        (lambda images, classes: images.conv(4).block(lambda x: images.conv(4), name="b"), "which is outside it"),
        (lambda images, classes: images.block(lambda x: None, name="b"), "must end with something that it describes"),
        (lambda images, classes: images.repeat(3, block_of_two, name="b").mean().linear(classes), "another one"),
        (lambda images, classes: "logits", "not a str"),
    ],
)
def test_what_is_no_network_is_refused_in_words(make, words):
    with pytest.raises(EastError, match=words):
        describe(make, (3, 8, 8), 10, sharing_ratio=1)


def test_weights_of_a_network_may_depend_on_the_size_of_images():
    model = build_model("mlp", 10, image_shape=(3, 8, 8))
    with pytest.raises(EastError, match="images of 3 x 8 x 8, not of 3 x 9 x 8"):
        model.describe((3, 9, 8))
    assert build_model("vgg16", 10, width=2).describe((3, 64, 64)).fewest_positions == 16
