"""Checks of Slurm, for those who hand the plan to it."""

import re

import yaml

from east.operations.doctor.surroundings import Finding, Surroundings

COMMANDS = ("sbatch", "squeue", "sinfo")
SECONDS = 20.0
"""How long a command of Slurm may take."""

PROFILE = "profiles/slurm/profile.yaml"
REMEMBERED = 120
"""Seconds for which Slurm must remember ended jobs (MinJobAge), so that `squeue` still shows them when it is asked."""


def controller(here: Surroundings) -> list[Finding]:
    """Slurm's commands are there, and its controller answers."""
    missing = [command for command in COMMANDS if not here.ask.which(command)]
    if len(missing) == len(COMMANDS):
        return [Finding("ok", "no Slurm here; trainings run on this machine")]
    if missing:
        found = f"Slurm's {' and '.join(missing)} cannot be found, though other commands of it can"
        return [Finding("warning", found, "The Slurm profile calls all of them.", "module load slurm")]
    answer = here.ask.run(["sinfo", "--noheader", "--format=%P|%a|%G"], SECONDS)
    if answer.problem:
        found = f"Slurm's controller does not answer: {answer.problem}"
        return [Finding("warning", found, "No job can be handed to it.", "scontrol ping")]
    partitions = [line.strip().split("|") for line in answer.output.splitlines() if line.count("|") == 2]
    up = {name: resources for name, state, resources in partitions if state == "up"}
    if not up:
        return [Finding("warning", "no partition of Slurm is up", "No job would start.", "sinfo")]
    if here.plan.config.execution.gpus and not any("gpu" in resources for resources in up.values()):
        found = f"no partition of Slurm that is up offers GPUs ({', '.join(up)})"
        fix = "sinfo --format='%P %a %G'   # or set execution.device: cpu"
        return [Finding("warning", found, "Each training asks for one, and would wait for ever.", fix)]
    return [Finding("ok", f"Slurm answers; partitions that are up: {', '.join(up)}")]


def accounting(here: Surroundings) -> list[Finding]:
    """Snakemake can ask Slurm what has become of a job."""
    if not all(map(here.ask.which, COMMANDS)):
        return []
    answer = here.ask.run(["sacct", "--noheader", "--allocations", "--format=JobIDRaw"], SECONDS)
    if not answer.problem:
        return [Finding("ok", "Slurm's accounting (sacct) answers")]
    file = (here.project or here.ask.folder) / PROFILE
    profile = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    if not isinstance(profile, dict) or profile.get("slurm-status-command") != "squeue":
        found = f"Slurm's accounting does not answer: {answer.problem}"
        why = "Snakemake asks it what has become of a job, and would wait for ever."
        fix = f"Set in {PROFILE}: `slurm-status-command: squeue` and `slurm-no-account: true`."
        return [Finding("warning", found, why, fix)]
    config = here.ask.run(["scontrol", "show", "config"], SECONDS).output
    age = re.search(r"^MinJobAge\s*=\s*(\d+)", config, re.MULTILINE)
    if age and int(age[1]) < REMEMBERED:
        found = f"Slurm forgets ended jobs after {age[1]} s (MinJobAge), and has no accounting"
        fix = "Ask the administrators for accounting or a longer MinJobAge, or run within one long job."
        return [Finding("warning", found, f"Snakemake would miss the end of jobs; it needs {REMEMBERED} s.", fix)]
    return [Finding("ok", f"Slurm has no accounting; {PROFILE} asks squeue instead")]
