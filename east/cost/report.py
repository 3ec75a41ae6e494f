"""Table 6 as rows: counted for every method and, where asked, measured on this machine."""

from dataclasses import asdict
from functools import partial
from typing import Any

from east.config.cost import CostPlan
from east.config.run import RunSpec
from east.cost.measure import Measurement, measure_training
from east.cost.table6 import CostMethod, cost_rows
from east.training.loop import choose_device


def measured_cost(
    plan: CostPlan, *, device: str, engine: str, threads: int, measure: bool = True
) -> list[dict[str, Any]]:
    """The rows of Table 6 as plain mappings, in the order of the plan.

    Args:
        plan: the methods, and how many steps of how many images are timed.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto` or the name of an engine.
        threads: CPU threads of PyTorch.
        measure: time training steps; without, what has to be measured is None.

    Raises:
        EastError: the device is not there, or memory does not suffice.
    """
    methods = [CostMethod(entry.method, entry.spec, entry.measured_at_beta) for entry in plan.entries]
    batch = plan.measured_batch["cuda" if choose_device(device).type == "cuda" else "cpu"]
    timed = partial(
        _measure, batch_size=batch, steps=plan.measured_steps, device=device, engine=engine, threads=threads
    )
    return [asdict(row) for row in cost_rows(methods, timed if measure else None)]


def _measure(
    spec: RunSpec, faded: bool, *, batch_size: int, steps: int, device: str, engine: str, threads: int
) -> Measurement:
    return measure_training(
        spec, batch_size=batch_size, steps=steps, device=device, engine=engine, threads=threads, faded=faded
    )
