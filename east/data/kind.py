"""The registry of data sets: what reads the images of each, and what a plan must know of them before they are there."""

from typing import Literal

from east.parameters import PositiveInt
from east.registry import Facts, Kind

SIZE = "size"
"""The parameter of a data set that is the height and width of its images."""
STREAMED = "streamed"
"""The parameter by which a data set is decoded while it is trained on."""


class DatasetFacts(Facts):
    """What a data set declares. What it leaves out, a configuration says, or it is read from a folder of images.

    Attributes:
        classes: classes, labelled from 0 on.
        train_images: images to train on, those included that are held out for validation.
        test_images: images that accuracy is reported on.
        image_size: height and width; left out where a parameter `size` is both.
        mean: channel means of pixels in [0, 1]; left out where they are computed from the training images.
        std: channel standard deviations of the same pixels, likewise.
        by_class: whether training images come class by class, so that the last ones are all of one class.
        streamed: whether images are decoded and cropped while they are trained on, and never read as a whole; the
            parameter of that name says the same.
        reads: `nothing`, `files` of the folder of downloads or of another one, or a `folder` that must be named.
        train_per_class: fewest and most training images of a class.
        test_per_class: the same of the test images.
        digest: of the prepared images, where they are the same everywhere.
    """

    classes: PositiveInt | None = None
    train_images: PositiveInt | None = None
    test_images: PositiveInt | None = None
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    by_class: bool = False
    streamed: bool = False
    reads: Literal["nothing", "files", "folder"] = "files"
    train_per_class: tuple[int, int] | None = None
    test_per_class: tuple[int, int] | None = None
    digest: str | None = None


dataset = Kind(
    "data sets",
    "data set",
    "datasets",
    home="east.data.sets",
    takes=("folder",),
    gives="images to train on, their labels, images to test on and theirs: images as bytes (N, H, W), (N, H, W, 3) or "
    "(N, 3, H, W), labels as whole numbers (N)",
    facts=DatasetFacts,
)
