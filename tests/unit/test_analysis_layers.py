import numpy as np
import pytest
from safetensors.numpy import save_file

from east.analysis import layers
from east.analysis.aggregate import aggregate
from east.analysis.layers import read_layers, runs_to_show
from east.errors import EastError
from east.sparse.distribution import erk_counts
from east.training.records import UpdateRecord
from tests.unit.fake_runs import PUBLISHED, grid, sources, write_rows


def write_updates(folder, *nonzeros):
    write_rows(folder, UpdateRecord, *({"step": step, "nonzeros": count} for step, count in enumerate(nonzeros)))


def write_masks(folder, masks, start, peak):
    save_file({f"{name}.mask": mask for name, mask in masks.items()}, folder / "weights.safetensors")
    write_updates(folder, start, peak, start)


def masks():
    conv, late, classifier = (np.zeros(shape, bool) for shape in ((4, 3, 3, 3), (8, 4, 3, 3), (10, 8)))
    conv[0, 0, 0, :3] = True
    late[1], classifier[:, 0] = True, True
    return {"classifier": classifier, "stages.10.0.conv1": late, "stages.2.0.conv1": conv}


def test_layers_stand_in_the_order_of_the_network_with_their_counts(tmp_path):
    write_masks(tmp_path, masks(), start=49, peak=200)
    layers = read_layers(sources(tmp_path.parent), tmp_path.name, erk_counts)
    assert [layer.name for layer in layers] == ["stages.2.0.conv1", "stages.10.0.conv1", "classifier"]
    assert [layer.end for layer in layers] == [3, 36, 10]
    assert [layer.connected_end for layer in layers] == [1, 1, 10]
    assert sum(layer.start for layer in layers) == 49
    assert sum(layer.peak for layer in layers) == 200
    shapes = {layer.name: masks()[layer.name].shape for layer in layers}
    assert {layer.name: layer.start for layer in layers} == erk_counts(shapes, 49)


def test_channels_connected_by_random_masks_are_their_mean(tmp_path):
    write_masks(tmp_path, masks(), start=49, peak=200)
    layer = read_layers(sources(tmp_path.parent), tmp_path.name, erk_counts)[1]
    draws = np.random.default_rng(0)
    connected = []
    for _ in range(2000):
        mask = np.zeros(layer.weights, bool)
        mask[draws.choice(layer.weights, layer.start, replace=False)] = True
        connected.append(mask.reshape(layer.channels, -1).any(axis=1).sum())
    assert layer.connected_start == pytest.approx(np.mean(connected), abs=0.05)


def test_a_layer_with_all_weights_connects_every_channel(tmp_path):
    write_masks(tmp_path, {"conv1": np.ones((4, 3), bool), "fc": np.ones((2, 2), bool)}, start=16, peak=16)
    assert [layer.connected_start for layer in read_layers(sources(tmp_path.parent), tmp_path.name, erk_counts)] == [
        4,
        2,
    ]


def test_without_weights_on_disk_there_are_no_layers(tmp_path):
    write_updates(tmp_path, 4)
    assert read_layers(sources(tmp_path.parent), tmp_path.name, erk_counts) == ()
    assert read_layers(sources(tmp_path), "nowhere", erk_counts) == ()


def test_a_channel_without_any_weight_needs_all_others_to_have_none():
    # Two of four weights leave the first channel without any in one of six cases.
    assert layers._connected(4, 2, 2) == pytest.approx(5 / 6)
    assert layers._connected(4, 2, 3) == 1


def test_a_damaged_record_of_updates_is_named_where_there_are_no_weights(tmp_path):
    write_updates(tmp_path, 4, 5)
    path = tmp_path / "updates.csv"
    path.write_text(path.read_text()[:-3])
    with pytest.raises(EastError, match=r"updates\.csv"):
        read_layers(sources(tmp_path.parent), tmp_path.name, erk_counts)


def test_damaged_weights_are_named(tmp_path):
    write_updates(tmp_path, 4)
    (tmp_path / "weights.safetensors").write_bytes(b"half a file")
    with pytest.raises(EastError, match=r"weights\.safetensors cannot be read"):
        read_layers(sources(tmp_path.parent), tmp_path.name, erk_counts)


def test_the_first_finished_seed_of_the_static_and_of_the_highest_row_is_shown(tmp_path):
    table = aggregate(grid(tmp_path, [None, 80.0], [85.0]), sources(tmp_path), published_dir=PUBLISHED, partial=True)
    assert runs_to_show(table) == ["table2/static/seed18", "table2/cosine-m10-n2-g2/seed17"]
    nothing = aggregate(
        grid(tmp_path / "2", [None], [None]), sources(tmp_path / "2"), published_dir=PUBLISHED, partial=True
    )
    assert runs_to_show(nothing) == []
