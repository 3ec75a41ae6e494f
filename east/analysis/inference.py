"""Inference from few runs: Welch's test, equivalence, Holm's correction, the sign test, rank correlation.

SciPy is imported by the functions that compute, so that what only reads results does not wait for it.
"""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from east.analysis.aggregate import Accuracy, mean_and_std
from east.config.run import Frozen
from east.config.tables import Comparing

NO_SPREAD = 1e-9
"""Standard errors below this are none: accuracies come in steps of a hundredth of a percentage point or more."""

RESAMPLES = 2000
ROWS_FOR_A_RANK = 3
ROWS_FOR_AN_INTERVAL = 8


class Sample(Frozen):
    """Some runs of one setting, in percent."""

    mean: float
    std: float | None = Field(ge=0, description="sample standard deviation (n - 1); None with fewer than two runs")
    runs: int = Field(ge=1)


class Welch(Frozen):
    """The difference of two means, by Welch's unequal-variance t-test; percentage points."""

    difference: float = Field(description="first minus second")
    standard_error: float = Field(gt=0)
    degrees_of_freedom: float = Field(gt=0, description="by Welch and Satterthwaite")
    standard_errors: float = Field(description="the difference in standard errors, the t statistic")
    p: float = Field(ge=0, le=1, description="two-sided, of no difference")
    low: float = Field(description="lower end of the interval")
    high: float = Field(description="upper end of the interval")


class RankCorrelation(Frozen):
    """Kendall's tau-b between two orders of the same rows."""

    tau: float = Field(ge=-1, le=1)
    p: float = Field(ge=0, le=1, description="two-sided, of no association; exact where no two rows tie")
    low: float | None = Field(description="percentile interval by resampling rows; None with too few of them")
    high: float | None
    rows: int


class MeanInterval(Frozen):
    """A mean with Student's interval; no interval for a single value."""

    mean: float
    low: float | None
    high: float | None


def our_sample(accuracy: Accuracy) -> Sample | None:
    """The finished seeds of a row, or None without any.

    The standard deviation is the sample's whatever the tables print, because that is what the tests are made for.
    """
    values = [seed.accuracy for seed in accuracy.seeds if seed.accuracy is not None]
    mean, std = mean_and_std(values, "sample")
    return None if mean is None else Sample(mean=mean, std=std, runs=len(values))


def printed_sample(mean: float, spread: float | None, comparing: Comparing) -> Sample:
    """A row as it is printed, with its ± read as the configuration says."""
    runs = comparing.published_seeds
    if runs < 2 or spread is None:
        return Sample(mean=mean, std=None, runs=runs)
    factor = {"sample": 1.0, "population": math.sqrt(runs / (runs - 1)), "standard_error": math.sqrt(runs)}
    return Sample(mean=mean, std=spread * factor[comparing.published_spread], runs=runs)


def welch(first: Sample, second: Sample, level: float) -> Welch | None:
    """Compare two means without assuming equal variances.

    Args:
        first: Runs whose mean is the minuend.
        second: The others.
        level: Coverage of the interval, between 0 and 1.

    Returns:
        None where a sample has fewer than two runs, or neither of them varies.
    """
    scale = _standard_error(first, second)
    return _tested(first.mean - second.mean, *scale, level) if scale else None


def mean_difference(differences: Sequence[Welch], level: float) -> Welch | None:
    """The mean of several differences, each with its own standard error, taken as independent.

    It finds a shift that all rows of a table share long before any one of them shows it. None without differences.
    """
    if not differences:
        return None
    variances = np.array([one.standard_error**2 for one in differences])
    freedom = np.array([one.degrees_of_freedom for one in differences])
    shares = variances / variances.sum()
    return _tested(
        float(np.mean([one.difference for one in differences])),
        math.sqrt(variances.sum()) / len(differences),
        1 / float((shares**2 / freedom).sum()),
        level,
    )


