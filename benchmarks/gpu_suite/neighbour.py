"""One of several processes that train on the same GPU at once: `python -m benchmarks.gpu_suite.neighbour`.

It takes what to train as one line of JSON, makes it ready, says `ready`, and then for each line `SECONDS` takes steps
for so long and prints how many, and the seconds that they took. It ends with its input.
"""

import sys
import time
from pathlib import Path

import torch

from benchmarks.gpu_suite.conditions import Conditions
from benchmarks.gpu_suite.findings import WayName
from benchmarks.gpu_suite.ways import make_training, random_batch
from east.config.run import Frozen, RunSpec
from east.cost.clock import synchronize

WARM_UPS = 4
IN_FLIGHT = 8
"""Steps that are issued before the host waits, as in a training, which waits once an epoch."""


class Task(Frozen):
    """What a process trains."""

    spec: RunSpec
    way: WayName
    device: str
    dry: bool


def main() -> None:
    """Serve the process that started this one."""
    task = Task.model_validate_json(sys.stdin.readline())
    torch.set_num_threads(1)
    conditions = Conditions(task.device, task.dry, 0.0, Path())
    device, (batch_size, _) = conditions.where, conditions.batches
    training = make_training(task.way, task.spec, device, batch_size=batch_size)
    training.resume()
    batch = random_batch(task.spec, batch_size, device)
    number = 0

    def take(steps: int) -> None:
        nonlocal number
        for _ in range(steps):
            number += 1
            training.train(*batch, number, task.spec.training.lr)
        synchronize(device)

    take(WARM_UPS)
    training.require_as_named()
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, started, taken = float(line), time.perf_counter(), 0
        while taken == 0 or time.perf_counter() - started < seconds:
            steps = 1 if task.dry else IN_FLIGHT
            take(steps)
            taken += steps
        print(f"{taken} {time.perf_counter() - started}", flush=True)


if __name__ == "__main__":
    main()
