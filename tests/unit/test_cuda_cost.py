"""The cost model of a GPU: what it counts, how it is fitted and kept, and what `auto` does with it.

Nothing here is timed on a GPU, where there is none.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from east.engine import Workload, make_engine
from east.engine.base import PLAIN
from east.engine.cpu.cost import cheapest
from east.engine.cpu.engine import CpuEngine
from east.engine.cuda import available, calibration
from east.engine.cuda.auto import AutoEngine
from east.engine.cuda.available import INSTALL_COMPILER, triton_status
from east.engine.cuda.calibration import (
    Case,
    SmallNetwork,
    calibrate,
    fit,
    gpu_cases,
    kept,
    machine_of,
    sources_digest,
)
from east.engine.cuda.cost import KINDS, Cheapest, CostModel, dense_work, sparse_work
from east.engine.cuda.engine import CudaEngine
from east.engine.dense import DenseEngine
from east.engine.graph.network import network_of
from east.models import build_model
from east.reproducibility import Reproducibility
from east.sparse.active import active_weights
from east.sparse.layers import masked_layers
from east.sparse.masks import initialise_masks
from east.training.captured import CapturedStep
from east.training.step import TrainingStep
from tests.unit.recorders import Tapes
from tests.unit.sparse_engines import CPU, GPU, ON_GPU, agree, change_masks, gradients, without_statistics
from tests.unit.test_training_captured import Training

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = {"gpu": "A", "triton": "3.7"}
COSTS = CostModel(
    {
        "unit": 2e-5,
        "fused": 2e-11,
        "fused products": 5e-12,
        "layout": 1e-11,
        "convolution": 2e-14,
        "sketch": 3e-12,
        "module": 4e-5,
        "module numbers": 6e-11,
    }
)
"""Made up, in the order of magnitude of what bytes and operations of a step would take."""


def times(**seconds):
    """A model in which nothing takes time but this."""
    return CostModel(dict.fromkeys(KINDS, 0.0) | {kind.replace("_", " "): value for kind, value in seconds.items()})


def resnet34(density, width=16, **parts):
    torch.manual_seed(0)
    model = build_model("resnet34", 10, width=width, **parts)
    layers = masked_layers(model)
    initialise_masks(layers, {name: int(density * layer.weight.numel()) for name, layer in layers.items()}, seed=1)
    return model


# What is counted


@pytest.fixture(scope="module")
def units():
    """Stem (3 -> 64 channels) and first convolution (64 -> 64) of ResNet-34 on images of 32 x 32."""
    return network_of(build_model("resnet34", 10), (3, 32, 32)).units[:2]


PLANE = 32 * 32 * 128


def test_work_goes_with_nonzeros_and_planes(units):
    found = sparse_work(units[1], "fused", 85, PLAIN)
    assert (found["fused products"], found["fused"]) == (85 * PLANE, 64 * PLANE)
    assert sparse_work(units[1], "dense", 85, PLAIN)["convolution"] == 64 * 64 * 9 * PLANE
    assert dense_work(units[1], Workload(64))["convolution"] == 64 * 64 * 9 * PLANE / 2


def test_the_first_layer_has_no_gradient_at_its_input(units):
    assert sparse_work(units[0], "fused", 90, PLAIN)["fused products"] == 60 * PLANE
    assert sparse_work(units[0], "dense", 90, PLAIN)["layout"] == (2 * 3 + 2 * 64) * PLANE


def test_an_exact_clip_costs_a_dense_gradient_where_there_is_none(units):
    plain, exact = (sparse_work(units[1], "fused", 85, Workload(dense=share)) for share in (0, 0.5))
    assert exact["convolution"] - plain["convolution"] == 64 * 64 * 9 * PLANE / 3 / 2
    assert exact["layout"] - plain["layout"] == 128 * PLANE / 2
    assert sparse_work(units[1], "dense", 85, Workload(dense=1)) == sparse_work(units[1], "dense", 85, PLAIN)
    assert dense_work(units[1], Workload(dense=1)) == dense_work(units[1], PLAIN)


def test_a_sketch_costs_by_its_probes(units):
    found = sparse_work(units[1], "fused", 85, Workload(probes=2))
    assert found["sketch"] == 2 * PLANE * (64 * 9 + 64)
    assert "sketch" not in sparse_work(units[1], "dense", 85, Workload(probes=2))


def chosen_for(per_channel, costs, among=("fused", "dense"), **parts):
    """How layers with so many non-zeros an output channel are executed, as far as there are so many weights."""
    model = build_model("resnet34", 10, width=8, **parts)
    nonzeros = {
        name: min(per_channel * len(layer.weight), layer.weight.numel()) for name, layer in masked_layers(model).items()
    }
    chosen = Cheapest(costs, PLAIN, among)(network_of(model, (3, 32, 32)), nonzeros)
    assert chosen.keys() == nonzeros.keys()
    classifiers = [name for name in chosen if name.startswith("classifier")]
    assert [chosen.pop(name) for name in classifiers] == ["dense"]
    return chosen


@pytest.mark.parametrize(("per_channel", "expected"), [(1, "fused"), (10**6, "dense")])
def test_each_layer_is_executed_as_costs_least(per_channel, expected):
    model = times(fused=1, fused_products=1, convolution=0.1, layout=1)
    assert chosen_for(per_channel, lambda: model)["stages.3.1.conv1"] == expected


def test_where_there_is_nothing_to_choose_no_model_is_asked():
    assert set(chosen_for(1, pytest.fail, ("fused",)).values()) == {"fused"}


def test_a_layer_with_a_dense_part_is_executed_densely():
    assert set(chosen_for(1, lambda: COSTS, dct=True).values()) == {"dense"}


# How it is fitted


def told(costs):
    """Seconds of the steps of all cases, as if they had been timed on a machine of these costs."""
    return iter([costs.predict(SmallNetwork.of(case, CPU).work) for case in gpu_cases()])


def test_what_is_timed_tells_each_kind_of_work_from_the_others():
    seconds = told(COSTS)
    found = calibrate(GPU, "tf32", time_step=lambda step: next(seconds))
    assert found.seconds == pytest.approx(COSTS.seconds, rel=1e-3)


def test_a_disturbance_of_a_few_percent_changes_costs_by_little():
    """Those that decide: numbers and products of the sparse engine, convolutions and numbers of the dense one."""
    seconds = (value * (1.03 if number % 2 else 0.97) for number, value in enumerate(told(COSTS)))
    found = calibrate(GPU, "tf32", time_step=lambda step: next(seconds))
    for kind in ("fused", "fused products", "convolution", "module numbers"):
        assert found.seconds[kind] == pytest.approx(COSTS.seconds[kind], rel=0.25), kind


def test_costs_are_measured_from_end_to_end():
    def seconds(step):
        started = time.perf_counter()
        step()
        return time.perf_counter() - started

    tiny = (2, 2)
    cases = [
        Case(*tiny, Workload(2, probes=1), "fused"),
        Case(*tiny, Workload(2, dense=1), "dense"),
        Case(*tiny, Workload(2), None),
    ]
    before, random = torch.is_grad_enabled(), torch.get_rng_state()
    with torch.inference_mode():
        found = calibrate(GPU, "bf16", time_step=seconds, cases=cases)
    assert torch.is_grad_enabled() == before
    assert torch.get_rng_state().equal(random)
    assert found.seconds.keys() == set(KINDS)
    assert any(value > 0 for value in found.seconds.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("numerics", ["tf32", "bf16"])
def test_a_gpu_is_measured_within_a_minute(numerics):
    started = time.perf_counter()
    found = calibrate(GPU, numerics)
    assert time.perf_counter() - started < 60
    for kind in ("fused", "convolution", "module numbers"):
        assert found.seconds[kind] > 0, kind


def test_every_kind_of_work_is_timed_on_networks_that_keep_a_gpu_busy():
    said = [
        f"{one.execution} {one.per_channel} of {one.width} x {one.size}, {one.workload.probes:g} {one.workload.dense:g}"
        for one in gpu_cases()
    ]
    assert said == [
        "fused 1 of 16 x 4, 0 0",
        "dense 1 of 16 x 4, 0 0",
        "None 1 of 16 x 4, 0 0",
        "fused 1 of 64 x 32, 0 0",
        "fused 16 of 64 x 32, 0 0",
        "fused 1 of 64 x 32, 1 0",
        "fused 1 of 64 x 32, 4 0",
        "fused 1 of 64 x 32, 0 1",
        "dense 1 of 64 x 32, 0 0",
        "None 1 of 64 x 32, 0 0",
        "fused 2 of 256 x 8, 0 0",
        "fused 64 of 256 x 8, 0 0",
        "dense 1 of 256 x 8, 0 0",
        "None 1 of 256 x 8, 0 0",
    ]
    assert {one.workload.batch for one in gpu_cases()} == {128}


def test_a_small_network_is_what_its_case_says():
    network = SmallNetwork.of(Case(4, 8, Workload(5, probes=2, dense=1), "fused", 3), CPU)
    assert {name: weights.count for name, weights in network.active.items()} == {
        "conv1": 12,
        "stages.0.0.conv1": 12,
        "stages.0.0.conv2": 12,
        "classifier": 30,
    }
    assert all(weights.is_static for weights in network.active.values())
    assert network.images.shape == (5, 3, 8, 8)
    assert network.request.dense
    assert {name: tuple(signs.shape) for name, signs in network.request.signs.items()} == {
        "conv1": (2, 4),
        "stages.0.0.conv1": (2, 4),
        "stages.0.0.conv2": (2, 4),
        "classifier": (2, 10),
    }
    plain = SmallNetwork.of(Case(4, 8, Workload(5), None, 100), CPU)
    assert (plain.request.dense, plain.request.signs) == (False, None)
    assert plain.active["conv1"].count == 4 * 27
    assert plain.work == {
        "module": 3,
        "module numbers": 3 * 4 * 64 * 5,
        "convolution": pytest.approx(4 * 64 * 5 * (27 * 2 / 3 + 72)),
    }


class FakeClock:
    """Stands for `torch.cuda` where ten replays take so many seconds."""

    def __init__(self, seconds, *, can_capture=True):
        self.seconds, self.can_capture, self.said = iter(seconds), can_capture, []
        self.Stream = lambda device: SimpleNamespace(wait_stream=lambda other: self.said.append("waits"))
        self.current_stream = lambda device: "current"
        self.device = self.stream = lambda place: nullcontext()
        self.CUDAGraph = lambda: SimpleNamespace(replay=lambda: self.said.append("replay"))

    @contextmanager
    def graph(self, graph, *, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        assert stream is not None
        self.said.append("captures")
        if not self.can_capture:
            raise RuntimeError("not permitted")
        yield

    def Event(self, *, enable_timing):
        assert enable_timing
        return SimpleNamespace(
            record=lambda: self.said.append("event"),
            synchronize=lambda: self.said.append("synchronize"),
            elapsed_time=lambda other: 1000 * next(self.seconds),
        )


@pytest.mark.parametrize(("seconds", "samples"), [(0.1, 5), (0.001, 20), (0.0039, 6)])
def test_a_step_is_replayed_for_a_while_and_at_least_so_often(monkeypatch, seconds, samples):
    clock = FakeClock([seconds, 9 * seconds, *[seconds] * 98])
    if seconds < 0.1:
        clock.seconds = iter([seconds] * 100)
    monkeypatch.setattr(calibration.torch, "cuda", clock)
    assert calibration.seconds_of_replay(lambda: clock.said.append("step"), GPU) == pytest.approx(seconds / 10)
    begin = ["waits", "step", "step", "step", "captures", "step"]
    assert clock.said[: len(begin)] == begin
    sample = ["replay", "event", *["replay"] * 10, "event", "synchronize"]
    assert clock.said[len(begin) :] == samples * sample


def test_a_step_that_cannot_be_captured_is_launched_each_time(monkeypatch):
    clock = FakeClock([0.1] * 5, can_capture=False)
    monkeypatch.setattr(calibration.torch, "cuda", clock)
    calibration.seconds_of_replay(lambda: clock.said.append("step"), GPU)
    assert "replay" not in clock.said
    assert clock.said.count("step") == 3 + 5 * 11


def test_each_case_is_timed_as_it_is_executed(monkeypatch):
    made, tiny = [], (2, 2)
    cases = [Case(*tiny, Workload(2), "fused"), Case(*tiny, Workload(2), None)]
    monkeypatch.setattr(calibration, "CudaEngine", lambda model, active, **settings: made.append(settings))
    monkeypatch.setattr(calibration, "DenseEngine", lambda model, active, **settings: made.append(settings))
    monkeypatch.setattr(calibration, "fit", lambda work, seconds: np.zeros(len(KINDS)))
    calibrate(CPU, "bf16", compiled=True, time_step=lambda step: 1.0, cases=cases)
    choose = made[0].pop("choose")
    assert choose(None, {}) == {
        "conv1": "fused",
        "stages.0.0.conv1": "fused",
        "stages.0.0.conv2": "fused",
        "classifier": "dense",
    }
    settings = {"numerics": "bf16", "device": CPU}
    assert made == [settings, settings | {"lay_out": False, "compiled": True}]


def test_the_model_of_a_machine_is_measured_as_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(calibration.torch.cuda, "get_device_name", lambda device: f"name of {device}")
    monkeypatch.setattr(calibration, "triton_status", lambda device: SimpleNamespace(version="3.7"))
    monkeypatch.setattr(calibration, "cache_folder", lambda: "folder")
    monkeypatch.setattr(calibration, "calibrate", lambda *given, **keys: (given, keys))
    monkeypatch.setattr(calibration, "kept", lambda folder, machine, fit: (folder, machine, fit()))
    folder, machine, fitted = calibration.cost_model.__wrapped__(CPU, "tf32", True)
    assert (folder, machine) == ("folder", machine_of("name of cpu", "3.7", "tf32", True))
    assert fitted == ((CPU, "tf32"), {"compiled": True})


def test_the_fit_is_that_of_nonnegative_least_squares():
    draw = np.random.default_rng(0)
    work = draw.uniform(0, 10, (12, 5)) * 10.0 ** np.arange(5)
    seconds = work @ [3.0, 0.2, 0.0, 1e-4, 0.0] * draw.uniform(0.8, 1.25, 12)
    expected, _ = nnls(work / seconds[:, None], np.ones(12))
    assert (expected == 0).any()
    np.testing.assert_allclose(fit(work, seconds), expected, rtol=1e-5, atol=1e-9)


# How it is kept


def test_another_gpu_numerics_or_way_to_execute_has_a_model_of_its_own():
    machines = [
        machine_of(gpu, triton, numerics, compiled)
        for gpu in ("A", "B")
        for triton in ("3.7.1", "3.8.0")
        for numerics in ("tf32", "bf16")
        for compiled in (False, True)
    ]
    assert len({tuple(machine.items()) for machine in machines}) == len(machines)
    assert machines[1]["dense engine"] == "compiled"


def test_a_model_is_fitted_once_and_kept_for_each_machine(tmp_path):
    folder, other = tmp_path / "new", times(unit=1)
    assert kept(folder, MACHINE, lambda: COSTS).seconds == COSTS.seconds
    assert kept(folder, MACHINE | {"gpu": "B"}, lambda: other).seconds == other.seconds
    assert kept(folder, MACHINE, pytest.fail).seconds == COSTS.seconds
    files = sorted(path.name for path in folder.glob("*.json"))
    assert [len(name) for name in files] == [len("costs-0123456789abcdef.json")] * 2
    assert files[0].startswith("costs-")
    assert (folder / files[0]).read_text().startswith('{\n  "machine": {\n    "gpu"')
    assert len(sources_digest(folder)) == 16


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
def test_a_damaged_file_is_fitted_and_kept_again(tmp_path, damage):
    kept(tmp_path, MACHINE, lambda: times(unit=1))
    (path,) = tmp_path.glob("*.json")
    path.write_text(damage(path.read_text()))
    assert kept(tmp_path, MACHINE, lambda: COSTS).seconds == COSTS.seconds
    assert kept(tmp_path, MACHINE, pytest.fail).seconds == COSTS.seconds


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
    found = kept(None if folder is None else tmp_path / folder, MACHINE, lambda: COSTS)
    assert found.seconds == COSTS.seconds
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert "EAST_CACHE_DIR" in line


# What `auto` does with it


def auto_on_gpu(density, costs):
    """`auto` on a tiny network, with room for all weights."""
    model = ON_GPU.network(density=density, width=4)
    active = active_weights(masked_layers(model), {name: w.weight.numel() for name, w in masked_layers(model).items()})
    choose, settings = Cheapest(lambda: costs, Workload(2)), {"numerics": "fp32", "device": GPU}
    sparse = CudaEngine(model, active, **settings, choose=choose)
    make_dense = partial(DenseEngine, model, active, **settings, lay_out=False)
    return AutoEngine(model, active, sparse=sparse, make_dense=make_dense, choose=choose)


def auto_on_cpu(model, workload=PLAIN, costs=lambda: COSTS, among=("fused",)):
    """`auto` as a GPU has it, between the engines of a CPU."""
    active = active_weights(masked_layers(model))
    sparse = CpuEngine(model, active, device=CPU, choose=cheapest)
    dense = partial(DenseEngine, model, active, numerics="fp32", device=CPU, lay_out=False)
    return AutoEngine(model, active, sparse=sparse, make_dense=dense, choose=Cheapest(costs, workload, among))


IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BY_WORK = CostModel(COSTS.seconds | {"unit": 0.0, "module": 0.0})
"""Networks here are tiny: without launches, what is computed decides."""


BY_NUMBERS = {
    "fused": 4e-10,
    "fused_products": 5e-10,
    "layout": 1.5e-9,
    "convolution": 6e-11,
    "sketch": 1e-10,
    "module_numbers": 4e-9,
}
"""Made up; what a call costs is left out."""


def test_auto_follows_the_masks_and_its_signature_tells_what_it_decided():
    engine = auto_on_gpu(0.05, BY_WORK)
    images, labels = ON_GPU.batch()
    chosen, signatures = [], []
    for number, density in enumerate((0.05, 0.9, 0.05)):
        change_masks(engine, density, seed=number)
        dense = DenseEngine(engine.model, engine.active, numerics="fp32", device=GPU, lay_out=False)
        agree(*(without_statistics(gradients(one, images, labels)) for one in (engine, dense)))
        assert all(weights.layer.weight.is_contiguous() for weights in engine.active.values())
        chosen.append(engine.decide(images).name)
        signatures.append(engine.signature(images))
    assert chosen == ["sparse", "dense", "sparse"]
    assert [signature[0] for signature in signatures] == chosen
    assert signatures[0] == signatures[2], "the masks change, and a captured graph stays right"


@pytest.mark.parametrize(("dear", "executed"), [("fused products", True), ("layout", False)])
def test_layers_are_executed_densely_within_the_sparse_engine_where_that_costs_less(dear, executed):
    engine = auto_on_gpu(0.05, CostModel(BY_WORK.seconds | {dear: 1e-2, "module": 1e9}))
    images = ON_GPU.batch()[0]
    assert engine.decide(images).name == "sparse"
    _, executed_densely = engine.decide(images).signature(images)
    assert ("stages.0.0.conv1" in executed_densely) == executed


def test_without_a_zero_to_leave_out_the_dense_engine_is_chosen_whatever_it_would_cost():
    engine = auto_on_cpu(resnet34(0.01), costs=lambda: times(module=1.0))
    assert engine.decide(IMAGES).name == "sparse"
    change_masks(engine, 1.0)
    assert engine.decide(IMAGES).name == "dense"


def test_auto_has_the_weakest_class_of_what_it_has_executed_so_far():
    costs = times(fused_products=1.0, convolution=0.5)
    engine = auto_on_cpu(resnet34(0.01), costs=lambda: costs, among=("fused", "dense"))
    engine(IMAGES)
    for density, name in ((0.9, "sparse and dense"), (0.01, "sparse and dense")):
        change_masks(engine, density)
        engine(IMAGES)
        executed = engine.executed()
        assert (executed.engine, executed.reproducibility) == (name, Reproducibility.THIS_PROCESSOR)
        assert executed.executions["dense"] == len(engine.active)
        assert executed.instruction_set == torch.backends.cpu.get_cpu_capability()
        assert executed.compiler


def test_an_exact_clip_speaks_for_the_dense_engine():
    costs = times(**BY_NUMBERS)
    for workload, expected in ((PLAIN, "sparse"), (Workload(probes=1), "sparse"), (Workload(dense=1), "dense")):
        assert auto_on_cpu(resnet34(0.11), workload, lambda: costs).decide(IMAGES).name == expected


def test_it_decides_once_until_the_masks_change():
    asked = []

    def costs():
        asked.append(1)
        return COSTS

    engine = auto_on_cpu(resnet34(0.02), costs=costs)
    assert not asked
    engine(IMAGES)
    first = len(asked)
    engine(IMAGES)
    assert len(asked) == first > 0
    engine.masks_changed()
    engine(IMAGES)
    assert len(asked) > first


def test_the_decision_does_not_depend_on_the_size_of_a_batch():
    """Else a run that is resumed could come out otherwise: the last batch of an epoch is smaller."""
    costs = times(**BY_NUMBERS, unit=0.002)
    for images, expected in ((8, "dense"), (128, "sparse")):
        assert auto_on_cpu(resnet34(0.02), Workload(images), lambda: costs).decide(IMAGES).name == expected


class OtherEngine(DenseEngine):
    """Stands for a sparse engine whose steps can be recorded without a GPU."""

    name = "sparse"

    def signature(self, images):
        return "other"


def auto_training(recorder=None):
    """A small training whose masks become dense at last, so that `auto` changes from one engine to the other."""
    training = Training(capacity=0.7)  # nothing but the engine changes, not the memory of active weights
    model, active, settings = training.model, training.active, {"numerics": "fp32", "device": CPU}
    products = Cheapest(lambda: times(fused_products=1e-9), Workload(6), ("fused",))
    network = network_of(model, (3, 8, 8))
    nonzeros = {name: weights.count for name, weights in active.items()}
    threshold = 3 * products.seconds(network, nonzeros) / len(network.units)
    choose = replace(products, model=lambda: times(fused_products=1e-9, module=threshold))
    sparse = OtherEngine(model, active, **settings, lay_out=False)
    make_dense = partial(DenseEngine, model, active, **settings, lay_out=False)
    training.engine = AutoEngine(model, active, sparse=sparse, make_dense=make_dense, choose=choose)
    training.step = TrainingStep(training.engine, training.optimizer, active, training.clip)
    if recorder is not None:
        training.step = CapturedStep(training.step, recorder, CPU)
    return training


def test_a_recorded_step_follows_auto_from_one_engine_to_the_other():
    numbers, tapes = range(1, 21), Tapes()
    eager, recorded = auto_training().run(numbers), auto_training(tapes).run(numbers)
    assert eager.engine.decide(IMAGES).name == recorded.engine.decide(IMAGES).name == "dense"
    for name, value in eager.state().items():
        assert torch.equal(value, recorded.state()[name]), name
    # Full and last batch, before and after the last update of the masks; the updates before it record nothing.
    assert len(tapes.tapes) == 4


# Without Triton


@pytest.fixture
def looked_at_again():
    triton_status.cache_clear()
    yield
    triton_status.cache_clear()


@pytest.mark.usefixtures("looked_at_again")
def test_triton_is_available_where_its_kernels_compute():
    found = triton_status(GPU)
    assert (found.available, found.reason) == (True, "")
    assert found.version


def raising(error):
    def computes(device):
        raise error

    return computes


@pytest.mark.parametrize(
    ("computes", "reason"),
    [
        (lambda device: False, "a kernel that Triton compiled computes something else than it should."),
        (raising(ValueError("of two\nlines.")), "Triton {} cannot run a kernel: ValueError: of two lines."),
        (raising(ValueError()), "Triton {} cannot run a kernel: ValueError: no reason given."),
        (
            raising(subprocess.CalledProcessError(4, ["gcc", "x.c"])),
            f"Triton {{}} cannot run a kernel: gcc failed with status 4. {INSTALL_COMPILER}",
        ),
        (
            raising(RuntimeError("Failed to find C compiler")),
            f"Triton {{}} cannot run a kernel: RuntimeError: Failed to find C compiler. {INSTALL_COMPILER}",
        ),
    ],
)
@pytest.mark.usefixtures("looked_at_again")
def test_why_a_kernel_does_not_run_is_said_with_what_to_do(monkeypatch, computes, reason):
    monkeypatch.setattr(available, "_computes", computes)
    found = triton_status(GPU)
    assert not found.available
    assert found.reason == reason.format(found.version)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("looked_at_again")
def test_what_stands_in_the_way_of_a_kernel_is_said():
    found = triton_status(torch.device("cuda"))
    assert not found.available
    assert found.reason.startswith(f"Triton {found.version} cannot run a kernel: ")


@pytest.mark.parametrize("name", ["auto", "sparse"])
@pytest.mark.usefixtures("looked_at_again")
def test_without_triton_one_line_says_why_and_the_dense_engine_takes_over(monkeypatch, capfd, name):
    monkeypatch.setitem(sys.modules, "triton", None)
    model = ON_GPU.network()
    active = active_weights(masked_layers(model))
    engine = make_engine(name, model, active, numerics="tf32", device=torch.device("cuda"))
    assert isinstance(engine, DenseEngine)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: engine {name} falls back to dense: Triton cannot be imported")


@pytest.mark.parametrize("keys", [{"density": 1.0}, {"dct": True}], ids=["all active", "DCT layers"])
def test_where_there_is_no_zero_to_leave_out_nothing_is_looked_at(keys):
    model = ON_GPU.network(**keys)
    active = active_weights(masked_layers(model))
    engine = make_engine("auto", model, active, numerics="tf32", device=torch.device("cuda"), costs=pytest.fail)
    assert isinstance(engine, DenseEngine)
