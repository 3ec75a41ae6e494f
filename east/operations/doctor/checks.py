"""All checks, each on its own: one that fails says so and stops no other."""

from collections.abc import Iterator

from east.operations.doctor import data, gpu, machine, packages, plan, results, slurm
from east.operations.doctor.surroundings import Check, Finding, Surroundings
from east.operations.log_tail import printable

CHECKS: dict[str, tuple[Check, ...]] = {
    "Python and packages": (
        packages.python,
        packages.commands,
        packages.requirements,
        packages.lock,
        packages.torch,
        packages.torchvision,
    ),
    "GPU": (gpu.gpus, gpu.triton, gpu.numerics, gpu.steps, gpu.sharing),
    "Kernels": (machine.kernels,),
    "Machine": (machine.cores, machine.memory),
    "Disk": (machine.space, machine.inodes),
    "Data": (data.datasets,),
    "Plan": (plan.runs, plan.report_files, plan.folders, plan.fonts),
    "Results": (results.writing, results.stale, results.commit),
    "Slurm": (slurm.controller, slurm.accounting),
}
"""Subject -> its checks, in the order of the report."""


def examine(here: Surroundings) -> dict[str, list[Finding]]:
    """What every check finds, by subject."""
    # What takes seconds to find out is begun before the first check.
    for probe in ("torch", "torchvision", "kernels"):
        here.ask.start(probe)
    return {subject: [found for check in checks for found in run(check, here)] for subject, checks in CHECKS.items()}


def run(check: Check, here: Surroundings) -> Iterator[Finding]:
    """What a check finds; a warning with its name if it fails."""
    try:
        yield from check(here)
    except Exception as error:
        found = f"the check `{check.__name__}` failed: {type(error).__name__}: {printable(str(error))}"
        yield Finding("warning", found, "Nothing is known of what it looks at.", "Report it with this line.")


def can_run(findings: dict[str, list[Finding]]) -> bool:
    """Whether nothing was found that would stop the plan."""
    return not any(finding.level == "error" for found in findings.values() for finding in found)
