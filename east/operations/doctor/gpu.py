"""Checks of GPUs: whether PyTorch can compute on them, and why not."""

from collections.abc import Iterator

from east.config.effects import impossible_on_a_cpu
from east.launch.lease import START_MPS, mps_runs
from east.operations.doctor.surroundings import Finding, Surroundings

_ENGINES = {
    "auto": "sparse or dense, for each layer whichever costs less by a model that the first training measures here",
    "sparse": "sparse wherever it can be",
    "dense": "dense",
    "no Triton": "dense, as Triton runs no kernels",
}
_STEPS = {
    "eager": "each operation is issued by itself",
    "captured": "captured in CUDA graphs",
    "compiled": "captured in CUDA graphs, and what the dense engine executes is compiled by PyTorch",
}


def gpus(here: Surroundings) -> list[Finding]:
    """PyTorch sees the GPUs of this machine and computes on them."""
    wanted = here.plan.config.execution.device
    facts = here.ask.probe("torch")
    if wanted == "cpu":
        return [Finding("ok", "trainings run on the CPU, as execution.device says")]
    if not here.has_torch:
        return [Finding("note", "GPUs cannot be looked at until PyTorch can be imported")]
    if facts["gpus"] and "gpu_problem" in facts:
        found = f"PyTorch {facts['version']} sees {_names(facts)}, but cannot compute there: {facts['gpu_problem']}"
        fix = f"nvidia-smi && {here.reinstall(everything=True)}   # if the GPU works but this build does not support it"
        return [Finding("error", found, "Every training would fail.", fix)]
    if facts["gpus"]:
        return [Finding("ok", _names(facts))]
    if wanted == "cuda" or _driver(here):
        return [_unseen(here, facts["cuda"], facts["version"], facts.get("gpu_problem", ""))]
    return [Finding("note", "no GPU: trainings run on the CPU", "`east estimate` says how long that takes.")]


def triton(here: Surroundings) -> list[Finding]:
    """Triton compiles and runs kernels, where there is a GPU and an engine that needs them."""
    if not here.has_gpu:
        return [Finding("ok", "Triton is not needed without a GPU")]
    facts = here.ask.probe("triton")
    why = "Without it a GPU executes every weight, active or not, and PyTorch compiles nothing."
    if "problem" in facts:
        found = f"Triton cannot be imported: {facts['problem']}"
        return [Finding("warning", found, why, here.reinstall(everything=False))]
    if not facts.get("available"):
        fix = "apt install gcc python3-dev" if "compiler" in facts["reason"] else here.reinstall(everything=True)
        return [Finding("warning", str(facts["reason"]), why, fix)]
    return [Finding("ok", f"Triton {facts['version']} compiles and runs kernels")]


def numerics(here: Surroundings) -> Iterator[Finding]:
    """Trainings compute in numerics that the device has."""
    problem = "" if here.has_gpu else impossible_on_a_cpu(here.plan.config, [run.spec for run in here.plan.runs])
    if problem:
        found, _, fix = problem.partition(". ")
        yield _refused(here, f"readings.numerics: {found}", fix)


def steps(here: Surroundings) -> Iterator[Finding]:
    """Which engine executes steps on the GPU, and how it is given their operations."""
    if not here.has_gpu:
        return
    execution = here.plan.config.execution
    sparse = bool(here.ask.probe("triton").get("available"))
    facts = here.ask.probe("step", execution.step)
    problem = facts.get("problem") or facts.get("compile_problem")
    if problem:
        why = "Steps of the dense engine are captured in CUDA graphs as they are, which makes them slower."
        fix = here.reinstall(everything=True) if sparse else "Repair what keeps Triton from running kernels."
        yield Finding("warning", f"PyTorch cannot compile networks for this GPU: {problem}", why, fix)
    engine = _ENGINES[execution.engine] if sparse or execution.engine == "dense" else _ENGINES["no Triton"]
    way = _STEPS["captured" if problem else facts["kind"]]
    yield Finding("ok", f"engine {execution.engine}: {engine}; step {execution.step}: {way}")


def sharing(here: Surroundings) -> list[Finding]:
    """Trainings that share a GPU do so by NVIDIA's MPS."""
    runs = here.plan.config.execution.runs_per_gpu
    if runs == 1 or not here.has_gpu:
        return []
    if mps_runs(here.ask.environment, here.root):
        return [Finding("ok", f"{runs} trainings share a GPU by MPS, which works for them at once")]
    found = f"{runs} trainings share a GPU without MPS, which would let it work for them at once"
    why = "The GPU turns from one to the other, and none of them fills the gaps of another."
    has_mps = here.ask.which("nvidia-cuda-mps-control")
    return [Finding("note", found, why, START_MPS if has_mps else "docs/workstation.md says how to set MPS up.")]


def _unseen(here: Surroundings, build: str | None, version: str, problem: str) -> Finding:
    """Why PyTorch sees no GPU although there is one, or ought to be."""
    on_cpu = here.snakemake("--cores all --config execution='{device: cpu}'")
    if not _driver(here):
        found = "execution.device is cuda, but this machine has no NVIDIA driver"
        fix = f"srun --gpus=1 {here.east('doctor')}" if here.has_slurm else on_cpu
    elif build is None:
        found = f"there is a GPU driver, but PyTorch {version} is a build for the CPU alone"
        fix = here.reinstall(everything=True)
    elif here.ask.environment.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1"):
        found = "CUDA_VISIBLE_DEVICES is set and names no GPU, which hides all of them"
        fix = "unset CUDA_VISIBLE_DEVICES"
    else:
        found = f"there is a GPU driver, but PyTorch {version} sees no GPU{problem and ': '}{problem}"
        fix = "nvidia-smi"
    if here.plan.config.execution.device != "cuda":
        return Finding("warning", found, "Trainings would run on the CPU.", fix)
    return _refused(here, found, fix)


def _refused(here: Surroundings, found: str, fix: str) -> Finding:
    """What trainings would refuse on this machine, which may be a login node."""
    if here.has_slurm:
        return Finding("warning", found, "That is fine on a login node, if the jobs get a GPU.", fix)
    return Finding("error", found, "Every training would refuse to start.", fix)


def _driver(here: Surroundings) -> bool:
    return (here.root / "proc/driver/nvidia/version").exists() or any((here.root / "dev").glob("nvidia[0-9]*"))


def _names(facts: dict[str, list[dict[str, object]]]) -> str:
    """The GPUs with their memory, equal ones counted."""
    shown = [f"{gpu['name']} ({int(str(gpu['memory_mb'])) / 1024:.0f} GiB)" for gpu in facts["gpus"]]
    return ", ".join(f"{shown.count(name)} x {name}" for name in dict.fromkeys(shown))
