"""Checks of GPUs: whether PyTorch can compute on them, and why not."""

from collections.abc import Iterator

from east.operations.doctor.finding import Finding
from east.operations.doctor.surroundings import Surroundings

ON_CPU = "--config execution='{device: cpu}'"


def gpus(here: Surroundings) -> Iterator[Finding]:
    """PyTorch sees the GPUs of this machine and computes on them."""
    wanted = here.plan.config.execution.device
    facts = here.ask.probe("torch")
    if wanted == "cpu":
        yield Finding("ok", "trainings run on the CPU, as execution.device says")
    elif "problem" in facts:
        yield Finding("note", "GPUs cannot be looked at until PyTorch can be imported")
    elif facts["gpus"] and "gpu_problem" in facts:
        yield Finding(
            "error",
            f"PyTorch {facts['version']} sees {_names(facts)}, but cannot compute there: {facts['gpu_problem']}",
            why="Every training would fail.",
            mend=f"nvidia-smi; if the GPU is well but not made for this build, {here.reinstall(afresh=True)}",
        )
    elif facts["gpus"]:
        yield Finding("ok", f"{_names(facts)}")
    elif wanted == "cuda" or _driver(here):
        yield _unseen(here, facts["cuda"], facts["version"], facts.get("gpu_problem", ""))
    else:
        yield Finding(
            "note",
            "no GPU: trainings run on the CPU",
            why="`east estimate` says how long that takes.",
        )


def triton(here: Surroundings) -> Iterator[Finding]:
    """Triton can be imported, where there is a GPU to compile for."""
    if here.plan.config.execution.device == "cpu" or not here.ask.probe("torch").get("gpus"):
        yield Finding("ok", "Triton is not needed without a GPU")
        return
    facts = here.ask.probe("triton")
    if "problem" in facts:
        yield Finding(
            "warning",
            f"Triton cannot be imported: {facts['problem']}",
            why="Without it a GPU executes every weight, active or not.",
            mend=here.reinstall(afresh=False),
        )
        return
    yield Finding("ok", f"Triton {facts['version']}")


def _unseen(here: Surroundings, build: str | None, version: str, problem: str) -> Finding:
    """Why PyTorch sees no GPU although there is one, or ought to be."""
    on_cpu = here.snakemake(f"--cores all {ON_CPU}")
    if not _driver(here):
        found = "execution.device is cuda, but this machine has no NVIDIA driver"
        mend = f"srun --gpus=1 {here.east('doctor')}" if here.has_slurm else on_cpu
    elif build is None:
        found = f"there is a GPU driver, but PyTorch {version} is a build for the CPU alone"
        mend = here.reinstall(afresh=True)
    elif here.ask.environment.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1"):
        found = "CUDA_VISIBLE_DEVICES is set and names no GPU, which hides all of them"
        mend = "unset CUDA_VISIBLE_DEVICES"
    else:
        found = f"there is a GPU driver, but PyTorch {version} sees no GPU{problem and ': '}{problem}"
        mend = "nvidia-smi"
    if here.plan.config.execution.device != "cuda":
        return Finding("warning", found, "Trainings would run on the CPU.", mend)
    if here.has_slurm:
        return Finding("warning", found, "That is well on a login node, if the jobs get a GPU.", mend)
    return Finding("error", found, "Every training would refuse to start.", mend)


def _driver(here: Surroundings) -> bool:
    """Whether the driver of an NVIDIA GPU is loaded."""
    return (here.root / "proc/driver/nvidia/version").exists() or any((here.root / "dev").glob("nvidia[0-9]*"))


def _names(facts: dict[str, list[dict[str, object]]]) -> str:
    """The GPUs with their memory, equal ones counted."""
    shown = [f"{gpu['name']} ({int(str(gpu['memory_mb'])) / 1024:.0f} GiB)" for gpu in facts["gpus"]]
    return ", ".join(f"{shown.count(name)} x {name}" for name in dict.fromkeys(shown))
