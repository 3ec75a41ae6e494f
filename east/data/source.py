"""What reading raw data takes and gives: a torchvision that works, and images with the files they came from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from east.data.manifest import SourceFile
from east.errors import EastError


@dataclass(frozen=True, eq=False)
class Parts:
    """Images, uint8 [N, C, H, W], and labels, int64 [N] in 0..classes-1: to train on or validate, and to test on."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True, eq=False)
class SourceImages(Parts):
    """A data set as read from its source, and the files that were read, with the checksums they were verified by."""

    sources: tuple[SourceFile, ...]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names in the tensor file."""
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return {name: getattr(self, name).contiguous() for name in names}


def require_torchvision() -> None:
    """Import torchvision, which only some data sets need.

    Raises:
        EastError: it is missing, or was built for another build of PyTorch than the one installed.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise EastError(
            f"torchvision does not work with the installed PyTorch {torch.__version__} ({error}). "
            "Install a matching pair with `make setup`."
        ) from error
