import json
from functools import partial

import pytest
import torch

from benchmarks.floor import FLOAT_BYTES, PARAMETER_MOVES, bytes_per_step, moved_by_rows
from benchmarks.paired import Pairs, judge
from benchmarks.results import RESULTS_FOLDER, in_turn, ratio, spread
from benchmarks.scale import as_markdown
from benchmarks.screening import KINDS as BOUNDS
from benchmarks.screening import Planes, main, needed
from benchmarks.step import run, save_step
from benchmarks.step_results import SPARSE, render
from benchmarks.variants import MAKE_DENSE, SparseSteps, other_networks, timed_networks
from east.engine.cpu.library import availability
from east.engine.graph.network import network_of
from east.errors import EastError
from east.models import build_model
from east.sparse.kinds import KINDS
from east.sparse.layers import apply_masks, masked_layers

BATCH = 5
IMAGE = (3, 8, 8)

# ResNet-34 of width 1 on 8 x 8 images, numbers of one image. Stages have 3, 4, 6 and 3 blocks; their planes have 8 x 8,
# 4 x 4, 2 x 2 and 1 x 1 numbers, their activations 1, 2, 4 and 8 channels.
STAGE = [64, 32, 16, 8]
OUTPUTS = 4 * STAGE[0] + 4 * STAGE[1] + 6 * STAGE[2] + 3 * STAGE[3]  # the stem's is as large as a block's
INNER = 3 * STAGE[0] + 4 * STAGE[1] + 6 * STAGE[2] + 3 * STAGE[3]
IDENTITIES = 3 * STAGE[0] + 3 * STAGE[1] + 5 * STAGE[2] + 2 * STAGE[3]
TRANSITIONS = STAGE[0] + STAGE[1] + STAGE[2]  # inputs of the first blocks of stages 2 to 4


def thin_network(active):
    """Width 1; only the layers whose name `active` accepts have weights on, all of them."""
    model = build_model("resnet34", 10, width=1)
    layers = masked_layers(model)
    for name, layer in layers.items():
        layer.mask.fill_(active(name))
    apply_masks(layers)
    return model


def numbers_moved(model):
    """Numbers of planes of one image that the floor counts."""
    on = sum(int(layer.mask.sum()) for layer in masked_layers(model).values())
    off = sum(layer.mask.numel() for layer in masked_layers(model).values()) - on
    trained = sum(parameter.numel() for parameter in model.parameters()) - off
    counted = bytes_per_step(model, IMAGE, BATCH) // FLOAT_BYTES - PARAMETER_MOVES * trained
    assert counted % BATCH == 0
    return counted // BATCH


def test_without_weights_only_the_identity_path_moves():
    forward = OUTPUTS + IDENTITIES
    backward = 2 * (OUTPUTS - STAGE[3])  # at the last output the gradient is one number for an image and channel
    assert numbers_moved(thin_network(lambda name: False)) == forward + backward


def test_with_all_weights_each_convolution_reads_its_input_twice():
    images, stem_and_blocks = 3 * 64, OUTPUTS - STAGE[3]
    assert stem_and_blocks == IDENTITIES + TRANSITIONS
    inputs = images + stem_and_blocks + TRANSITIONS + INNER  # stem, first convolutions, shortcuts, second convolutions
    forward = OUTPUTS + IDENTITIES + INNER + inputs
    backward = 2 * (OUTPUTS - STAGE[3]) + 2 * INNER + inputs
    assert numbers_moved(thin_network(lambda name: True)) == forward + backward


def test_constant_and_unread_channels_inside_a_block_do_not_move():
    nothing = numbers_moved(thin_network(lambda name: False))
    # Nothing reads what conv1 writes, and what conv2 reads is constant.
    assert numbers_moved(thin_network(lambda name: name.endswith("stages.0.1.conv1"))) == nothing
    assert numbers_moved(thin_network(lambda name: name.endswith("stages.0.1.conv2"))) == nothing
    # Both: conv1 reads its input twice, conv2 too; the channel between them is written, and its gradient moves twice.
    both = numbers_moved(thin_network(lambda name: name.startswith("stages.0.1.")))
    assert both == nothing + (2 + 2 + 1 + 2) * STAGE[0]


