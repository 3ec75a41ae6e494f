"""Table 6: a row a method, in the paper's accounting and in truth."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

from east.config.run import RunSpec, stand_in
from east.config.tables import CostEntry, CostPlan
from east.cost.accounting import Memory, torchsummary_memory
from east.cost.flops import inference_flops, layer_work, training_flops
from east.cost.measure import Measurement, in_fresh_process, measure_training, prepare_costs
from east.cost.record import CostRecord
from east.data.catalog import info_of, steps_per_epoch
from east.models.dct import set_fused
from east.models.dyrelu import retire_dyrelu
from east.models.parameters import count_parameters
from east.models.sharing import stored_nonzeros
from east.sparse.schedule import Schedule
from east.sparse.timetable import Phase, Timetable
from east.training.captured import choose_step
from east.training.describe import make_allocation, network_shape
from east.training.device import choose_device

SECONDS_PER_HOUR = 3600

Measure = Callable[..., Measurement]
"""(run, faded=whether DyReLU has faded) -> what its training step takes on this machine."""


def measured_cost(
    plan: CostPlan, *, device: str, engine: str, threads: int, step: str = "auto", measure: bool = True
) -> list[dict[str, Any]]:
    """The rows of Table 6 as plain mappings, in the order of the plan; the options are those of `measure_training`.

    Raises:
        EastError: the device is not there, a network cannot hold its density, or memory does not suffice.
    """
    where = choose_device(device)
    if measure and where.type == "cuda" and engine == "auto":
        # In a process of its own, so that its memory does not count as that of a step.
        compiled = choose_step(step, where) == "compiled"
        for numerics in {entry.spec.training.numerics for entry in plan.entries}:
            in_fresh_process(partial(prepare_costs, where, numerics, compiled))
    timed = partial(
        measure_training,
        batch_size=plan.measured_batch["cuda" if where.type == "cuda" else "cpu"],
        steps=plan.measured_steps,
        device=device,
        engine=engine,
        threads=threads,
        step=step,
    )
    return [row.model_dump() for row in cost_rows(plan.entries, timed if measure else None)]


def cost_rows(entries: Iterable[CostEntry], measure: Measure | None = None) -> list[CostRecord]:
    """The rows of Table 6, in the order of the entries; without `measure`, what has to be measured is None.

    Raises:
        EastError: a network cannot hold its density, or a measured step does not fit into memory.
    """
    return [_cost_row(entry, measure) for entry in entries]


def paper_memory(spec: RunSpec, beta: Literal[0, 1]) -> Memory:
    """The memory of a run's network as the paper counts it: one image, DCT layers as two parallel ones.

    Args:
        spec: the run.
        beta: 0 counts DyReLU units as ReLU modules, 1 as they are.
    """
    model = network_shape(spec)
    set_fused(model, False)
    if beta == 0:
        retire_dyrelu(model)
    return torchsummary_memory(model, _image_shape(spec))


def mean_nonzeros(spec: RunSpec) -> tuple[dict[str, float], float]:
    """What a run's density schedule means for its cost.

    Returns:
        The number of active weights of each masked layer, as the mean over all steps, and the share of steps on which
        growth needs the dense gradient.
    """
    allocation = make_allocation(network_shape(spec), spec.sparsity.distribution)
    total = dict.fromkeys(allocation.shapes, 0)
    phases = _phases(spec)
    for phase in phases:
        for name, count in allocation.counts(phase.density).items():
            total[name] += count * phase.steps
    steps = sum(phase.steps for phase in phases)
    dense_gradients = sum(phase.dense_gradients for phase in phases)
    return {name: value / steps for name, value in total.items()}, dense_gradients / steps


def _cost_row(entry: CostEntry, measure: Measure | None) -> CostRecord:
    spec = stand_in(entry.spec)
    counted = paper_memory(spec, entry.measured_at_beta)
    bypassed = entry.measured_at_beta == 0 and spec.model.activation == "dyrelu"
    active = paper_memory(spec, beta=1) if bypassed else None

    dynamic, plain = network_shape(spec), network_shape(spec)
    retire_dyrelu(plain)
    nonzeros = stored_nonzeros(dynamic, spec.sparsity.density)
    parameters = count_parameters(dynamic, nonzeros)
    counts = make_allocation(dynamic, spec.sparsity.distribution).counts(spec.sparsity.density)
    mean_counts, dense_gradient_share = mean_nonzeros(spec)
    dynamic_share = sum(phase.epochs for phase in _phases(spec) if phase.dynamic) / spec.training.epochs
    phases = (
        (dynamic_share, layer_work(dynamic, _image_shape(spec))),
        (1 - dynamic_share, layer_work(plain, _image_shape(spec))),
    )
    measured = None if measure is None else measure(spec, faded=False)
    faded = measured if measure is None or dynamic_share == 0 else measure(spec, faded=True)
    return CostRecord(
        method=entry.method,
        param_size_mb=counted.param_mb,
        est_total_mb=counted.total_mb,
        param_size_mb_active=active.param_mb if active else None,
        est_total_mb_active=active.total_mb if active else None,
        trainable_parameters=sum(parameter.numel() for parameter in dynamic.parameters()),
        nonzeros=nonzeros,
        batch_norm_parameters=parameters.batch_norm,
        dyrelu_parameters=parameters.dyrelu,
        other_parameters=parameters.other,
        flops_inference_dense=inference_flops(phases[1][1]),
        flops_inference_sparse=inference_flops(phases[1][1], counts),
        flops_training_dense=sum(share * training_flops(work) for share, work in phases),
        flops_training_sparse=sum(
            share * training_flops(work, mean_counts, dense_gradient_share) for share, work in phases
        ),
        **(vars(measured) if measured else {}),
        hours_estimate=_hours(spec, measured, faded, dynamic_share) if measured and faded else None,
    )


def _hours(spec: RunSpec, measured: Measurement, faded: Measurement, dynamic_share: float) -> float:
    """An estimate: seconds of a step, in proportion to the batch size, times the steps of the recipe."""
    seconds = dynamic_share * measured.seconds_per_step + (1 - dynamic_share) * faded.seconds_per_step
    steps = spec.training.epochs * steps_per_epoch(spec)
    return seconds * spec.training.batch_size / measured.measured_batch_size * steps / SECONDS_PER_HOUR


def _phases(spec: RunSpec) -> list[Phase]:
    return list(Timetable(Schedule.of(spec, steps_per_epoch(spec))).phases())


def _image_shape(spec: RunSpec) -> tuple[int, int, int]:
    return info_of(spec.dataset).image_shape
