"""EAST at extreme sparsity: train the paper's sparse networks from scratch and rebuild its tables."""

__version__ = "0.1.0"

REVISION = 3
"""Raised by hand when a code change alters any reported number; it is part of every run's identity."""

REVISION_REASON = "the arithmetic changed"
"""Why the results of earlier revisions are no longer those of this one, for those whose results are refused."""
