"""Whether all is right: kernels by their tests, steps against float64, ways of stepping against each other."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import torch

from benchmarks.gpu_suite.conditions import DRY_DENSITY, RIGL, ROOT, Conditions, with_density
from benchmarks.gpu_suite.findings import Check, Finding, Note, TestRun, WayName
from benchmarks.gpu_suite.rehearsal import Rehearsal, changing
from benchmarks.gpu_suite.steps import CAPTURED, COMPILED, first_line, release
from benchmarks.gpu_suite.ways import OurTraining, gradients, random_batch, way
from east.config.run import Numerics, RunSpec

KERNEL_TESTS = "tests/unit/test_cuda_*.py"

CORES_OF_A_FILE = 2
POLL = 0.1

REFERENCE = way("dense", "eager", "fp32")
"""Computed in float64: PyTorch's own layers, step by step."""

STEPS_BEFORE = 2
"""Steps at learning rate zero before the one that is compared: the second is recorded, the one after it repeated."""

CHECKED_DENSITY = 0.005
"""Ten times the paper's, so that gradients arrive everywhere."""

BOUNDS: dict[Numerics, float] = {"fp32": 0.05, "tf32": 1.0, "bf16": 3.0}
"""Relative error of a gradient in PyTorch's own layers, step by step. Rounding grows through some forty batch norms: on
a CPU, a ResNet-50 at its first step had 0.01 in float32 and 1.2 with bf16 products."""

YARDSTICK_FACTOR = 2.0
LEAST_BOUNDS: dict[Numerics, float] = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 0.15}
"""Other ways may have so many times the error of PyTorch's own layers in the same numerics, and at least so much."""

LOSS_BOUNDS: dict[Numerics, float] = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}

REPETITION_FACTOR = 10
"""Two ways of stepping may differ by this many times what two repetitions of one differ."""

EAGER = tuple(way(engine, "eager", numerics) for numerics in BOUNDS for engine in ("dense", "sparse"))
CHECKED: tuple[WayName, ...] = EAGER + tuple(name for name in CAPTURED if name.engine != "auto")
"""PyTorch's own layers first, in each of the numerics."""


