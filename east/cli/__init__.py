"""The `east` command: a thin layer over the package, whose parts are imported by the commands that use them."""

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import east
from east.checkout import commit
from east.cli.doctor import doctor
from east.cli.estimate import estimate
from east.cli.networks import export, predict
from east.cli.new import new
from east.cli.plan import inspect, list_parts, plan, schedule
from east.cli.results import archive, compare, lock, merge, prune, restore, verify
from east.cli.runs import cost, prepare, train
from east.cli.status import show, status
from east.cli.trial import try_run
from east.cli.workflow import make
from east.errors import EastError
from east.failures import explained
from east.launch.cores import let_idle_threads_sleep
from east.log import configure_logging
from east.shown import say, take_any_text, tell

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Before": {
        "doctor": doctor,
        "list": list_parts,
        "new": new,
        "plan": plan,
        "inspect": inspect,
        "schedule": schedule,
        "estimate": estimate,
        "cost": cost,
        "prepare": prepare,
    },
    "While it runs": {"train": train, "try": try_run, "status": status, "show": show},
    "Afterwards": {
        "compare": compare,
        "verify": verify,
        "lock": lock,
        "archive": archive,
        "restore": restore,
        "merge": merge,
        "prune": prune,
        "export": export,
        "predict": predict,
    },
    "": {"make": make},
}
"""When people use a command -> its name -> what it calls. The workflow's own steps, without a group, are not listed."""


USAGE_ERROR = typer.BadParameter.__mro__[1]
"""What typer raises for a command line that it does not understand; it has no public name there."""


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


app = typer.Typer(cls=Grouped, rich_markup_mode=None)
for _group, _commands in COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, hidden=not _group)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        found = commit()
        say(f"east {east.__version__}" + (f" (commit {found})" if found else ""))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def describe(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print version and commit.")
    ] = False,
) -> None:
    """EAST at extreme sparsity: plan, train, measure and render the paper's appendix."""
    if ctx.invoked_subcommand is None:
        say(*ctx.get_help().split("\n"))
        raise typer.Exit(2)


def main() -> None:
    """Run the command; what its user or the surroundings got wrong ends in a plain sentence and status 1."""
    _begin_in_utf8()
    let_idle_threads_sleep(os.environ)  # before a command imports PyTorch
    configure_logging()
    take_any_text()
    try:
        status = app(prog_name="east", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output (`head`) has had enough; that is not an error, and Python must not complain at exit.
        _discard_output()
    except Exception as error:  # every one ends in a sentence, or in a traceback and the request to report it
        _discard_output()
        raise SystemExit(_status_of(error)) from None
    else:
        if status:
            raise SystemExit(status)


def _begin_in_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding.

    Names of files, arguments and what other programs print then mean the same in every locale. What is shown keeps the
    locale's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
        return
    shown = {} if sys.stdout is None else {"PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace"}
    command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execve(sys.executable, command, shown | os.environ | {"PYTHONUTF8": "1"})  # noqa: S606


def _status_of(error: Exception) -> int:
    """Say what has gone wrong, and return the exit status."""
    if isinstance(error, USAGE_ERROR):
        return _status_of_usage(error)
    sentence = str(error) if isinstance(error, EastError) else explained(error)
    if sentence is None:
        tell(*(line for text in traceback.format_exception(error) for line in text.rstrip().split("\n")))
        sentence = "this is a mistake of the program, not yours. Please report it, with the lines above."
    logging.getLogger(__name__).error(sentence)
    return 1


def _status_of_usage(error: Any) -> int:
    """Say how a command is to be called."""
    if error.ctx is not None:
        tell(*error.ctx.get_usage().split("\n"), f"Try '{error.ctx.command_path} --help' for help.", "")
    tell(*f"Error: {error.format_message()}".split("\n"))
    status: int = error.exit_code
    return status


def _discard_output() -> None:
    """Leave what has not been printed, so that Python does not try once more when it ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
