import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as vision

from east.config.run import DatasetSpec
from east.data.catalog import DATASETS
from east.data.folder import CenterView, FolderBatches, RandomView, draw_crop, read_image, without_signals
from east.data.listing import _size_of_image, list_images, scan_folder
from east.data.manifest import FolderManifest, read_manifest
from east.data.open import open_dataset, split_indices
from east.data.prepare import prepare
from east.errors import EastError
from east.seeding import generator
from tests.conftest import ROOT
from tests.unit.same_bits import DIGITS

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width, height, seed):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes: five training and three validation images, PNG and JPEG, color and grey."""
    home = tmp_path_factory.mktemp("images")
    for part, counts in (("train", (3, 2)), ("val", (1, 2))):
        for label, count in enumerate(counts):
            place = home / part / f"n{label}"
            place.mkdir(parents=True)
            for number in range(count):
                image = picture(280 + 20 * number, 300, seed=10 * label + number)
                if number == 1:
                    image.convert("L").save(place / f"{number}.png")
                else:
                    image.save(place / f"{number}.JPEG")
    return home


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A folder of a thousand classes, one picture linked into all."""
    home = tmp_path_factory.mktemp("thousand")
    picture(40, 30, seed=1).save(home / "one.png")
    for part in ("train", "val"):
        for label in range(1000):
            place = home / part / f"n{label:04d}"
            place.mkdir(parents=True)
            os.link(home / "one.png", place / "a.png")
    return home


def training(folder, *, workers=0, seed=5, **changes):
    samples = list_images(folder, "train").samples
    settings = {"batch_size": 2, "order_seed": seed, "device": CPU} | changes
    return FolderBatches(samples, RandomView(seed, "augment", True), mean=MEAN, std=STD, workers=workers, **settings)


def test_training_batches_do_not_depend_on_the_workers_and_leave_the_global_generator_alone(folder):
    state = torch.get_rng_state()
    alone = list(training(folder).epoch(1))
    assert torch.equal(torch.get_rng_state(), state)
    shared = list(training(folder, workers=2).epoch(1))
    assert [len(y) for _, y in alone] == [2, 2, 1]
    for (x, y), (x_shared, y_shared) in zip(alone, shared, strict=True):
        assert x.shape[1:] == (3, 224, 224)
        assert torch.equal(x, x_shared)
        assert torch.equal(y, y_shared)


def test_an_epoch_shows_every_image_once_in_its_own_order_and_can_be_resumed(folder):
    train = training(folder, batch_size=1)
    epochs = [list(train.epoch(number)) for number in range(4)]
    assert all(torch.cat([y for _, y in epoch]).bincount().tolist() == [3, 2] for epoch in epochs)
    assert len({tuple(y.item() for _, y in epoch) for epoch in epochs}) > 1
    rest = list(train.epoch(2, start=3))
    assert len(rest) == 2
    for (x, _), (x_rest, _) in zip(epochs[2][3:], rest, strict=True):
        assert torch.equal(x, x_rest)


class Loader:
    """In the place of PyTorch's: what it is asked for, and one batch."""

    def __init__(self, images, **asked):
        self.asked = asked
        Loader.last = self

    def __iter__(self):
        yield torch.zeros(2, 3, 1, 1, dtype=torch.uint8), torch.zeros(2)


def test_workers_are_asked_for_keys_and_pinned_memory_only_for_a_gpu(folder, monkeypatch):
    monkeypatch.setattr("east.data.folder.DataLoader", Loader)
    batches = training(folder, workers=3, order_seed=None, indices=torch.tensor([4, 2, 0, 1, 3]))
    list(batches.epoch(7, start=1))
    asked = Loader.last.asked
    assert list(asked["batch_sampler"]) == [[(7, 0), (7, 1)], [(7, 3)]]
    assert (asked["num_workers"], asked["pin_memory"]) == (3, False)
    assert callable(asked["worker_init_fn"])
    monkeypatch.setattr("east.data.folder.Normalization", lambda *_: None)
    next_batch = training(folder, workers=3, device=torch.device("cuda")).epoch(0)
    with suppress(Exception):  # there may be no GPU
        next(next_batch)
    assert Loader.last.asked["pin_memory"] is True


