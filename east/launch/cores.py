"""How many threads each training gets, so that a plan ends soonest on the cores there are, and how they wait.

OpenMP reads its settings when PyTorch is loaded, so this is settled before.
"""

from collections.abc import Mapping, MutableMapping
from typing import Literal

from east.errors import EastError

SPEED_UP_OF_TWO: Mapping[str, float] = {"sparse": 1.4, "dense": 1.8}
"""How many times as fast a training step is on two threads as on one, by engine: ResNet-34, batch 128, density 0.0005
(benchmarks/README.md)."""

FIXED_THREADS = 2
"""What `auto` means where there is nothing to divide: on a GPU, and in a cluster's job, which has cores of its own."""

CHOSEN_BY_USERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def check_threads(threads: int, cores: int) -> int:
    """A number of threads, as it was asked for.

    Raises:
        EastError: the machine has not nearly as many cores.
    """
    # More would only wait for each other; and each takes memory of its own.
    most = max(64, 8 * cores)
    if threads > most:
        raise EastError(
            f"{threads} threads are more than this machine of {cores} cores can run: ask for at most {most}."
        )
    return threads


def speed_up(threads: int, of_two: float) -> float:
    """How many times as fast a training is on some threads as on one: Amdahl's law through its value for two threads.

    S(t) = 1 / (1 - p + p / t), with p = 2 (1 - 1 / S(2)), the share of the work that threads divide.

    Args:
        threads: at least 1.
        of_two: S(2), measured; from 1 (they do not help) to 2 (they divide everything).
    """
    divided = 2 * (1 - 1 / of_two)
    return 1 / (1 - divided + divided / threads)


def plan_time(runs: int, at_once: int, threads: int, of_two: float) -> float:
    """Time until all runs have ended, in times of one run on one thread: ceil(runs / at_once) rounds of 1 / S(threads).

    The runs are of about the same length, and so many go on side by side.
    """
    return -(-runs // at_once) / speed_up(threads, of_two)


def threads_per_run(runs: int, cores: int, *, at_most: int | None = None, of_two: float | None = None) -> int:
    """The threads of each run with which a plan ends soonest.

    Many runs and few cores: a thread each, as no thread works better than one alone. Fewer runs than cores, or less
    memory or fewer GPUs than runs for every core: more threads, so that no core is idle.

    Args:
        runs: of the whole plan, at least 1; about equally long.
        cores: to be divided, at least 1.
        at_most: runs that other things than cores allow at once (memory, places on GPUs); None if nothing else does.
        of_two: how many times as fast a run is on two threads as on one; that of the sparse engine if None.

    Returns:
        From 1 to `cores`. Where several numbers end at the same time, the largest, which needs the least memory.
    """
    gain = SPEED_UP_OF_TWO["sparse"] if of_two is None else of_two

    def time_on(threads: int) -> float:
        side_by_side = cores // threads
        return plan_time(runs, side_by_side if at_most is None else max(1, min(side_by_side, at_most)), threads, gain)

    return min(range(cores, 0, -1), key=time_on)


def training_threads(
    wanted: int | Literal["auto"], *, runs: int, cores: int, at_most: int | None = None, engine: str = "auto"
) -> int:
    """The threads of a training as `execution.threads` wants them.

    A number is taken as it is; for `auto` see `threads_per_run`. The engine `auto` counts as the sparse one.
    """
    if wanted != "auto":
        return wanted
    return threads_per_run(runs, cores, at_most=at_most, of_two=SPEED_UP_OF_TWO.get(engine))


def let_idle_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Make threads without work sleep within a millisecond, unless the environment says how they wait.

    By default they keep their cores busy for much longer. Where other processes want these cores, a step waits for
    threads that have lost theirs to threads that only wait.

    Args:
        environment: `os.environ`, before PyTorch is imported.
    """
    if any(name in environment for name in CHOSEN_BY_USERS):
        return
    # How often a thread of GNU's OpenMP looks for work before it sleeps: for less than a twentieth of a millisecond.
    environment["GOMP_SPINCOUNT"] = "1000"
    # How long a thread of LLVM's or Intel's OpenMP does so, in whole milliseconds.
    environment["KMP_BLOCKTIME"] = "0"
