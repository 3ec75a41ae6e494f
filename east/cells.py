"""Texts in the CSV files that people open in a spreadsheet: none is taken for a formula, and we read each as it was."""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a cell begins that a spreadsheet would execute, or that says of such a one that it is a text."""


def guarded(text: str) -> str:
    """A text as a cell: with an apostrophe before it where it would be a formula. Numbers stay as they are."""
    return f"'{text}" if _needs_guard(text) else text


def unguarded(cell: str) -> str:
    """The text of which `guarded` made a cell."""
    return cell[1:] if cell.startswith("'") and _needs_guard(cell) else cell


def _needs_guard(text: str) -> bool:
    return _FORMULA.match(text) is not None and not _is_number(text.lstrip("'"))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
