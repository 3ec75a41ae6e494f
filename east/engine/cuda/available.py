"""Whether this machine can compile and run Triton kernels. Importing this module imports no Triton."""

import importlib
import subprocess
from dataclasses import dataclass
from functools import cache

import torch

INSTALL_COMPILER = (
    "Triton compiles its launcher with the C compiler of the machine, which needs Python's headers: install gcc and "
    "python3-dev (apt), or name a compiler in the environment variable CC."
)


@dataclass(frozen=True)
class TritonStatus:
    """Whether the sparse engine runs on a GPU.

    Attributes:
        available: whether kernels compile, run and compute.
        reason: why not, in a sentence; empty if they do.
        version: of Triton; None if it cannot be imported.
    """

    available: bool
    reason: str
    version: str | None


@cache
def triton_status(device: torch.device) -> TritonStatus:
    """Whether Triton kernels run on a device, found out by running one. Remembered in this process.

    Args:
        device: of the type `cuda`; the CPU where Triton's interpreter is on.
    """
    try:
        version: str = importlib.import_module("triton").__version__
    except Exception as error:
        return TritonStatus(False, f"Triton cannot be imported: {_one_line(error)}.", None)
    try:
        if _computes(device):
            return TritonStatus(True, "", version)
        reason = "a kernel that Triton compiled computes something else than it should."
    except Exception as error:
        # A compiler, driver or assembler that lacks something may raise any kind of error.
        reason = f"Triton {version} cannot run a kernel: {_one_line(error)}."
        if isinstance(error, subprocess.CalledProcessError) or "C compiler" in str(error):
            reason += f" {INSTALL_COMPILER}"
    return TritonStatus(False, reason, version)


def _computes(device: torch.device) -> bool:
    """Whether a kernel that adds one to some numbers does so."""
    from east.engine.cuda.kernels.common import add_one

    numbers = torch.arange(16, device=device, dtype=torch.float32)
    sums = torch.empty_like(numbers)
    add_one[(1,)](numbers, sums, COUNT=len(numbers))
    return torch.equal(sums, numbers + 1)


def _one_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]} failed with status {error.returncode}"
    words = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {words}".rstrip(".")
