import pytest

from east.analysis.churn import row_churn
from east.errors import EastError

HEADER = "step,epoch,nonzeros,dropped,grown,blind_growth,active_zeros\n"


def write_updates(runs_dir, run, rows, steps_per_epoch=10):
    folder = runs_dir / run
    folder.mkdir()
    folder.joinpath("updates.csv").write_text(HEADER + "".join(f"{','.join(map(str, row))}\n" for row in rows))
    folder.joinpath("metrics.csv").write_text(f"epoch,step,test_acc\n1,{steps_per_epoch},50\n")


def test_shares_are_of_the_weights_before_and_after_and_averaged_over_seeds(tmp_path):
    write_updates(tmp_path, "a", [(0, 0, 100, 0, 0, 0, 0), (5, 1, 200, 20, 120, 30, 10), (15, 2, 100, 100, 0, 0, 50)])
    write_updates(tmp_path, "b", [(0, 0, 100, 0, 0, 0, 0), (5, 1, 200, 40, 140, 35, 10)])
    churn = row_churn(tmp_path, ["a", "b", "never run"])
    assert churn.seeds == 2
    assert churn.epochs == (0.5,)
    assert churn.dropped == (pytest.approx(0.3),)
    assert churn.grown == (pytest.approx((120 + 140) / 2 / 200),)
    assert churn.blind == (0.25,)
    assert churn.zeros == (0.1,)


def test_where_nothing_grows_there_is_no_share_of_blind_growth(tmp_path):
    write_updates(tmp_path, "a", [(0, 0, 100, 0, 0, 0, 0), (5, 1, 50, 50, 0, 0, 0)])
    assert row_churn(tmp_path, ["a"]).blind == (None,)


def test_a_run_whose_masks_never_change_has_no_churn(tmp_path):
    write_updates(tmp_path, "a", [(0, 0, 100, 0, 0, 0, 0)])
    assert row_churn(tmp_path, ["a"]) is None


def test_a_damaged_file_is_named(tmp_path):
    write_updates(tmp_path, "a", [(0, 0, 100, 0, 0, 0, 0), (5, 1)])
    with pytest.raises(EastError, match=r"a/updates\.csv is whole only up to line 2"):
        row_churn(tmp_path, ["a"])
