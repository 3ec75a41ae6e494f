"""Data sets of every source: files of IDX, folders of images, torchvision's classes, plugins; and what a plan knows."""

import gzip
import struct
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from east.config import RunSpec, make_plan, read_config
from east.config.run import DatasetSpec, ImagesSpec
from east.data import idx_files
from east.data.catalog import info_of, is_streamed, steps_per_epoch
from east.data.cifar import read_cifar
from east.data.decoded import read_imagenette, read_tiny_imagenet
from east.data.idx import _array, framed
from east.data.images import load_images
from east.data.listing import FolderLayout, count_images, held_out, list_parts
from east.data.open import open_dataset
from east.data.prepare import prepare
from east.data.source import as_source
from east.errors import EastError
from east.files import sha256_of
from east.operations.disk import disk_need
from east.operations.kinds import describe_kind, kind_of
from east.trained.images import image_facts
from east.training.attempts import class_on_cpu
from east.training.loop import run_loop
from east.training.run import Resources, open_and_begin
from tests.conftest import ROOT
from tests.unit.in_process import east
from tests.unit.sparse_engines import CPU
from tests.unit.test_data_prepare import CIFAR10, archive

DEBIAN = idx_files.FASHION.places[0]
SPLIT = "margin: 1, padding: zero, flip: false, validation: 4, validation_choice: shuffled"


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def fashion(monkeypatch):
    """Twenty images to train on and ten to test on, in place of Fashion-MNIST's: name of a file -> its bytes."""
    random, contents = np.random.default_rng(0), {}
    for part, count in (("train", 20), ("t10k", 10)):
        contents[f"{part}-images-idx3-ubyte"] = idx(random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        contents[f"{part}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    few = idx_files.IdxSet("FashionMNIST", {name: sha256_of(content) for name, content in contents.items()})
    monkeypatch.setitem(idx_files.IDX_SETS, "fashion_mnist", few)
    return contents


def few(**keys):
    """Fashion-MNIST with the images of the fixture."""
    source = {"name": "fashion_mnist", **keys}
    facts = {"classes": 10, "train_images": 20, "test_images": 10, "image_size": (keys.get("size", 32),) * 2}
    return ImagesSpec(name="few", source=source, facts=facts)


def test_files_are_found_packed_or_not_in_a_folder_or_in_torchvision_s_and_give_the_same_data_set(tmp_path, fashion):
    manifests = set()
    for number, (place, level) in enumerate([("", None), ("", 1), ("FashionMNIST/raw", 9)]):
        folder = tmp_path / str(number) / place
        folder.mkdir(parents=True)
        for name, content in fashion.items():
            if level is None:
                (folder / name).write_bytes(content)
            else:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, level, mtime=level))
        path = prepare(few(), tmp_path / f"data{number}", folder=tmp_path / str(number))
        manifests.add(path.read_bytes())
    assert len(manifests) == 1
    data = load_images(few(), tmp_path / "data0")
    pixels = np.frombuffer(fashion["train-images-idx3-ubyte"][16:], np.uint8).reshape(20, 28, 28)
    assert data.train_images.shape == (20, 3, 32, 32)
    assert (data.train_images[:, :, 2:30, 2:30].numpy() == pixels[:, None]).all()
    assert data.train_images.sum().item() == 3 * pixels.sum(dtype=np.int64)  # the border is black
    assert data.test_labels.tolist() == list(range(10))
    assert data.mean[0] == pytest.approx(pixels.sum(dtype=np.int64) / (20 * 32 * 32 * 255))


def test_a_network_is_shown_an_image_as_those_that_it_was_trained_on(tmp_path, fashion):
    for name, content in fashion.items():
        (tmp_path / name).write_bytes(content)
    prepare(few(), tmp_path / "data", folder=tmp_path)
    data = load_images(few(), tmp_path / "data")
    spec = DatasetSpec(
        **dict(few()),
        **{"margin": 0, "padding": "zero", "flip": False, "validation": 0, "validation_choice": "last"},
        augment_validation=False,
    )
    facts = image_facts(spec, data.digest, tmp_path / "data")
    Image.fromarray(data.test_images[3, 0, 2:30, 2:30].numpy()).save(tmp_path / "one.png")
    assert torch.equal(facts.pixels(tmp_path / "one.png"), data.test_images[3])
    assert facts.classes[9] == "ankle_boot"


