"""The networks of the paper: ResNets with masked layers, DyReLU, weight sharing and DCT layers."""

from east.models.resnet import ResNet, build_model

__all__ = ["ResNet", "build_model"]
