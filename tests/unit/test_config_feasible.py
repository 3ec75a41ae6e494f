"""What just cannot be trained, and what just can."""

import itertools
import re

import pytest

from east.config import make_plan, read_config
from east.config.effects import impossible_on_a_cpu
from east.config.feasible import PlannedRow, can_normalise, impossible, impossible_density, notes_of, size_of
from east.config.run import CycleSpec, RunSpec
from east.data.catalog import steps_per_epoch
from east.errors import EastError
from east.sparse.distribution import budget
from east.sparse.schedule import Schedule
from east.sparse.timetable import Timetable
from tests.unit.cost_specs import make_spec
from tests.unit.small_config import in_a_project

TENSORS = 37
"""Of a ResNet-34."""


def changed(spec, **parts):
    return RunSpec.model_validate(
        {**spec.model_dump(), **{k: v and spec.model_dump()[k] | v for k, v in parts.items()}}
    )


def planned(spec):
    return PlannedRow(spec, "mine", ("row",), ("density",))


def planned_with(overlay):
    return in_a_project(lambda: make_plan(read_config(overlay)), overlay.parent)


def mistaken(spec):
    return [".".join(map(str, mistake.location)) for mistake in impossible(planned(spec))]


@pytest.mark.parametrize("width", range(4, 65, 7))
def test_the_least_density_that_is_named_is_enough_and_hardly_more(width):
    spec = make_spec(width=width, density=1e-9)
    (mistake,) = impossible_density(spec, ("density",))
    least = float(re.search(r"at least ([0-9.e-]+)\.$", mistake.sentence)[1])
    assert list(impossible_density(changed(spec, sparsity={"density": least}), ())) == []
    assert TENSORS <= least * size_of(spec).dense_weights < 1.011 * TENSORS


def test_a_weight_for_each_tensor_is_enough_and_no_more_than_all_are_needed():
    spec = make_spec()
    share = TENSORS / size_of(spec).dense_weights
    for density, count in ((share, 0), (share * (1 - 1 / TENSORS), 1), (1.0, 0)):
        assert len(list(impossible_density(changed(spec, sparsity={"density": density}), ()))) == count


def test_tensors_are_those_of_the_network_with_everything_that_it_has():
    shapes = size_of(make_spec(dct=True, sharing_ratio=2)).shapes
    assert len(shapes) == 21
    assert all(name.endswith(".sparse") for name in shapes)


@pytest.mark.parametrize(
    ("batch", "validation", "keys"),
    [
        (1438, 0, []),
        (1439, 0, ["recipes.mine.batch_size"]),
        (1, 1437, []),
        (1, 1438, ["datasets.digits.validation"]),
    ],
)
def test_a_batch_is_at_most_all_images_and_some_are_left_to_train_on(batch, validation, keys):
    spec = changed(make_spec(update_period=1), dataset={"validation": validation}, training={"batch_size": batch})
    assert mistaken(spec) == keys


@pytest.mark.parametrize(
    ("beyond", "sparsity", "keys"),
    [
        (-1, {}, []),
        (0, {}, ["recipes.mine.update_period"]),
        (0, {"update_on_last_step": True}, []),
        (1, {"update_on_last_step": True}, ["recipes.mine.update_period"]),
        (1, {"topology": "fixed"}, []),
    ],
)
def test_weights_are_exchanged_at_least_once(beyond, sparsity, keys):
    spec = make_spec()
    total = spec.training.epochs * steps_per_epoch(spec)
    assert mistaken(changed(spec, sparsity=sparsity | {"update_period": total + beyond})) == keys


# The lower multiplier gives one weight more, close to the middle of a cycle.
CYCLES = [
    CycleSpec(
        pattern="triangular",
        multiplier=multiplier,
        cycles=2,
        cycle_length=length,
        length_multiplier=growth,
        update_period=period,
        end=end,
    )
    for multiplier, length, growth, period, end in itertools.product(
        (1.00116, 4), (0.1, 0.25, 1, 1.5), (0.5, 1, 1.6), (1, 2, 3, 5, 11, 18, 30), ("target", "as_coded")
    )
]


