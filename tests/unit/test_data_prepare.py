import hashlib
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from decimal import Decimal, localcontext
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import CIFAR10, CIFAR100

from east.data.catalog import DATASETS
from east.data.checksums import SHA256
from east.data.cifar import fetch_archive, read_cifar
from east.data.digits import (
    draw_pairs,
    native_digits,
    read_digit_pairs,
    read_digits,
    split_digits,
)
from east.data.download import scratch_folder
from east.data.images import dataset_digest, load_images
from east.data.prepare import prepare, store_images
from east.data.statistics import _root_of_ratio, channel_statistics
from east.errors import EastError

LABEL_KEYS = {CIFAR10: "labels", CIFAR100: "fine_labels"}


def batch(base, count, seed):
    """A pickled CIFAR batch with an image of each class, and what it holds: images [N, 3, 32, 32] and labels."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = random.permutation(count).tolist()
    return pickle.dumps({"data": images, LABEL_KEYS[base]: labels}, protocol=2), images.reshape(-1, 3, 32, 32), labels


def archive(folder, base, *, extra=(), damage=lambda content: content):
    """Write an archive in the true format; return a torchvision class with its checksums, and what it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    files, parts = {}, {"train": [], "test": []}
    classes = 10 if base is CIFAR10 else 100
    for part, names in (("train", base.train_list), ("test", base.test_list)):
        for name, _ in names:
            content, images, labels = batch(base, classes, seed=len(files))
            files[name] = content
            parts[part].append((images, labels))
    names_key = base.meta["key"]
    files[base.meta["filename"]] = pickle.dumps({names_key: [f"c{i}" for i in range(classes)]}, protocol=2)

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in (*((f"{base.base_folder}/{n}", c) for n, c in files.items()), *extra):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    content = damage(stream.getvalue())
    path = folder / base.filename
    path.write_bytes(content)

    def checksums(listed):
        return [[name, hashlib.md5(files[name]).hexdigest()] for name, _ in listed]

    meta = base.meta | {"md5": hashlib.md5(files[base.meta["filename"]]).hexdigest()}
    cls = type(
        "SmallArchive",
        (base,),
        {
            "tgz_md5": hashlib.md5(content).hexdigest(),
            "train_list": checksums(base.train_list),
            "test_list": checksums(base.test_list),
            "meta": meta,
        },
    )
    return cls, parts


@pytest.fixture(autouse=True)
def small_catalogue(monkeypatch):
    """A catalogue in which CIFAR has the images of these archives only."""
    for name, train in (("cifar10", 50), ("cifar100", 100)):
        info = DATASETS[name]
        monkeypatch.setitem(DATASETS, name, replace(info, train_images=train, test_images=info.num_classes))


def joined(parts):
    return (
        torch.from_numpy(np.concatenate([images for images, _ in parts])),
        torch.tensor([label for _, labels in parts for label in labels]),
    )


def small_cifar10(data_dir, cls):
    return store_images("cifar10", data_dir, partial(read_cifar, cls, data_dir / "raw"))