def test_the_order_of_an_epoch_is_that_of_the_run_s_seed_and_the_epoch(folder, monkeypatch):
    monkeypatch.setattr("east.data.folder.DataLoader", Loader)
    list(training(folder).epoch(7))
    order = [index for batch in Loader.last.asked["batch_sampler"] for _, index in batch]
    assert order == generator(5, "order", 7).permutation(5).tolist()


def test_a_worker_ends_when_its_parent_says_so_and_nobody_else(folder, monkeypatch):
    monkeypatch.setattr("east.data.folder.DataLoader", Loader)
    list(training(folder).epoch(0))
    begin = Loader.last.asked["worker_init_fn"]
    senders, threads = iter([1, os.getppid()]), []

    def sent(numbers):
        assert numbers == {signal.SIGTERM}
        return SimpleNamespace(si_pid=next(senders))

    def end(status):
        raise SystemExit(status)

    def thread(target, daemon):
        threads.append((target, daemon))
        return SimpleNamespace(start=target)

    monkeypatch.setattr(signal, "sigwaitinfo", sent)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(threading, "Thread", thread)
    with pytest.raises(SystemExit) as caught:
        begin(0)
    assert (caught.value.code, list(senders), threads[0][1]) == (0, [], True)
    monkeypatch.setattr(sys, "platform", "darwin")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        begin(0)
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert len(threads) == 1


def test_batches_are_copied_to_the_device_without_waiting(folder, monkeypatch):
    monkeypatch.setattr("east.data.folder.DataLoader", Loader)
    batches, copies, to = training(folder, device=torch.device("meta")), [], torch.Tensor.to

    def copy(tensor, *place, **options):
        copies.append(options)
        return to(tensor, *place, **options)

    monkeypatch.setattr(torch.Tensor, "to", copy)
    assert {tensor.device.type for batch in batches.epoch(0) for tensor in batch} == {"meta"}
    assert copies == [{"non_blocking": True}] * 2


class Drawn:
    """Random bits of which a test knows what they are."""

    def __init__(self, *crops):
        self.crops, self.rooms = crops, []

    def uniform(self, count):
        assert count == 2 * 10
        return torch.tensor([*self.crops, *[(1.0, 0.5)] * (10 - len(self.crops))], dtype=torch.float64).flatten()

    def integers(self, room, count):
        self.rooms.append((room, count))
        return torch.tensor([room - 1])


@pytest.mark.parametrize(
    ("size", "crops", "rooms", "expected"),
    [
        # The whole area of a square, then the least of it: a twelfth of 100 x 100, 28.3 pixels wide and high.
        ((100, 100), [(1.0, 0.5)], [(1, 1), (1, 1)], (0, 0, 100, 100)),
        ((100, 100), [(0.0, 0.5)], [(73, 1), (73, 1)], (72, 72, 28, 28)),
        # The narrowest and the widest crop of 54 % of the area.
        ((120, 90), [(0.5, 0.0)], [(3, 1), (55, 1)], (2, 54, 88, 66)),
        ((90, 120), [(0.5, 1.0)], [(55, 1), (3, 1)], (54, 2, 66, 88)),
        # Too wide, then too high, then one that fits.
        ((100, 100), [(1.0, 1.0), (1.0, 0.0), (0.25, 0.5)], [(45, 1), (45, 1)], (44, 44, 56, 56)),
        # None fits: the largest in the middle that is not too narrow or wide.
        ((400, 100), [], [], (0, 133, 100, 133)),
        ((100, 400), [], [], (133, 0, 133, 100)),
    ],
)
def test_a_crop_has_the_share_the_ratio_and_the_place_that_are_drawn(size, crops, rooms, expected):
    random = Drawn(*crops)
    assert draw_crop(*size, random) == expected
    assert random.rooms == rooms


