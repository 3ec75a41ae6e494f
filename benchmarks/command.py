"""How a benchmark ends that its user has called wrongly: in a plain sentence, as the `east` command does."""

import sys
from collections.abc import Callable

from east.errors import EastError


def run_command(command: Callable[[], object]) -> None:
    """Run a command; a mistake of the user's ends in a plain sentence and status 1."""
    try:
        command()
    except EastError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
