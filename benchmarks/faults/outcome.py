"""What one case of the campaign came to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One case.

    Attributes:
        case: what was tried, so that it can be tried again.
        failure: what was not as it should be, in a line; empty if all was.
    """

    case: str
    failure: str = ""
