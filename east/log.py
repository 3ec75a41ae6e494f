"""What the package logs, for people: a line each on standard error, warnings and errors after their level."""

import logging

from east.shown import tell


class Lines(logging.Handler):
    """Prints a record at once: people and the workflow follow the log while a training goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record to what is standard error now."""
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        tell(*(level + record.getMessage()).split("\n"))


def configure_logging() -> None:
    """Print what the package logs, from `INFO` on; for the main program of a process."""
    logger = logging.getLogger("east")
    logger.handlers = [Lines()]
    logger.setLevel(logging.INFO)
