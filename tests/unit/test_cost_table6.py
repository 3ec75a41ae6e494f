import pytest

from east.config.tables import CostEntry
from east.cost.measure import Measurement
from east.cost.table6 import cost_rows, mean_nonzeros
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
