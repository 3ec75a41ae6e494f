import copy
import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from east.errors import EastError
from east.sparse.active import ActiveWeights
from east.training.assembly import assemble, initial_model
from east.training.describe import mask_updater
from east.training.records import PARTS, TraceRecord
from east.training.trace import _numbers, compare_traces, is_traced, read_trace, trace_record
from tests.unit.in_process import east
from tests.unit.test_training_loop import changed

ROW = TraceRecord(1, 1, "step", *"swmnoc")


def training(spec, engine="dense"):
    model = initial_model(spec, 10)
    sparsity = mask_updater(model, spec, 6)
    sparsity.initialise()
    return model, assemble(spec, model, sparsity, device=torch.device("cpu"), engine=engine, kind="eager")


def digests(model, parts):
    found = trace_record(model, parts, 0, 0, ["start"])
    return {part: getattr(found, part) for part in ("state", *PARTS)}


@pytest.fixture
def whole_clip(tiny_spec):
    """The tiny run with Adam and a clip: every part of the state is there."""
    clip = {"norm": 1.0, "scope": "dense", "estimator": "sketch"}
    return changed(tiny_spec, training={"gradient_clip": clip, "optimizer": {"name": "adam"}})


def step(model, parts):
    draw = torch.Generator().manual_seed(1)
    images, labels = torch.randn(8, 3, 12, 12, generator=draw), torch.arange(8)
    parts.step(images, labels, 0.1, 1, dense_gradients=False)


def test_memory_formats_and_engines_do_not_matter(whole_clip):
    """The dense engine has laid the network out channels-last, the sparse one has not."""
    wide = changed(whole_clip, model={"width": 16})
    (one, dense), (other, sparse) = training(wide), training(wide, "sparse")
    assert one.stages[0][0].conv1.weight.stride() != other.stages[0][0].conv1.weight.stride()
    assert digests(one, dense) == digests(other, sparse)
    step(one, dense)
    saved = {name: tensor.contiguous() for name, tensor in one.state_dict().items()}
    other.load_state_dict(copy.deepcopy(saved))
    for weights in sparse.active.values():
        weights.read()
    sparse.optimizer.load_state_dict(dense.optimizer.state_dict())
    sparse.clip.load_state_dict(dense.clip.state_dict())
    assert digests(one, dense) == digests(other, sparse)


def parameter(model, parts):
    return model.bn1.weight


def active_weight(model, parts):
    return next(iter(parts.active.values())).values


def running_mean(model, parts):
    return model.bn1.running_mean


def momentum(model, parts):
    return parts.optimizer.state[model.bn1.weight]["mean"]


def momentum_of_active(model, parts):
    return parts.optimizer.state[model.conv1.weight]["mean"]


def clip_norm(model, parts):
    return parts.clip.state_dict()["norm"].view(1)


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("weights", parameter),
        ("weights", active_weight),
        ("statistics", running_mean),
        ("optimizer", momentum),
        ("optimizer", momentum_of_active),
        ("clip", clip_norm),
    ],
)
def test_one_bit_changes_the_digest_of_its_part_and_of_the_state(whole_clip, part, where):
    model, parts = training(whole_clip)
    before = digests(model, parts)
    with torch.no_grad():
        tensor = where(model, parts)
        tensor[0] = torch.nextafter(tensor[0], torch.full_like(tensor[0], 9.0))
    after = digests(model, parts)
    assert {name for name in before if before[name] != after[name]} == {"state", part}


def test_a_mask_counts_by_its_places(whole_clip):
    model, parts = training(whole_clip)
    before = digests(model, parts)
    mask = model.stages[0][0].conv1.mask.view(-1)
    on, off = int(mask.nonzero()[0]), int((~mask).nonzero()[0])
    mask[on], mask[off] = False, True
    parts.active["stages.0.0.conv1"].read()
    after = digests(model, parts)
    assert before["masks"] != after["masks"]


@pytest.mark.parametrize("room", [None, 432], ids=["as many as there are", "with room for all"])
def test_a_full_mask_is_the_same_in_whatever_way_it_is_kept(whole_clip, room):
    def full(grown):
        model, parts = training(whole_clip)
        layer = model.stages[0][0].conv1
        weights = ActiveWeights(layer, room)
        layer.mask.fill_(True)
        if not grown:
            weights = ActiveWeights(layer)
        weights.read()
        parts.active["stages.0.0.conv1"] = weights
        return digests(model, parts)

    assert full(grown=True)["masks"] == full(grown=False)["masks"]
    assert full(grown=True)["weights"] == full(grown=False)["weights"]


