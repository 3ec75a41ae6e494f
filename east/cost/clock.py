"""Seconds that steps take on a device: wall time, or on a GPU the time of its own clock, which nothing waits for."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import torch

from east.training.captured import StepKind

SETTLING_TURNS = {"eager": 1, "captured": 3, "compiled": 3}
"""Way to execute a step -> how often each kind of step is made before its time counts: it takes memory and lets
libraries choose their algorithms, then it is recorded, then repeated for the first time."""


MILLISECONDS = 1000
"""In a second."""


def settling_steps(kind: StepKind, turn: int) -> int:
    """Steps before the clock starts.

    Args:
        kind: how steps are executed.
        turn: steps of which one measures the norm for the clip, so that there are two kinds of step if more than 1.
    """
    return SETTLING_TURNS[kind] * turn


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of wall time until something is done, on the device as well."""
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def seconds_of_each(step: Callable[[int], object], numbers: Iterable[int], device: torch.device) -> list[float]:
    """Seconds of each of some steps, made one after the other as in a training.

    On a GPU the CPU runs ahead, as it does in a training, and a step counts from the end of the one before to its own,
    by the clock of the device.

    Args:
        step: takes its number.
        numbers: of the steps.
        device: where they compute.
    """
    if device.type == "cuda":
        return _seconds_between_events(step, numbers, device)
    return [seconds_of(partial(step, number), device) for number in numbers]


def _seconds_between_events(step: Callable[[int], object], numbers: Iterable[int], device: torch.device) -> list[float]:
    synchronize(device)
    events = [_recorded_event(device)]
    for number in numbers:
        step(number)
        events.append(_recorded_event(device))
    synchronize(device)
    return [began.elapsed_time(ended) / MILLISECONDS for began, ended in pairwise(events)]


def _recorded_event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
