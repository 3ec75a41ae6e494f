"""The version of the package, and the revision of its numbers, which is part of every run's identity."""

__version__ = "0.1.0"

REVISION = 3
"""Raised by hand when a code change alters any reported number."""

REVISION_REASON = "the arithmetic changed"
"""Why results of earlier revisions differ from those of this one; shown where they are refused."""
