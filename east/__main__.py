"""`python -m east` is the `east` command."""

import sys

from east.launch.passing import pass_on


def main() -> None:
    """Run the command, or have it run by the process that a workflow keeps for its jobs."""
    status = pass_on(sys.argv[1:])
    if status is not None:
        sys.exit(status)
    from east.cli import main as run  # it takes longer than to pass a command on

    run()


if __name__ == "__main__":
    main()
