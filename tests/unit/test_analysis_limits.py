"""What no number of the analysis can be is refused where it is read or made."""

import pytest
from pydantic import BaseModel, ValidationError

from east.analysis.claims import Support
from east.analysis.compare import RowComparison
from east.analysis.inference import RankCorrelation, Sample, Welch
from east.analysis.layers import LayerMask
from east.analysis.published import PublishedRecipe, PublishedRow
from east.render.view import Interval

COUNTS = {
    RowComparison: ("diverged", "missing"),
    Support: ("agree", "ties", "beyond_noise"),
    LayerMask: ("start", "peak", "end", "connected_start", "connected_end"),
}
LIMITS = [
    *((model, name, 0, -1) for model, names in COUNTS.items() for name in names),
    (LayerMask, "weights", 1, 0),
    (LayerMask, "channels", 1, 0),
    (Sample, "std", 0, -0.1),
    (Sample, "runs", 1, 0),
    (Welch, "standard_error", 0.1, 0),
    (Welch, "degrees_of_freedom", 0.1, 0),
    *((model, "p", *of) for model in (Welch, RankCorrelation) for of in ((0, -0.1), (1, 1.1))),
    (RankCorrelation, "tau", -1, -1.1),
    (RankCorrelation, "tau", 1, 1.1),
    (PublishedRow, "accuracy_mean", 0, -0.1),
    (PublishedRow, "accuracy_mean", 100, 100.1),
    (PublishedRow, "accuracy_std", 0, -0.1),
    (PublishedRecipe, "epochs", 1, 0),
    (Interval, "margin", 0.1, 0),
    (Interval, "reach", 0.1, 0),
]


def refused(model: type[BaseModel], name: str, value: float) -> bool:
    """Whether a model does not take a value for a field, whatever the others are."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate({name: value})
    return (name,) in [error["loc"] for error in caught.value.errors()]


@pytest.mark.parametrize(("model", "name", "last", "beyond"), LIMITS)
def test_a_number_may_be_at_its_limit_and_not_beyond(
    model: type[BaseModel], name: str, last: float, beyond: float
) -> None:
    assert not refused(model, name, last)
    assert refused(model, name, beyond)
