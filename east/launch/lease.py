"""Which GPU a process uses: a lease on one of them, by a file lock, taken before PyTorch is imported.

A workflow counts GPUs but does not say which one a job gets. So every training leases one for itself. The lock is the
kernel's: it ends with its holder, however that ends.
"""

import logging
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from east.errors import EastError
from east.locks import open_lock, take

LOG = logging.getLogger(__name__)

START_MPS = (
    "mkdir -p -m 700 /tmp/mps-$USER && export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps-$USER "
    "CUDA_MPS_LOG_DIRECTORY=/tmp/mps-$USER && nvidia-cuda-mps-control -d"
)
"""The commands that start NVIDIA's Multi-Process Service (MPS); trainings find it by the variables that they set."""


@dataclass(frozen=True)
class Lease:
    """What a process may use.

    Attributes:
        gpu: the GPU, as CUDA_VISIBLE_DEVICES names it; None where none was leased.
        runs: processes that may use it at the same time, this one included; where Slurm gives out parts of GPUs and
            does not say how many, 2.
    """

    gpu: str | None = None
    runs: int = 1

    @property
    def is_shared(self) -> bool:
        """Whether another process may use the GPU at the same time, so that times taken there are not those of one."""
        return self.runs > 1


@contextmanager
def leased_gpu(runs_per_gpu: int) -> Iterator[Lease]:
    """Wait for a place on a GPU, make this GPU the only visible one, and hold the place until the block ends.

    Where there is no GPU, or Slurm has given the job a single one for one process, the block begins at once and nothing
    is changed. GPUs are filled breadth first: none gets a second process while another has none.

    Args:
        runs_per_gpu: processes that may use a GPU at the same time, at least 1.

    Raises:
        EastError: the folder of the locks cannot be made or belongs to somebody else.
    """
    gpus = visible_gpus(os.environ)
    least = 2 if gpus and gives_parts_of_gpus(os.environ) else 1
    if not gpus or (len(gpus) == 1 and runs_per_gpu == 1 and "SLURM_JOB_ID" in os.environ):
        yield Lease(runs=least)
        return
    folder = _lock_folder()
    with ExitStack() as held:
        gpu, place = _wait_for_place(folder, gpus, runs_per_gpu)
        _hold([place], held)
        _choose(gpu, gpus)
        yield Lease(gpu, max(runs_per_gpu, least))


@contextmanager
def gpu_alone(runs_per_gpu: int, *, wait: bool) -> Iterator[Lease]:
    """Take all places on a GPU, so that no training uses it while something is timed there, until the block ends.

    The GPU that has the most free places is taken and becomes the only visible one. A lease that is shared all the same
    says so: where Slurm gives out parts of GPUs, or where trainings are not waited for.

    Args:
        runs_per_gpu: trainings that may use a GPU at the same time, at least 1.
        wait: for the trainings that use the GPU now to end; none begins there meanwhile.

    Raises:
        EastError: the folder of the locks cannot be made or belongs to somebody else.
    """
    gpus = visible_gpus(os.environ)
    if not gpus or gives_parts_of_gpus(os.environ):
        yield Lease(runs=2 if gpus else 1)
        return
    folder = _lock_folder()
    with ExitStack() as held:
        if wait:
            # One at a time, so that no two wait for places that the other one holds.
            timing = held.enter_context(_lock_file(folder, "timing"))
            take(timing, wait=True)
        # Also those that trainings with another number of runs a GPU may hold.
        names = [file.name for file in folder.iterdir()]
        known = {gpu: [name for name in names if name.removeprefix(_stem(gpu)).isdecimal()] for gpu in gpus}
        wanted = {gpu: {*_places(gpu, runs_per_gpu), *known[gpu]} for gpu in gpus}
        with _free_places(folder, wanted) as free:
            gpu = min(gpus, key=lambda gpu: len(wanted[gpu]) - len(free[gpu]))
            own = free.pop(gpu)
        _hold(own.values(), held)
        taken = sorted(wanted[gpu] - own.keys())
        if taken and wait:
            LOG.info("waiting for the trainings on GPU %s to end.", gpu)
            places = [_lock_file(folder, name) for name in taken]
            _hold(places, held)
            for place in places:
                take(place, wait=True)
            taken = []
        _choose(gpu, gpus)
        yield Lease(gpu, 1 + len(taken))


def gives_parts_of_gpus(environment: Mapping[str, str]) -> bool:
    """Whether Slurm has given this job a part of a GPU, whose other parts other jobs may have.

    A job with shards (`--gres=shard:1`) knows their number, one with a share of MPS (`--gres=mps:50`) its percentage.
    """
    percentage = environment.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "").strip()
    has_part = bool(environment.get("SLURM_SHARDS_ON_NODE")) or percentage not in ("", "100", "100.0")
    return "SLURM_JOB_ID" in environment and has_part


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, UUIDs, MIG devices.

    In a Slurm job they are what Slurm has set. Elsewhere the first of these counts that is there: EAST_GPUS,
    CUDA_VISIBLE_DEVICES, all GPUs of the machine.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if "SLURM_JOB_ID" in environment:
        return _names(visible or "")
    if environment.get("EAST_GPUS"):
        return _names(environment["EAST_GPUS"])
    return installed_gpus() if visible is None else _names(visible)