def kernels(conditions: Conditions) -> Iterator[Finding]:
    """The tests of the kernels, each file in a process of its own, some at once: compiling kernels takes the CPU."""
    # A rehearsal shows that tests are run; the project's own tests run all of them.
    waiting = sorted(ROOT.glob(KERNEL_TESTS), reverse=True)[-1 if conditions.dry else 0 :]
    if not waiting:
        yield Note(about="kernels", text=f"there are no tests {KERNEL_TESTS} in {ROOT}")
    running: dict[Path, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < max(1, len(os.sched_getaffinity(0)) // CORES_OF_A_FILE):
            file = waiting.pop()
            running[file] = _start_tests(file, conditions)
        for file in [file for file, process in running.items() if process.poll() is not None]:
            del running[file]
            yield read_report(file.name, _report(file, conditions))
        if conditions.left() <= 0:
            for file, process in running.items():
                process.kill()
                process.wait()
                yield Note(about=file.name, text="stopped: time was up")
            yield from (Note(about=file.name, text="not run: time was up") for file in waiting)
            return
        time.sleep(POLL)


def steps(conditions: Conditions) -> Iterator[Finding]:
    """Gradients of one step by each way against float64."""
    for label, method, spec in _checked_networks(conditions):
        yield from against_double(f"{label}, {method}", spec, conditions, conditions.ways(CHECKED))


def stepping(conditions: Conditions) -> Iterator[Finding]:
    """Captured steps against eager ones while masks, density, learning rate and β change."""
    networks = list(_checked_networks(conditions))
    for label, method, spec in networks[:1] if conditions.dry else networks:
        for name in conditions.ways(CHECKED):
            if name.stepping == "eager":
                continue
            if conditions.left() <= 0:
                yield Note(about=f"{label}, {method}: {name}", text="not compared: time was up")
                continue
            yield from against_eager(f"{label}, {method}", spec, name, conditions)


def compiled(conditions: Conditions) -> Iterator[Finding]:
    """Compiled steps against float64 and against eager ones."""
    label, method, spec = next(_checked_networks(conditions))
    for name in conditions.ways(COMPILED):
        if conditions.left() <= 0:
            yield Note(about=str(name), text="not compared: time was up")
            continue
        yield from against_double(f"{label}, {method}", spec, conditions, (_yardstick(name), name))


def against_double(network: str, spec: RunSpec, conditions: Conditions, ways: Sequence[WayName]) -> Iterator[Finding]:
    """The relative errors of loss and gradients of one step, for each way.

    All start from the same weights and masks, take a few steps at learning rate zero, which change neither, and then
    one on another batch; in float64 that one alone is taken, with the same number, so that its random signs are the
    same.
    """
    reference = _step(REFERENCE, spec, conditions, steps_before=0, double=True)
    errors: dict[tuple[WayName, str], float | None] = {}
    for name in ways:
        if conditions.left() <= 0:
            yield Note(about=f"{network}: {name}", text="not compared with float64: time was up")
            continue
        try:
            found = _step(name, spec, conditions, steps_before=STEPS_BEFORE)
        except Exception as error:
            yield Check(
                what="step against float64", network=network, way=name, error=None, bound=0.0, note=first_line(error)
            )
            continue
        for what, value in found.items():
            gap = errors[name, what] = relative(value, reference[what])
            yield Check(
                what=f"{what} of a step, against float64",
                network=network,
                way=name,
                error=gap,
                bound=_bound(name, what, errors.get((_yardstick(name), what))),
                note="PyTorch's own layers" if name == _yardstick(name) else "",
            )
        release(conditions.where)


def against_eager(network: str, spec: RunSpec, name: WayName, conditions: Conditions) -> Iterator[Finding]:
    """The largest relative difference of a step's loss between a way of stepping and the eager one.

    Both train from the same start while everything that may change does; the eager training runs twice, as on a GPU it
    does not repeat itself to the last bit either.
    """
    eager = name.model_copy(update={"stepping": "eager"})
    try:
        first, again, other = (_losses(one, spec, conditions) for one in (eager, eager, name))
    except Exception as error:
        yield Check(
            what="losses while masks, density, learning rate and β change, against eager steps",
            network=network,
            way=name,
            error=None,
            bound=0.0,
            note=first_line(error),
        )
        return
    noise = float(((again - first) / first).abs().max())
    gap = float(((other - first) / first).abs().max())
    yield Check(
        what="losses while masks, density, learning rate and β change, against eager steps",
        network=network,
        way=name,
        error=gap if math.isfinite(gap) else None,
        bound=max(LOSS_BOUNDS[name.numerics], REPETITION_FACTOR * noise),
        note=f"{len(first)} steps; two eager trainings differ by {noise:.1e}" + ("; equal bits" if gap == 0 else ""),
    )
    release(conditions.where)


def _yardstick(name: WayName) -> WayName:
    """PyTorch's own layers in the same numerics."""
    return way("dense", "eager", name.numerics)


def _bound(name: WayName, what: str, own: float | None) -> float:
    """The largest error that is no fault, where that of PyTorch's own layers is known."""
    if what == "loss":
        return LOSS_BOUNDS[name.numerics]
    if name == _yardstick(name) or own is None:
        return BOUNDS[name.numerics]
    return max(LEAST_BOUNDS[name.numerics], YARDSTICK_FACTOR * own)


def relative(found: torch.Tensor, reference: torch.Tensor) -> float | None:
    """||found - reference|| / ||reference||; None where it is no finite number, as for vectors of unequal length."""
    if found.shape != reference.shape:
        return None
    error = float((found.double() - reference).norm() / reference.norm())
    return error if math.isfinite(error) else None


def _step(
    name: WayName, spec: RunSpec, conditions: Conditions, *, steps_before: int, double: bool = False
) -> dict[str, torch.Tensor]:
    """Loss and gradients of step number `STEPS_BEFORE + 1`, after some at learning rate zero."""
    device, (batch, _) = conditions.where, conditions.batches
    training = OurTraining(name, spec, device, batch_size=batch, double=double)
    training.resume()
    images, labels = random_batch(spec, batch, device, 1)
    for number in range(1, steps_before + 1):
        training.train(images, labels, number, 0.0)
    images, labels = random_batch(spec, batch, device, 2)
    images = images.double() if double else images
    loss = training.train(images, labels, STEPS_BEFORE + 1, spec.training.lr)
    return {"loss": loss.detach().double().view(1), **{f"gradient of {k}": v for k, v in gradients(training).items()}}


def _losses(name: WayName, spec: RunSpec, conditions: Conditions) -> torch.Tensor:
    rehearsal = Rehearsal(name, changing(spec, dry=conditions.dry), conditions)
    return torch.stack([loss.double() for loss in rehearsal.run()]).cpu()


def _checked_networks(conditions: Conditions) -> Iterator[tuple[str, str, RunSpec]]:
    """Plain networks, then all components together."""
    density = DRY_DENSITY if conditions.dry else CHECKED_DENSITY
    for label, model in conditions.networks.items():
        yield label, RIGL, with_density(conditions.plain(model), density)
    for label, model in conditions.networks.items():
        yield label, "EAST Combined", with_density(conditions.methods(model)["EAST Combined"], density)


def _start_tests(file: Path, conditions: Conditions) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    command += [f"--junitxml={_report(file, conditions)}", *(["-m", "not slow"] if conditions.dry else [])]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _report(file: Path, conditions: Conditions) -> Path:
    return conditions.scratch / f"{file.stem}.xml"


def read_report(name: str, report: Path) -> TestRun:
    """What pytest's JUnit report says of a file of tests; without one, pytest itself has failed."""
    if not report.exists():
        return TestRun(file=name, passed=0, failed=1, skipped=0, failures=("pytest did not run it",))
    suite = next(ElementTree.parse(report).iter("testsuite"))
    failures = [
        f"{case.get('name')}: {' '.join(trouble.get('message', '').split())[:200]}"
        for case in suite.iter("testcase")
        for trouble in (*case.iter("failure"), *case.iter("error"))
    ]
    total, failed = int(suite.get("tests", 0)), int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    skipped = int(suite.get("skipped", 0))
    return TestRun(
        file=name, passed=total - failed - skipped, failed=failed, skipped=skipped, failures=tuple(failures[:20])
    )
