import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from east.data.images import load_images
from east.data.open import split_indices
from east.data.prepare import prepare
from east.errors import EastError


@pytest.fixture
def digits(tmp_path):
    return prepare("digits", tmp_path).parent


def test_one_changed_byte_is_refused_with_file_and_mend(digits):
    path = digits / "images.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(EastError, match="snakemake") as caught:
        load_images("digits", digits.parent)
    assert str(path) in str(caught.value)


def test_missing_files_are_named(digits):
    (digits / "images.safetensors").unlink()
    with pytest.raises(EastError, match=r"images\.safetensors"):
        load_images("digits", digits.parent)
    (digits / "manifest.json").unlink()
    with pytest.raises(EastError, match=r"Digits.*manifest\.json"):
        load_images("digits", digits.parent)


def test_damaged_or_foreign_manifest_is_refused(digits):
    manifest = digits / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole[:50])
    with pytest.raises(EastError, match=r"manifest\.json"):
        load_images("digits", digits.parent)
    manifest.write_text(whole.replace('"digits"', '"digit_pairs"'))
    with pytest.raises(EastError, match=r"manifest\.json.*digit_pairs"):
        load_images("digits", digits.parent)


@pytest.mark.parametrize("key", ["mean", "std", "num_classes", "digest"])
def test_a_changed_fact_of_the_manifest_is_refused(digits, key):
    path = digits / "manifest.json"
    manifest = json.loads(path.read_text())
    other = {"mean": [0.1, 0.2, 0.3], "std": [0.1, 0.2, 0.3], "num_classes": 11, "digest": "0" * 64}
    path.write_text(json.dumps(manifest | {key: other[key]}))
    with pytest.raises(EastError, match=r"manifest\.json.*snakemake"):
        load_images("digits", digits.parent)


def test_a_file_cut_short_is_refused(digits):
    path = digits / "images.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EastError, match=r"images\.safetensors"):
        load_images("digits", digits.parent)


def test_images_are_mapped_not_read(digits):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux lists memory maps")
    data = load_images("digits", digits.parent)
    assert str(digits / "images.safetensors") in maps.read_text()
    data.train_images.zero_()
    assert load_images("digits", digits.parent).train_images.any(), "changes must not reach the file"


def test_catalogue_needs_no_torch():
    code = "import sys, east.data.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


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