@pytest.mark.parametrize("variant", ["peer", "sparse"])
def test_variants_with_masks_take_the_same_step(variant):
    network, density = timed_networks(short=True)["resnet34"], 0.1
    reference = MAKE_DENSE["dense"](network, density, BATCH)
    if variant == "sparse":
        other = SparseSteps(network, (0.02, density), BATCH)
        other.use(density)
        other.plain(1)
    else:
        other = MAKE_DENSE[variant](network, density, BATCH)
        other.step(1)
    reference.step(1)
    for name, layer in masked_layers(reference.model).items():
        weight = masked_layers(other.model)[name].weight
        assert torch.equal(weight != 0, layer.mask)
        torch.testing.assert_close(weight, layer.weight, rtol=1e-3, atol=1e-5)


def test_the_floor_grows_with_the_batch_and_the_weights():
    model = thin_network(lambda name: False)
    one, two = (bytes_per_step(model, IMAGE, batch) for batch in (1, 2))
    assert two - one == FLOAT_BYTES * numbers_moved(model)
    layer = masked_layers(model)["classifier"]
    layer.mask[0, 0] = True
    assert bytes_per_step(model, IMAGE, 1) == one + FLOAT_BYTES * PARAMETER_MOVES


def test_row_by_row_each_convolution_and_each_output_of_a_block_is_written_once():
    moved = moved_by_rows(network_of(thin_network(lambda name: True), IMAGE), BATCH)
    written = [sum(passes[way].written for passes in moved.values()) / (FLOAT_BYTES * BATCH) for way in (0, 1)]
    convolutions = OUTPUTS + INNER + sum(STAGE[1:])
    assert written == [convolutions + OUTPUTS, OUTPUTS + INNER + TRANSITIONS]


def test_row_by_row_what_is_read_follows_the_order_of_units():
    network = network_of(thin_network(lambda name: True), IMAGE)
    moved = moved_by_rows(network, BATCH)
    stem, first, second = (moved[unit] for unit in network.units[:3])
    images, plane = 3 * STAGE[0] * FLOAT_BYTES * BATCH, STAGE[0] * FLOAT_BYTES * BATCH
    assert (stem[0].read, stem[1].read) == (images, 2 * plane + images)
    # z of the stem; and back, g and z, what was stored of the stem, its z, and the gradient that goes around the block.
    assert (first[0].read, first[1].read) == (plane, 5 * plane)
    assert (second[0].read, second[1].read) == (plane, 3 * plane)
    # The next block begins with two inputs.
    assert moved[network.units[3]][0].read == 2 * plane


def test_the_floor_of_other_networks_is_not_counted():
    with pytest.raises(EastError, match="convolutions, batch norms and ReLUs only"):
        bytes_per_step(build_model("resnet34", 10, activation="dyrelu", width=1), IMAGE, BATCH)


def test_a_round_is_one_turn_of_everything_and_a_ratio_is_of_one_round():
    seconds = {"slow": [4.0, 10.0, 9.0], "fast": [1.0, 2.0, 1.0]}
    order = []

    def turn(name, number):
        order.append((number, name))
        return {name: seconds[name][number - 1]}

    assert in_turn([partial(turn, name) for name in seconds], 3) == seconds
    assert order == [(number, name) for number in (1, 2, 3) for name in seconds]
    assert ratio(seconds["slow"], seconds["fast"]) == spread((4.0, 5.0, 9.0))
    assert str(ratio(seconds["slow"], seconds["fast"])) == "5 (4.5–7)"


@pytest.mark.parametrize(
    ("results", "text"), [("amd-epyc-2026-11-22", render), ("scale-amd-epyc-2026-11-23", as_markdown)]
)
def test_committed_results_are_read_and_give_the_committed_tables(results, text):
    path = RESULTS_FOLDER / f"{results}.json"
    assert text(json.loads(path.read_text())) == path.with_suffix(".md").read_text()


def test_committed_pairs_are_read():
    pairs = Pairs.model_validate_json((RESULTS_FOLDER / "clip-estimators.json").read_text())
    verdict = judge([pair for row in pairs.accuracies.values() for pair in row], 0.5, 0.95)
    # docs/reproduction-notes.md: +2.45 ± 3.98.
    assert (round(verdict.mean, 2), round(verdict.high - verdict.mean, 2)) == (2.45, 3.98)