def test_processes_that_are_started_take_no_signals_and_this_one_takes_its_own_again(monkeypatch):
    def blocked():
        return signal.pthread_sigmask(signal.SIG_BLOCK, set())

    def let_one_through():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    before = blocked()
    monkeypatch.setattr("multiprocessing.resource_tracker.ensure_running", let_one_through)
    with without_signals():
        sent = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU}
        assert sent <= blocked()
    assert blocked() == before


def test_no_more_is_read_of_an_image_than_one_has(folder, monkeypatch):
    path = folder / "train/n0/0.JPEG"
    monkeypatch.setattr("east.data.folder.IMAGE_BYTES", path.stat().st_size)
    assert read_image(path).size == (280, 300)
    monkeypatch.setattr("east.data.folder.IMAGE_BYTES", path.stat().st_size - 1)
    with pytest.raises(EastError, match="cannot be read as an image"):
        read_image(path)


def test_random_view_depends_on_seed_purpose_epoch_and_image_only():
    image = picture(300, 260, seed=2)
    view = RandomView(1, "augment", True)
    shown = view(image, 3, 4)
    torch.rand(7)
    assert torch.equal(view(image, 3, 4), shown)
    for other in (view(image, 3, 5), view(image, 4, 4), RandomView(2, "augment", True)(image, 3, 4)):
        assert not torch.equal(other, shown)
    assert not torch.equal(RandomView(1, "validation", True)(image, 3, 4), shown)


def test_random_view_draws_the_coin_then_the_crop_and_scales_it():
    image, coins = picture(300, 200, seed=2), set()
    for index in range(4):
        random = generator(1, "augment", 3, index)
        mirrored = bool(random.coins(1))
        crop = vision.resized_crop(image, *draw_crop(300, 200, random), [224, 224])
        expected = vision.pil_to_tensor(vision.hflip(crop) if mirrored else crop)
        assert torch.equal(RandomView(1, "augment", True)(image, 3, index), expected)
        coins.add(mirrored)
    assert coins == {True, False}


def test_random_view_mirrors_half_of_the_images_and_none_without_flip():
    # Brightness grows to the right, so that a mirrored crop is darker there.
    ramp = Image.fromarray(np.tile(np.arange(0, 250, dtype=np.uint8), (250, 1))).convert("RGB")
    mirrored = 0
    for index in range(60):
        crop = RandomView(1, "augment", True)(ramp, 0, index).float()
        straight = RandomView(1, "augment", False)(ramp, 0, index).float()
        assert straight[..., -1].mean() > straight[..., 0].mean()
        if crop[..., -1].mean() < crop[..., 0].mean():
            mirrored += 1
            assert torch.equal(crop.flip(-1), straight)
        else:
            assert torch.equal(crop, straight)
    assert 15 <= mirrored <= 45


def test_center_view_scales_the_short_side_to_256_and_cuts_the_middle():
    pixels = np.zeros((512, 1024, 3), dtype=np.uint8)
    pixels[:, 512 - 224 : 512 + 224] = 200
    shown = CenterView()(Image.fromarray(pixels), 0, 0)
    assert shown.shape == (3, 224, 224)
    assert shown.dtype == torch.uint8
    assert (shown[:, :, 2:-2] == 200).all()
    wider = np.zeros((512, 1024, 3), dtype=np.uint8)
    wider[:, 512 - 200 : 512 + 200] = 200
    assert (CenterView()(Image.fromarray(wider), 0, 0)[:, :, :10] == 0).all()


