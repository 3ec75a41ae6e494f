"""The one exception that is meant for people: what is wrong, where, and how to mend it."""


class EastError(Exception):
    """A user's mistake or a missing thing, told in one or two plain sentences; the `east` command prints only these."""