def test_files_that_are_damaged_or_another_s_are_refused_by_name(tmp_path, fashion):
    for name, content in fashion.items():
        (tmp_path / name).write_bytes(content)
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1] + b"?")
    with pytest.raises(EastError, match=r"train-images-idx3-ubyte is damaged or another"):
        prepare(few(), tmp_path / "data", folder=tmp_path)
    images.unlink()
    images.with_suffix(".gz").write_bytes(gzip.compress(fashion[images.name])[:-9])
    with pytest.raises(EastError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        prepare(few(), tmp_path / "data", folder=tmp_path)
    assert not (tmp_path / "data" / few().store / "manifest.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a file of bytes"),
        (idx(np.zeros(2, np.uint8))[:3], "not a file of bytes"),
        (idx(np.zeros(2, np.uint8))[:7], "not a file of bytes"),
        (b"\1" + idx(np.zeros(2, np.uint8))[1:], "not a file of bytes"),
        (b"\0\0\x0d\1\0\0\0\2\0\0", "not a file of bytes"),
        (b"\0\0\x08\0", "has 0 bytes"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], "has 5 bytes, not the 2 x 3"),
    ],
)
def test_what_is_not_in_the_format_idx_is_named(tmp_path, content, said):
    with pytest.raises(EastError, match=f"{tmp_path} .*{said}"):
        _array(content, tmp_path)
    assert _array(idx(np.zeros((0, 3), np.uint8)), tmp_path).shape == (0, 3)


def test_images_stand_in_the_middle_of_squares_and_fit_into_them():
    image = torch.full((1, 3, 2), 7, dtype=torch.uint8)
    assert framed(image, 4)[0].tolist() == [[0, 7, 7, 0]] * 3 + [[0] * 4]
    assert framed(image, 3)[0].tolist() == [[7, 7, 0]] * 3
    with pytest.raises(EastError, match="do not fit"):
        framed(image, 2)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_debian_s_copy_of_fashion_mnist_is_the_published_one(tmp_path):
    images = ImagesSpec(name="fashion", source={"name": "fashion_mnist", "size": 28})
    prepare(images, tmp_path)
    data = load_images(images, tmp_path)
    assert data.train_labels.bincount().tolist() == [6000] * 10
    assert data.test_labels.bincount().tolist() == [1000] * 10
    # As others print them.
    assert (round(data.mean[0], 4), round(data.std[0], 4)) == (0.2860, 0.3530)


def flowers(folder, *, parts=("train/", "val/"), each=(6, 2), classes=("rose", "tulip"), side=(12, 9)):
    """An image folder: each class of one color, and as many images a class as `each` says of a part."""
    for part, count in zip(parts, each, strict=True):
        for number, name in enumerate(classes):
            for index in range(count):
                path = folder / f"{part}{name}" / f"{part[:1]}{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", side, (40 * number + 10, 8 * index, 100 + index)).save(path)
    return folder


def planned(overlay, text):
    """The first run of the smallest plan that an overlay changes so."""
    return make_plan(read_config(ROOT / "config" / "test.yaml", overlay(text))).runs[0].spec


def on_flowers(folder, source="{name: image_folder, size: 8}", more=""):
    return (
        f"datasets: {{flowers: {{source: {source}, folder: {folder}, {SPLIT}{more}}}}}\n"
        "recipes: {resnet34-digits: {batch_size: 4, update_period: 1}}\n"
        "tables: {table2: {dataset: flowers, rows: [{static: true}]}}\n"
    )


@pytest.mark.usefixtures("one_thread")
def test_a_folder_of_images_is_counted_decoded_once_and_trained_on(tmp_path, overlay):
    folder = flowers(tmp_path / "flowers")
    spec = planned(overlay, on_flowers(folder))
    info = info_of(spec.dataset)
    assert (info.num_classes, info.train_images, info.test_images, info.image_shape) == (2, 12, 4, (3, 8, 8))
    assert steps_per_epoch(spec) == 2
    prepare(spec.dataset.images, tmp_path / "data", folder=folder)
    data = load_images(spec.dataset, tmp_path / "data")
    assert data.train_labels.tolist() == [0] * 6 + [1] * 6
    facts = image_facts(spec.dataset, data.digest, tmp_path / "data")
    assert (facts.classes, facts.shape) == (("rose", "tulip"), (3, 8, 8))
    assert data.train_images[7, :, 3, 3].tolist() == [50, 8, 101]
    training = open_and_begin(
        RunSpec.model_validate_json(spec.canonical_json()), Resources(device="cpu", data_dir=tmp_path / "data"), CPU
    )
    assert run_loop(training) == "finished"
    assert class_on_cpu(spec) == "any processor"
    assert describe_kind(kind_of(spec)).endswith("4 images of 8 x 8")


