"""What a reader of raw data hands to `prepare`: images, labels, and the files they came from."""

from dataclasses import dataclass

from torch import Tensor

from east.data.manifest import SourceFile


@dataclass(frozen=True, eq=False)
class SourceImages:
    """A data set as read from its source.

    Attributes:
        train_images: uint8 [N, C, H, W]; test_images likewise.
        train_labels: int64 [N]; test_labels likewise.
        sources: the files that were read, with the checksums they were verified by.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    sources: tuple[SourceFile, ...]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by the names they have in the tensor file."""
        return {
            "train_images": self.train_images.contiguous(),
            "train_labels": self.train_labels.contiguous(),
            "test_images": self.test_images.contiguous(),
            "test_labels": self.test_labels.contiguous(),
        }
