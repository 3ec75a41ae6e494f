"""What stands behind a mean: ours taken from its seeds, the paper's from its printed mean ± spread."""

import math

from pydantic import Field

from east.analysis.aggregate import Accuracy, mean_and_std
from east.config.run import Frozen
from east.config.tables import Comparing


class Sample(Frozen):
    """Some runs of one setting, in percent."""

    mean: float
    std: float | None = Field(ge=0, description="sample standard deviation (n - 1); None with fewer than two runs")
    runs: int = Field(ge=1)


def our_sample(accuracy: Accuracy) -> Sample | None:
    """The finished seeds of a row, or None without any.

    The standard deviation is the sample's whatever the tables print, because that is what the tests are made for.
    """
    values = [seed.accuracy for seed in accuracy.seeds if seed.accuracy is not None]
    mean, std = mean_and_std(values, "sample")
    return None if mean is None else Sample(mean=mean, std=std, runs=len(values))


def printed_sample(mean: float, spread: float, comparing: Comparing) -> Sample:
    """A row of the paper, with its ± read as the configuration says."""
    runs = comparing.published_seeds
    if runs < 2:
        return Sample(mean=mean, std=None, runs=runs)
    factor = {"sample": 1.0, "population": math.sqrt(runs / (runs - 1)), "standard_error": math.sqrt(runs)}
    return Sample(mean=mean, std=spread * factor[comparing.published_spread], runs=runs)
