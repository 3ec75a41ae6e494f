"""The files that a run goes on from: which are kept, which are used, and what they hold."""

import logging

import pytest
import torch

from east.training.checkpoint import PACKED, Checkpoints, pack, unpack


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mostly_zero(dtype, size=16, others=3):
    tensor = torch.zeros(size, dtype=dtype)
    tensor[-others:] = torch.arange(1, others + 1).to(dtype)
    return tensor


def test_the_last_two_are_kept_and_the_last_one_is_used(tmp_path):
    checkpoints = Checkpoints(tmp_path, "a")
    assert checkpoints.load_latest() is None
    for epoch, steps in ((1, 0), (2, 0), (2, 7), (3, 0)):
        checkpoints.save(epoch, {"number": 10 * epoch + steps}, steps)
        assert checkpoints.load_latest() == {"number": 10 * epoch + steps, "epoch": epoch}
    assert names(tmp_path) == ["checkpoint-000003-000007.pt", "checkpoint-000003.pt"]
    checkpoints.clear()
    assert names(tmp_path) == []


def test_a_damaged_one_is_set_aside_and_one_of_another_run_is_removed(tmp_path, caplog):
    Checkpoints(tmp_path, "another").save(1, {"number": 1})
    checkpoints = Checkpoints(tmp_path, "a")
    checkpoints.save(2, {"number": 2})
    path = tmp_path / "checkpoint-000002.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load_latest() is None
    assert names(tmp_path) == ["checkpoint-000002.damaged"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_a_content_with_a_checksum_that_is_not_a_checkpoint_is_damaged(tmp_path):
    checkpoints = Checkpoints(tmp_path, "a")
    checkpoints.save(1, {"number": 1})
    (tmp_path / "checkpoint-000002.pt").write_bytes(
        b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"  # of nothing
    )
    assert checkpoints.load_latest() == {"number": 1, "epoch": 1}
    assert names(tmp_path) == ["checkpoint-000001.pt", "checkpoint-000002.damaged"]


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.bfloat16, torch.float32, torch.float64]
)
def test_mostly_zero_tensors_are_packed_without_loss(dtype):
    tensor = mostly_zero(dtype).view(4, 4).t()
    packed = pack({"a": [tensor, (1, "x", None)]})
    assert packed["a"][0][PACKED] == [4, 4]
    assert packed["a"][0]["index"].dtype == torch.int32
    assert len(packed["a"][0]["value"]) == 3
    found = unpack(packed)
    assert found["a"][1] == [1, "x", None]
    assert found["a"][0].dtype == dtype
    assert torch.equal(found["a"][0], tensor)


def test_what_is_a_quarter_full_is_not_packed():
    assert isinstance(pack(mostly_zero(torch.float32, others=4)), torch.Tensor)
    assert isinstance(pack(mostly_zero(torch.float32, others=3)), dict)


def test_a_negative_zero_survives():
    tensor = torch.zeros(9)
    tensor[4] = -0.0
    assert torch.signbit(unpack(pack(tensor))).tolist() == [place == 4 for place in range(9)]


def test_a_packed_parameter_is_not_one_that_is_trained():
    assert not pack(torch.nn.Parameter(torch.ones(3))).requires_grad