def test_evaluation_keeps_the_order_and_normalizes(folder):
    samples = list_images(folder, "val").samples
    test = FolderBatches(samples, CenterView(), device=CPU, mean=MEAN, std=STD, batch_size=2, workers=0)
    shown = list(test.epoch(0))
    assert len(test) == 2
    assert torch.cat([y for _, y in shown]).tolist() == [0, 1, 1]
    first = CenterView()(Image.open(samples[0][0]).convert("RGB"), 0, 0).double() / 255
    for channel in range(3):
        expected = (first[channel] - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(shown[0][0][0, channel].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_is_named_without_a_worker_s_traceback(tmp_path, workers):
    place = tmp_path / "train" / "n0"
    place.mkdir(parents=True)
    picture(60, 60, seed=1).save(place / "cut.jpg")
    (place / "cut.jpg").write_bytes((place / "cut.jpg").read_bytes()[:300])
    with pytest.raises(EastError, match=r"cut\.jpg") as caught:
        list(training(tmp_path, workers=workers).epoch(0))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "images/train is missing"),
        ({"train/a/1.png": 1}, "images/val is missing"),
        ({"train/x.txt": 0, "val/x.txt": 0}, "images/train must hold"),
        ({"train/a/x.txt": 0, "val/a/1.png": 1}, "images/train must hold"),
        ({"train/a/1.png": 1, "val/b/1.png": 1}, "example 'a'"),
        ({"train/a/1.png": 1, "val/a/1.png": 1}, r"images .*\b1 .*\b1000\b"),
    ],
)
def test_malformed_folders_are_refused(tmp_path, parts, message):
    for name in parts:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(EastError, match=message):
        prepare("imagenet", tmp_path / "data", folder=tmp_path / "images")
    assert not (tmp_path / "data" / "imagenet" / "manifest.json").exists()


def test_imagenet_without_a_folder_is_refused(tmp_path):
    with pytest.raises(EastError, match=r"datasets\.imagenet\.folder"):
        prepare("imagenet", tmp_path)


@pytest.fixture
def two_classes(monkeypatch, tmp_path):
    """A folder of two classes with two training images and one of validation each, as the catalogue has them."""
    few = {"num_classes": 2, "train_images": 4, "test_images": 2, "train_per_class": (1, 3), "test_per_class": (1, 1)}
    monkeypatch.setitem(DATASETS, "imagenet", replace(DATASETS["imagenet"], **few))
    for name in ("train/a/1.png", "train/a/2.JPEG", "train/b/1.png", "train/b/2.png", "val/a/1.png", "val/b/1.png"):
        path = tmp_path / "two classes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"any")
    return tmp_path / "two classes"


def test_images_are_listed_as_torchvision_lists_them(two_classes, folder):
    (two_classes / "train" / "a" / "notes.txt").touch()
    (two_classes / "train" / "._a").touch()
    for place in (two_classes, folder):
        found, expected = list_images(place, "train"), ImageFolder(str(place / "train"))
        assert (found.classes, found.samples) == (expected.classes, expected.samples)


def test_a_folder_is_described_by_its_classes_counts_and_a_digest_of_names_and_sizes(two_classes):
    (two_classes / "val/b/1.png").write_bytes(b"longer")
    names = [f"train/{name}\t3" for name in ("a/1.png", "a/2.JPEG", "b/1.png", "b/2.png")]
    lines = [*names, "val/a/1.png\t3", "val/b/1.png\t6", ""]
    assert scan_folder("imagenet", two_classes) == FolderManifest(
        dataset="imagenet",
        num_classes=2,
        classes=("a", "b"),
        train_counts=(2, 2),
        val_counts=(1, 1),
        mean=MEAN,
        std=STD,
        digest=sha256("\n".join(lines).encode()).hexdigest(),
    )


def link(target):
    return lambda path: path.symlink_to(target)