def test_cycles_are_refused_where_one_of_them_never_changes_the_number_of_nonzeros():
    """As found by looking at every step."""
    spec = make_spec(width=4)
    weights, refused = size_of(spec).dense_weights, 0
    for cycle in CYCLES:
        schedule = Schedule(spec.sparsity, spec.training, steps_per_epoch(spec), cycle)
        moved = [
            update.step
            for update in Timetable(schedule)
            if update.kind == "cycle" and budget(update.density, weights) != budget(spec.sparsity.density, weights)
        ]
        begin, still = 0.0, []
        for number, length in enumerate(schedule.cyclic_density.lengths, start=1):
            inside = [step for step in moved if begin <= (step - 1) / schedule.steps_per_epoch < begin + length]
            still += [number] * (not inside)
            begin += length
        sentences = [
            mistake.sentence
            for mistake in impossible(
                planned(changed(spec) if cycle is None else spec.model_copy(update={"cycle": cycle}))
            )
        ]
        assert [re.search(r"in cycle (\d) of 2", sentence)[1] for sentence in sentences] == [
            str(n) for n in still[:1]
        ], cycle
        refused += bool(still)
    assert 0.2 * len(CYCLES) < refused < 0.8 * len(CYCLES)


def test_batch_norm_needs_two_numbers_a_channel():
    spec = changed(make_spec(), model={"name": "resnet50_imagenet"})  # leaves one position of a digit
    assert [can_normalise(spec, images) for images in (1, 2)] == [False, True]
    assert can_normalise(make_spec(), 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"epochs": 4, "activation": "dyrelu"}, ["ReLU from the first on"]),
        ({"epochs": 6, "activation": "dyrelu"}, []),
    ],
)
def test_dyrelu_that_never_acts_is_noted(changes, words):
    notes = list(notes_of(planned(make_spec(**changes))))
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.parametrize(("topology", "notes"), [("rigl", 1), ("fixed", 0)])
def test_masks_that_move_without_dropping_anything_are_noted(topology, notes):
    spec = changed(make_spec(), sparsity={"drop_fraction": 0, "drop_fraction_end": 0, "topology": topology})
    assert len(list(notes_of(planned(spec)))) == notes


@pytest.mark.parametrize(
    "text",
    [
        "recipes: {plain: {lr_drop_epochs: [75, 249]}}",
        "recipes: {plain: {lr_drop_epochs: []}}",
        "recipes: {plain: {lr_drop_factor: 0.5}}",
        "recipes: {plain: {optimizer: {name: adam, momentum: 0, nesterov: false}}}",
        "recipes: {plain: {optimizer: {nesterov: false}}}",
        "recipes: {plain: {optimizer: {momentum: 0, nesterov: false}}}",
        "recipes: {plain: {components: {sharing_ratio: 5}}}",
        "readings: {drop_fraction: 0.3, drop_fraction_end: 0.3}",
        "{readings: {lr_drops: as_coded}, recipes: {plain: {lr_drop_epochs: []}}}",
        "datasets: {cifar10: {margin: 31}}",
        "{datasets: {imagenet: {folder: /x, validation: 9, validation_choice: shuffled}}}",
        "{execution: {device: cpu}, comparison: {margin: 1}}",
        "recipes: {plain: {warmup_epochs: 249}}",
        "recipes: {plain: {lr_schedule: cosine, lr_drop_epochs: []}}",
        "tables: {table2: {rows: [{static: true, drop_fraction: 0.005, drop_fraction_end: 0.005}]}}",
        "methods: {rows: {Phased: {activation: dyrelu, measured_at_beta: 0}}}",
        "execution: {step: captured}",
        "execution: {runs_per_gpu: 3}",
    ],
)
def test_what_is_meant_is_neither_refused_nor_noted(overlay, text):
    assert planned_with(overlay(text)).notes == ()


