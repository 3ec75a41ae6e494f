"""What a check finds: how grave it is, what it is, why it matters, and what mends it."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `ok`; `note`: good to know; `warning`: the plan runs, but slower or at a risk; `error`: the plan, or a
            part of it, cannot run.
        found: what it is, in a sentence or less.
        why: why it matters; empty where all is well.
        mend: the command that mends it, or what to do where no command does; empty where there is nothing to do.
    """

    level: Level
    found: str
    why: str = ""
    mend: str = ""
