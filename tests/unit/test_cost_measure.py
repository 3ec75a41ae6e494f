import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from east.config.run import ClipSpec, PhasingSpec
from east.cost import measure
from east.cost.measure import (
    Measurement,
    in_phase,
    make_training_step,
    measure_steps,
    measure_training,
    now,
    one_batch,
    prepare_costs,
    random_images,
    seconds_between,
    seconds_of,
    seconds_of_each,
    settling_steps,
    synchronize,
)
from east.data.catalog import info_of
from east.engine.base import KernelsUnavailable
from east.errors import EastError
from tests.unit.cost_specs import make_spec

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
DEVICE = CUDA if torch.cuda.is_available() else CPU
NAP = 0.02
HELD_MB = 96


def make_nap():
    held = torch.ones(HELD_MB * 2**18)

    def step(number: int) -> None:
        assert torch.get_num_threads() == 1
        assert len(held) > 0
        time.sleep(NAP)

    return step


def make_death():
    return os._exit


def test_steps_are_timed_in_a_process_of_their_own():
    seconds, peak = measure_steps(make_nap, steps=4, device=CPU, threads=1)
    assert len(seconds) == 4
    assert min(seconds) >= NAP
    assert min(seconds) < 5 * NAP
    assert HELD_MB <= peak < HELD_MB + 64


def test_a_killed_measurement_is_explained():
    with pytest.raises(EastError, match=r"did not fit into memory.*measured_batch"):
        measure_steps(make_death, steps=1, device=CPU, threads=1)


def test_a_real_step_is_measured():
    found = measure_training(
        make_spec(activation="dyrelu", width=4, density=0.05), batch_size=4, steps=3, device="cpu", engine="dense"
    )
    assert found.seconds_per_step > 0
    assert found.seconds_spread >= 0
    assert found.peak_memory_mb > 0
    assert (found.steps, found.measured_batch_size) == (3, 4)
    assert found.measured_on.endswith(", 1 thread, engine: dense")


@pytest.mark.parametrize("faded", [False, True])
def test_the_measured_step_trains_the_runs_sparse_network(faded):
    spec = make_spec(activation="dyrelu", width=4, density=0.05)
    step = make_training_step(spec, batch_size=4, device=CPU, engine="dense", faded=faded)
    training_step, (images, labels, lr) = step.func, step.args
    assert (lr, step.keywords) == (spec.training.lr, {"dense_gradients": False})
    assert images.shape == (4, *info_of(spec.dataset).image_shape)
    assert labels.shape == (4,)
    before = training_step.engine.model.classifier.weight.detach().clone()
    step(1)
    weight, mask = training_step.engine.model.classifier.weight, training_step.engine.model.classifier.mask
    assert not torch.equal(weight, before)
    assert 0 < int(mask.sum()) < mask.numel()
    assert torch.equal(weight != 0, mask)
    assert any("fc1" in name for name, _ in training_step.engine.model.named_parameters()) is not faded


def test_a_recorded_step_is_executed_recorded_and_repeated_before_it_counts():
    spec = make_spec()
    assert settling_steps("eager", spec) == 1
    assert settling_steps("captured", spec) == settling_steps("compiled", spec) == 3
    # Of four steps one measures the norm, and makes a kind of its own.
    clip = ClipSpec(norm=1.0, scope="dense", every=4)
    clipped = spec.model_copy(update={"training": spec.training.model_copy(update={"gradient_clip": clip})})
    assert settling_steps("captured", clipped) == 12


def test_each_step_gets_its_number_and_its_time():
    made = []

    def step(number):
        made.append(number)
        time.sleep(NAP * number)

    seconds = seconds_of_each(step, range(1, 4), DEVICE)
    assert made == [1, 2, 3]
    assert len(seconds) == 3
    if DEVICE.type == "cpu":
        assert all(NAP * number <= found for number, found in zip(made, seconds, strict=True))


# What is measured, and what becomes of it


