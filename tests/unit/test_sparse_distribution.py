import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from east.errors import EastError
from east.models import build_model
from east.sparse.distribution import (
    allocate,
    apportion,
    budget,
    erk,
    erk_as_coded_counts,
    erk_counts,
    uniform_counts,
)
from east.sparse.layers import masked_layers


def resnet34_shapes():
    with torch.device("meta"):
        layers = masked_layers(build_model("resnet34", 10))
    return {name: tuple(layer.weight.shape) for name, layer in layers.items()}


@pytest.mark.parametrize(
    ("density", "budget_as_coded", "realised", "counts"),
    [
        (
            0.0005,
            10_632,
            10_633,
            {
                "conv1": 46,
                "stages.0.0.conv1": 85,
                "stages.1.0.conv1": 125,
                "stages.1.0.shortcut.0": 123,
                "stages.1.1.conv1": 166,
                "stages.2.0.conv1": 247,
                "stages.2.0.shortcut.0": 244,
                "stages.2.1.conv2": 328,
                "stages.3.0.conv1": 490,
                "stages.3.0.shortcut.0": 488,
                "stages.3.2.conv2": 652,
                "classifier": 330,
            },
        ),
        (
            0.0001,
            2_126,
            2_127,
            {
                "conv1": 9,
                "stages.0.0.conv1": 17,
                "stages.1.0.shortcut.0": 25,
                "stages.2.1.conv1": 66,
                "stages.3.0.shortcut.0": 97,
                "classifier": 66,
            },
        ),
    ],
)
def test_erk_as_coded_gives_the_counts_of_the_authors_code(density, budget_as_coded, realised, counts):
    as_coded = erk_as_coded_counts(resnet34_shapes(), budget_as_coded)
    assert sum(as_coded.values()) == realised
    assert {name: as_coded[name] for name in counts} == counts


@pytest.mark.parametrize("density", [0.01, 0.001, 0.0005, 0.0001])
def test_erk_spends_the_budget_exactly_and_stays_within_one_of_the_authors_counts(density):
    shapes = resnet34_shapes()
    counts = erk(shapes, density)
    total = round(density * 21_265_088)
    assert sum(counts.values()) == total
    if density < 0.01:
        as_coded = erk_as_coded_counts(shapes, total)
        assert all(abs(counts[name] - as_coded[name]) <= 1 for name in shapes)


def test_erk_makes_a_saturated_tensor_dense_and_gives_the_excess_to_the_others():
    shapes = {"small": (2, 2), "large": (10, 10)}
    # shares 4 : 20 of 60 would be 10 and 50, but small holds 4
    assert erk_counts(shapes, 60) == {"small": 4, "large": 56}


def test_erk_keeps_a_weight_in_every_tensor():
    counts = erk_counts({"tiny": (1, 1), "large": (100, 100)}, 20)
    assert counts == {"tiny": 1, "large": 19}


def test_erk_as_coded_rounds_and_clips_each_tensor_by_itself():
    assert erk_as_coded_counts({"tiny": (1, 1), "large": (100, 100)}, 20) == {"tiny": 1, "large": 20}
    assert erk_as_coded_counts({"small": (2, 2), "large": (10, 10)}, 60) == {"small": 4, "large": 50}


def test_a_fraction_goes_to_the_largest_remainder():
    # shares of 10 units: 1.5, 2.9, 5.6 -> the two units left go to b (.9) and c (.6)
    assert allocate({"a": 15, "b": 29, "c": 56}, {"a": 9, "b": 9, "c": 9}, 10) == {"a": 1, "b": 3, "c": 6}


def test_what_nothing_claims_is_spread_alike():
    claims, least = {"small": 9, "a": 0, "b": 0}, {"small": 0, "a": 0, "b": 0}
    assert apportion(claims, {"small": 1, "a": 5, "b": 5}, 7, least=least) == {"small": 1, "a": 3, "b": 3}


def test_uniform_gives_every_tensor_the_same_density():
    assert uniform_counts({"a": (10, 10), "b": (30, 10)}, 40) == {"a": 10, "b": 30}


def test_budget_reads_the_density_as_the_decimal_it_prints_as():
    assert budget(0.0005, 21_265_088) == 10_633
    assert budget(0.1, 25) == 2  # 2.5 exactly, to even; the binary 0.1 is larger and would give 3


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan")])
def test_a_density_outside_its_range_is_refused(density):
    with pytest.raises(EastError, match="must be above 0 and at most 1"):
        erk({"a": (3, 3)}, density)


def test_a_budget_smaller_than_the_number_of_tensors_is_refused_with_the_smallest_density():
    with pytest.raises(EastError, match=r"\b0\.0011\b"):
        erk({"a": (30, 30), "b": (30, 30)}, 0.0001)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12),
    fraction=st.floats(0, 1),
)
def test_any_feasible_budget_is_spent_exactly_within_bounds(sizes, fraction):
    shapes = {str(i): shape for i, shape in enumerate(sizes)}
    most = sum(math.prod(shape) for shape in sizes)
    total = len(sizes) + round(fraction * (most - len(sizes)))
    counts = erk_counts(shapes, total)
    assert sum(counts.values()) == total
    assert all(1 <= counts[name] <= math.prod(shape) for name, shape in shapes.items())
    free = [name for name in shapes if 1 < counts[name] < math.prod(shapes[name])]
    scales = [counts[name] / sum(shapes[name]) for name in free]
    # unsaturated tensors are in proportion, up to the rounding of one weight
    assert all(
        abs(counts[name] - min(scales) * sum(shapes[name]))
        <= 1 + sum(shapes[name]) / min(sum(shapes[other]) for other in free)
        for name in free
    )
