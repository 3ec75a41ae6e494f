"""The console on which commands draw: no text is taken for markup, and a terminal obeys none of it."""

import io
import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from east.shown import visible

PLAIN_WIDTH = 500
"""Columns where there is no terminal: enough that nothing is wrapped or cut."""


class VisibleConsole(Console):
    """Shows every text `visible`, wherever it comes from."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is drawn; what rich itself tells the terminal stays."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text="\n".join(map(visible, segment.text.split("\n"))))


def make_console() -> Console:
    """Standard output; what its encoding lacks is replaced."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = VisibleConsole(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