def of_rows(text):
    return f"tables: {{table2: {{rows: [{text}]}}}}"


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        (of_rows("{static: true, topology: fixed, drop_fraction: 0.3}"), "rows.0.drop_fraction", "fixed"),
        (of_rows("{static: true, topology: fixed, drop_fraction_end: 0.3}"), "rows.0.drop_fraction_end", "fixed"),
        (of_rows("{static: true, topology: fixed, update_period: 9}"), "rows.0.update_period", "fixed"),
        (of_rows("{static: true, topology: fixed, update_until: 0.5}"), "rows.0.update_until", "fixed"),
        (of_rows("{topology: fixed, density_schedule: linear}"), "rows.0.density_schedule", "fixed"),
        (of_rows("{static: true, topology: fixed, exchange_when_resizing: true}"), "exchange_when_resizing", "fixed"),
        (of_rows("{static: true, exchange_when_resizing: true}"), "rows.0.exchange_when_resizing", "static"),
        (of_rows("{static: true, drop_fraction: 0.004}"), "rows.0.drop_fraction", "0.004 to 0.005"),
        (of_rows("{static: true, drop_fraction_end: 0.6}"), "rows.0.drop_fraction", "0.5 to 0.6"),
        (
            f"{{readings: {{static_topology: fixed}}, {of_rows('{density_schedule: linear}')}}}",
            "rows.0.density_schedule",
            "fixed",
        ),
        (
            f"{{readings: {{static_topology: fixed}}, {of_rows('{static: true, update_period: 9}')}}}",
            "rows.0.update_period",
            "fixed",
        ),
        (of_rows("{static: true, density_schedule: linear}"), "table2.rows.0", "no static"),
        (of_rows("{pattern: cosine, cycles: 1, density_schedule: linear}"), "table2.rows.0", "no pattern or cycles"),
        ("cost: {measured_batch: {gpu: 8}}", "cost.measured_batch.gpu", "'cpu' or 'cuda'"),
        ("recipes: {plain: {warmup_epochs: 250}}", "recipes.plain.warmup_epochs", "250"),
        ("recipes: {plain: {lr_schedule: drops}}", "recipes.plain.lr_schedule", "null"),
        ("recipes: {plain: {lr_schedule: cosine}}", "recipes.plain.lr_drop_epochs", "cosine"),
        (
            "tables: {tableX: {recipe: plain, dataset: cifar10, rows: [{static: true}]}, "
            "tablex: {recipe: plain, dataset: cifar10, rows: [{static: true}]}}",
            "tables.tablex",
            "'tableX'",
        ),
    ],
)
def test_what_would_do_nothing_or_something_else_is_refused_with_its_key(overlay, text, key, word):
    with pytest.raises(EastError, match=f"{re.escape(key)}: .*{word}"):
        planned_with(overlay(text))


def with_density_schedule(schedule, *, update_on_last_step=False, **changes):
    spec = changed(make_spec(**changes), sparsity={"update_on_last_step": update_on_last_step})
    return RunSpec.model_validate(spec.model_dump() | {"density_schedule": schedule})


@pytest.mark.parametrize(
    ("last_step", "keys"), [(False, ["row.density_schedule"]), (True, [])], ids=["one step late", "just in time"]
)
def test_a_density_schedule_reaches_the_target_by_the_last_mask_update(last_step, keys):
    schedule = {"name": "linear", "initial": 0.5, "end": 1.0}
    period = steps_per_epoch(make_spec())
    assert mistaken(with_density_schedule(schedule, update_on_last_step=last_step, update_period=period)) == keys


@pytest.mark.parametrize(("initial", "keys"), [(1.0, ["row.density_schedule"]), (0.2, [])])
def test_a_density_schedule_asks_for_no_more_weights_than_a_network_that_shares_some_stores(initial, keys):
    schedule = {"name": "linear", "initial": initial, "end": 0.5}
    assert mistaken(with_density_schedule(schedule, sharing_ratio=2)) == keys
    assert mistaken(with_density_schedule(schedule)) == []


def test_two_epochs_are_too_few_for_drops_at_halves_and_quarters_and_three_are_not(overlay):
    text = """
readings: {lr_drops: as_coded}
execution: {device: cpu}
recipes: {plain: {epochs: %d, cyclic: {update_period: 3, cycle_length: 1}, update_period: 10}}
tables: {table2: {rows: [{static: true}]}}
"""
    with pytest.raises(EastError, match=r"epochs: 2 epochs are too few"):
        planned_with(overlay(text % 2))
    (drops,) = {
        run.spec.training.lr_drop_epochs for run in planned_with(overlay(text % 3)).runs if run.table == "table2"
    }
    assert drops == (1, 2)


@pytest.mark.parametrize(
    ("text", "dct", "is_possible"),
    [
        ("readings: {numerics: tf32}", True, True),
        ("{readings: {numerics: bf16}, execution: {engine: dense}}", False, False),
        ("{readings: {numerics: bf16}, execution: {engine: auto}}", False, True),
        ("{readings: {numerics: bf16}, execution: {engine: auto}}", True, False),
    ],
)
def test_bf16_on_a_cpu_is_of_the_sparse_engine_without_dct(overlay, text, dct, is_possible):
    reason = impossible_on_a_cpu(planned_with(overlay(text)).config, [make_spec(), make_spec(dct=dct)])
    assert (reason == "") == is_possible
