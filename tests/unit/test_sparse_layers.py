"""A masked layer is the layer of the same name, with a mask."""

import torch
import torch.nn.functional as F

from east.sparse.layers import MaskedConv2d, MaskedLinear, apply_masks, masked_layers


def test_a_layer_is_dense_and_without_bias_unless_asked_otherwise():
    model = torch.nn.Sequential(
        MaskedConv2d(3, 4, 3), torch.nn.ReLU(), MaskedLinear(4, 2), MaskedLinear(2, 5, bias=True)
    )
    assert list(masked_layers(model)) == ["0", "2", "3"]
    assert {name: (tuple(value.shape), value.dtype) for name, value in model.state_dict().items()} == {
        "0.weight": ((4, 3, 3, 3), torch.float32),
        "0.mask": ((4, 3, 3, 3), torch.bool),
        "2.weight": ((2, 4), torch.float32),
        "2.mask": ((2, 4), torch.bool),
        "3.weight": ((5, 2), torch.float32),
        "3.bias": ((5,), torch.float32),
        "3.mask": ((5, 2), torch.bool),
    }
    assert all(layer.mask.all() for layer in masked_layers(model).values())


def test_a_convolution_has_the_stride_and_padding_of_its_own_wherever_it_is_used():
    plain, other, x = MaskedConv2d(3, 4, 3), MaskedConv2d(3, 4, 3, stride=2, padding=1), torch.randn(2, 3, 7, 7)
    assert torch.equal(plain(x), F.conv2d(x, plain.weight))
    assert torch.equal(other(x), F.conv2d(x, other.weight, stride=2, padding=1))
    scale = torch.tensor(0.3)
    assert torch.equal(other.reuse(x, scale), F.conv2d(x, other.weight * scale, stride=2, padding=1))


def test_off_weights_become_zero_and_others_stay():
    layer = MaskedLinear(3, 1)
    torch.nn.init.constant_(layer.weight, -2.0)
    layer.mask[0, 1] = False
    apply_masks({"": layer})
    assert layer.weight.tolist() == [[-2.0, 0.0, -2.0]]
