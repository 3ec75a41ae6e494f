"""What follows from a run alone: the engine that trains it on a CPU, and what that engine is asked for."""

import pytest

from east.config import load_plan
from east.engine import Workload
from east.reproducibility import Reproducibility
from east.training.attempts import class_on_cpu
from east.training.describe import engine_of_run, expected_workload
from tests.unit.test_training_loop import changed


@pytest.fixture(scope="module")
def paper():
    return {run.id: run.spec for run in load_plan()}


def test_all_tables_of_the_paper_are_trained_sparsely(paper):
    tables = [spec for name, spec in paper.items() if name.startswith(("table2", "table3", "table4", "table5"))]
    assert {engine_of_run(spec) for spec in tables[::17]} == {"sparse"}
    assert class_on_cpu(tables[0]) == Reproducibility.ANY_PROCESSOR


def test_dct_layers_are_trained_densely(paper):
    spec = paper["tablemethods/dctps-resnet34-cifar10/seed17"]
    assert engine_of_run(spec) == "dense"
    assert class_on_cpu(spec) == Reproducibility.THIS_PROCESSOR


def test_neither_seed_nor_length_decides(paper):
    spec = paper["table2/static/seed17"]
    longer = changed(spec, training={"epochs": 500})
    assert engine_of_run(spec.model_copy(update={"seed": 99})) == engine_of_run(longer) == engine_of_run(spec)


@pytest.mark.parametrize(("density", "engine"), [(0.001, "sparse"), (0.05, "sparse"), (0.5, "dense"), (1.0, "dense")])
def test_what_leaves_few_zeros_is_trained_densely(paper, density, engine):
    assert engine_of_run(changed(paper["table2/static/seed17"], sparsity={"density": density})) == engine


def test_a_cycle_counts_by_how_long_it_is_dense(paper):
    spec = changed(paper["table2/cosine-m10-n1/seed17"], sparsity={"density": 0.09}, cycle={"cycle_length": 250.0})
    short = changed(spec, cycle={"cycle_length": 5.0})
    assert (engine_of_run(spec), engine_of_run(short)) == ("dense", "sparse")


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
    spec = tiny_spec.model_dump()
    spec["training"]["gradient_clip"] = clip
    assert expected_workload(tiny_spec.model_validate(spec).training) == expected
