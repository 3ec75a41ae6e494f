import pytest

from east.config import RunSpec
from east.engine import Workload
from east.training.workload import expected_workload


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (None, Workload(256)),
        ({"norm": 1.0, "scope": "active"}, Workload(256)),
        ({"norm": 1.0, "scope": "dense", "estimator": "exact", "every": 4}, Workload(256, dense=0.25)),
        ({"norm": 1.0, "scope": "dense", "probes": 3, "every": 2}, Workload(256, probes=1.5)),
    ],
)
def test_the_engine_is_told_what_the_clip_measures(tiny_spec, clip, expected):
    content = tiny_spec.model_dump()
    content["training"]["gradient_clip"] = clip
    assert expected_workload(RunSpec.model_validate(content).training) == expected
