"""The `east` command: a thin layer over the package."""

import os
import sys
from importlib import import_module

from east.cli.app import app
from east.errors import EastError
from east.launch.cores import let_idle_threads_sleep

__all__ = ["MODULES", "app", "load", "main"]

MODULES: dict[str, tuple[str, ...]] = {
    "analyse": ("analyse",),
    "compare": ("compare",),
    "doctor": ("doctor",),
    "estimate": ("estimate",),
    "figures": ("figures", "plan-figures"),
    "plan": ("plan", "inspect", "schedule"),
    "results": ("prune", "lock", "archive", "verify", "restore", "merge"),
    "runs": ("prepare", "train", "cost"),
    "show": ("show",),
    "status": ("status",),
    "workflow": ("aggregate", "table", "table-b1", "table-6", "evidence-tables", "report", "appendix"),
}
"""Module of this package -> the commands that it adds to `app`."""


def load(command: str | None = None) -> None:
    """Add commands: the module of the one that is asked for, or all, for the help and for what is none.

    The workflow starts the command for every job, and what other commands import would take longer than many a job.
    """
    known = [module for module, commands in MODULES.items() if command in commands]
    for module in known or MODULES:
        import_module(f"{__name__}.{module}")


def main() -> None:
    """Run the command; a mistake of the user's ends in a plain sentence and status 1."""
    let_idle_threads_sleep(os.environ)  # before a command imports PyTorch
    load(sys.argv[1] if len(sys.argv) > 1 else None)
    try:
        app()
    except EastError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:
        # The reader of our output (`head`) has had enough; that is no error, and Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