def test_the_paired_test_accepts_small_differences_only():
    def verdict(*differences, margin=0.5):
        return judge([(90.0 + i, 90.0 + i + d) for i, d in enumerate(differences)], margin, 0.95)

    same = verdict(0.1, -0.1, 0.05, -0.05, 0.0)
    assert same.accepted
    # t of 0.975 with 4 degrees of freedom is 2.776, the standard error 0.0791 / sqrt(5).
    assert same.high == pytest.approx(2.776 * 0.0790569 / 5**0.5, rel=1e-3)
    assert not verdict(0.1, -0.1, 0.05, -0.05, 0.0, margin=0.05).accepted
    assert not verdict(-1.0, -1.1, -0.9).accepted
    assert not verdict(0.5, -0.5).accepted  # two pairs that happen to agree say little
    assert not judge([(90.0, 90.0)] * 4 + [(90.0, None)], 0.5, 0.95).accepted
    assert not judge([(90.0, 90.0)], 0.5, 0.95).accepted


def make_results():
    timings = [("pytorch", False, None, 6.0), ("pytorch", True, None, 6.1), ("dense", False, None, 5.2)]
    timings += [("pytorch-channels-last", False, None, 5.0), ("pytorch-channels-last", True, None, 5.5)]
    timings += [("sparse", False, 0.01, 0.2), ("sparse", True, 0.01, 0.25)]
    timings += [("sparse", False, 0.001, 0.1), ("sparse", True, 0.001, 0.11), ("pytorch-bf16", False, None, 3.0)]
    timings += [("sparse-bf16", False, 0.01, 0.16), ("sparse-bf16", False, 0.001, 0.05)]
    cell = {
        "network": "resnet34",
        "label": "ResNet-34",
        "threads": 2,
        "copy_bandwidth": 2e10,
        "timings": [
            {"variant": variant, "clip": clip, "density": density, "seconds": [seconds] * 3}
            for variant, clip, density, seconds in timings
        ],
        "floors": [
            {"density": 0.01, "nonzeros": 212_823, "bytes_moved": 2_000_000_000, "bytes_moved_bf16": 1_000_000_000},
            {"density": 0.001, "nonzeros": 21_282, "bytes_moved": None, "bytes_moved_bf16": None},
        ],
    }
    machine = {"processor": "A Processor", "cores": 2, "platform": "Linux", "python": "3.11", "torch": "2.13"}
    return {
        "machine": machine | {"compiler": "c++", "vector": "avx2", "commit": "abc", "load": 0.5},
        "date": "2026-01-02",
        "minutes": 12.0,
        "short": False,
        "image_shape": [3, 32, 32],
        "batch_size": 128,
        "cells": [cell],
        "peaks": [{"network": "resnet34", "variant": "dense", "density": None, "megabytes": 2345.6}],
    }


def test_the_table_holds_times_ratios_floor_and_memory():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in render(make_results()).splitlines()]
    sparse = [row for row in rows if row and row[0] in ("0.001", "0.01")]
    assert [row[0] for row in sparse] == ["0.001", "0.01"] * 2
    # Against the faster layout, without and with the clip; the floor is 2 GB at 20 GB/s.
    assert sparse[1][1:7] == ["212,823", "200 ms", "1 (1–1)", "25 (25–25)", "15 (15–15)", "26 (26–26)"]
    assert sparse[1][7:9] == ["250 ms", "22 (22–22)"]
    assert sparse[3][2:8] == [
        "160 ms",
        "1 (1–1)",
        "31.2 (31.2–31.2)",
        "18.8 (18.8–18.8)",
        "32.5 (32.5–32.5)",
        "1.25 (1.25–1.25)",
    ]
    assert sparse[3][-2:] == ["1.00 GB, 50.0 ms", "3.2 (3.2–3.2)"]
    assert sparse[0][3] == "0.5 (0.5–0.5)"
    assert sparse[1][-2:] == ["2.00 GB, 100 ms", "2 (2–2)"]
    assert sparse[0][-2:] == ["–", "–"]
    assert ["ours, masked dense", "5,200 ms", "–", "1.04 (1.04–1.04)"] in rows
    assert ["ResNet-34", "ours, masked dense", "2,346 MB"] in rows