def test_a_folder_that_nobody_has_named_or_that_is_not_there_is_said(tmp_path):
    facts = {"classes": 2, "train_images": 2, "test_images": 2, "image_size": (64, 64)}
    images = ImagesSpec(name="f", source="image_folder", facts=facts)
    with pytest.raises(EastError, match=r"datasets\.f\.folder or with --folder"):
        prepare(images, tmp_path)
    with pytest.raises(EastError, match=r"no folder .*absent"):
        prepare(images, tmp_path, folder=tmp_path / "absent")


def test_one_channel_of_one_value_cannot_be_normalised(tmp_path):
    folder = flowers(tmp_path / "flowers", each=(1, 1))
    facts = {"classes": 2, "train_images": 2, "test_images": 2, "image_size": (8, 8)}
    images = ImagesSpec(name="f", source={"name": "image_folder", "size": 8}, facts=facts)
    with pytest.raises(EastError, match="one value"):
        prepare(images, tmp_path, folder=folder)


def test_a_folder_without_parts_is_divided_always_in_the_same_way(tmp_path):
    folder = flowers(tmp_path / "flowers", parts=("", "tulip/../"), each=(10, 13), classes=("rose", "tulip"))
    layout = FolderLayout(test_share=0.25)
    train, test = list_parts(folder, layout)
    of_class = [[path for path, label in test.samples if label == number] for number in range(2)]
    assert [len(paths) for paths in of_class] == [6, 6]  # of 23 each: 5.75
    assert not {path for path, _ in train.samples} & {path for path, _ in test.samples}
    assert len(train.samples) + len(test.samples) == 46
    assert list_parts(folder, layout) == (train, test)
    assert count_images(folder, layout) == (2, 34, 12)
    # What becomes of one class does not depend on others.
    flowers(folder, parts=("",), each=(4,), classes=("aster",))
    _, more = list_parts(folder, layout)
    assert [path for path, label in more.samples if label > 0] == [path for path, _ in test.samples]


@pytest.mark.parametrize(
    ("count", "share", "tested"), [(2, 0.9, 1), (3, 0.01, 1), (10, 0.25, 3), (23, 0.25, 6), (21, 0.25, 5), (2, 0.25, 1)]
)
def test_the_part_of_a_class_that_is_tested_on_is_rounded_and_leaves_some_of_either(count, share, tested):
    assert held_out(count, share, "rose") == tested


def test_a_class_of_one_image_cannot_be_divided(tmp_path):
    folder = flowers(tmp_path / "flowers", parts=("",), each=(1,))
    with pytest.raises(EastError, match="'rose' has a single image"):
        count_images(folder, FolderLayout(test_share=0.5))


def test_a_streamed_folder_is_cropped_at_its_size_and_normalised_by_its_own_mean(tmp_path, overlay):
    folder = flowers(tmp_path / "flowers", side=(14, 14))
    text = on_flowers(folder, "{name: image_folder, size: 7, streamed: true}").replace("margin: 1", "margin: 0")
    spec = planned(overlay, text)
    assert is_streamed(spec.dataset)
    assert class_on_cpu(spec) != "any processor"
    prepare(spec.dataset.images, tmp_path, folder=folder)
    splits = open_dataset(spec.dataset, 4, 1, tmp_path, CPU, folder)
    batches = [images for images, _ in splits.train.epoch(1)]
    assert [tuple(images.shape) for images in batches] == [(4, 3, 7, 7)] * 2
    shown = torch.cat([images for images, _ in splits.test.epoch(1)])
    # Red is 10 and 50 equally often, so it is one deviation below and above its mean.
    assert shown[:, 0, 0, 0].tolist() == pytest.approx([-1, -1, 1, 1], abs=1e-5)
    (folder / "train" / "rose" / "t0.png").rename(folder / "train" / "rose" / "t9.png")
    with pytest.raises(EastError, match="has changed since it was prepared"):
        open_dataset(spec.dataset, 4, 1, tmp_path, CPU, folder)


