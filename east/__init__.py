"""EAST at extreme sparsity: train the paper's sparse networks from scratch and rebuild its tables."""

__version__ = "0.1.0"

REVISION = 2
"""Raised by hand when a change to the code changes any reported number: it is part of every run's identity."""