@pytest.mark.parametrize(("dataset", "base"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_archive_is_read_with_its_images_labels_and_checksums(tmp_path, dataset, base):
    cls, parts = archive(tmp_path / "raw", base)
    path = store_images(dataset, tmp_path, partial(read_cifar, cls, tmp_path / "raw"))
    data = load_images(dataset, tmp_path)
    tensors = {
        f"{part}_{what}": tensor
        for part in parts
        for what, tensor in zip(("images", "labels"), joined(parts[part]), strict=True)
    }
    for name, tensor in tensors.items():
        torch.testing.assert_close(getattr(data, name), tensor, rtol=0, atol=0)
    assert (data.mean, data.std) == (DATASETS[dataset].mean, DATASETS[dataset].std)

    manifest = json.loads(path.read_text())
    assert path == tmp_path / dataset / "manifest.json"
    assert manifest["num_classes"] == DATASETS[dataset].num_classes
    assert manifest["shapes"]["train_images"] == list(tensors["train_images"].shape)
    facts = {"mean": data.mean, "std": data.std, "num_classes": data.num_classes}
    assert manifest["digest"] == data.digest == dataset_digest(tensors, **facts)
    assert manifest["sources"][0] == {"name": base.filename, "md5": cls.tgz_md5}
    assert [source["name"] for source in manifest["sources"][1:]] == [n for n, _ in base.train_list + base.test_list]
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == [base.filename]


@pytest.mark.parametrize(("dataset", "base"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_is_prepared_from_its_official_archive(tmp_path, monkeypatch, dataset, base):
    cls, _ = archive(tmp_path / "raw", base, extra=[(f"{base.base_folder}/readme.html", b"x")])
    monkeypatch.setattr(f"torchvision.datasets.{base.__name__}", cls)
    right = hashlib.sha256((tmp_path / "raw" / base.filename).read_bytes()).hexdigest()
    monkeypatch.setitem(SHA256, dataset, right)
    path = prepare(dataset, tmp_path)
    assert json.loads(path.read_text())["sources"][0]["sha256"] == right
    for name, found in (("mean", [0.1, 0.2, 0.3]), ("std", [0.1, 0.2, 0.3])):
        text = path.read_text()
        path.write_text(json.dumps(json.loads(text) | {name: found, "checksum": None}))
        with pytest.raises(EastError, match=f"its {name} is not that of {DATASETS[dataset].label}"):
            load_images(dataset, tmp_path)
        path.write_text(text)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert prepare(dataset, tmp_path) == path, "what is stored is not read again"
    path.unlink()
    with pytest.raises(EastError, match="torchvision does not work with the installed PyTorch"):
        prepare(dataset, tmp_path)


def test_a_data_set_that_nobody_knows_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(EastError, match=r"unknown data set 'emnist'\. Choose one of cifar10, .*digit_pairs"):
        prepare("emnist", tmp_path)


@pytest.mark.parametrize("left", [False, True])
def test_what_a_killed_job_left_does_not_stop_the_next_and_nothing_is_left(tmp_path, left):
    path = tmp_path / "some" / "scratch"
    if left:
        path.mkdir(parents=True)
        (path / "file").touch()
    with scratch_folder(path) as folder:
        assert (folder, list(folder.iterdir()), folder.stat().st_mode & 0o7777) == (path, [], 0o700)
        (folder / "file").touch()
    assert not path.exists()
    with scratch_folder(path):
        path.rmdir()


def test_an_archive_has_its_name_only_when_it_is_on_the_disk(tmp_path, server, monkeypatch):
    def fail(number):
        raise OSError("the disk is gone")

    folder, url = server
    cls, _ = archive(folder, CIFAR10)
    cls.url = url
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        fetch_archive(cls, tmp_path)
    assert not (tmp_path / CIFAR10.filename).exists()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine: the folder that it serves, and its address."""
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{web.server_port}/{CIFAR10.filename}"
        web.shutdown()
        thread.join()


def test_absent_archive_is_downloaded_into_raw(tmp_path, server):
    folder, url = server
    cls, _ = archive(folder, CIFAR10)
    cls.url = url
    small_cifar10(tmp_path / "data", cls)
    downloaded = tmp_path / "data" / "raw" / CIFAR10.filename
    assert hashlib.md5(downloaded.read_bytes()).hexdigest() == cls.tgz_md5


@pytest.mark.parametrize("served", ["nothing", "part"])
def test_failed_download_says_which_file_to_put_where_and_leaves_nothing(tmp_path, server, served):
    folder, url = server
    cls, _ = archive(folder, CIFAR10)
    cls.url = url
    path = folder / CIFAR10.filename
    if served == "part":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.unlink()
    with pytest.raises(EastError) as caught:
        small_cifar10(tmp_path / "data", cls)
    for part in (CIFAR10.filename, cls.tgz_md5, str(tmp_path / "data" / "raw")):
        assert part in str(caught.value)
    assert not list((tmp_path / "data" / "raw").iterdir())


def test_without_network_the_error_is_one_for_people(tmp_path):
    cls, _ = archive(tmp_path / "server", CIFAR10)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        cls.url = f"http://127.0.0.1:{unused.getsockname()[1]}/{CIFAR10.filename}"
        with pytest.raises(EastError, match=cls.url):
            small_cifar10(tmp_path / "data", cls)


@pytest.mark.parametrize("spoil", [lambda c: c[: len(c) // 2], lambda c: c[:100] + b"x" + c[101:], lambda c: b""])
def test_damaged_archive_is_refused_by_name_and_left_as_it_is(tmp_path, spoil):
    cls, _ = archive(tmp_path / "raw", CIFAR10)
    path = tmp_path / "raw" / CIFAR10.filename
    spoiled = spoil(path.read_bytes())
    path.write_bytes(spoiled)
    with pytest.raises(EastError, match=cls.tgz_md5) as caught:
        small_cifar10(tmp_path, cls)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == spoiled
    assert [p.name for p in (tmp_path / "cifar10").iterdir()] == [".lock"]


def test_archive_cut_short_at_its_source_is_refused_though_its_checksum_agrees(tmp_path):
    cls, _ = archive(tmp_path / "raw", CIFAR10, damage=lambda content: content[: len(content) // 2])
    with pytest.raises(EastError, match=CIFAR10.filename):
        small_cifar10(tmp_path, cls)
    assert not (tmp_path / "cifar10" / "manifest.json").exists()
    assert [p.name for p in (tmp_path / "raw").iterdir()] == [CIFAR10.filename]


def test_member_with_another_checksum_is_refused(tmp_path):
    cls, _ = archive(tmp_path / "raw", CIFAR10)
    cls.test_list = [["test_batch", "0" * 32]]
    with pytest.raises(EastError, match=CIFAR10.filename):
        small_cifar10(tmp_path, cls)


def test_an_archive_that_lacks_a_file_is_refused_by_the_name_of_that(tmp_path):
    cls, _ = archive(tmp_path / "raw", CIFAR10)
    cls.train_list = [*cls.train_list, ["data_batch_9", "0" * 32]]
    with pytest.raises(EastError, match=rf"{CIFAR10.filename} holds no .*data_batch_9"):
        small_cifar10(tmp_path, cls)


def test_an_archive_that_torchvision_does_not_read_is_named(tmp_path, monkeypatch):
    cls, _ = archive(tmp_path, CIFAR10)
    monkeypatch.setattr(cls, "_check_integrity", lambda self: False)
    with pytest.raises(EastError, match=f"{tmp_path / CIFAR10.filename} cannot be read"):
        read_cifar(cls, tmp_path)


def test_member_that_leads_out_of_the_folder_is_refused(tmp_path):
    cls, _ = archive(tmp_path / "raw", CIFAR10, extra=[("../../escaped", b"out")])
    with pytest.raises(EastError, match="outside its folder"):
        small_cifar10(tmp_path, cls)
    assert not list(tmp_path.rglob("escaped"))
    assert not (tmp_path / "cifar10" / "manifest.json").exists()


def test_an_archive_with_the_right_md5_and_another_sha256_is_refused(tmp_path):
    cls, _ = archive(tmp_path, CIFAR10)
    right = hashlib.sha256((tmp_path / CIFAR10.filename).read_bytes()).hexdigest()
    assert read_cifar(cls, tmp_path, right).sources[0].sha256 == right
    with pytest.raises(EastError, match="sha256"):
        read_cifar(cls, tmp_path, "0" * 64)


@pytest.mark.parametrize("base", [CIFAR10, CIFAR100])
def test_an_archive_that_is_unpacked_already_is_read_without_a_download(tmp_path, base):
    cls, parts = archive(tmp_path, base)
    cls.url = "http://nowhere.invalid"
    with tarfile.open(tmp_path / base.filename) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / base.filename).unlink()
    found = read_cifar(cls, tmp_path)
    assert torch.equal(found.test_images, joined(parts["test"])[0])
    assert [source.name for source in found.sources] == [name for name, _ in base.train_list + base.test_list]

    member = tmp_path / base.base_folder / base.test_list[0][0]
    member.write_bytes(member.read_bytes()[:-1] + b"?")
    with pytest.raises(EastError, match=str(member)):
        read_cifar(cls, tmp_path)
    member.unlink()
    os.mkfifo(member)
    with pytest.raises(EastError, match=str(member)):
        read_cifar(cls, tmp_path)


def test_an_archive_that_is_no_file_is_refused_at_once(tmp_path):
    cls, _ = archive(tmp_path, CIFAR10)
    path = tmp_path / CIFAR10.filename
    for make in (
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("nowhere"),
    ):
        path.unlink()
        make(path)
        with pytest.raises(EastError, match=str(path)):
            read_cifar(cls, tmp_path)
        if path.is_dir():
            path.rmdir()
            path.touch()


@pytest.mark.parametrize("bomb", ["a member", "the whole"])
def test_what_unpacks_to_more_than_an_archive_holds_is_refused(tmp_path, monkeypatch, bomb):
    extra = [("zeros", bytes(2**22))] if bomb == "the whole" else []
    cls, _ = archive(tmp_path, CIFAR10, extra=extra)
    monkeypatch.setattr("east.data.cifar.UNPACKED_BYTES" if extra else "east.data.cifar.MEMBER_BYTES", 2**12)
    with pytest.raises(EastError, match=CIFAR10.filename):
        read_cifar(cls, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {"train_labels": s.train_labels - 1}, "from -1 to 8"),
        (lambda s: {"test_labels": s.test_labels + 1}, "from 1 to 10"),
        (lambda s: {"train_labels": s.train_labels.clamp(max=8)}, "9 classes"),
        (lambda s: {"train_labels": s.train_labels.int()}, "int32"),
        (lambda s: {"train_images": s.train_images[1:], "train_labels": s.train_labels[1:]}, "1437"),
        (lambda s: {"test_images": s.test_images[:, :1]}, "359 x 1 x 12 x 12"),
    ],
)
def test_images_that_are_not_those_of_the_catalogue_are_neither_stored_nor_opened(tmp_path, monkeypatch, change, words):
    """Not even where every digest agrees."""
    source = read_digits()
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], digest=None))
    source = replace(source, **change(source))
    with pytest.raises(EastError, match=f"Digits.*{words}"):
        store_images("digits", tmp_path, lambda: source)
    with monkeypatch.context() as before:
        before.setattr("east.data.prepare.wrong_images", lambda *_: "")
        before.setattr("east.data.prepare.load_images", lambda *_: False)
        store_images("digits", tmp_path, lambda: source)
    with pytest.raises(EastError, match="east prepare"):
        load_images("digits", tmp_path)


def test_prepared_data_are_left_alone_and_damaged_data_are_made_again(tmp_path):
    calls = []

    def read():
        calls.append(1)
        return read_digits()

    path = store_images("digits", tmp_path, read)
    tensor_file = path.parent / "images.safetensors"
    whole, manifest = tensor_file.read_bytes(), path.read_bytes()
    store_images("digits", tmp_path, read)
    assert len(calls) == 1
    tensor_file.write_bytes(whole[:-1])
    store_images("digits", tmp_path, read)
    path.unlink()
    store_images("digits", tmp_path, read)
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 0'))
    store_images("digits", tmp_path, read)
    assert len(calls) == 4
    assert (tensor_file.read_bytes(), path.read_bytes()) == (whole, manifest)


def test_failed_preparation_leaves_no_manifest_beside_the_old_tensor_file(tmp_path):
    path = prepare("digits", tmp_path)
    (path.parent / "images.safetensors").write_bytes(b"spoiled")

    def fail():
        raise EastError("no source")

    with pytest.raises(EastError, match="no source"):
        store_images("digits", tmp_path, fail)
    with pytest.raises(EastError, match=r"images\.safetensors"):
        load_images("digits", tmp_path)


def test_a_manifest_never_stands_beside_images_that_it_does_not_describe(tmp_path, monkeypatch):
    def fail(path, content):
        raise OSError(f"no space for {path}")

    path = prepare("digits", tmp_path)
    (path.parent / "images.safetensors").write_bytes(b"spoiled")
    monkeypatch.setattr("east.data.prepare.write_atomically", fail)
    with pytest.raises(OSError, match=r"no space for .*images\.safetensors"):
        prepare("digits", tmp_path)
    assert not path.exists()


def test_two_processes_that_prepare_at_once_build_once(tmp_path, monkeypatch):
    log = tmp_path / "builds"
    script = (
        "import sys, time\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from east.data.catalog import DATASETS\n"
        "from east.data.prepare import store_images\n"
        "from east.data.source import SourceImages\n"
        "home, name = Path(sys.argv[1]), sys.argv[2]\n"
        "size = {'train_images': 10, 'test_images': 10, 'image_shape': (3, 16, 16)}\n"
        "DATASETS['cifar10'] = replace(DATASETS['cifar10'], **size)\n"
        "def read():\n"
        "    with (home / 'builds').open('a') as log: log.write(name)\n"
        "    time.sleep(0.5)\n"
        "    images, labels = torch.ones(10, 3, 16, 16, dtype=torch.uint8), torch.arange(10)\n"
        "    return SourceImages(images, labels, images + 1, labels.clone(), ())\n"
        "(home / name).touch()\n"
        "while len(list(home.glob('ready*'))) < 2: time.sleep(0.01)\n"
        "store_images('cifar10', home / 'data', read)\n"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name], cwd=Path(__file__).parents[2])
        for name in ("ready1", "ready2")
    ]
    assert [job.wait(60) for job in jobs] == [0, 0]
    assert log.read_text() in ("ready1", "ready2")
    size = {"train_images": 10, "test_images": 10, "image_shape": (3, 16, 16)}
    monkeypatch.setitem(DATASETS, "cifar10", replace(DATASETS["cifar10"], **size))
    assert load_images("cifar10", tmp_path / "data").train_labels.tolist() == list(range(10))


@pytest.mark.parametrize("dataset", ["digits", "digit_pairs"])
def test_embedded_data_have_the_catalogue_s_counts_and_share_no_image(tmp_path, dataset):
    prepare(dataset, tmp_path)
    data = load_images(dataset, tmp_path)
    info = DATASETS[dataset]
    size = info.image_shape
    assert data.train_images.shape == (info.train_images, *size)
    assert data.test_images.shape == (info.test_images, *size)
    assert data.num_classes == info.num_classes
    for labels in (data.train_labels, data.test_labels):
        counts = labels.bincount(minlength=info.num_classes)
        assert len(counts) == info.num_classes
        # Equal classes for the pairs; the digits themselves are 174 to 183 of each class.
        assert counts.max() - counts.min() <= (8 if dataset == "digits" else 0)
    train = {image.numpy().tobytes() for image in data.train_images}
    test = {image.numpy().tobytes() for image in data.test_images}
    assert len(train) == info.train_images
    assert not train & test
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
        pixels = data.train_images[:, channel].double().numpy() / 255
        assert (mean, std) == pytest.approx((pixels.mean(), pixels.std()))


def test_pair_image_shows_both_digits_side_by_side_pixel_for_pixel():
    images, labels = native_digits()
    pairs = read_digit_pairs()
    drawn = draw_pairs(labels, split_digits(labels)[0], 40, "train")
    assert pairs.train_labels[137] == 37
    for channel in pairs.train_images[137]:
        assert torch.equal(channel[:, :8], images[drawn[137, 0]])
        assert torch.equal(channel[:, 8:], images[drawn[137, 1]])


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_channel_statistics_are_rounded_once(levels):
    mean, std = channel_statistics(torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1))
    with localcontext(prec=60):
        exact = Decimal(sum(levels)) / len(levels)
        variance = sum((level - exact) ** 2 for level in levels) / len(levels)
        expected = float(exact / 255), float(variance.sqrt() / 255)
    assert (*mean, *std) == pytest.approx(expected, rel=0, abs=1e-40)


def test_a_root_just_above_the_middle_between_two_floats_is_rounded_up():
    between = 2**53 + 1
    assert _root_of_ratio(between**2, 1) == 2.0**53
    assert _root_of_ratio(between**2 + 1, 1) == 2.0**53 + 2
    # The remainder of the division says so, or that of the root.
    assert _root_of_ratio(2 * between**2 + 1, 2) == 2.0**53 + 2
    assert _root_of_ratio(2 * between**2, 2) == 2.0**53


def test_embedded_data_are_the_same_bytes_with_other_instructions(tmp_path):
    """Preparing refuses any other digest than the committed one."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from east.data.prepare import prepare\n"
        "for name in ('digits', 'digit_pairs'): prepare(name, Path(sys.argv[1]))\n"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    for name in ("digits", "digit_pairs"):
        assert load_images(name, tmp_path).digest == DATASETS[name].digest


def test_other_images_under_the_name_of_a_shipped_set_are_never_stored_or_opened(tmp_path, monkeypatch):
    source = read_digits()
    source.train_images[0, 0, 0, 0] += 1
    with pytest.raises(EastError, match=r"Digits.*make setup"):
        store_images("digits", tmp_path, lambda: source)
    assert not (tmp_path / "digits" / "manifest.json").exists()
    with monkeypatch.context() as before:
        before.setitem(DATASETS, "digits", replace(DATASETS["digits"], digest=None))
        store_images("digits", tmp_path, lambda: source)
    with pytest.raises(EastError, match=r"Digits.*east prepare"):
        load_images("digits", tmp_path)
    prepare("digits", tmp_path)
    assert load_images("digits", tmp_path).digest == DATASETS["digits"].digest
