"""Residual networks of any size, beside the registered ones."""

from functools import partial

from east.models.described import DescribedNetwork, Parts
from east.models.description import describe
from east.models.networks import residual


def residual_network(
    design, blocks, classes, *, width, parts=None, sharing_ratio=None, image_shape=(3, 32, 32), **stem
):
    """A network of so many blocks a stage; `stem` are the further arguments of `residual`."""
    make = partial(residual, design=design, blocks=blocks, width=width, **stem)

    def described(shape):
        return describe(make, shape, classes, sharing_ratio=sharing_ratio)

    return DescribedNetwork(described, image_shape, parts or Parts(dct=False, dyrelu=False))
