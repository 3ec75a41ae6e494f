"""Text as people are shown it: a terminal obeys nothing in it, nothing in it is hidden, and any stream takes it."""

import sys
import unicodedata

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of Unicode."""


def visible(text: str) -> str:
    """Turn line ends and tabs into spaces, and show what else is invisible by its code point.

    Control and format characters (among them terminals' escapes, and those that reverse the direction of writing) can
    make a line read as something that it is not.
    """
    if text.isascii() and text.isprintable():
        return text
    unseen = {character for character in text if unicodedata.category(character) in _UNSEEN}
    shown = {ord(character): " " if character in "\t\n\r" else f"[U+{ord(character):04X}]" for character in unseen}
    return text.translate(shown)


def say(*lines: object) -> None:
    """Print lines to standard output, at once; what is given as one line stays one."""
    for line in lines:
        print(visible(str(line)), flush=True)


def tell(*lines: object) -> None:
    """Print lines to standard error, at once; where nobody can read them any more, that is no failure."""
    try:
        for line in lines:
            print(visible(str(line)), file=sys.stderr, flush=True)
    except OSError:
        # The log's disk is full, say: whatever goes on here is worth more than a line about it.
        pass


def take_any_text() -> None:
    """Let both streams write what their encoding lacks as an escape, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
