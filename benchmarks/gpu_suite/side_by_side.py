"""Several trainings on one GPU at once, with and without NVIDIA's Multi-Process Service: all steps of a second."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.gpu_suite.conditions import ROOT, Conditions
from benchmarks.gpu_suite.findings import Finding, Note, Throughput
from benchmarks.gpu_suite.neighbour import Task
from benchmarks.gpu_suite.steps import first_line
from benchmarks.gpu_suite.ways import way
from east.errors import EastError

CONTROL = "nvidia-cuda-mps-control"
MOST, DRY_MOST = 4, 2
SECONDS, DRY_SECONDS = 2.0, 0.05
WAYS = (
    way("dense", "captured", "bf16"),
    way("sparse", "captured", "bf16"),
    way("dense", "captured", "tf32"),
    way("sparse", "captured", "tf32"),
)


def measure(conditions: Conditions) -> Iterator[Finding]:
    """For each way, one to four processes, without the service and with it."""
    label, model = next(iter(conditions.networks.items()))
    spec = conditions.plain(model)
    for name in WAYS[:1] if conditions.dry else WAYS:
        for mps in (False, True):
            if conditions.left() <= 0:
                yield Note(about=f"several processes, {name}", text="not timed: time was up")
                continue
            task = Task(spec=spec, way=name, device=conditions.device, dry=conditions.dry)
            try:
                with environment(conditions, mps=mps) as variables:
                    yield from _together(label, task, variables, conditions, mps=mps)
            except (EastError, OSError, subprocess.SubprocessError) as error:
                about = f"several processes {'with' if mps else 'without'} MPS, {name}"
                yield Note(about=about, text=first_line(error))


@contextmanager
def environment(conditions: Conditions, *, mps: bool) -> Iterator[dict[str, str]]:
    """Variables of processes that share the GPU, and the service itself as long as they last.

    The service gets folders of its own, so that it serves nobody else, and ends with the block. Without it the folder
    is one where no service is, whatever the machine runs.

    Raises:
        EastError: the service is not there or does not start.
    """
    folder = conditions.scratch / ("mps" if mps else "no-mps")
    folder.mkdir(exist_ok=True)
    variables = {
        **os.environ,
        "CUDA_MPS_PIPE_DIRECTORY": str(folder),
        "CUDA_MPS_LOG_DIRECTORY": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    if not mps:
        yield variables
        return
    if shutil.which(CONTROL) is None or conditions.device != "cuda":
        raise EastError(f"{CONTROL} is not here, so several processes cannot be timed with it.")
    started = subprocess.run([CONTROL, "-d"], env=variables, capture_output=True, text=True, timeout=20, check=False)
    if started.returncode != 0:
        raise EastError(f"`{CONTROL} -d` ended with {started.returncode}: {(started.stderr or started.stdout).strip()}")
    try:
        yield variables
    finally:
        stop_service(folder)


def stop_service(folder: Path) -> None:
    """End the service whose sockets are in this folder, if there is one."""
    if not (folder / f"{CONTROL}.pid").exists():
        return
    variables = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    subprocess.run([CONTROL], input="quit\n", env=variables, capture_output=True, text=True, timeout=20, check=False)


def _together(
    label: str, task: Task, variables: dict[str, str], conditions: Conditions, *, mps: bool
) -> Iterator[Throughput]:
    """Start all processes, then let one of them work, then two at once, and so on."""
    most = DRY_MOST if conditions.dry else MOST
    with ExitStack() as stack:
        processes = [stack.enter_context(_neighbour(task, variables, conditions, i)) for i in range(most)]
        for process in processes:
            _expect(process, "ready")
        for count in range(1, most + 1):
            if conditions.left() <= 0:
                return
            yield Throughput(
                network=label,
                way=task.way,
                mps=mps,
                processes=count,
                steps_per_second=tuple(_rates(processes[:count], DRY_SECONDS if conditions.dry else SECONDS)),
            )


def _rates(processes: Sequence["subprocess.Popen[str]"], seconds: float) -> list[float]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    rates = []
    for process in processes:
        taken, elapsed = _line(process).split()
        rates.append(int(taken) / float(elapsed))
    return rates


@contextmanager
def _neighbour(
    task: Task, variables: dict[str, str], conditions: Conditions, number: int
) -> Iterator["subprocess.Popen[str]"]:
    log = conditions.scratch / f"neighbour-{number}.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_suite.neighbour"],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdin is not None
            process.stdin.write(task.model_dump_json() + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()
            process.communicate()


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    line = _line(process)
    if line.strip() != word:
        raise EastError(f"a process beside others said '{line.strip()}' and not '{word}'.")


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise EastError(f"a process beside others ended with {process.wait()}; out of memory, or no second context?")
    return line