def test_results_are_written_as_json_and_markdown(tmp_path):
    results = make_results()
    path = save_step(results, tmp_path)
    assert path == tmp_path / "a-processor-2026-01-02.md"
    assert path.read_text() == render(results)
    assert json.loads(path.with_suffix(".json").read_text()) == results


def test_every_registered_network_can_be_named():
    names = timed_networks(short=True).keys() | other_networks(short=True).keys()
    assert {entry.name for entry in KINDS["network"]} <= names
    assert other_networks()["wrn22_2"].spec.model.width == 16
    assert other_networks()["mlp"].spec.model.width is None


@pytest.mark.slow
def test_the_short_benchmark_runs_every_variant():
    if not availability().available:
        pytest.skip("the kernels of the sparse engine cannot be compiled here")
    networks = timed_networks(short=True)
    results = run(networks, densities=(0.02, 0.1), threads=(1,), rounds=1, batch_size=2, short=True)
    assert [cell["network"] for cell in results["cells"]] == list(networks)
    for cell, network in zip(results["cells"], networks.values(), strict=True):
        densities = (0.02, 0.1) if network.only_density is None else (network.only_density,)
        expected = {(name, False, None) for name in network.compared}
        expected |= {(name, True, None) for name in network.compared if name != "peer"}
        expected |= {(name, clip, density) for name in SPARSE for clip in (False, True) for density in densities}
        assert {(timing["variant"], timing["clip"], timing["density"]) for timing in cell["timings"]} == expected
    assert {(peak["network"], peak["variant"]) for peak in results["peaks"]} == {
        (name, variant) for name, network in networks.items() for variant in (*network.compared, *SPARSE)
    }
    assert "mean nothing" in render(results)


# What can be left out of dense gradients


def dense_gradient_of(window=(3, 1, 1)):
    """A convolution of 3 by 4 channels after a backward pass; the last input and the first gradient are zero."""
    torch.manual_seed(0)
    kernel, stride, padding = window
    conv = torch.nn.Conv2d(4, 3, kernel, stride, padding, bias=False)
    x = torch.randn(2, 4, 6, 6)
    x[:, 3] = 0
    z = conv(x)
    dz = torch.randn_like(z)
    dz[:, 0] = 0
    z.backward(dz)
    return Planes(conv, x, dz)


@pytest.mark.parametrize("window", [(3, 1, 1), (3, 2, 1), (1, 2, 0)], ids=str)
def test_no_bound_leaves_out_a_pair_that_grows(window):
    planes = dense_gradient_of(window)
    off = torch.ones_like(planes.conv.weight, dtype=torch.bool)
    for count in (1, 2, 5):
        found = dict(zip(BOUNDS, needed(planes, off, count).values(), strict=True))
        nonzero, by_planes, by_rows, grow = found.values()
        assert grow.any()
        assert not (grow & ~by_rows).any()
        assert not (by_rows & ~by_planes).any()
        assert not (by_planes & ~nonzero).any()
        assert not nonzero[0].any()
        assert not nonzero[:, 3].any()
        assert nonzero[1:, :3].all()


def test_a_pair_of_small_planes_is_left_out_by_their_norms():
    planes = dense_gradient_of()
    planes.x[:, 0] *= 1e-6
    with torch.no_grad():
        planes.conv.weight.grad[:, 0] *= 1e-6
    found = needed(planes, torch.ones_like(planes.conv.weight, dtype=torch.bool), 1)
    assert not found["by norms of planes"][:, 0].any()
    assert found["between planes that are not zero"][1:, 0].all()


@pytest.mark.parametrize("multiplier", [1, 3])
def test_what_is_left_is_counted_at_every_update_that_grows(capsys, multiplier):
    main(density=0.02, multiplier=multiplier, steps=20, period=5, short=True)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ") and "step" not in line]
    steps = [int(row.split("|")[1]) for row in rows[1:]]
    assert steps == ([5, 10, 15] if multiplier == 1 else [5, 10])
    for row in rows[1:]:
        nonzero, by_planes, by_rows, grow = map(float, row.split("|")[3:7])
        assert 1 >= nonzero >= by_planes >= by_rows >= grow > 0