def exceeds(test: Welch, margin: float) -> bool:
    """Whether the whole interval lies beyond the margin, on one side."""
    return test.low > margin or test.high < -margin


def equivalence_p(first: Sample, second: Sample, margin: float) -> float | None:
    """The p-value of two one-sided Welch tests (TOST): small where the means differ by less than the margin, above 0.

    Returns:
        The larger one of the two p-values; None where `welch` gives none.
    """
    from scipy import stats

    scale = _standard_error(first, second)
    if scale is None:
        return None
    error, freedom = scale
    return float(stats.t.sf((margin - abs(first.mean - second.mean)) / error, freedom))


def holm(ps: Sequence[float]) -> tuple[float, ...]:
    """P-values corrected by Holm's step-down method: compared with α, they keep the error of the family below α."""
    corrected = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return tuple(corrected)


def sign_test(agree: int, disagree: int) -> float | None:
    """Two-sided p-value of so many signs against as many the other way; None without any."""
    from scipy import stats

    if agree + disagree == 0:
        return None
    return float(stats.binomtest(agree, agree + disagree).pvalue)


def mean_interval(values: Sequence[float], level: float) -> MeanInterval | None:
    """The mean of some values with Student's interval of this coverage; None without values."""
    from scipy import stats

    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) == 1:
        return MeanInterval(mean=mean, low=None, high=None)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return MeanInterval(mean=mean, low=mean - half, high=mean + half)


def rank_correlation(first: Sequence[float], second: Sequence[float], level: float) -> RankCorrelation | None:
    """How far two columns order the same rows alike.

    Args:
        first: A value a row.
        second: The other column, as long.
        level: Coverage of the interval. It comes from resampling rows with a fixed generator, so it is the same
            every time.

    Returns:
        None with fewer than three rows, or where a column is constant. No interval with fewer than eight rows.
    """
    from scipy import stats

    rows = len(first)
    if rows < ROWS_FOR_A_RANK or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    result = stats.kendalltau(first, second)
    low = high = None
    if rows >= ROWS_FOR_AN_INTERVAL:
        draws = np.random.default_rng(0).integers(rows, size=(RESAMPLES, rows))
        taus = _tau_b(np.asarray(first)[draws], np.asarray(second)[draws])
        low, high = (float(end) for end in np.nanquantile(taus, [(1 - level) / 2, (1 + level) / 2]))
    return RankCorrelation(tau=float(result.statistic), p=float(result.pvalue), low=low, high=high, rows=rows)


def _tested(difference: float, error: float, freedom: float, level: float) -> Welch:
    from scipy import stats

    half = error * float(stats.t.ppf((1 + level) / 2, freedom))
    return Welch(
        difference=difference,
        standard_error=error,
        degrees_of_freedom=freedom,
        standard_errors=difference / error,
        p=2 * float(stats.t.sf(abs(difference) / error, freedom)),
        low=difference - half,
        high=difference + half,
    )


def _standard_error(first: Sample, second: Sample) -> tuple[float, float] | None:
    if first.std is None or second.std is None:
        return None
    variances = (first.std**2 / first.runs, second.std**2 / second.runs)
    error = math.sqrt(sum(variances))
    if error < NO_SPREAD:
        return None
    share = variances[0] / sum(variances)
    return error, 1 / (share**2 / (first.runs - 1) + (1 - share) ** 2 / (second.runs - 1))


def _tau_b(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Tau-b of each row of two arrays of shape (resamples, rows); NaN where a resample is constant."""
    signs = [np.sign(values[:, :, None] - values[:, None, :]) for values in (first, second)]
    concordance = (signs[0] * signs[1]).sum(axis=(1, 2))
    untied = [np.square(sign).sum(axis=(1, 2)) for sign in signs]
    with np.errstate(invalid="ignore"):
        result: np.ndarray = concordance / np.sqrt(untied[0] * untied[1])
    return result
