"""Checks of Python, of the commands beside it, and of the packages that are installed."""

import os
import shlex
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from east.config.choices import named
from east.config.run import ImagesSpec
from east.data.catalog import is_streamed
from east.data.kind import dataset
from east.data.manifest import MANIFEST_FILE
from east.operations.doctor.surroundings import Finding, Level, Surroundings

OPTIONAL = {"snakemake-executor-plugin-slurm": "Only `snakemake --profile profiles/slurm` needs it."}
"""Packages that a plan runs without, and who needs them."""

REFUSING = {"snakemake"}
"""Packages of which the workflow itself refuses another version."""

SHOWN = 3


def python(here: Surroundings) -> list[Finding]:
    """The interpreter's version."""
    wanted = _requirements(here.project)[0]
    if wanted.contains(here.python_version, prereleases=True):
        return [Finding("ok", f"Python {here.python_version}")]
    found = f"Python {here.python_version}, but this project needs {wanted}"
    why = "The packages are locked and tested for those versions."
    return [Finding("error", found, why, "rm -rf .venv && make setup PYTHON=python3.12")]


def commands(here: Surroundings) -> Iterator[Finding]:
    """The commands that the jobs of the workflow call."""
    folder = here.python.parent
    missing = [name for name in ("east", "snakemake") if not os.access(folder / name, os.X_OK)]
    if missing:
        why = "The workflow calls the commands that lie beside its Python."
        found = f"no command {' and '.join(missing)} in {folder}"
        yield Finding("error", found, why, here.reinstall(everything=False))


def requirements(here: Surroundings) -> Iterator[Finding]:
    """The packages that the project names, and their ranges."""
    wanted = _requirements(here.project)[1]
    if here.plan.config.execution.tracking == "tensorboard":
        wanted = [*wanted, Requirement("tensorboard")]
    misfits = [requirement for requirement in wanted if not _fits(here, requirement)]
    for requirement in misfits:
        name, found = requirement.name, here.installed(requirement.name)
        if found is None:
            stops = name not in OPTIONAL
            what = f"{name} is not installed"
        else:
            stops = name in REFUSING
            what = f"{name} {found} is installed, but this project needs {requirement.specifier}"
        why = OPTIONAL.get(name, "The plan needs it." if stops else "Nothing is tested with that version.")
        fix = here.reinstall(everything=False)
        if name == "tensorboard":
            fix = f"{shlex.quote(str(here.python))} -m pip install tensorboard"
        yield Finding("error" if stops else "warning", what, why, fix)
    shown = [f"{name} {here.installed(name)}" for name in ("snakemake", *OPTIONAL) if here.installed(name)]
    fitting = len(wanted) - len(misfits)
    yield Finding("ok", ", ".join([f"{fitting} of {len(wanted)} packages in their range", *shown]))


def lock(here: Surroundings) -> list[Finding]:
    """The versions that are locked."""
    file = here.project / "requirements" / "lock.txt" if here.project else None
    if file is None or not file.is_file():
        return []
    locked = [
        Requirement(line.rstrip(" \\"))
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if line[:1].isalnum()
    ]
    wanted = [requirement for requirement in locked if requirement.marker is None or requirement.marker.evaluate()]
    other = [
        f"{requirement.name} {here.installed(requirement.name) or 'missing'} ({str(requirement.specifier).lstrip('=')})"
        for requirement in wanted
        if not _fits(here, requirement)
    ]
    if not other:
        return [Finding("ok", f"{len(wanted)} packages are as locked in requirements/lock.txt")]
    more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    what = f"{len(other)} of {len(wanted)} packages are not as locked: {', '.join(other[:SHOWN])}{more}"
    why = "Numbers are the same only with the same versions."
    return [Finding("note", what, why, here.reinstall(everything=False))]


def torch(here: Surroundings) -> list[Finding]:
    """PyTorch can be imported."""
    facts = here.ask.probe("torch")
    if here.has_torch:
        return [Finding("ok", f"PyTorch {facts['version']}")]
    found = f"PyTorch cannot be imported: {facts['problem']}"
    return [Finding("error", found, "Every training needs it.", here.reinstall(everything=True))]


def torchvision(here: Surroundings) -> list[Finding]:
    """The builds of torchvision and PyTorch fit each other."""
    facts = here.ask.probe("torchvision")
    build = facts.get("torchvision")
    if "problem" not in facts:
        return [Finding("ok", f"torchvision {build}")]
    if not here.has_torch:
        return [Finding("note", "torchvision cannot be looked at until PyTorch can be imported")]
    # Of prepared CIFAR, PyTorch alone reads the tensors.
    needing = [
        images.name
        for images in here.plan.images().values()
        if is_streamed(images) or (_reads_files(images) and not (here.data / images.store / MANIFEST_FILE).is_file())
    ]
    use = f"{', '.join(needing)} cannot be read without it" if needing else "CIFAR and ImageNet are read through it"
    level: Level = "error" if needing else "warning"
    what = f"torchvision {build or '(missing)'} does not work beside PyTorch {facts.get('torch')}: {facts['problem']}"
    why = f"The two must come from the same build (+cpu, +cu...); {use}."
    return [Finding(level, what, why, here.reinstall(everything=True))]


def _reads_files(images: ImagesSpec) -> bool:
    """Whether what is not prepared yet is read by the project from files, which torchvision decodes or downloads."""
    reader, _, plugin = named(images.reader)
    return plugin is None and dataset[reader].facts.reads != "nothing"


def _fits(here: Surroundings, requirement: Requirement) -> bool:
    found = here.installed(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _requirements(project: Path | None) -> tuple[SpecifierSet, list[Requirement]]:
    """The versions of Python, and the packages, that the project needs."""
    if project is None:
        about = metadata.metadata("east")
        lines = about.get_all("Requires-Dist") or []
        return SpecifierSet(about["Requires-Python"]), [Requirement(line) for line in lines if "extra ==" not in line]
    described = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return SpecifierSet(described["requires-python"]), [Requirement(line) for line in described["dependencies"]]