def write(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("train/a/loop", link(".."), "loop"),
        ("train/a/more", os.mkdir, "more"),
        ("train/a/3.png", link("nowhere"), r"3\.png is a link that leads nowhere"),
        ("train/a/3.png", link("3.png"), r"3\.png is a link that leads nowhere"),
        ("train/a/3.png", link("/etc/passwd"), r"3\.png is a link out of its folder"),
        ("train/a/3.png", link("../../val/a/1.png"), r"3\.png is a link out of its folder"),
        ("train/a/3.png", os.mkfifo, "not an ordinary file"),
        ("train/a/3.png", os.mkdir, r"3\.png"),
        ("train/a/._1.png", write(b"any"), "find '.*two classes'/ -name"),
        (b"train/a/\xff.png", write(b"any"), "UTF-8"),
        ("train/a/3.png", write(b""), "empty"),
        ("train/b/3.png", write(b"any"), "5 images.* 4"),
        ("val/b/2.png", write(b"any"), r"example 'b' with 2, not 1\. "),
        ("train/c", link("a"), "link, 'c'"),
        ("train/c", link("c"), "link, 'c'"),
    ],
)
def test_what_is_no_image_of_the_class_is_refused_by_name(two_classes, name, make, words):
    if "empty" in words:
        (two_classes / "train/a/1.png").unlink()
    make(two_classes / os.fsdecode(name))
    with pytest.raises(EastError, match=words) as caught:
        scan_folder("imagenet", two_classes)
    str(caught.value).encode()


def test_what_cannot_be_listed_or_looked_at_is_named(two_classes, monkeypatch):
    with os.scandir(two_classes / "train" / "a") as entries:
        (image,) = [entry for entry in entries if entry.name == "1.png"]
    (two_classes / "train" / "a" / image.name).unlink()
    with pytest.raises(EastError, match=r"1\.png cannot be read: No such file"):
        _size_of_image(image, str(two_classes / "train"), two_classes)

    def refuse(folder):
        raise PermissionError(13, "not allowed", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(EastError, match="train cannot be listed: not allowed"):
        list_images(two_classes, "train")


def test_a_folder_that_lacks_images_is_refused_with_an_example(two_classes):
    (two_classes / "train/a/1.png").unlink()
    with pytest.raises(EastError, match=r"train has 3 images, but ImageNet has 4"):
        scan_folder("imagenet", two_classes)
    (two_classes / "train/b/3.png").write_bytes(b"any")
    scan_folder("imagenet", two_classes)
    (two_classes / "train/b/4.png").write_bytes(b"any")
    with pytest.raises(EastError, match=r"1 classes are not whole or hold too much, .* 'b' with 4, not 1 to 3\. "):
        scan_folder("imagenet", two_classes)
    (two_classes / "train/a/2.JPEG").rename(two_classes / "train/b/5.png")
    with pytest.raises(EastError, match="no images"):
        scan_folder("imagenet", two_classes)


def test_as_many_images_as_there_must_be_may_be_of_the_wrong_classes(two_classes, monkeypatch):
    monkeypatch.setitem(DATASETS, "imagenet", replace(DATASETS["imagenet"], train_per_class=(2, 2)))
    scan_folder("imagenet", two_classes)
    (two_classes / "train/a/2.JPEG").rename(two_classes / "train/b/3.png")
    with pytest.raises(EastError, match=r"4 images, .*has 4\. 2 classes are not whole .* 'a' with 1, not 2\. "):
        scan_folder("imagenet", two_classes)


def test_training_and_validation_images_may_lie_elsewhere_but_not_in_one_place(two_classes):
    (two_classes / "train").rename(two_classes.parent / "elsewhere")
    (two_classes / "train").symlink_to("../elsewhere")
    (two_classes / "train/a/2.JPEG").unlink()
    (two_classes / "train/a/2.JPEG").symlink_to("1.png")
    scan_folder("imagenet", two_classes)
    (two_classes / "train").unlink()
    for target in ("val", "."):
        (two_classes / "train").symlink_to(target)
        with pytest.raises(EastError, match=r"one folder"):
            scan_folder("imagenet", two_classes)
        (two_classes / "train").unlink()


def test_a_true_imagenet_is_told_from_a_subset(tmp_path):
    for number in range(100):
        for part in ("train", "val"):
            place = tmp_path / part / f"n{number}"
            place.mkdir(parents=True)
            (place / "1.JPEG").write_bytes(b"any")
    with pytest.raises(EastError, match=r"ImageNet-100.*image_folder"):
        scan_folder("imagenet", tmp_path)


def saved(change):
    def save(path):
        change(picture(20, 20, seed=1)).save(path)

    return save


def huge(path):
    """A PNG that says that it is 20,000 pixels wide and high."""
    saved(lambda image: image)(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (huge, "too many pixels"),
        (saved(lambda image: Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16))), "eight bits"),
        (lambda path: picture(9, 9, seed=1).save(path, format="EPS"), "cannot be read"),
        (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (os.mkfifo, "not an ordinary file"),
        (link("/dev/zero"), "not an ordinary file"),
    ],
)
def test_images_that_would_be_misread_or_never_end_are_refused(tmp_path, monkeypatch, make, words):
    monkeypatch.setenv("PATH", "")
    make(tmp_path / "image.png")
    with pytest.raises(EastError, match=words) as caught:
        read_image(tmp_path / "image.png")
    assert "image.png" in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # of decoders
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM"])
def test_whatever_is_damaged_in_an_image_it_is_read_or_refused(tmp_path, kind):
    random = np.random.default_rng(1)
    picture(20, 24, seed=1).save(tmp_path / "image", format=kind)
    content = (tmp_path / "image").read_bytes()
    for _ in range(25):
        damaged = bytearray(content[: random.integers(1, len(content) + 1)])
        damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        (tmp_path / "image").write_bytes(damaged)
        with suppress(EastError):
            assert read_image(tmp_path / "image").mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_images_of_eight_bits_are_read_whatever_their_colours(tmp_path, mode):
    picture(9, 9, seed=1).convert(mode).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png").mode == "RGB"


