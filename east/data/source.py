"""What reading raw data takes and gives: a torchvision that works, and images with the files they came from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from east.data.manifest import SourceFile
from east.errors import EastError


@dataclass(frozen=True, eq=False)
class SourceImages:
    """A data set as read from its source.

    Attributes:
        train_images: uint8 [N, C, H, W]; also test_images.
        train_labels: int64 [N]; also test_labels.
        sources: the files that were read, with the checksums they were verified by.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    sources: tuple[SourceFile, ...]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names in the tensor file."""
        return {
            "train_images": self.train_images.contiguous(),
            "train_labels": self.train_labels.contiguous(),
            "test_images": self.test_images.contiguous(),
            "test_labels": self.test_labels.contiguous(),
        }


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
