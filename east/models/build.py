"""A network of the paper by name."""

from typing import Any

from east.errors import EastError
from east.models.blocks import BASIC, BOTTLENECK, Parts
from east.models.resnet import ResNet

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet34": {"design": BASIC},
    "resnet50": {"design": BOTTLENECK},
    "resnet50_imagenet": {"design": BOTTLENECK, "stem_kernel": 7, "stem_stride": 2, "max_pool": True},
}
"""What tells the networks apart: settings of `ResNet` by name. All have stages of 3, 4, 6 and 3 blocks."""

ACTIVATIONS = ("relu", "dyrelu")


def build_model(
    name: str,
    num_classes: int,
    activation: str = "relu",
    sharing_ratio: int | None = None,
    dct: bool = False,
    width: int = 64,
) -> ResNet:
    """Build a network with all weights on and PyTorch's default initialisation, from the global random state.

    Args:
        name: a key of `NETWORKS`.
        num_classes: outputs of the classifier.
        activation: `relu` or `dyrelu`.
        sharing_ratio: blocks of a stage that own weights, at least 2; None for no sharing.
        dct: add a fixed DCT matrix to every masked layer (DCTpS).
        width: channels of the stem, 64 in the paper.

    Raises:
        EastError: the name or activation is unknown, or a number is out of range.
    """
    if name not in NETWORKS:
        raise EastError(f"there is no model '{name}'. Choose one of {', '.join(NETWORKS)}.")
    if activation not in ACTIVATIONS:
        raise EastError(f"there is no activation '{activation}'. Choose one of {', '.join(ACTIVATIONS)}.")
    if sharing_ratio is not None and sharing_ratio < 2:
        raise EastError(
            f"sharing_ratio {sharing_ratio} is too small: the first block of a stage has another input width than "
            "the rest, so at least 2 blocks must own weights."
        )
    if num_classes < 1 or width < 1:
        raise EastError(f"num_classes ({num_classes}) and width ({width}) must be at least 1.")
    return ResNet(
        blocks=(3, 4, 6, 3),
        num_classes=num_classes,
        width=width,
        parts=Parts(dct=dct, dyrelu=activation == "dyrelu"),
        sharing_ratio=sharing_ratio,
        **NETWORKS[name],
    )
