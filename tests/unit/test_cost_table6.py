import pytest
import torch
from pydantic import ValidationError

from east.config.tables import CostEntry, CostPlan
from east.cost import table6
from east.cost.measure import Measurement, measure_training, prepare_costs
from east.cost.record import CostRecord
from east.cost.table6 import cost_rows, mean_nonzeros, measured_cost, paper_memory
from tests.unit.cost_specs import make_spec


def paper_spec(**changes):
    """A method of Table 6: ResNet-34 on CIFAR-100 with the recipe of Table B.1."""
    return make_spec(dataset="cifar100", width=64, density=0.0005, epochs=250, batch_size=128, **changes)


def entry(spec, beta=1, method="RigL"):
    return CostEntry(method=method, measured_at_beta=beta, spec=spec)


def test_densities_without_cycles_are_constant():
    counts, share = mean_nonzeros(paper_spec(update_period=4000))
    assert sum(counts.values()) == round(0.0005 * 21_311_168)
    # ERK: in proportion to the sum of the dimensions, 512 + 100 of 16,883.
    assert counts["classifier"] == round(10_656 * 612 / 16_883)
    # 88,000 steps hold 22 updates, of which the one on the very last step is left out.
    assert share == 21 / 88_000


def test_cycles_cost_their_mean_density():
    spec = paper_spec(update_period=4000, cyclic=True)
    counts, share = mean_nonzeros(spec)
    # Two cosine cycles of 50 of 250 epochs whose density is (1 + 10) / 2 times the target on average.
    assert sum(counts.values()) / round(0.0005 * 21_311_168) == pytest.approx(1 + 0.4 * 4.5, rel=0.02)
    # In 35,200 steps, 100 updates every 350: half of them grow; then 13 exchanges, the last step left out.
    assert share * 88_000 == pytest.approx(50 + 13, abs=2)


def test_fixed_masks_never_need_a_dense_gradient():
    assert mean_nonzeros(make_spec(topology="fixed"))[1] == 0
    assert mean_nonzeros(make_spec(topology="set"))[1] == 0


def test_rows_tell_parameters_apart():
    rows = cost_rows(
        [
            entry(paper_spec()),
            entry(paper_spec(activation="dyrelu", sharing_ratio=2), method="Combined"),
        ]
    )
    assert [row.method for row in rows] == ["RigL", "Combined"]
    assert [row.nonzeros for row in rows] == [10_656, 10_656]
    assert [row.trainable_parameters for row in rows] == [21_328_192, 14_408_640]
    assert [row.batch_norm_parameters for row in rows] == [17_024, 17_024]
    assert [row.dyrelu_parameters for row in rows] == [0, 3_181_168]
    assert [row.other_parameters for row in rows] == [0, 16]
    assert all(row.seconds_per_step is None and row.hours_estimate is None for row in rows)


def test_a_row_measured_with_dyrelu_off_also_says_what_it_is_when_on():
    spec = paper_spec(activation="dyrelu")
    off, on = (cost_rows([entry(spec, beta)])[0] for beta in (0, 1))
    assert (round(off.param_size_mb, 2), round(off.est_total_mb, 2)) == (81.36, 107.81)
    assert (off.param_size_mb_active, off.est_total_mb_active) == (on.param_size_mb, on.est_total_mb)
    assert (on.param_size_mb_active, on.est_total_mb_active) == (None, None)
    assert round(on.est_total_mb, 2) == 120.44


