import os
import time

import pytest
import torch

from east.config.run import ClipSpec
from east.cost.measure import make_training_step, measure_steps, measure_training, seconds_of_each, settling_steps
from east.data.catalog import DATASETS
from east.errors import EastError
from tests.unit.cost_specs import make_spec

CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    training_step, (images, labels, _) = step.func, step.args
    assert images.shape == (4, *DATASETS[spec.dataset.name].image_shape)
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
