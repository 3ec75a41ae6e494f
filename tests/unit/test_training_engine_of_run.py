"""Which engine trains a run on a CPU follows from the run alone."""

import pytest

from east.config import load_plan
from east.reproducibility import Reproducibility
from east.training.engine_of_run import class_on_cpu, engine_of_run
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
