"""Small networks that join the vocabulary's parts in every way that the paper's networks do not."""

from functools import partial

from east.models.described import DescribedNetwork, Parts
from east.models.description import describe


def pools(images, classes, width):
    """Pools between layers, and a flattened image."""
    x = images.conv(width).norm().act().max_pool(2)
    x = x.conv(2 * width).norm().act().conv(width, 1).norm().act()
    return x.max_pool(3, stride=1, padding=1).flatten().linear(classes)


def pre_activation(images, classes, width):
    """Batch norm before convolutions, sums without an activation, and shortcuts without batch norm or weights."""

    def block(x, index):
        activated = x.norm().act()
        y = activated.conv(2 * width, stride=1 + (index == 0)).norm().act().conv(2 * width)
        if index == 0:
            return y + activated.conv(2 * width, 1, stride=2)
        return y + (x if index < 3 else x.identity(2 * width))

    return images.conv(width).repeat(4, block, name="blocks").norm().act().mean().linear(classes)


def perceptron(images, classes, width):
    """Linear layers alone, with and without batch norm, some of them the same."""
    x = images.flatten().linear(2 * width).norm().act()
    x = x.repeat(4, lambda x, index: x.linear(2 * width).act(), name="hidden")
    return x.linear(width).linear(classes)


def crowded(images, classes, width):
    """Activations that convolutions, pools and sums read at once."""
    x = images.conv(width).norm().act()
    y = x.conv(width).norm() + x
    z = x.conv(width).act() + y.conv(width)
    pooled = x.max_pool(2).conv(width).norm().act()
    sums = (z + x).max_pool(2) + pooled
    last = (sums.act() + images.conv(width, 1, stride=2)).act()
    ends = last.mean().linear(width).norm().act() + pooled.mean().linear(width) + sums.mean()
    return ends.linear(classes)


SMALL = {"pools": pools, "pre-activation": pre_activation, "perceptron": perceptron, "crowded": crowded}


def small_network(small, *, width, size, dyrelu=False, dct=False, sharing_ratio=None):
    """One of these for images of a size."""
    make = partial(SMALL[small], width=width)

    def described(shape):
        return describe(make, shape, 10, sharing_ratio=sharing_ratio)

    return DescribedNetwork(described, (3, size, size), Parts(dct=dct, dyrelu=dyrelu))