def installed_gpus(devices: Path = Path("/dev")) -> tuple[str, ...]:
    """The NVIDIA GPUs that this process may use, by number, or the MIG devices of a divided one, by UUID.

    `nvidia-smi -L` lists them. Where it fails, the driver's files /dev/nvidia0, /dev/nvidia1, ... are counted.
    """
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "-L"]
        said = subprocess.check_output(command, stderr=subprocess.PIPE, timeout=60)  # noqa: S603
        return listed_gpus(said.decode(errors="replace"))
    return tuple(str(number) for number, _ in enumerate(devices.glob("nvidia[0-9]*")))


def listed_gpus(listing: str) -> tuple[str, ...]:
    """What `nvidia-smi -L` lists: numbers of GPUs, or instead of one that is divided the UUIDs of its MIG devices."""
    devices: dict[str, list[str]] = {}
    for line in listing.splitlines():
        if gpu := re.match(r"GPU (\d+):", line):
            devices[gpu[1]] = []
        elif devices and (part := re.search(r"\bMIG\b.*\(UUID: ([^)]+)\)", line)):
            list(devices.values())[-1].append(part[1])
    return tuple(name for gpu, parts in devices.items() for name in (parts or [gpu]))


def mps_runs(environment: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Whether NVIDIA's Multi-Process Service is alive, which lets programs of this user compute on a GPU at once.

    Without it a GPU turns from one program to the next, however little each has to do. Programs find the service by
    themselves: nothing is set here, and no daemon is started. `root` is where /proc and /tmp are.
    """
    chosen = environment.get("CUDA_MPS_PIPE_DIRECTORY")
    folder = Path(chosen) if chosen else root / "tmp/nvidia-mps"
    try:
        # It removes this file when it ends, but not its sockets.
        number = int((folder / "nvidia-cuda-mps-control.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return (root / "proc" / str(number)).exists()


def _names(value: str) -> tuple[str, ...]:
    """A list of devices as CUDA reads it: up to the first -1; a device named twice counts once."""
    names = (name.strip() for name in value.split(","))
    return tuple(dict.fromkeys(takewhile(lambda name: name not in ("", "-1"), names)))


def _choose(gpu: str, gpus: tuple[str, ...]) -> None:
    """Make a GPU the only visible one."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    LOG.info("leased GPU %s of %s", gpu, ", ".join(gpus))


def _hold(places: Iterable[FileIO], held: ExitStack) -> None:
    """Keep places open as long as `held`, in this process alone."""
    for place in places:
        held.enter_context(place)
        # Locks go to forked processes as well, and these (they load data) may outlive this one by some seconds.
        os.register_at_fork(after_in_child=place.close)


def _lock_folder() -> Path:
    """The folder of this user's locks, on this machine and for nobody else to write to."""
    folder = Path(tempfile.gettempdir()) / f"east-gpus-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError as error:
        problem = f"which cannot be used ({error.strerror})"
    else:
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077:
            return folder
        problem = "which is not a folder of yours that is closed to others (mode 0700)"
    raise EastError(
        f"GPUs are leased by locks in {folder}, {problem}. Remove it, or set TMPDIR to another folder of this machine."
    )


def _wait_for_place(folder: Path, gpus: tuple[str, ...], runs_per_gpu: int) -> tuple[str, FileIO]:
    """The GPU with the most free places and one of these, locked."""
    is_waiting = False
    while True:
        with _free_places(folder, {gpu: _places(gpu, runs_per_gpu) for gpu in gpus}) as free:
            gpu = max(gpus, key=lambda gpu: len(free[gpu]))
            if free[gpu]:
                _, place = free[gpu].popitem()
                os.utime(place.fileno())  # what cleans temporary folders up goes by age
                return gpu, place
        if not is_waiting:
            places = f"{runs_per_gpu} each on GPU {', '.join(gpus)}"
            LOG.info("all places for trainings are taken (%s); waiting for one.", places)
        is_waiting = True
        time.sleep(0.5)


@contextmanager
def _free_places(folder: Path, wanted: Mapping[str, Iterable[str]]) -> Iterator[dict[str, dict[str, FileIO]]]:
    """Those of some places that are free, all locked, by GPU; what is left of them when the block ends is let go.

    One process looks at a time: a place that another is only trying would seem to be taken.
    """
    with _lock_file(folder, "looking") as looking:
        take(looking, wait=True)
        free: dict[str, dict[str, FileIO]] = {gpu: {} for gpu in wanted}
        for gpu, names in wanted.items():
            for name in names:
                place = _lock_file(folder, name)
                if take(place):
                    free[gpu][name] = place
                else:
                    place.close()
        yield free
        for places in free.values():
            for place in places.values():
                place.close()


def _places(gpu: str, runs_per_gpu: int) -> list[str]:
    return [f"{_stem(gpu)}{number}" for number in range(runs_per_gpu)]


def _stem(gpu: str) -> str:
    """How the names of the places on a GPU begin."""
    # Jobs of Slurm have GPUs of their own, which may have the same names.
    job = os.environ.get("SLURM_JOB_ID")
    scope = f"job-{job}-" if job else ""
    return f"{scope}gpu-{quote(gpu, safe='')}-"


def _lock_file(folder: Path, name: str) -> FileIO:
    """A file to lock; programs that this process starts do not get it."""
    return open_lock(folder / name, create=True)
