"""Steps in which the host may not wait for the device, and nothing may be compiled or captured again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu_suite.conditions import DRY_DENSITY, RIGL, Conditions, with_density
from benchmarks.gpu_suite.findings import Finding, Note, Quiet, WayName
from benchmarks.gpu_suite.rehearsal import WHAT_CHANGES, Rehearsal, changing
from benchmarks.gpu_suite.steps import CAPTURED, COMPILED, first_line, release
from east.config.run import RunSpec

DENSITY = 0.0005
WARM_UPS = 2
"""Epochs before, so that every kind of step is recorded, which its second one is."""


def measure(conditions: Conditions) -> Iterator[Finding]:
    """Each captured way on the plain network and on all components together, then the compiled ones."""
    density = DRY_DENSITY if conditions.dry else DENSITY
    label, model = next(iter(conditions.networks.items()))
    methods = conditions.methods(model)
    for method in (RIGL,) if conditions.dry else (RIGL, "EAST Combined"):
        for name in conditions.ways(CAPTURED):
            if conditions.left() <= 0:
                yield Note(about=f"{method}: {name}", text="not tried: time was up")
                continue
            yield listen(f"{label}, {method}", with_density(methods[method], density), name, conditions)


def measure_compiled(conditions: Conditions) -> Iterator[Finding]:
    """The compiled ways on the plain network."""
    label, model = next(iter(conditions.networks.items()))
    for name in conditions.ways(COMPILED):
        if conditions.left() <= 0:
            yield Note(about=str(name), text="not tried: time was up")
            continue
        yield listen(f"{label}, {RIGL}", conditions.plain(model), name, conditions)


def listen(network: str, spec: RunSpec, name: WayName, conditions: Conditions) -> Quiet | Note:
    """Train for a few epochs while everything changes, and note the first synchronisation or recompilation."""
    try:
        rehearsal = Rehearsal(name, changing(spec, dry=conditions.dry), conditions, warm_ups=WARM_UPS)
    except Exception as error:
        return Note(about=f"{network}: {name}", text=first_line(error))
    training = rehearsal.training
    recorded, compiled = training.recorded, compilations()
    steps, trouble = 0, None
    try:
        training.require_as_named()
        for _ in rehearsal.run(lambda: quietly(conditions.where)):
            steps += 1
    except Exception as error:
        trouble = first_line(error)
    found = Quiet(
        network=network,
        way=name,
        steps=steps,
        changed=WHAT_CHANGES,
        trouble=trouble,
        recorded=training.recorded - recorded,
        compiled=compilations() - compiled,
    )
    del rehearsal, training
    release(conditions.where)
    return found


@contextmanager
def quietly(device: torch.device) -> Iterator[None]:
    """Within it a synchronisation or a recompilation is an error."""
    import torch._dynamo as dynamo

    with dynamo.config.patch(error_on_recompile=True):
        if device.type != "cuda":
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def compilations() -> int:
    """Graphs that PyTorch has compiled so far in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
