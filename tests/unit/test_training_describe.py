"""What follows from a run alone: the engine that trains it on a CPU, and what that engine is asked for."""

import pytest

from east.config import RunSpec, load_plan
from east.data.catalog import steps_per_epoch
from east.engine import Workload
from east.errors import EastError
from east.models.parameters import count_parameters
from east.models.sharing import owned_weights, virtual_weights
from east.reproducibility import Reproducibility
from east.sparse.layers import masked_layers
from east.sparse.schedule import Schedule
from east.training import describe
from east.training.assembly import initial_model
from east.training.attempts import class_on_cpu
from east.training.describe import (
    MOMENTS,
    describe_network,
    engine_of_run,
    expected_workload,
    make_allocation,
    mask_updater,
    network_shape,
)
from tests.unit.cost_specs import make_spec
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


def test_moments_of_a_training_stand_for_all_of_its_steps(tiny_spec, monkeypatch):
    asked = {}
    monkeypatch.setattr(describe, "is_sparse_cheaper", lambda *given: asked.update(given=given) or True)
    cycle = {"pattern": "triangular", "multiplier": 20.0, "cycles": 1, "cycle_length": 2.0}
    spec = changed(tiny_spec, cycle=cycle, sparsity={"density": 0.05})
    assert describe._engine_of.__wrapped__(spec.canonical_json()) == "sparse"
    _, phases, workload = asked["given"]
    schedule = Schedule.of(spec, steps_per_epoch(spec))
    weights = make_allocation(network_shape(spec), "erk").dense_weights
    steps = range(schedule.total_steps)
    mean = sum(weights * schedule.density(step) for step in steps) / len(steps)
    assert sum(share for share, _ in phases) == pytest.approx(1)
    assert sum(share * sum(counts.values()) for share, counts in phases) == pytest.approx(mean, rel=0.05)
    # Half of the training has the cycle, whose moments differ; the other half is alike, and so is the beginning.
    assert 0.5 <= max(share for share, _ in phases) < 0.65
    assert min(share for share, _ in phases) == 1 / MOMENTS
    assert workload == expected_workload(spec.training)


def test_a_density_schedule_that_no_mask_update_ends_is_refused():
    def updater(period):
        spec = make_spec(width=4, density=0.05, update_period=period).model_dump()
        spec["density_schedule"] = {"name": "linear", "end": 1.0}
        spec = RunSpec.model_validate(spec)
        return mask_updater(initial_model(spec, 10), spec, 20)

    assert updater(8).timetable.last_step == 80
    with pytest.raises(EastError, match=r"density schedule linear.* has not reached the target, 0\.05"):
        updater(7)


def test_a_network_is_described_tensor_by_tensor_and_in_all():
    spec = make_spec(width=4, density=0.05, activation="dyrelu", sharing_ratio=2, dct=True)
    found = describe_network(spec)
    model = initial_model(spec, 10)
    layers = masked_layers(model)
    masks = mask_updater(model, spec, 20)
    masks.initialise()
    numbers = {name: int(layer.mask.sum()) for name, layer in layers.items()}
    assert found["tensors"] == [
        {
            "name": name,
            "shape": list(layer.weight.shape),
            "density": numbers[name] / layer.weight.numel(),
            "nonzeros": numbers[name],
        }
        for name, layer in layers.items()
    ]
    others = count_parameters(model)
    assert found["totals"] == {
        "density": 0.05,
        "dense_weights": owned_weights(model) + virtual_weights(model),
        "stored_weights": owned_weights(model),
        "nonzeros": sum(numbers.values()),
        "batch_norm_parameters": others.batch_norm,
        "dyrelu_parameters": others.dyrelu,
        "other_parameters": others.other,
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert sum(vars(others).values()) == parameters - owned_weights(model) + sum(numbers.values())


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
