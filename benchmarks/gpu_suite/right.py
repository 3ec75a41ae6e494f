"""Parts that decide what may be used at all: the project's tests on this GPU, and steps of real networks in float64."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from torch import Tensor

from benchmarks.gpu_suite.suite import Row, Setting, each
from benchmarks.gpu_suite.ways import EVERYTHING, MODELS, PLAIN, OurTraining, Way, spec_of
from benchmarks.machine import cores
from benchmarks.results import ROOT
from benchmarks.variants import random_batch
from east.config.run import RunSpec

CORES_OF_A_FILE = 2
REHEARSED = "tests/unit/test_seeding.py"

REFERENCE = Way("dense", "eager", "fp32")
"""Computed in float64: PyTorch's own layers, operation by operation."""

STEPS_BEFORE = 2
"""Steps at learning rate zero before the one that is compared: the second is recorded, the one after it repeated."""

CHECKED_DENSITY = 0.005
"""Ten times the paper's, so that gradients arrive everywhere."""

BOUNDS = {"fp32": 0.05, "tf32": 1.0, "bf16": 3.0}
"""Relative error of a gradient in PyTorch's own layers, step by step. Rounding grows through some forty batch norms: on
a CPU, a ResNet-50 at its first step had 0.01 in float32 and 1.2 with bf16 products."""

YARDSTICK_FACTOR = 2.0
LEAST_BOUNDS = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 0.15}
"""Other ways may have so many times the error of PyTorch's own layers in the same numerics, and at least so much."""

LOSS_BOUNDS = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}


@dataclass(frozen=True)
class Tests:
    """Decides a question by the project's own tests: all must pass on this GPU, and at least one must run."""

    seconds: float
    question: str
    files: Sequence[str]

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Each file of tests in a process of its own, some at once: compiling kernels takes the CPU."""
        # A rehearsal shows that tests are run, by some that take no time.
        patterns = [REHEARSED] if setting.small else self.files
        files = [file for pattern in patterns for file in sorted(ROOT.glob(pattern))]
        with ThreadPoolExecutor(max(1, cores() // CORES_OF_A_FILE)) as pool:
            for future in as_completed(pool.submit(_run_tests, file) for file in files):
                yield future.result()

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """By the numbers of tests."""
        passed, failed = int(rows["passed"].sum()), int(rows["failed"].sum())
        yes = passed > 0 and failed == 0 and bool(rows["status"].eq(0).all())
        return f"{self.question}: {'yes' if yes else 'no'}, {passed} tests passed, {failed} failed"


@dataclass(frozen=True)
class Steps:
    """Decides which engines, numerics and ways of stepping are right: loss and gradients of a step against float64.

    PyTorch's own layers in the same numerics are the yardstick: twice their error passes.
    """

    seconds: float
    ways: Sequence[Way]

    def measure(self, setting: Setting) -> Iterator[Row]:
        """All ways start from the same weights and masks; the reference takes only the step that is compared."""
        networks = list(MODELS.items())[: 1 if setting.small else None]
        for (label, model), method in itertools.product(networks, (PLAIN, EVERYTHING)):
            spec = spec_of(setting, model, method, CHECKED_DENSITY)
            reference = _step(REFERENCE, spec, setting, steps_before=0, double=True)
            own: dict[tuple[str, str], float] = {}
            jobs = [(way, partial(_errors, way, spec, setting, reference, own)) for way in self.ways]
            about = {"network": label, "method": method}
            yield from each(setting, [(about | {"way": str(way)}, job) for way, job in jobs])

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """A way is right if no error of it is above its bound, and every network was compared."""
        right = rows.assign(right=rows["error"] <= rows["bound"]).groupby("way", sort=False)["right"].all()
        others = "; not shown to be right: " + "; ".join(right.index[~right]) if not right.all() else ""
        return f"right: {'; '.join(right.index[right]) or 'none'}{others}"


def _run_tests(file: Path) -> Row:
    """What pytest says of a file of tests."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", str(file)]
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    counts = {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    return {
        "file": file.name,
        "status": done.returncode,
        "passed": counts.get("passed", 0),
        "failed": counts.get("failed", 0) + counts.get("error", 0),
        "skipped": counts.get("skipped", 0),
        "first": next(iter(re.findall(r"^(?:FAILED|ERROR) .*?::(.{,200})", done.stdout, re.MULTILINE)), "none"),
    }


def _errors(
    way: Way, spec: RunSpec, setting: Setting, reference: Mapping[str, Tensor], own: dict[tuple[str, str], float]
) -> Iterator[Row]:
    """`own` holds the errors of PyTorch's own layers, the first ways, for those that come later."""
    is_yardstick = (way.engine, way.stepping) == (REFERENCE.engine, REFERENCE.stepping)
    for what, value in _step(way, spec, setting, steps_before=STEPS_BEFORE).items():
        error = relative(value, reference[what])
        if is_yardstick:
            own[way.numerics, what] = error
        bound = LOSS_BOUNDS[way.numerics] if what == "loss" else BOUNDS[way.numerics]
        if what != "loss" and not is_yardstick and (way.numerics, what) in own:
            bound = max(LEAST_BOUNDS[way.numerics], YARDSTICK_FACTOR * own[way.numerics, what])
        yield {"what": what, "error": error, "bound": bound}


def _step(way: Way, spec: RunSpec, setting: Setting, *, steps_before: int, double: bool = False) -> dict[str, Tensor]:
    """Loss and gradients of step number `STEPS_BEFORE + 1`, after some at learning rate zero.

    In float64 that step alone is taken, with the same number, so that its random signs are the same.
    """
    training = OurTraining(way, spec, setting, double=double)
    training.resume()
    size = setting.batches[0]
    for number in range(1, steps_before + 1):
        training.train(*random_batch(spec, size, setting.where, [1]), number, 0.0)
    images, labels = random_batch(spec, size, setting.where, [2])
    loss = training.train(images.double() if double else images, labels, STEPS_BEFORE + 1, spec.training.lr)
    if steps_before:
        training.executed_by()
    gradients = {f"gradient of {kind}": vector for kind, vector in training.gradients().items()}
    return {"loss": loss.detach().double().view(1), **gradients}


def relative(found: Tensor, reference: Tensor) -> float:
    """||found - reference|| / ||reference||; infinite where that is not a number, as for vectors of unequal length."""
    if found.shape != reference.shape:
        return float("inf")
    error = (found.double() - reference.double()).norm() / reference.double().norm()
    return float(error.nan_to_num(float("inf")))
