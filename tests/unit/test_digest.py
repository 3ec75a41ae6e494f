import hashlib
import struct

import pytest
import torch

from east.data.images import digest_tensors


def test_is_the_digest_of_names_types_shapes_and_numbers():
    tensors = {"b": torch.tensor([[1.5, -2.0]]), "a": torch.tensor(True)}
    text = b"a bool \n\x01" + b"b float32 1x2\n" + struct.pack("<2f", 1.5, -2.0)
    assert digest_tensors(tensors) == hashlib.sha256(text).hexdigest()


def test_does_not_depend_on_the_layout_in_memory():
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    assert digest_tensors({"x": images}) == digest_tensors({"x": images.to(memory_format=torch.channels_last)})


@pytest.mark.parametrize(
    "other",
    [
        {"x": torch.zeros(2, 3, dtype=torch.int32)},
        {"x": torch.zeros(3, 2)},
        {"y": torch.zeros(2, 3)},
        {"x": torch.tensor([[0, 0, 0], [0, 0, -0.0]])},
    ],
)
def test_any_difference_shows(other):
    assert digest_tensors({"x": torch.zeros(2, 3)}) != digest_tensors(other)
