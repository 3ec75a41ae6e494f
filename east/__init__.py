"""EAST at extreme sparsity: train the paper's sparse networks from scratch and rebuild its tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from east.version import REVISION, REVISION_REASON, __version__

if TYPE_CHECKING:
    from east.analysis.results import ResultFrames
    from east.trained.load import TrainedNetwork

__all__ = ["REVISION", "REVISION_REASON", "__version__", "load_network", "load_results"]


def load_results(results: str | Path, *configfiles: str | Path) -> "ResultFrames":
    """The runs of a configuration as data frames, see `east.analysis.results.load_results`.

    Args:
        results: the name of a configuration, such as `demo`, or the path of a folder such as results/demo.
        configfiles: overlays of config.yaml; with them every planned run has a row.
    """
    # `import east` waits for no library.
    from east.analysis import results as reader

    return reader.load_results(results, *configfiles)


def load_network(
    run: str | Path, *configfiles: str | Path, results: str | Path | None = None, data_dir: str | Path = "data"
) -> "TrainedNetwork":
    """The trained network of a run as a module in evaluation mode, see `east.trained.load.load_network`.

    Args:
        run: the folder of a finished run, or its id in the plan of config.yaml with the overlays.
        configfiles: overlays of config.yaml, for an id.
        results: folder of the results, for an id; `results/<name>` of the configuration if None.
        data_dir: where data sets are prepared.
    """
    from east.trained import load

    return load.load_network(run, *configfiles, results=results, data_dir=data_dir)