def test_a_plan_is_made_before_its_folder_is_there_if_it_says_the_numbers_which_then_must_be_right(tmp_path, overlay):
    text = on_flowers(tmp_path / "later", more=", classes: 2, train_images: 12, test_images: 5")
    spec = planned(overlay, text)
    assert info_of(spec.dataset).test_images == 5
    flowers(tmp_path / "later")
    with pytest.raises(EastError, match="flowers cannot be prepared: test_images are uint8 4"):
        prepare(spec.dataset.images, tmp_path, folder=tmp_path / "later")
    right = planned(overlay, text.replace("test_images: 5", "test_images: 4"))
    assert right.dataset == planned(overlay, on_flowers(tmp_path / "later")).dataset  # read from it, or declared


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("datasets: {flowers: {source: image_folder, SPLIT}}", "datasets.flowers: it needs the folder"),
        ("datasets: {flowers: {source: image_folder, folder: /nowhere, SPLIT}}", "folder: /nowhere/train is missing"),
        ("datasets: {flowers: {source: {name: torchvision, dataset: GTSRB}, SPLIT}}", "Set classes, train_images"),
        ("datasets: {torchvision: {SPLIT}}", "parameter 'dataset' of data set 'torchvision' must be given"),
        ("datasets: {flowers: {SPLIT}}", "datasets.flowers: there is no data set 'flowers'"),
        ("datasets: {mnist: {classes: 11, SPLIT}}", "datasets.mnist.classes: data set 'mnist' has 10"),
        ("datasets: {mnist: {mean: [0.1, 0.1, 0.1], SPLIT}}", "mean and std are given together"),
        ("datasets: {mnist: {source: {name: mnist, size: 20}, SPLIT}}", "parameter 'size' of data set 'mnist'"),
        ("datasets: {digits: {folder: /images, SPLIT}}", "datasets.digits.folder: digits is read from no folder"),
        ("datasets: {stl10: {margin: 100, SPLIT}}", "a border of 100 pixels does not go with images of 96 x 96"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused_with_its_key(overlay, text, said):
    name = text.split("{")[1].split(":")[0]
    margin = "" if "margin" in text else "margin: 1, "
    text = text.replace("SPLIT", margin + SPLIT.partition(", ")[2])
    with pytest.raises(EastError) as refused:
        planned(overlay, f"{text}\ntables: {{table2: {{dataset: {name}, rows: [{{static: true}}]}}}}")
    assert said in str(refused.value)


def test_other_parameters_or_a_mean_of_one_s_own_make_another_store_and_another_run(overlay):
    def of(more):
        text = (
            f"datasets: {{mnist: {{{SPLIT}{more}}}}}\ntables: {{table2: {{dataset: mnist, rows: [{{static: true}}]}}}}"
        )
        return planned(overlay, text)

    plain, small, given = (
        of(""),
        of(", source: {name: mnist, size: 28}"),
        of(", mean: [0.1, 0.1, 0.1], std: [0.3, 0.3, 0.3]"),
    )
    assert plain == of(", source: mnist") == of(", source: {name: mnist, size: 32}")
    assert plain.dataset.store == "mnist"
    assert set(plain.model_dump(mode="json")["dataset"]) & {"source", "facts"} == set()
    assert len({spec.fingerprint for spec in (plain, small, given)}) == 3
    assert len({spec.dataset.store for spec in (plain, small, given)}) == 3
    assert info_of(small.dataset).image_shape == (3, 28, 28)
    assert info_of(given.dataset).mean == (0.1, 0.1, 0.1)
    for spec in (plain, small, given):
        assert RunSpec.model_validate_json(spec.canonical_json()) == spec


def test_a_mean_of_one_s_own_is_what_images_are_normalised_by(tmp_path):
    facts = {"classes": 10, "train_images": 1438, "test_images": 359, "image_size": (12, 12)}
    images = ImagesSpec(name="digits", facts={**facts, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
    prepare(images, tmp_path)
    found = load_images(images, tmp_path)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_cifar_is_read_from_its_unpacked_folder_itself(tmp_path):
    cls, parts = archive(tmp_path, CIFAR10)
    with tarfile.open(tmp_path / cls.filename) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    found = read_cifar(cls, tmp_path / "unpacked" / cls.base_folder)
    assert found.test_labels.tolist() == parts["test"][0][1]
    assert [path.name for path in (tmp_path / "unpacked").iterdir()] == [cls.base_folder]


def test_tiny_imagenet_takes_its_validation_images_to_test_on(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    flowers(root, parts=("train/",), each=(2,), side=(4, 4))
    for name in ("rose", "tulip"):
        (root / "train" / name / "images").mkdir()
        for path in (root / "train" / name).glob("*.png"):
            path.rename(path.parent / "images" / f"{path.stem}.JPEG")
    (root / "wnids.txt").write_text("tulip\nrose\n")
    (root / "val" / "images").mkdir(parents=True)
    Image.new("RGB", (4, 4), (50, 0, 9)).save(root / "val" / "images" / "val_0.JPEG", format="PNG")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\ttulip\t0\t0\t3\t3\n")
    found = read_tiny_imagenet(tmp_path, 4)
    assert (found.train_labels.tolist(), found.test_labels.tolist()) == ([0, 0, 1, 1], [1])
    assert found.train_images[3, :, 0, 0].tolist() == [50, 8, 101]
    with pytest.raises(EastError, match=r"tiny_imagenet\.folder"):
        read_tiny_imagenet(tmp_path / "val", 4)
    for line in ("val_0.JPEG", "val_0.JPEG\tdaisy\t0\t0\t3\t3"):
        (root / "val" / "val_annotations.txt").write_text(f"{line}\n")
        with pytest.raises(EastError, match=r"val_annotations\.txt has the line"):
            read_tiny_imagenet(tmp_path, 4)


def test_imagenette_is_found_by_the_name_of_its_archive(tmp_path):
    flowers(tmp_path / "imagenette2-160", side=(5, 4))
    assert read_imagenette(tmp_path, 4).train_images.shape == (12, 3, 4, 4)
    with pytest.raises(EastError, match="imagenette2-320"):
        read_imagenette(tmp_path / "elsewhere", 4)


class Signs:
    """Images and labels as a class of torchvision has them."""

    def __init__(self, root, split="train", download=False):
        if split not in ("trainval", "test"):
            raise ValueError(f"unknown split {split}")
        self.parts = [(Image.new("L", (6, 4), 9 * index), index % 2) for index in range(4 if split == "test" else 6)]

    def __len__(self):
        return len(self.parts)

    def __getitem__(self, index):
        return self.parts[index]


def test_a_set_of_torchvision_is_read_by_the_name_of_its_class(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "Signs", Signs, raising=False)
    monkeypatch.setattr(torchvision.datasets, "__all__", (*torchvision.datasets.__all__, "Signs"))
    facts = {"classes": 2, "train_images": 6, "test_images": 4, "image_size": (4, 4)}
    images = ImagesSpec(name="signs", source={"name": "torchvision", "dataset": "Signs", "size": 4}, facts=facts)
    prepare(images, tmp_path)
    found = load_images(images, tmp_path)
    assert found.train_images[:, :, 0, 0].tolist() == [[9 * index] * 3 for index in range(6)]
    assert found.test_labels.tolist() == [0, 1, 0, 1]
    unknown = images.model_copy(
        update={"source": ImagesSpec(name="s", source={"name": "torchvision", "dataset": "Sings"}, facts=facts).source}
    )
    with pytest.raises(EastError, match="no data set 'Sings'"):
        prepare(unknown, tmp_path)


GREY = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)


@pytest.mark.parametrize("images", [GREY, GREY[:, None], GREY[..., None], torch.from_numpy(GREY)])
def test_grey_images_are_repeated_on_three_channels(images):
    found = as_source((images, [0, 1], images, np.array([1, 0])), (4, 5))
    assert (found.train_images.numpy() == np.stack([GREY] * 3, axis=1)).all()
    assert found.test_labels.tolist() == [1, 0]
    assert found.test_labels.dtype == torch.int64


def test_channels_may_be_first_or_last():
    color = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    first, last = (
        as_source((images, [0, 1], images, [0, 1]), (4, 5)) for images in (color.transpose(0, 3, 1, 2), color)
    )
    assert torch.equal(first.train_images, last.train_images)
    assert first.train_images[1, 2, 3, 4].item() == color[1, 3, 4, 2]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "NoneType"),
        ((GREY, [0, 1], GREY), "not four"),
        ((GREY.astype(float), [0, 1], GREY, [0, 1]), "float64"),
        ((GREY, [0, 1, 1], GREY, [0, 1]), "3 numbers for 2 images"),
        ((GREY, [0.5, 1], GREY, [0, 1]), "whole numbers"),
        ((GREY, [0, 1], GREY[:, :3], [0, 1]), "test images are 2 x 3 x 5"),
    ],
)
def test_what_is_no_data_set_is_said_in_words(found, said):
    with pytest.raises(ValueError, match=said):
        as_source(found, (4, 5))


