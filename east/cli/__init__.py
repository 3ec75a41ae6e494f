"""The `east` command: a thin layer over the package."""

import os
import sys

from east.cli import analyse, doctor, estimate, figures, plan, results, runs, show, status, workflow
from east.cli.app import app
from east.errors import EastError

__all__ = [
    "analyse",
    "app",
    "doctor",
    "estimate",
    "figures",
    "main",
    "plan",
    "results",
    "runs",
    "show",
    "status",
    "workflow",
]


def main() -> None:
    """Run the command; a mistake of the user's ends in a plain sentence and status 1."""
    try:
        app()
    except EastError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:
        # The reader of our output (`head`) has had enough; that is no error, and Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
