"""The networks of the paper: ResNets with masked layers, DyReLU, weight sharing and DCT layers."""

from east.models.build import build_model
from east.models.resnet import ResNet

__all__ = ["ResNet", "build_model"]
