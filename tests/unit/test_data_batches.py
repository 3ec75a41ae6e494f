import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from east.config.run import DatasetSpec
from east.data.batches import EvaluationBatches, Normalization, TensorBatches, draw_augmentation, staged
from east.data.images import load_images
from east.data.open import open_dataset
from east.seeding import generator, torch_generator
from tests.unit.same_bits import DIGITS

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)
NUMPY_MODE = {"reflect": "reflect", "zero": "constant"}


def random_images(count=21, height=12, width=10):
    images = torch.randint(0, 256, (count, 3, height, width), generator=torch_generator(0, "test"), dtype=torch.uint8)
    return images, torch.arange(count)


def batches(images, labels, device=CPU, **changes):
    settings = {"batch_size": 8, "margin": 4, "padding": "reflect", "flip": True, "seed": 3} | changes
    return TensorBatches(images, labels, device=device, mean=MEAN, std=STD, **settings)


def normalized(image):
    """The slow way: one float64 channel at a time."""
    return np.stack([(channel / 255 - m) / s for channel, m, s in zip(image, MEAN, STD, strict=True)])


@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize(("purpose", "shuffle"), [("augment", True), ("validation", False)])
def test_batches_equal_slicing_one_image_after_the_other(padding, purpose, shuffle):
    images, labels = random_images()
    drawn = draw_augmentation(len(images), 4, True, generator(3, purpose, 7))
    expected = {}
    for index, image in enumerate(images.numpy()):
        padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode=NUMPY_MODE[padding])
        crop = padded[:, drawn.top[index] :, drawn.left[index] :][:, :12, :10]
        expected[index] = normalized(crop[:, :, ::-1] if drawn.mirrored[index] else crop)
    source = batches(images, labels, padding=padding, purpose=purpose, shuffle=shuffle)
    shown = list(source.epoch(7))
    assert (len(source), [len(y) for _, y in shown]) == (3, [8, 8, 5])
    order = torch.cat([y for _, y in shown]).tolist()
    assert (order == list(range(21))) == (not shuffle)
    x = torch.cat([x for x, _ in shown])
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.numpy(), np.stack([expected[index] for index in order]), atol=2e-5)


def test_offsets_are_uniform_and_the_coin_is_fair_and_independent():
    count = 81_000
    drawn = draw_augmentation(count, 4, True, generator(1, "augment", 0))
    cells = (drawn.top * 9 + drawn.left) * 2 + drawn.mirrored
    assert chisquare(cells.bincount(minlength=162).numpy()).pvalue > 1e-4


def test_no_image_is_mirrored_without_flip():
    assert not draw_augmentation(1000, 4, False, generator(1, "augment", 0)).mirrored.any()
    with_flip, without = (draw_augmentation(50, 4, flip, generator(1, "augment", 0)) for flip in (True, False))
    assert torch.equal(with_flip.top, without.top)
    assert torch.equal(with_flip.left, without.left)


def test_same_seed_and_epoch_give_the_same_batches_and_others_do_not():
    images, labels = random_images()
    train = batches(images, labels)

    def epoch(source, number):
        parts = list(source.epoch(number))
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    x, y = epoch(train, 4)
    list(train.epoch(5))
    again = epoch(batches(images, labels), 4)
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    for other in (epoch(train, 5), epoch(batches(images, labels, seed=4), 4)):
        assert not torch.equal(y, other[1])
        assert not torch.equal(x[y.argsort()], other[0][other[1].argsort()])


@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_an_interrupted_epoch_goes_on_with_the_batches_it_had_left(kind):
    images, labels = random_images()
    if kind == "training":
        source = batches(images, labels)
    else:
        source = EvaluationBatches(images, labels, device=CPU, mean=MEAN, std=STD, batch_size=8)
    whole, rest = list(source.epoch(2)), list(source.epoch(2, start=1))
    assert len(rest) == len(whole) - 1
    for (x, y), (x_rest, y_rest) in zip(whole[1:], rest, strict=True):
        assert torch.equal(x, x_rest)
        assert torch.equal(y, y_rest)


def test_an_image_s_row_is_drawn_first_then_its_column_then_the_coin():
    drawn, random = draw_augmentation(30, 4, True, generator(1, "augment", 0)), generator(1, "augment", 0)
    for found, expected in zip(drawn, (random.integers(9, 30), random.integers(9, 30), random.coins(30)), strict=True):
        assert torch.equal(found, expected)


def test_means_and_deviations_are_rounded_once():
    """255 * 0.1994 is another number in float32."""
    pixels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    for mean, std in ((0.1994, 0.25644), (0.27615, 0.224)):
        shift, scale = np.float32(255 * mean), np.float32(255 * std)
        found = Normalization((mean,), (std,), CPU)(pixels).flatten().numpy()
        assert np.array_equal(found, (np.arange(256, dtype=np.float32) - shift) / scale)


