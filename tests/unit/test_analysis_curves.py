import pytest

from east.analysis.curves import Curve, mean_curve, read_curve
from east.errors import EastError


def test_a_column_is_read_by_epoch_without_its_gaps(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,test_acc\n1,10,20.0\n2,20,\n3,30,nan\n4,40,50.0\n4,40,60.0\n")
    assert read_curve(path) == Curve(epochs=(1, 4), values=(20.0, 60.0))
    assert read_curve(path, "step") == Curve(epochs=(1, 2, 3, 4), values=(10, 20, 30, 40))
    assert read_curve(tmp_path / "none.csv") is None


@pytest.mark.parametrize("content", ["step,test_acc\n1,2\n", "epoch,loss\n1,2\n", "epoch,test_acc\n1,good\n"])
def test_a_broken_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(EastError, match=r"metrics\.csv"):
        read_curve(path)


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
