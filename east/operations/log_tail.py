"""The end of a log as plain lines, whatever a program wrote into it."""

import re
from pathlib import Path

from east.shown import visible

TAIL_BYTES = 8192
LINE_LENGTH = 300

# ANSI: control sequences (colours, cursor), operating-system commands (titles, links), and two-character escapes.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?", re.DOTALL)
_ERROR = re.compile(r"error: |slurmstepd: error: |[A-Za-z_][\w.]*(?:Error|Exception)(?:: |$)")


def tail(log: Path) -> list[str]:
    """The last lines of a log that say something, oldest first; no more than `TAIL_BYTES` are read.

    A carriage return ends a line as well, so that of a progress bar its last state remains.

    Raises:
        OSError: the log cannot be read.
    """
    with log.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - TAIL_BYTES))
        text = stream.read(TAIL_BYTES).decode(errors="replace")
    lines = [printable(line) for line in re.split(r"[\r\n]+", text)]
    return [line for line in lines if any(map(str.isalnum, line))]


def last_error(lines: list[str]) -> str | None:
    """The last line that names an error: one of ours, the end of a traceback, or why Slurm ended a job."""
    return next((line for line in reversed(lines) if _ERROR.match(line)), None)


def printable(text: str) -> str:
    """Text as one line, cut if long: colours and other escapes of terminals are left out, the rest is `visible`."""
    line = " ".join(visible(_ESCAPE.sub("", text)).split())
    return line if len(line) <= LINE_LENGTH else f"{line[: LINE_LENGTH - 1]}…"
