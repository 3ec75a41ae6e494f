"""The `east` command: a thin layer over the package, whose parts are imported by the commands that use them."""

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import east
from east.checkout import commit
from east.cli.doctor import doctor
from east.cli.estimate import estimate
from east.cli.plan import inspect, list_parts, plan, schedule
from east.cli.results import archive, compare, lock, merge, prune, restore, verify
from east.cli.runs import cost, prepare, train
from east.cli.status import show, status
from east.cli.workflow import make
from east.errors import EastError
from east.launch.cores import let_idle_threads_sleep
from east.log import configure_logging

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Before": {
        "doctor": doctor,
        "list": list_parts,
        "plan": plan,
        "inspect": inspect,
        "schedule": schedule,
        "estimate": estimate,
        "cost": cost,
        "prepare": prepare,
    },
    "While it runs": {"train": train, "status": status, "show": show},
    "Afterwards": {
        "compare": compare,
        "verify": verify,
        "lock": lock,
        "archive": archive,
        "restore": restore,
        "merge": merge,
        "prune": prune,
    },
    "": {"make": make},
}
"""When people use a command -> its name -> what it calls. The workflow's own steps, without a group, are not listed."""


class Grouped(TyperGroup):
    """Lists the commands in their groups, as plain text: rich would load longer than everything else together."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group of commands that are not hidden."""
        width = max(map(len, self.commands))
        for group, names in COMMANDS.items():
            if group:
                helps = [self.commands[name].get_short_help_str(3 * formatter.width) for name in names]
                with formatter.section(group):
                    formatter.write_dl([(name.ljust(width), text) for name, text in zip(names, helps, strict=True)])


app = typer.Typer(cls=Grouped, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
for _group, _commands in COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_group or None, hidden=not _group)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        found = commit()
        print(f"east {east.__version__}" + (f" (commit {found})" if found else ""))
        raise typer.Exit


@app.callback()
def describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print version and commit.")
    ] = False,
) -> None:
    """EAST at extreme sparsity: plan, train, measure and render the paper's appendix."""


def main() -> None:
    """Run the command; a mistake of the user's ends in a plain sentence and status 1."""
    let_idle_threads_sleep(os.environ)  # before a command imports PyTorch
    configure_logging()
    try:
        app(prog_name="east")
    except EastError as error:
        logging.getLogger(__name__).error(str(error))
        raise SystemExit(1) from None
    except BrokenPipeError:
        # The reader of our output (`head`) has had enough; that is not an error, and Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
