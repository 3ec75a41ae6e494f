"""Steps are timed after each kind of them has settled, one after the other as in a training."""

import time

import torch

from east.cost.clock import seconds_of_each, settling_steps

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NAP = 0.01


def test_a_recorded_step_is_executed_recorded_and_repeated_before_it_counts():
    assert settling_steps("eager", 1) == 1
    assert settling_steps("captured", 1) == settling_steps("compiled", 1) == 3
    # Of four steps one measures the norm, and makes a kind of its own.
    assert settling_steps("captured", 4) == 12


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
