"""A Slurm of one node with two pretend GPUs, and Snakemake on it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "local_slurm.sh"

# Read by every bash before its command: what the shell of a training finds, and hands over to it, is noted.
NOTE_GPU = """
if [[ ${BASH_EXECUTION_STRING-} == *"east train "* ]]; then
  echo "${SLURM_JOB_ID-none} ${CUDA_VISIBLE_DEVICES-}" >>"$SEEN_GPUS"
fi
"""


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """Slurm runs; one that ran before is left running."""
    if shutil.which("sbatch") is None:
        pytest.skip("Slurm is not installed: tests/slurm/local_slurm.sh install")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons need root")
    if subprocess.run([SCRIPT, "status"], capture_output=True).returncode == 0:
        yield
        return
    try:
        subprocess.run([SCRIPT, "start"], check=True)
        yield
    finally:
        subprocess.run([SCRIPT, "stop"], check=True)


@dataclass(frozen=True)
class Workflow:
    """Snakemake at work in a folder of its own."""

    folder: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, folder: Path, *arguments: str | Path) -> "Workflow":
        """Start Snakemake with these arguments, as a user does in the repository."""
        folder.mkdir(parents=True)
        hook = folder / "note_gpu.sh"
        hook.write_text(NOTE_GPU)
        command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
        with (folder / "snakemake.log").open("w") as log:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env=os.environ | {"BASH_ENV": str(hook), "SEEN_GPUS": str(folder / "seen_gpus")},
            )
        return cls(folder, process)

    @property
    def log(self) -> str:
        return (self.folder / "snakemake.log").read_text()

    @property
    def jobs(self) -> dict[str, list[str]]:
        """What every job that this workflow has submitted was named, commented and came to, by job number."""
        name = self.log.split("SLURM run ID: ")[1].split()[0]
        command = ["squeue", "--noheader", "--states=all", "--array", "--name", name, "--format=%i|%j|%k|%T"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return {job: rest for job, *rest in (line.split("|") for line in lines)}

    @property
    def seen_gpus(self) -> list[tuple[str, str]]:
        """Slurm's job number and CUDA_VISIBLE_DEVICES of every start of a training."""
        lines = (self.folder / "seen_gpus").read_text().splitlines()
        return [(job, devices) for job, _, devices in (line.partition(" ") for line in lines)]

    def run_folder(self, run: str) -> Path:
        return self.folder / "results" / "test" / "runs" / run

    def stop(self) -> None:
        """Ctrl-C, which cancels the jobs as well; nothing where Snakemake has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