@pytest.mark.parametrize(
    ("seconds", "median", "spread"),
    [([8.0, 1.0, 4.0, 2.0], 3.0, 5.0 - 1.75), ([3.0, 1.0], 2.0, 1.0), ([3.0], 3.0, 0.0)],
)
@pytest.mark.parametrize(
    ("device", "threads", "kind", "warm_up", "machine"),
    [
        ("cpu", 1, "eager", 2, "a cpu, 1 thread, engine: any"),
        ("cpu", 2, "eager", 2, "a cpu, 2 threads, engine: any"),
        ("cuda", 2, "captured", 3, "a cuda, step: captured, engine: any"),
    ],
)
def test_a_measurement_says_how_long_how_much_and_where(
    monkeypatch, seconds, median, spread, device, threads, kind, warm_up, machine
):
    asked = []
    monkeypatch.setattr(measure, "choose_device", torch.device)
    monkeypatch.setattr(measure, "choose_step", lambda step, where: {"a way": kind}[step])
    monkeypatch.setattr(measure, "device_name", lambda where: f"a {where}")
    monkeypatch.setattr(measure, "measure_steps", lambda make, **how: asked.append((make, how)) or (seconds, 77.0))
    spec = make_spec()
    found = measure_training(
        spec, batch_size=4, steps=len(seconds), device=device, engine="any", step="a way", threads=threads, faded=True
    )
    assert found == Measurement(median, spread, 77.0, len(seconds), 4, machine)
    ((make, how),) = asked
    where = torch.device(device)
    assert how == {"steps": len(seconds), "device": where, "threads": threads, "warm_up": warm_up}
    assert (make.func, make.args) == (make_training_step, (spec,))
    assert make.keywords == {"batch_size": 4, "device": where, "engine": "any", "kind": kind, "faded": True}


def test_unless_said_otherwise_a_step_is_measured_on_one_thread_before_dyrelu_has_faded(monkeypatch):
    asked = []
    monkeypatch.setattr(measure, "measure_steps", lambda make, **how: asked.append((make, how)) or ([1.0], 1.0))
    found = measure_training(make_spec(), batch_size=4, steps=1)
    assert (asked[0][0].keywords["faded"], asked[0][1]["threads"]) == (False, 1)
    assert found.measured_on.endswith("engine: auto")


def test_a_step_is_executed_as_it_is_asked_to_be(monkeypatch):
    asked, begin = [], measure.Training.begin

    def note(*what, **how):
        asked.append(how)
        return begin(*what, **how | {"kind": "eager"})  # what is recorded needs a GPU

    monkeypatch.setattr(measure.Training, "begin", note)
    make_training_step(make_spec(width=4), batch_size=2, device=CPU, engine="dense", faded=False, kind="captured")
    assert asked == [{"device": CPU, "engine": "dense", "kind": "captured"}]


def test_steps_that_count_follow_those_that_warm_up(monkeypatch, one_thread):
    made, done = [], []
    monkeypatch.setattr(measure, "in_fresh_process", lambda run: run())
    monkeypatch.setattr(measure, "keep_freed_memory", lambda: done.append("memory is kept"))
    monkeypatch.setattr(measure, "forget_peak", lambda: done.append("peak"))
    monkeypatch.setattr(measure, "resident_memory_mb", lambda: 30.0)
    monkeypatch.setattr(measure, "peak_memory_mb", lambda device: 100.0)
    monkeypatch.setattr(measure, "seconds_of_each", lambda step, numbers, device: [float(number) for number in numbers])
    for device, peak in ((CPU, 70.0), (CUDA, 100.0)):
        found = measure_steps(lambda: made.append, steps=4, device=device, threads=2, warm_up=3)
        assert found == ([4.0, 5.0, 6.0, 7.0], peak)
    assert made == [1, 2, 3] * 2
    assert done == ["memory is kept", "peak"] * 2
    assert torch.get_num_threads() == 2


def test_processes_are_forks_of_one_that_has_imported_pytorch_but_not_on_a_mac(monkeypatch):
    loaded = []
    server = SimpleNamespace(set_forkserver_preload=loaded.extend)
    monkeypatch.setattr(multiprocessing, "get_context", {"forkserver": server, "spawn": "spawn"}.__getitem__)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert measure._context() == "spawn"
    monkeypatch.setattr(sys, "platform", "linux")
    assert measure._context() is server
    assert loaded == ["east.cost.measure"]


