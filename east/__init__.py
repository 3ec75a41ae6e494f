"""EAST at extreme sparsity: train the paper's sparse networks from scratch and rebuild its tables."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from east.analysis.results import ResultFrames

__version__ = "0.1.0"

REVISION = 3
"""Raised by hand when a code change alters any reported number; it is part of every run's identity."""

REVISION_REASON = "the arithmetic changed"
"""Why the results of earlier revisions are no longer those of this one, for those whose results are refused."""


def load_results(results: str | Path, *configfiles: str | Path) -> "ResultFrames":
    """The runs of a configuration as data frames, see `east.analysis.results.load_results`.

    Args:
        results: the name of a configuration, such as `demo`, or the path of a folder such as results/demo.
        configfiles: overlays of config.yaml; with them every planned run has a row.
    """
    # `import east` waits for no library.
    from east.analysis import results as reader

    return reader.load_results(results, *configfiles)
