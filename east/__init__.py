"""EAST at extreme sparsity: train the paper's sparse networks from scratch and rebuild its tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from east.version import REVISION, REVISION_REASON, __version__

if TYPE_CHECKING:
    from east.analysis.results import ResultFrames

__all__ = ["REVISION", "REVISION_REASON", "__version__", "load_results"]


def load_results(results: str | Path, *configfiles: str | Path) -> "ResultFrames":
    """The runs of a configuration as data frames, see `east.analysis.results.load_results`.

    Args:
        results: the name of a configuration, such as `demo`, or the path of a folder such as results/demo.
        configfiles: overlays of config.yaml; with them every planned run has a row.
    """
    # `import east` waits for no library.
    from east.analysis import results as reader

    return reader.load_results(results, *configfiles)