PLUGIN = '''
import numpy as np
from east.methods import dataset

@dataset(classes=2, train_images=8, test_images=4, image_size=(8, 8), by_class=True)
def stripes(folder, *, dark: int = 0):
    """Stripes, along or across."""
    images = np.zeros((12, 8, 8), dtype=np.uint8)
    images[::2, ::2], images[1::2, :, ::2] = 255 - dark, 255 - dark
    return images[:8], np.arange(8) % 2, images[8:], np.arange(4) % 2
'''


@pytest.fixture
def stripes(tmp_path):
    """Writes a plugin with a data set, and gives the first run of a plan that uses it, and where it is."""

    def plan(text=PLUGIN, more="", split=SPLIT):
        (tmp_path / "mine.py").write_text(text)
        overlay = tmp_path / "mine.yaml"
        overlay.write_text(
            f"plugins: [mine.py]\ndatasets: {{stripes: {{{split}{more}}}}}\n"
            "tables: {table2: {dataset: stripes, rows: [{static: true}]}}\n"
            "recipes: {resnet34-digits: {batch_size: 2, update_period: 1}}\n"
        )
        made = make_plan(read_config(ROOT / "config" / "test.yaml", overlay))
        return SimpleNamespace(spec=made.runs[0].spec, places=[tmp_path / "mine.py"], plan=made, overlay=overlay)

    return plan


