"""The exception meant for people: what is wrong, where, and how to fix it."""


class EastError(Exception):
    """An expected failure, explained in one or two plain sentences; the `east` command prints only these."""
