"""The fixed facts of the data sets, as those who made them publish them."""

import pytest

from east.data.catalog import DATASETS, steps_per_epoch
from tests.unit.cost_specs import make_spec

CIFAR10_STATISTICS = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100_STATISTICS = (0.50708, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615)
IMAGENET_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COMPUTED = None, None


@pytest.mark.parametrize(
    ("name", "images", "classes", "shape", "statistics"),
    [
        ("cifar10", (50_000, 10_000), 10, (3, 32, 32), CIFAR10_STATISTICS),
        ("cifar100", (50_000, 10_000), 100, (3, 32, 32), CIFAR100_STATISTICS),
        ("imagenet", (1_281_167, 50_000), 1000, (3, 224, 224), IMAGENET_STATISTICS),
        ("digits", (1_438, 359), 10, (3, 12, 12), COMPUTED),
        ("digit_pairs", (4_000, 500), 100, (3, 8, 16), COMPUTED),
    ],
)
def test_a_data_set_has_its_images_and_the_statistics_it_is_normalized_by(name, images, classes, shape, statistics):
    info = DATASETS[name]
    assert (info.train_images, info.test_images) == images
    assert (info.num_classes, info.image_shape, (info.mean, info.std)) == (classes, shape, statistics)


def test_classes_of_imagenet_have_from_732_to_1300_images_and_50_to_test_on():
    assert (DATASETS["imagenet"].train_per_class, DATASETS["imagenet"].test_per_class) == ((732, 1300), (50, 50))
    assert {(info.train_per_class, info.test_per_class) for name, info in DATASETS.items() if name != "imagenet"} == {
        (None, None)
    }


def test_data_sets_that_are_made_from_a_package_have_a_digest():
    assert [name for name, info in DATASETS.items() if info.digest] == ["digits", "digit_pairs"]


@pytest.mark.parametrize(("batch", "steps"), [(1295, 1), (1294, 2), (100, 13), (5, 259)])
def test_the_last_batch_of_an_epoch_may_be_smaller(batch, steps):
    assert steps_per_epoch(make_spec(batch_size=batch)) == steps  # 1,438 images, of which 143 are held out
