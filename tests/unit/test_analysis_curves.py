import pytest

from east.analysis.curves import Curve, mean_curve, read_curve, row_churn
from east.errors import EastError
from east.training.records import EpochRecord, UpdateRecord
from tests.unit.fake_runs import sources, write_curve, write_rows

UPDATE = ("step", "epoch", "nonzeros", "dropped", "grown", "blind_growth", "active_zeros")
START = (0, 0, 100, 0, 0, 0, 0)


def write_updates(runs_dir, run, *rows, steps_per_epoch=10):
    write_curve(runs_dir / run, [50.0], steps_per_epoch)
    return write_rows(runs_dir / run, UpdateRecord, *(dict(zip(UPDATE, row, strict=True)) for row in rows))


# Curves


def test_a_column_is_read_by_epoch_without_its_gaps(tmp_path):
    rows = [(1, 10, 20.0), (2, 20, None), (3, 30, float("nan")), (4, 40, 60.0)]
    path = write_rows(tmp_path / "a", EpochRecord, *({"epoch": e, "step": s, "val_acc": a} for e, s, a in rows))
    assert read_curve(sources(tmp_path), "a", "val_acc") == Curve(epochs=(1, 4), values=(20.0, 60.0))
    assert read_curve(sources(tmp_path), "a", "step") == Curve(epochs=(1, 2, 3, 4), values=(10, 20, 30, 40))
    assert read_curve(sources(tmp_path), "none") is None
    path.write_text("epoch,test_acc\n1,good\n")
    with pytest.raises(EastError, match=r"metrics\.csv"):
        read_curve(sources(tmp_path), "a")


def test_curves_are_averaged_over_the_epochs_that_all_have():
    curves = [
        Curve(epochs=(1, 2, 3), values=(10.0, 20.0, 30.0)),
        Curve(epochs=(1, 3), values=(14.0, 30.0)),
    ]
    assert mean_curve(curves, "population") == Curve(
        epochs=(1, 3), values=(12.0, 30.0), low=(10.0, 30.0), high=(14.0, 30.0)
    )
    assert mean_curve(curves[:1], "sample") == curves[0]
    assert mean_curve([], "sample") is None
    assert mean_curve([curves[0], Curve(epochs=(9,), values=(1.0,))], "sample") is None


@pytest.mark.parametrize(("spread", "deviation"), [("sample", 2.0), ("population", (8 / 3) ** 0.5)])
def test_the_band_is_one_standard_deviation_as_the_tables_have_it(spread, deviation):
    # 10, 12, 14: squared deviations 4 + 0 + 4, over n - 1 = 2 or n = 3.
    band = mean_curve([Curve(epochs=(1,), values=(value,)) for value in (10.0, 12.0, 14.0)], spread)
    assert (band.values, band.low, band.high) == (
        (12.0,),
        (pytest.approx(12 - deviation),),
        (pytest.approx(12 + deviation),),
    )


# Churn


def test_shares_are_of_the_weights_before_and_after_and_averaged_over_seeds(tmp_path):
    write_updates(tmp_path, "a", START, (5, 1, 200, 20, 120, 30, 10), (15, 2, 100, 100, 0, 0, 50))
    write_updates(tmp_path, "b", START, (5, 1, 200, 40, 140, 35, 10))
    churn = row_churn(sources(tmp_path), ["a", "b", "never run"])
    shares = {"epoch": 0.5, "dropped": 0.3, "grown": (120 + 140) / 2 / 200, "blind": 0.25, "zeros": 0.1}
    assert churn.to_dict("records") == [pytest.approx(shares)]


def test_where_nothing_grows_there_is_no_share_of_blind_growth(tmp_path):
    write_updates(tmp_path, "a", START, (5, 1, 50, 50, 0, 0, 0))
    write_updates(tmp_path, "b", START, (5, 1, 50, 50, 20, 5, 0))
    assert row_churn(sources(tmp_path), ["a"])["blind"].isna().tolist() == [True]
    assert row_churn(sources(tmp_path), ["a", "b"])["blind"].tolist() == [0.25]


def test_updates_stand_at_their_epoch_where_nobody_knows_how_many_steps_it_has(tmp_path):
    path = write_updates(tmp_path, "a", START, (5, 3, 50, 50, 0, 0, 0))
    path.with_name("metrics.csv").unlink()
    assert row_churn(sources(tmp_path), ["a"])["epoch"].tolist() == [3.0]


def test_a_run_whose_masks_never_change_has_no_churn(tmp_path):
    write_updates(tmp_path, "a", START)
    assert row_churn(sources(tmp_path), ["a"]) is None


def test_a_damaged_file_is_named(tmp_path):
    path = write_updates(tmp_path, "a", START, START)
    path.write_text(path.read_text()[:-4])
    with pytest.raises(EastError, match=r"a/updates\.csv is whole only up to line 2"):
        row_churn(sources(tmp_path), ["a"])