def test_kernels_are_compiled_or_costs_fitted_once_beforehand(monkeypatch):
    done = []

    def fit(device, numerics, *, compiled):
        done.append((device, numerics, compiled))
        raise KernelsUnavailable("which is said elsewhere")

    monkeypatch.setattr(measure, "load_kernels", lambda: done.append("kernels"))
    monkeypatch.setattr(measure, "machine_costs", fit)
    prepare_costs(CPU, "fp32", False)
    prepare_costs(CUDA, "tf32", True)
    assert done == ["kernels", (CUDA, "tf32", True)]


# Random images


def counted(batches):
    return [len(labels) for _, labels in batches.epoch(1)]


def test_random_images_are_as_many_as_asked_for_and_like_those_of_the_run():
    spec = make_spec(dataset="cifar100", batch_size=64)
    data, again = (random_images(spec, CPU, training=150, evaluation=70) for _ in range(2))
    assert (sum(counted(data.train)), sum(counted(data.validation)), sum(counted(data.test))) == (150, 70, 70)
    assert counted(data.train)[:2] == [64, 64]
    assert (data.num_classes, data.digest) == (100, "random")
    images, labels = next(iter(data.test.epoch(1)))
    assert (images.shape, images.dtype) == ((70, 3, 32, 32), torch.float32)
    # Of a mean and a deviation that a network can be trained with.
    assert abs(images.mean()) < 0.1
    assert 0.9 < images.std() < 1.3
    assert 60 < labels.max() < 100
    assert torch.equal(next(iter(again.test.epoch(1)))[0], images)
    assert torch.equal(next(iter(again.test.epoch(1)))[1], labels)


def test_random_images_are_no_more_than_the_run_holds_out_and_tests():
    spec = make_spec(dataset="digits", batch_size=64)
    data = random_images(spec, CPU, training=64, evaluation=10_000)
    assert (sum(counted(data.validation)), sum(counted(data.test))) == (143, 359)


def test_one_batch_of_the_run_is_what_measured_steps_take():
    data = one_batch(make_spec(batch_size=64), CPU)
    assert (counted(data.train), counted(data.validation), counted(data.test)) == ([64], [1], [1])


def test_dyrelu_is_active_all_the_time_or_plain_from_the_first_epoch():
    spec = make_spec(activation="dyrelu")
    assert in_phase(spec, dynamic=True).phasing is None
    assert in_phase(spec, dynamic=False) == spec.model_copy(update={"phasing": PhasingSpec(start=0, end=0)})


# Clocks


class Gpu:
    """Milliseconds of a GPU, in place of the functions of `torch.cuda`."""

    def __init__(self, monkeypatch):
        self.milliseconds, self.waits = 0.0, []
        gpu = self

        class Event:
            def __init__(self, enable_timing=False):
                self.is_timed, self.is_over = enable_timing, False

            def record(self, stream):
                self.at = gpu.milliseconds if stream == "the stream" else None

            def synchronize(self):
                self.is_over = True

            def elapsed_time(self, end):
                assert self.is_timed
                assert end.is_timed
                assert end.is_over
                return end.at - self.at

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.waits.append((device, self.milliseconds)))


def test_steps_on_a_gpu_are_timed_by_its_own_clock_and_nothing_waits_in_between(monkeypatch):
    gpu = Gpu(monkeypatch)

    def step(number):
        gpu.milliseconds += 10 * number

    assert seconds_of_each(step, range(1, 4), CUDA) == pytest.approx([0.01, 0.02, 0.03])
    assert gpu.waits == [(CUDA, 0.0)]


def test_what_is_done_once_is_waited_for_before_and_after(monkeypatch):
    gpu = Gpu(monkeypatch)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: 1 + gpu.milliseconds / 1000))

    def work():
        gpu.milliseconds += 250

    assert seconds_of(work, CUDA) == 0.25
    assert gpu.waits == [(CUDA, 0.0), (CUDA, 250.0)]
    assert seconds_of(work, CPU) == 0.25
    synchronize(CPU)
    assert len(gpu.waits) == 2
    began = now(CPU)
    work()
    assert seconds_between(began, now(CPU)) == 0.25