def test_negative_zeros_and_kinds_of_nan_are_no_difference(whole_clip):
    def with_bits(bits):
        model, parts = training(whole_clip)
        model.bn1.bias.detach().view(torch.int32)[:2] = torch.tensor(bits, dtype=torch.int64).to(torch.int32)
        return digests(model, parts)

    assert with_bits([0, 0x7FC00000]) == with_bits([-(2**31), 0x7FC00001]) == with_bits([0, 0x7FC00000 - 2**31])
    assert with_bits([0, 0x7FC00000]) != with_bits([0, 0x7F800000])


def test_numbers_are_the_same_bytes_however_few_bits_they_need():
    numbers = torch.tensor([[1.5, -0.0], [float("nan"), 3.0]])
    transposed = numbers.t().contiguous().t()
    assert _numbers(numbers) == _numbers(transposed) == _numbers(numbers.bfloat16())
    assert _numbers(numbers) == np.array([1.5, 0.0, np.nan, 3.0], "<f4").tobytes()


def test_optimizer_state_is_seen_in_the_shape_of_a_weight(whole_clip):
    model, parts = training(whole_clip)
    step(model, parts)
    found = parts.state_of("conv1", "mean")
    assert torch.equal(found != 0, model.conv1.mask)
    kept = momentum_of_active(model, parts)[: parts.active["conv1"].count]
    assert torch.equal(parts.active["conv1"].select(found), kept)


def test_rows_are_taken_at_powers_of_two():
    assert [step for step in range(40) if is_traced(step)] == [1, 2, 4, 8, 16, 32]


def test_a_training_has_a_row_at_powers_of_two_mask_updates_and_epochs(whole):
    """Six steps an epoch; the masks change at every second step, but not at the last."""
    with (whole / "dense" / "trace.csv").open() as stream:
        found = [(int(row["step"]), int(row["epoch"]), row["event"]) for row in csv.DictReader(stream)]
    assert found == [
        (0, 0, "start"),
        (1, 1, "step"),
        (2, 1, "step+update"),
        (4, 1, "step+update"),
        (6, 1, "update+epoch"),
        (8, 2, "step+update"),
        (10, 2, "update"),
        (12, 2, "update+epoch"),
        (14, 3, "update"),
        (16, 3, "step+update"),
        (18, 3, "epoch"),
    ]


def test_traces_compare_by_their_first_difference():
    later, other = replace(ROW, step=2), replace(ROW, step=2, state="x", masks="x", clip="x")
    assert compare_traces([ROW, later], [ROW, later]).difference is None
    assert compare_traces([ROW, later], [ROW]).ended == (2, 1)
    found = compare_traces([ROW, later, ROW], [ROW, other, ROW])
    assert (found.rows, found.difference) == (1, "step 2 in epoch 1 (step): masks, clip")
    assert "other settings" in compare_traces([ROW, later], [ROW, replace(ROW, step=4)]).difference


def test_the_engines_of_a_run_start_alike_and_part_at_the_first_step_or_later(whole):
    """The command names the step, and the prefix of a run agrees with it."""
    done = east("compare", whole / "dense", whole / "sparse")
    assert done.returncode == 1
    assert done.stdout.startswith("first difference: step 1 in epoch 1 (step): weights")
    assert done.stderr == "error: the two runs are not the same from there on.\n"


def test_a_prefix_agrees_as_far_as_it_goes(whole, tmp_path):
    text = (whole / "dense" / "trace.csv").read_text()
    (tmp_path / "trace.csv").write_text("".join(text.splitlines(keepends=True)[:5]))
    assert east("compare", whole / "dense", whole / "dense").stdout == "the same in all 11 rows, to step 18.\n"
    done = east("compare", tmp_path, whole / "dense")
    assert (done.returncode, done.stdout) == (0, f"the same to step 4, where {tmp_path} ends.\n")


HEADER = f"{','.join(vars(ROW))}\n"


@pytest.mark.parametrize("content", [None, "", HEADER, "step\nx\n", "step,epoch\n1,1\n", b"\xff\xfe"])
def test_a_file_that_is_no_trace_is_named(tmp_path, content):
    path = tmp_path / "trace.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EastError, match=str(path)):
        read_trace(path)
