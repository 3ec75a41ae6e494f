"""How a process ends that works for another one. It imports nothing heavy, so that this holds early."""

import signal


def end_when_interrupted() -> None:
    """End at Ctrl-C at once and without a word: it reaches the other process as well, which says what is to be said."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