def test_a_plan_with_a_data_set_of_one_s_own_executes_nothing(stripes, tmp_path):
    found = stripes(f"raise SystemError\n{PLUGIN}")
    assert info_of(found.spec.dataset).train_images == 8
    assert disk_need(found.plan.runs, tmp_path).data > 12 * 3 * 8 * 8
    assert kind_of(found.spec).dataset.facts.train_images == 8
    with pytest.raises(EastError, match=r"mine\.py:1: the plugin failed"):
        prepare(found.spec.dataset.images, tmp_path, plugins=found.places)


def test_its_content_belongs_to_the_identity_of_its_runs_and_what_it_says_may_be_overruled(stripes):
    first, other = stripes(), stripes(PLUGIN + "# changed\n")
    assert first.spec.plugins
    assert first.spec.fingerprint != other.spec.fingerprint
    assert first.spec.kin == other.spec.kin
    assert first.spec.dataset.store != other.spec.dataset.store
    digits = [run.fingerprint for run in first.plan.runs if run.spec.dataset.name == "digits"]
    assert digits == [run.fingerprint for run in other.plan.runs if run.spec.dataset.name == "digits"]
    more = stripes(more=", train_images: 80, source: {name: stripes, dark: 9}")
    assert info_of(more.spec.dataset).train_images == 80
    assert RunSpec.model_validate_json(more.spec.canonical_json()) == more.spec


def test_by_class_keeps_the_last_images_from_being_held_out(stripes):
    with pytest.raises(EastError, match=r"stripes\.validation_choice: .*shuffled"):
        stripes(split=SPLIT.replace("shuffled", "last"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("images[:8], np", "images[:7], np", r"mine\.py:5: data set 'stripes': the train labels are 8 numbers for 7"),
        ("(12, 8, 8)", "(12, 8, 9)", r"mine\.py:5: .*8 x 8 x 9"),
        ("np.zeros", "np.zeroes", r"mine\.py:8: data set 'stripes' failed when it read its images: AttributeError"),
        ("np.arange(4) % 2", "np.arange(4)", "stripes cannot be prepared: test_labels go from 0 to 3"),
        ("train_images=8", "train_images=10", "stripes cannot be prepared: train_images are uint8 8"),
    ],
)
def test_one_that_gives_something_else_is_named_with_its_line(stripes, tmp_path, old, new, said):
    found = stripes(PLUGIN.replace(old, new))
    with pytest.raises(EastError, match=said):
        prepare(found.spec.dataset.images, tmp_path, plugins=found.places)
    with pytest.raises(EastError, match="is not prepared"):
        load_images(found.spec.dataset, tmp_path)


def test_the_command_prepares_what_a_configuration_describes(stripes, tmp_path):
    found = stripes()
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    files = ("--configfile", ROOT / "config" / "test.yaml", "--configfile", found.overlay)
    done = east("prepare", "stripes", *files, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"data/{found.spec.dataset.store}/manifest.json\n"
    assert load_images(found.spec.dataset, tmp_path / "data").train_labels.tolist() == [0, 1] * 4
    assert "stripe" in east("prepare", "stripe", *files, folder=tmp_path).stderr
    listed = east("list", "datasets", *files, folder=tmp_path).stdout
    assert "stripes" in listed
