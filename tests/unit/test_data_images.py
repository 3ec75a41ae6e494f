import hashlib
import json
import os
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file

from east.data import manifest
from east.data.checksums import Checksums, verified
from east.data.images import load_images, wrong_images
from east.data.manifest import ImagesManifest, read_manifest
from east.data.open import split_indices
from east.data.prepare import prepare
from east.errors import EastError


@pytest.fixture
def digits(tmp_path):
    return prepare("digits", tmp_path).parent


def last_byte_changed(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def fact_changed(**facts):
    return lambda content: json.dumps(json.loads(content) | facts).encode()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images.safetensors", last_byte_changed, "east prepare"),
        ("images.safetensors", lambda content: content[:-1], ""),
        ("images.safetensors", None, ""),
        ("images.safetensors", os.mkfifo, "not an ordinary file"),
        ("images.safetensors", lambda content: content + bytes(2**21), "bytes"),
        ("manifest.json", os.mkfifo, "not an ordinary file"),
        ("manifest.json", lambda content: b"[" * 100_000, ""),
        ("manifest.json", lambda content: b"[]", ""),
        ("manifest.json", fact_changed(shapes={}), ""),
        ("manifest.json", fact_changed(checksum=None, num_classes=9), "9 classes"),
        ("manifest.json", fact_changed(checksum=None, std=[0.1, 0.2, 0.0]), "positive"),
        ("manifest.json", fact_changed(checksum=None, std=[0.1, 0.2]), "its std must be 3 positive numbers"),
        ("manifest.json", fact_changed(checksum=None, mean=[0.1, 0.2]), "its mean must be 3 numbers"),
        ("manifest.json", fact_changed(checksum=None, mean=[0.0, 0.2, 0.3]), "digest of the images"),
        ("manifest.json", fact_changed(checksum=None, shapes={}), "its shapes are not those of Digits"),
        ("manifest.json", fact_changed(sources=[]), ""),
        ("manifest.json", None, "Digits"),
        ("manifest.json", lambda content: content[:50], ""),
        ("manifest.json", fact_changed(dataset="digit_pairs"), "digit_pairs"),
        ("manifest.json", fact_changed(mean=[0.1, 0.2, 0.3]), "east prepare"),
        ("manifest.json", fact_changed(std=[0.1, 0.2, 0.3]), "east prepare"),
        ("manifest.json", fact_changed(num_classes=11), "east prepare"),
        ("manifest.json", fact_changed(digest="0" * 64), "east prepare"),
    ],
)
def test_files_that_are_damaged_or_missing_are_refused_by_name(digits, name, change, message):
    path = digits / name
    content = path.read_bytes()
    path.unlink()
    if change is os.mkfifo:
        os.mkfifo(path)
    elif change is not None:
        path.write_bytes(change(content))
    with pytest.raises(EastError) as caught:
        load_images("digits", digits.parent)
    assert all(part in str(caught.value) for part in (str(digits), name, message))
    assert str(caught.value).endswith(f"`east prepare digits --data-dir {digits.parent}` prepares it again.")


def test_a_manifest_says_whether_it_is_whole_whatever_the_order_of_its_keys(digits):
    path = digits / "manifest.json"
    text = path.read_text()
    facts = json.loads(text)
    assert text == json.dumps(facts, indent=2) + "\n"
    read = read_manifest(ImagesManifest, "digits", digits.parent)
    checksum = facts.pop("checksum")
    assert checksum == hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path.write_text(json.dumps({"checksum": checksum} | dict(reversed(facts.items()))))
    assert read_manifest(ImagesManifest, "digits", digits.parent) == read


def test_tensors_are_what_the_catalogue_says_or_it_is_told_what_they_are(digits):
    tensors = load_file(digits / "images.safetensors")
    assert wrong_images("digits", tensors) == ""
    names = "test_images, test_labels, train_images, train_labels"
    assert wrong_images("digits", {**tensors, "more": tensors["train_labels"]}) == (
        f"there are more, {names} in it, not {names}"
    )
    for label, found in ((-1, "from -1 to 9"), (10, "from 0 to 10")):
        labels = tensors["test_labels"].clone()
        labels[0] = label
        assert wrong_images("digits", tensors | {"test_labels": labels}) == f"test_labels go {found}, not from 0 to 9"


def test_a_published_file_is_what_its_checksums_say(tmp_path):
    content = b"whole"
    md5, sha256 = (hashlib.new(name, content).hexdigest() for name in ("md5", "sha256"))
    assert Checksums(md5, sha256).problem(content) == Checksums(md5).problem(content) == ""
    assert Checksums("0", sha256).problem(content) == f"its md5 is {md5}, not 0"
    assert Checksums(md5, "0").problem(content) == f"its sha256 is {sha256}, not 0"


def test_no_more_is_read_of_a_published_file_than_one_has(tmp_path, monkeypatch):
    monkeypatch.setattr("east.data.checksums.FILE_BYTES", 5)
    for content in (b"whole", b"longer"):
        (tmp_path / "file").write_bytes(content)
        given = Checksums(hashlib.md5(content).hexdigest())
        with nullcontext() if content == b"whole" else pytest.raises(EastError, match="file cannot be read"):
            assert verified(tmp_path / "file", given) == content


def test_md5_tells_files_apart_where_it_may_not_protect_anything(tmp_path, monkeypatch):
    """As on machines in FIPS mode."""
    md5, right = hashlib.md5, hashlib.md5(b"whole").hexdigest()

    def only_to_tell_apart(*content, usedforsecurity=True):
        assert not usedforsecurity
        return md5(*content, usedforsecurity=False)

    monkeypatch.setattr(hashlib, "md5", only_to_tell_apart)
    (tmp_path / "file").write_bytes(b"whole")
    assert manifest.md5(tmp_path / "file") == right
    assert Checksums(right).problem(b"whole") == ""


def test_every_bit_of_a_manifest_is_covered(digits):
    path = digits / "manifest.json"
    content, whole = path.read_bytes(), read_manifest(ImagesManifest, "digits", digits.parent)
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :])
        try:
            manifest = read_manifest(ImagesManifest, "digits", digits.parent)
        except EastError:
            continue
        assert manifest == whole, "a space may become another one"


def test_images_are_read_so_that_nobody_can_take_them_away(digits):
    """Of a mapped file, a process that reads what another has cut off is killed."""
    data = load_images("digits", digits.parent)
    before = data.train_images.clone()
    with (digits / "images.safetensors").open("r+b") as stream:
        stream.truncate(0)
    assert torch.equal(data.train_images, before)
    data.train_images.zero_()


def test_last_holds_out_the_last_images():
    train, held_out = split_indices(10, 3, "last", seed=5)
    assert train.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert held_out.tolist() == [7, 8, 9]


def test_shuffled_holds_out_by_the_seed():
    train, held_out = split_indices(1000, 100, "shuffled", seed=17)
    again = split_indices(1000, 100, "shuffled", seed=17)
    other = split_indices(1000, 100, "shuffled", seed=18)
    assert sorted(train.tolist() + held_out.tolist()) == list(range(1000))
    assert len(held_out) == 100
    assert torch.equal(held_out, again[1])
    assert not torch.equal(held_out, other[1])
    assert 350 < held_out.float().mean() < 650


def test_nothing_is_held_out_for_zero_and_everything_never():
    train, held_out = split_indices(5, 0, "shuffled", seed=1)
    assert train.tolist() == [0, 1, 2, 3, 4]
    assert held_out.tolist() == []
    with pytest.raises(EastError, match=r"dataset\.validation .*5"):
        split_indices(5, 5, "last", seed=1)
