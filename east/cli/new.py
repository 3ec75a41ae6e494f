"""`east new`: a file of one's own to begin with, and its test."""

from pathlib import Path
from typing import Annotated

import typer

from east.cli.common import complete_own_kind
from east.shown import say


def new(
    kind: Annotated[
        str,
        typer.Argument(help="What it is: a kind of `east list`, for example growth.", autocompletion=complete_own_kind),
    ],
    name: Annotated[str, typer.Argument(help="Its name in a configuration, and that of its file.")],
    folder: Annotated[Path, typer.Option(help="Where both files go.")] = Path(),
) -> None:
    """Write a file for a method of your own, with a body that works and a test that passes; nothing is written over."""
    from east.operations.new_files import write_new

    written = write_new(kind, name, folder)
    width = len(str(written.test))
    say(f"{written.source!s:<{width}}  {written.kind.one} '{name}': it works, and its body is yours to change")
    say(f"{written.test}  its test: python -m pytest {written.test}")
    if written.use:
        lines = [f"plugins: [{written.source.name}]", *written.use.splitlines()]
        say("In a configuration beside it:", *(f"  {line}" for line in lines))
