"""Table 6 as rows: counted for every method and, where asked, measured on this machine."""

from dataclasses import asdict
from functools import partial
from typing import Any

from east.config.run import RunSpec
from east.config.tables import CostPlan
from east.cost.measure import Measurement, in_fresh_process, measure_training
from east.cost.parts import prepare_costs
from east.cost.table6 import CostMethod, cost_rows
from east.training.captured import choose_step
from east.training.device import choose_device


def measured_cost(
    plan: CostPlan, *, device: str, engine: str, threads: int, step: str = "auto", measure: bool = True
) -> list[dict[str, Any]]:
    """The rows of Table 6 as plain mappings, in the order of the plan.

    Args:
        plan: the methods, and how many steps of how many images are timed.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto` or the name of an engine.
        threads: CPU threads of PyTorch.
        step: `auto` or the name of a way to execute a step.
        measure: time training steps; without, what has to be measured is None.

    Raises:
        EastError: the device is not there, or memory does not suffice.
    """
    methods = [CostMethod(entry.method, entry.spec, entry.measured_at_beta) for entry in plan.entries]
    where = choose_device(device)
    batch = plan.measured_batch["cuda" if where.type == "cuda" else "cpu"]
    if measure and where.type == "cuda" and engine == "auto":
        # In a process of its own, as what that needs is no memory of a step.
        compiled = choose_step(step, where) == "compiled"
        for numerics in {entry.spec.training.numerics for entry in plan.entries}:
            in_fresh_process(partial(prepare_costs, where, numerics, compiled))
    timed = partial(
        _measure, batch_size=batch, steps=plan.measured_steps, device=device, engine=engine, threads=threads, step=step
    )
    return [asdict(row) for row in cost_rows(methods, timed if measure else None)]


def _measure(
    spec: RunSpec, faded: bool, *, batch_size: int, steps: int, device: str, engine: str, threads: int, step: str
) -> Measurement:
    return measure_training(
        spec, batch_size=batch_size, steps=steps, device=device, engine=engine, step=step, threads=threads, faded=faded
    )
