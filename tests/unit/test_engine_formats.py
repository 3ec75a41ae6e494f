import pytest
import torch
from torch import nn

from east.engine.formats import NARROW, as_convolved


def images(channels):
    """As the sparse engines hand them over: (C, H, W, N) in memory."""
    return torch.arange(channels * 4 * 4 * 3.0).view(channels, 4, 4, 3).permute(3, 0, 1, 2)


def conv(channels, kernel_size=1, stride=2):
    return nn.Conv2d(channels, 2, kernel_size, stride)


@pytest.mark.parametrize("channels", [1, 2, NARROW - 1])
@pytest.mark.parametrize("by_pixel", [False, True], ids=["by channel", "by pixel"])
def test_a_narrow_strided_convolution_gets_images_that_nobody_takes_for_channels_last(channels, by_pixel):
    given = images(channels)
    if by_pixel:
        given = given.contiguous(memory_format=torch.channels_last)
    found = as_convolved(given, conv(channels))
    assert torch.equal(found, given)
    assert found.stride() == (channels * 16, 16, 4, 1)


@pytest.mark.parametrize("layer", [conv(NARROW), conv(2, 3), conv(2, 1, 1)], ids=["wide", "3x3", "not strided"])
def test_other_convolutions_get_channels_last(layer):
    found = as_convolved(images(layer.in_channels), layer)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_images_in_the_right_format_are_not_copied():
    given = torch.rand(3, 1, 4, 4)
    assert as_convolved(given, conv(1)).data_ptr() == given.data_ptr()
