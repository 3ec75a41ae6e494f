"""How threads that compute wait for each other: OpenMP's settings, which are read when PyTorch is loaded."""

from collections.abc import MutableMapping

SPINS = "1000"
"""How often a thread of GNU's OpenMP looks for work before it sleeps: for less than a twentieth of a millisecond."""

BLOCK_MILLISECONDS = "0"
"""How long a thread of LLVM's or Intel's OpenMP looks for work before it sleeps, in whole milliseconds."""

CHOSEN_BY_USERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_idle_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Make threads without work sleep within a millisecond, unless the environment says how they wait.

    By default they keep their cores busy for much longer. Where other processes want these cores, a step waits for
    threads that have lost theirs to threads that only wait.

    Args:
        environment: `os.environ`, before PyTorch is imported.
    """
    if any(name in environment for name in CHOSEN_BY_USERS):
        return
    environment["GOMP_SPINCOUNT"] = SPINS
    environment["KMP_BLOCKTIME"] = BLOCK_MILLISECONDS