def test_flops_include_dyrelu_only_until_it_has_faded():
    plain, dynamic = (
        cost_rows([entry(make_spec(activation=activation, epochs=8))])[0] for activation in ("relu", "dyrelu")
    )
    assert dynamic.flops_inference_sparse == plain.flops_inference_sparse
    # Eight epochs: faded from the third on. The two linear layers of a unit hold C^2/4 + C^2 weights.
    channels = [8, *[8] * 6, *[16] * 8, *[32] * 12, *[64] * 6]
    unit_flops = sum(3 * 2 * (c * (c // 4) + (c // 4) * 4 * c) for c in channels)
    assert dynamic.flops_training_sparse - plain.flops_training_sparse == pytest.approx(2 / 8 * unit_flops)


def test_hours_are_extrapolated_from_both_phases_of_a_training():
    calls = []

    def measure(spec, faded):
        calls.append(faded)
        return Measurement(1.0 if faded else 3.0, 0.1, 50.0, 3, 16, "a machine")

    spec = make_spec(activation="dyrelu", epochs=8, batch_size=64)
    row = cost_rows([entry(spec)], measure)[0]
    # 1,438 - 143 images in batches of 64 are 21 steps; two of eight epochs are dynamic; a batch of 64 costs four of 16.
    assert row.hours_estimate == pytest.approx((2 * 3.0 + 6 * 1.0) * 4 * 21 / 3600)
    assert (row.seconds_per_step, row.peak_memory_mb, row.measured_batch_size) == (3.0, 50.0, 16)
    assert (row.seconds_spread, row.measured_on) == (0.1, "a machine")
    assert calls == [False, True]

    calls.clear()
    cost_rows([entry(make_spec())], measure)
    assert calls == [False]


def test_a_row_says_everything_of_a_method():
    spec = make_spec(activation="dyrelu", sharing_ratio=2, update_period=20, epochs=8)
    measured = Measurement(3.0, 0.1, 50.0, 3, 16, "a machine")
    row = cost_rows([entry(spec, 0, "Ours")], lambda spec, faded: measured)[0]
    assert row.model_dump() == {
        "method": "Ours",
        "param_size_mb": pytest.approx(0.676422119140625),
        "est_total_mb": pytest.approx(1.1058807373046875),
        "param_size_mb_active": pytest.approx(0.8795394897460938),
        "est_total_mb_active": pytest.approx(1.3707351684570312),
        "trainable_parameters": 230_582,
        "nonzeros": 3330,
        "batch_norm_parameters": 2128,
        "dyrelu_parameters": 53_246,
        "other_parameters": 16,
        "flops_inference_dense": 5_867_520.0,
        "flops_inference_sparse": 234_250.0,
        "flops_training_dense": 17_614_152.0,
        "flops_training_sparse": pytest.approx(1_031_840.9523809524),
        "peak_memory_mb": 50.0,
        "seconds_per_step": 3.0,
        "seconds_spread": 0.1,
        "hours_estimate": pytest.approx(8 * 3.0 * 4 * 21 / 3600),
        "measured_batch_size": 16,
        "measured_on": "a machine",
    }


def test_dct_layers_are_counted_as_two():
    counted = paper_memory(paper_spec(dct=True), 1)
    assert (round(counted.param_mb, 2), round(counted.total_mb, 2)) == (162.66, 197.36)


# How `east cost` measures


class Measured:
    """Notes what is measured, and how, in place of processes that do it."""

    def __init__(self, monkeypatch):
        self.steps, self.prepared = [], []
        monkeypatch.setattr(table6, "choose_device", lambda name: torch.device(name))
        monkeypatch.setattr(table6, "choose_step", lambda step, where: {"a way": "compiled", "auto": "eager"}[step])
        monkeypatch.setattr(table6, "in_fresh_process", self.prepared.append)
        monkeypatch.setattr(table6, "cost_rows", self.rows)

    def rows(self, entries, measure):
        self.steps.append(measure)
        return [CostRecord(method=entry.method, param_size_mb=1, est_total_mb=2) for entry in entries]


def cost_plan(*numerics):
    entries = []
    for kind in numerics:
        spec = make_spec()
        changed = spec.training.model_copy(update={"numerics": kind})
        entries.append(entry(spec.model_copy(update={"training": changed}), method=kind))
    kind = {"model": "resnet34", "dataset": "digits", "published": None, "comparable": False}
    return CostPlan(**kind, measured_steps=5, measured_batch={"cpu": 3, "cuda": 7}, entries=tuple(entries))


@pytest.mark.parametrize(("device", "batch"), [("cpu", 3), ("cuda", 7)])
def test_steps_are_measured_as_plan_and_options_say(monkeypatch, device, batch):
    measured = Measured(monkeypatch)
    options = {"device": device, "engine": "sparse", "threads": 2, "step": "a way"}
    rows = measured_cost(cost_plan("fp32", "tf32"), **options)
    assert [row["method"] for row in rows] == ["fp32", "tf32"]
    (measure,) = measured.steps
    assert (measure.func, measure.args) == (measure_training, ())
    assert measure.keywords == {"batch_size": batch, "steps": 5, **options}
    measured_cost(cost_plan("fp32"), **options, measure=False)
    assert measured.steps[1] is None


@pytest.mark.parametrize(
    ("device", "engine", "measure", "step", "prepared"),
    [
        ("cuda", "auto", True, "a way", {("fp32", True), ("tf32", True)}),
        ("cuda", "auto", True, "auto", {("fp32", False), ("tf32", False)}),
        ("cuda", "auto", False, "auto", set()),
        ("cuda", "sparse", True, "auto", set()),
        ("cpu", "auto", True, "auto", set()),
    ],
)
def test_a_gpu_where_engines_are_chosen_by_cost_is_measured_first(monkeypatch, device, engine, measure, step, prepared):
    measured = Measured(monkeypatch)
    plan = cost_plan("fp32", "tf32", "fp32")
    measured_cost(plan, device=device, engine=engine, threads=1, step=step, measure=measure)
    assert {run.args[1:] for run in measured.prepared} == prepared
    assert len(measured.prepared) == len(prepared)
    assert all((run.func, run.args[0]) == (prepare_costs, torch.device("cuda")) for run in measured.prepared)


# What tables and figures read of it

SIZES = {"param_size_mb": 0, "est_total_mb": 0}
COUNTS = ("trainable_parameters", "nonzeros", "batch_norm_parameters", "dyrelu_parameters", "other_parameters")


def test_a_row_may_lack_all_that_was_not_measured():
    row = CostRecord.model_validate({"method": "RigL", **SIZES, "a_key_of_tomorrow": 1})
    assert {value for name, value in row if name not in ("method", *SIZES)} == {None}
    with pytest.raises(ValidationError, match="frozen"):
        row.method = "another"


@pytest.mark.parametrize("name", [*SIZES, *COUNTS])
def test_sizes_and_counts_are_not_below_zero(name):
    assert getattr(CostRecord.model_validate({"method": "RigL", **SIZES, name: 0}), name) == 0
    with pytest.raises(ValidationError, match=name):
        CostRecord.model_validate({"method": "RigL", **SIZES, name: -1})


def test_a_row_has_no_number_that_json_has_not():
    with pytest.raises(ValidationError, match="finite"):
        CostRecord.model_validate({"method": "RigL", **SIZES, "seconds_per_step": float("inf")})
