"""What a separate process finds out: `python -m east.operations.doctor.probe NAME ...` prints it as JSON.

A package that does not fit may end the process that imports it, so none of this happens in the one that reports.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any


def probe_torch() -> dict[str, Any]:
    """PyTorch's build, and the GPUs that it can compute on."""
    import torch

    facts: dict[str, Any] = {"version": torch.__version__, "cuda": torch.version.cuda or torch.version.hip, "gpus": []}
    try:
        if not torch.cuda.is_available():
            # Says why, where the build could use a GPU.
            torch.zeros(0, device="cuda")
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            facts["gpus"].append({"name": device.name, "memory_mb": device.total_memory >> 20})
            # A GPU that is too old or too new for the build is seen, and fails only here.
            torch.ones(8, device=f"cuda:{index}").sum().item()
    except (RuntimeError, AssertionError) as error:
        facts["gpu_problem"] = (str(error).strip() or repr(error)).splitlines()[0]
    return facts


def probe_torchvision() -> dict[str, Any]:
    """The builds of PyTorch and torchvision, whether the second works beside the first, and where it finds CIFAR."""
    facts: dict[str, Any] = {name: installed_build(name) for name in ("torch", "torchvision")}
    try:
        from torchvision.datasets import CIFAR10, CIFAR100
    except Exception as error:
        facts["problem"] = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        from east.data.checksums import published_files

        facts["archives"] = {
            name: {
                "file": archive.filename,
                "md5": archive.tgz_md5,
                "url": archive.url,
                "folder": archive.base_folder,
                "members": published_files(archive),
            }
            for name, archive in (("cifar10", CIFAR10), ("cifar100", CIFAR100))
        }
    return facts


def probe_triton() -> dict[str, Any]:
    """Triton's version, if it can be imported, and whether its kernels run on the GPU, if there is one."""
    import torch

    facts: dict[str, Any] = {"version": importlib.import_module("triton").__version__}
    if torch.cuda.is_available():
        from east.engine.cuda.available import triton_status

        found = triton_status(torch.device("cuda"))
        facts |= {"available": found.available, "reason": found.reason}
    return facts


def probe_step(name: str) -> dict[str, Any]:
    """How steps are executed on the GPU, and what keeps PyTorch from compiling, found out by compiling a little."""
    import torch

    from east.training.captured import choose_step

    device = torch.device("cuda")
    facts: dict[str, Any] = {"kind": choose_step(name, device)}
    if facts["kind"] == "compiled":
        try:
            found = torch.compile(lambda x: (2 * x + 1).relu())(torch.ones(8, device=device))
            if not bool((found == 3).all()):
                facts["compile_problem"] = "it computes something else than it should"
        except Exception as error:
            facts["compile_problem"] = f"{type(error).__name__}: {error}".splitlines()[0]
    return facts


def probe_kernels() -> dict[str, Any]:
    """Whether the kernels of the sparse engine compile and load, and where they are kept."""
    from east.engine.base import KernelsUnavailable
    from east.engine.cpu.library import availability, find_toolchain
    from east.engine.machine import cache_folder
    from east.errors import EastError

    cache = cache_folder()
    facts: dict[str, Any] = {"cache": None if cache is None else str(cache)}
    try:
        find_toolchain()
    except KernelsUnavailable:
        pass  # reported below, with the rest
    except EastError as error:
        return facts | {"refused": str(error)}
    return facts | asdict(availability())


def probe_glyphs(characters: str) -> dict[str, Any]:
    """Which of some characters the font of figures lacks."""
    from matplotlib import font_manager, rc_params_from_file

    from east.render.templating import REPORT_FOLDER

    style = rc_params_from_file(str(REPORT_FOLDER / "figures.mplstyle"))
    file = font_manager.findfont(font_manager.FontProperties(family=style["font.family"]))
    known = font_manager.get_font(file).get_charmap()
    return {"absent": " ".join(f"U+{ord(one):04X}" for one in characters if ord(one) not in known)}


def installed_build(package: str) -> str | None:
    """The version of a package with its build, such as 2.13.0+cpu, read without importing it; None if it is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("version.py")
    found = re.search(
        r"""__version__[^=\n]*=\s*["']([^"']+)""",
        file.read_text(encoding="utf-8", errors="replace") if file.is_file() else "",
    )
    return found[1] if found else "of unknown version"


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    "torch": probe_torch,
    "torchvision": probe_torchvision,
    "triton": probe_triton,
    "step": probe_step,
    "kernels": probe_kernels,
    "glyphs": probe_glyphs,
}

if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](*sys.argv[2:])))