def imagenet_spec(**changes):
    settings = {"name": "imagenet", "margin": 0, "validation": 0, "augment_validation": False}
    return DatasetSpec(**(DIGITS | settings | changes))


def test_imagenet_is_described_opened_and_checked(tmp_path, thousand, monkeypatch):
    few = {"train_images": 1000, "test_images": 1000, "train_per_class": None, "test_per_class": None}
    monkeypatch.setitem(DATASETS, "imagenet", replace(DATASETS["imagenet"], **few))
    path = prepare("imagenet", tmp_path, folder=thousand)
    manifest = read_manifest(FolderManifest, "imagenet", tmp_path)
    assert manifest.classes[:2] == ("n0000", "n0001")
    assert manifest.train_counts == manifest.val_counts == (1,) * 1000
    assert [p.name for p in path.parent.iterdir() if p.name != ".lock"] == ["manifest.json"]
    before = path.stat().st_mtime_ns
    assert prepare("imagenet", tmp_path, folder=thousand) == path
    assert path.stat().st_mtime_ns == before

    splits = open_dataset(imagenet_spec(validation=300), 128, 17, tmp_path, CPU, thousand)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6, 2, 4)
    assert splits.num_classes == 1000
    assert open_dataset(imagenet_spec(), 128, 17, tmp_path, CPU, thousand).validation is None
    with pytest.raises(EastError, match=r"validation_choice"):
        open_dataset(imagenet_spec(validation=300, validation_choice="last"), 128, 17, tmp_path, CPU, thousand)

    extra = thousand / "val" / "n0003" / "b.png"
    os.link(thousand / "one.png", extra)
    try:
        with pytest.raises(EastError, match=str(thousand)):
            open_dataset(imagenet_spec(), 128, 17, tmp_path, CPU, thousand)
    finally:
        extra.unlink()


