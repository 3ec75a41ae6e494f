"""Whether NVIDIA's Multi-Process Service (MPS) lets programs of this user compute on a GPU at the same time.

Without it a GPU turns from one program to the next, however small what each has to do. Programs find the service by
themselves: nothing is set here, and no daemon is started.
"""

from collections.abc import Mapping
from pathlib import Path

DEFAULT_FOLDER = "tmp/nvidia-mps"
"""Where the daemon's sockets are if CUDA_MPS_PIPE_DIRECTORY names no other folder, under the root."""

START = (
    "mkdir -p -m 700 /tmp/mps-$USER && export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps-$USER "
    "CUDA_MPS_LOG_DIRECTORY=/tmp/mps-$USER && nvidia-cuda-mps-control -d"
)
"""The commands that start a daemon of one's own; trainings find it by the variables that they set."""


def mps_runs(environment: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Whether the daemon that programs with this environment would find is alive.

    Args:
        environment: variables of the programs.
        root: where /proc and /tmp are.
    """
    chosen = environment.get("CUDA_MPS_PIPE_DIRECTORY")
    folder = Path(chosen) if chosen else root / DEFAULT_FOLDER
    try:
        # It removes this file when it ends, but not its sockets.
        number = int((folder / "nvidia-cuda-mps-control.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return (root / "proc" / str(number)).exists()