def test_all_of_a_batch_is_made_on_the_device_and_copied_without_waiting(monkeypatch):
    """On a device without memory, where nothing can be computed with what is elsewhere."""
    images, labels = random_images()
    source, copies, to = batches(images, labels, device=torch.device("meta")), [], torch.Tensor.to

    def copy(tensor, *place, **options):
        copies.append(options)
        return to(tensor, *place, **options)

    monkeypatch.setattr(torch.Tensor, "to", copy)
    assert {(x.device.type, y.device.type) for x, y in source.epoch(0)} == {("meta", "meta")}
    assert copies == [{"non_blocking": True}] * 3


def test_copies_to_a_gpu_start_in_page_locked_memory(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    tensor = torch.zeros(3)
    assert torch.equal(staged(tensor, torch.device("cuda")), torch.ones(3))
    assert staged(tensor, CPU) is tensor


def test_evaluation_takes_500_images_at_once():
    images, labels = torch.zeros(501, 3, 1, 1, dtype=torch.uint8), torch.zeros(501)
    assert len(EvaluationBatches(images, labels, device=CPU, mean=MEAN, std=STD)) == 2
    assert len(EvaluationBatches(images[1:], labels[1:], device=CPU, mean=MEAN, std=STD)) == 1


def test_evaluation_shows_the_images_as_they_are_in_order():
    images, labels = random_images()
    test = EvaluationBatches(images, labels, device=CPU, mean=MEAN, std=STD, batch_size=8)
    shown = list(test.epoch(0))
    assert len(test) == len(shown) == 3
    assert torch.cat([y for _, y in shown]).tolist() == list(range(21))
    expected = np.stack([normalized(image) for image in images.numpy()])
    np.testing.assert_allclose(torch.cat([x for x, _ in shown]).numpy(), expected, atol=2e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_batches_equal_cpu_batches_and_never_wait_for_the_device():
    images, labels = random_images()
    on_cpu = list(batches(images, labels).epoch(1))
    there = batches(images, labels, device=torch.device("cuda"))
    list(there.epoch(2))  # the first copy sets up page-locked memory
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_cuda = list(there.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (x, y), (x_cuda, y_cuda) in zip(on_cpu, on_cuda, strict=True):
        torch.testing.assert_close(x, x_cuda.cpu())
        assert torch.equal(y, y_cuda.cpu())


def digits_spec(**changes):
    settings = {"margin": 4, "flip": False, "validation": 100, "validation_choice": "last"}
    return DatasetSpec(**(DIGITS | settings | changes))


def test_open_dataset_splits_as_the_spec_says(data_dir):
    splits = open_dataset(digits_spec(), 128, 17, data_dir, CPU)
    data = load_images("digits", data_dir)
    assert splits.num_classes == 10
    assert len(splits.train) == -(-1338 // 128)

    def labels(source):
        return torch.cat([y for _, y in source.epoch(0)])

    assert labels(splits.train).bincount().tolist() == data.train_labels[:-100].bincount().tolist()
    assert torch.equal(labels(splits.validation), data.train_labels[-100:])
    assert torch.equal(labels(splits.test), data.test_labels)
    assert open_dataset(digits_spec(validation=0), 128, 17, data_dir, CPU).validation is None


def test_validation_is_augmented_only_where_the_spec_says(data_dir):
    data = load_images("digits", data_dir)
    plain = EvaluationBatches(
        data.train_images[-100:], data.train_labels[-100:], device=CPU, mean=data.mean, std=data.std
    )
    expected = next(plain.epoch(0))[0]

    def shown(epoch, **changes):
        return next(open_dataset(digits_spec(**changes), 128, 17, data_dir, CPU).validation.epoch(epoch))[0]

    assert torch.equal(shown(3, augment_validation=False), expected)
    assert not torch.equal(shown(3), expected)
    assert not torch.equal(shown(3), shown(4))


@pytest.mark.parametrize("part", ["train", "validation"])
def test_open_dataset_augments_with_the_run_s_seed_and_the_part_s_purpose(data_dir, part):
    data = load_images("digits", data_dir)
    rows = slice(0, 1338) if part == "train" else slice(1338, None)
    by_hand = TensorBatches(
        data.train_images[rows],
        data.train_labels[rows],
        device=CPU,
        mean=data.mean,
        std=data.std,
        batch_size=128,
        margin=4,
        padding="zero",
        flip=False,
        seed=17,
        purpose="augment" if part == "train" else "validation",
        shuffle=part == "train",
    )
    opened = getattr(open_dataset(digits_spec(), 128, 17, data_dir, CPU), part)
    expected, shown = (torch.cat([x for x, _ in source.epoch(2)]) for source in (by_hand, opened))
    assert torch.equal(shown, expected)