@pytest.fixture
def opened(two_classes, tmp_path, monkeypatch):
    """Opens the prepared folder of two classes; gives the settings of the batches of each part."""
    prepare("imagenet", tmp_path / "data", folder=two_classes)
    monkeypatch.setattr(
        "east.data.folder.FolderBatches",
        lambda samples, view, **settings: settings | {"samples": samples, "view": view},
    )

    def open_(**changes):
        return open_dataset(imagenet_spec(**changes), 16, 17, tmp_path / "data", CPU, two_classes)

    return open_


@pytest.mark.parametrize("augmented", [True, False])
def test_parts_of_imagenet_are_shown_as_the_spec_says(opened, two_classes, monkeypatch, augmented):
    monkeypatch.setattr(os, "sched_getaffinity", {0: {0, 1, 2}}.__getitem__)
    splits = opened(validation=1, augment_validation=augmented, flip=False)
    assert (splits.num_classes, splits.digest) == (2, scan_folder("imagenet", two_classes).digest)
    kept, held_out = split_indices(4, 1, "shuffled", 17)
    shared = {"device": CPU, "mean": MEAN, "std": STD, "workers": 3}
    images = shared | {"samples": list_images(two_classes, "train").samples}
    settings = {"batch_size": 16, "order_seed": 17, "view": RandomView(17, "augment", False)}
    assert splits.train.pop("indices").tolist() == kept.tolist()
    assert splits.train == images | settings
    assert splits.validation.pop("indices").tolist() == held_out.tolist()
    view = RandomView(17, "validation", False) if augmented else CenterView()
    assert splits.validation == images | {"batch_size": 250, "view": view}
    tested = {"samples": list_images(two_classes, "val").samples, "batch_size": 250, "view": CenterView()}
    assert splits.test == shared | tested


@pytest.mark.parametrize(("cores", "workers"), [(5, 5), (None, 1)])
def test_where_nobody_grants_cores_there_is_a_worker_for_each(opened, monkeypatch, cores, workers):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert opened().train["workers"] == workers


def test_imagenet_is_not_opened_without_a_folder_or_torchvision(opened, tmp_path, monkeypatch):
    with pytest.raises(EastError, match=r"datasets\.imagenet\.folder"):
        open_dataset(imagenet_spec(), 16, 17, tmp_path / "data", CPU)
    with pytest.raises(EastError, match="validation_choice"):
        opened(validation=1, validation_choice="last")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(EastError, match="torchvision does not work with the installed PyTorch"):
        opened()


UNDER_SIGNALS = """
import os, signal, subprocess, sys
from pathlib import Path
from east.training.interrupt import SIGNALS
from tests.unit.test_data_folder import training
received = []
for number in SIGNALS:
    signal.signal(number, lambda number, _: received.append(number))
batches = training(Path(sys.argv[1]), workers=2, batch_size=1).epoch(1)
count = 0
for _ in batches:
    count += 1
    if count == 1:
        for number in SIGNALS:
            subprocess.run(["kill", f"-{int(number)}", "--", f"-{os.getpgrp()}"], start_new_session=True)
print(count, sorted(received) == sorted(SIGNALS))
abandoned = training(Path(sys.argv[1]), workers=2, batch_size=1).epoch(2)
next(abandoned)
"""


def test_workers_ignore_what_the_whole_job_is_sent_but_end_with_their_parent(folder):
    """As Slurm sends it, and as a terminal does: the epoch goes on, and the process itself gets every signal."""
    command = [sys.executable, "-c", UNDER_SIGNALS, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, start_new_session=True, timeout=100)
    assert (done.stdout, done.stderr) == ("5 True\n", "")


@pytest.mark.slow
def test_workers_that_are_spawned_give_the_same_batches(folder):
    """As on macOS, where workers are no forks: what they are given is pickled."""
    forked = [images for images, _ in training(folder, workers=1).epoch(0)]
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = [images for images, _ in training(folder, workers=1).epoch(0)]
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert all(torch.equal(one, other) for one, other in zip(forked, spawned, strict=True))
