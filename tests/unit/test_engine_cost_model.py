"""The cost model of a GPU: what it counts, how it is fitted and kept, and what is chosen by it."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.optimize import nnls

from east.engine.base import PLAIN, Workload
from east.engine.cuda.calibration import fit, kept, sources_digest
from east.engine.cuda.cost import KINDS, Cheapest, CostModel, dense_work, sparse_work
from east.engine.graph.network import describe
from east.models import build_model
from east.sparse.layers import masked_layers
from east.sparse.masks import initialise_masks

MACHINE = {"gpu": "A", "triton": "3.7"}
MODEL = CostModel({kind: 1e-9 * (number + 1) for number, kind in enumerate(KINDS)})


@pytest.fixture(scope="module")
def units():
    """Stem (3 -> 64 channels) and first convolution (64 -> 64) of ResNet-34 on images of 32 x 32."""
    return describe(build_model("resnet34", 10), (3, 32, 32)).units[:2]


def network_of(per_channel, **parts):
    """A network with so many non-zeros an output channel, as far as there are so many weights; that."""
    model = build_model("resnet34", 10, width=8, **parts)
    layers = masked_layers(model)
    counts = {name: min(per_channel * len(layer.weight), layer.weight.numel()) for name, layer in layers.items()}
    initialise_masks(layers, counts, seed=0)
    return describe(model, (3, 32, 32)), counts


def times(**seconds):
    """A model in which nothing takes time but this."""
    return CostModel(dict.fromkeys(KINDS, 0.0) | {kind.replace("_", " "): value for kind, value in seconds.items()})


def test_work_goes_with_nonzeros_and_planes(units):
    plane = 32 * 32 * 128
    found = sparse_work(units[1], "fused", 85, PLAIN)
    assert (found["fused products"], found["fused"]) == (85 * plane, 64 * plane)
    assert sparse_work(units[1], "dense", 85, PLAIN)["convolution"] == 64 * 64 * 9 * plane
    assert dense_work(units[1], Workload(64))["convolution"] == 64 * 64 * 9 * plane / 2


def test_the_first_layer_has_no_gradient_at_its_input(units):
    plane = 32 * 32 * 128
    assert sparse_work(units[0], "fused", 90, PLAIN)["fused products"] == 60 * plane
    assert sparse_work(units[0], "dense", 90, PLAIN)["layout"] == (2 * 3 + 2 * 64) * plane


def test_an_exact_clip_costs_a_dense_gradient_where_there_is_none(units):
    plain, exact = (sparse_work(units[1], "fused", 85, Workload(dense=share)) for share in (0, 0.5))
    plane = 32 * 32 * 128
    assert exact["convolution"] - plain["convolution"] == 64 * 64 * 9 * plane / 3 / 2
    assert exact["layout"] - plain["layout"] == 128 * plane / 2
    assert sparse_work(units[1], "dense", 85, Workload(dense=1)) == sparse_work(units[1], "dense", 85, PLAIN)
    assert dense_work(units[1], Workload(dense=1)) == dense_work(units[1], PLAIN)


def test_a_sketch_costs_by_its_probes(units):
    found = sparse_work(units[1], "fused", 85, Workload(probes=2))
    assert found["sketch"] == 2 * 32 * 32 * 128 * (64 * 9 + 64)
    assert "sketch" not in sparse_work(units[1], "dense", 85, Workload(probes=2))


def test_each_layer_is_executed_as_costs_least():
    model = times(fused=1, fused_products=1, convolution=0.1, layout=1)
    for per_channel, expected in ((1, "fused"), (10**6, "dense")):
        network, nonzeros = network_of(per_channel)
        chosen = Cheapest(lambda: model, PLAIN)(network, nonzeros)
        assert chosen.keys() == nonzeros.keys()
        assert chosen["stages.3.1.conv1"] == expected
        assert chosen["classifier"] == "dense"


def test_where_there_is_nothing_to_choose_no_model_is_asked():
    network, nonzeros = network_of(1)
    chosen = Cheapest(pytest.fail, PLAIN, ("fused",))(network, nonzeros)
    assert chosen.pop("classifier") == "dense"
    assert set(chosen.values()) == {"fused"}


def test_a_layer_with_a_dense_part_is_executed_densely():
    network, nonzeros = network_of(1, dct=True)
    assert set(Cheapest(lambda: MODEL, PLAIN)(network, nonzeros).values()) == {"dense"}


def test_the_fit_is_that_of_nonnegative_least_squares():
    draw = np.random.default_rng(0)
    work = draw.uniform(0, 10, (12, 5)) * 10.0 ** np.arange(5)
    seconds = work @ [3.0, 0.2, 0.0, 1e-4, 0.0] * draw.uniform(0.8, 1.25, 12)
    expected, _ = nnls(work / seconds[:, None], np.ones(12))
    assert (expected == 0).any()
    np.testing.assert_allclose(fit(work, seconds), expected, rtol=1e-5, atol=1e-9)


def test_a_model_is_fitted_once_and_kept(tmp_path):
    assert kept(tmp_path / "new", MACHINE, lambda: MODEL).seconds == MODEL.seconds
    assert kept(tmp_path / "new", MACHINE, pytest.fail).seconds == MODEL.seconds


def test_another_machine_has_another_model(tmp_path):
    kept(tmp_path, MACHINE, lambda: MODEL)
    other = times(unit=1)
    assert kept(tmp_path, MACHINE | {"gpu": "B"}, lambda: other).seconds == other.seconds
    assert kept(tmp_path, MACHINE, pytest.fail).seconds == MODEL.seconds


def test_a_change_of_any_source_is_seen(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "forward.py").write_text("a = 1\n")
    digests = {sources_digest(tmp_path)}
    (tmp_path / "kernels" / "forward.py").write_text("a = 2\n")
    digests.add(sources_digest(tmp_path))
    (tmp_path / "kernels" / "forward.py").rename(tmp_path / "kernels" / "backward.py")
    digests.add(sources_digest(tmp_path))
    assert len(digests) == 3


def damaged(change):
    def damage(text):
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:100],
        lambda text: "[]",
        damaged(lambda content: content.pop("seconds")),
        damaged(lambda content: content["seconds"].pop("unit")),
        damaged(lambda content: content["seconds"].update(unit=-1.0)),
        damaged(lambda content: content["seconds"].update(unit=float("nan"))),
        damaged(lambda content: content["seconds"].update(unit=None)),
        damaged(lambda content: content["machine"].update(gpu="B")),
    ],
)
def test_a_damaged_file_is_fitted_and_kept_anew(tmp_path, damage):
    kept(tmp_path, MACHINE, lambda: times(unit=1))
    (path,) = tmp_path.glob("*.json")
    path.write_text(damage(path.read_text()))
    assert kept(tmp_path, MACHINE, lambda: MODEL).seconds == MODEL.seconds
    assert kept(tmp_path, MACHINE, pytest.fail).seconds == MODEL.seconds


def test_two_at_once_have_the_same_model(tmp_path):
    def slow(number):
        time.sleep(0.2)
        return times(unit=number)

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda number: kept(tmp_path, MACHINE, lambda: slow(number)), (1, 2))
    assert first.seconds == second.seconds


@pytest.mark.parametrize("folder", [None, "file/cache"])
def test_without_a_cache_one_line_says_what_that_means(tmp_path, capsys, folder):
    (tmp_path / "file").touch()
    found = kept(None if folder is None else tmp_path / folder, MACHINE, lambda: MODEL)
    assert found.seconds == MODEL.seconds
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the costs of engines cannot be kept: ")
    assert "EAST_CACHE_DIR" in line
