import json

import pytest
from fake_runs import DIVERGED, write_run

from east.analysis.summary import read_summary
from east.errors import EastError


def test_a_summary_keeps_what_it_knows_and_what_it_does_not(tmp_path):
    summary = read_summary(write_run(tmp_path, "t/r/seed17", 81.5))
    assert (summary.final_test_accuracy, summary.status) == (81.5, "finished")
    assert summary.model_extra == {"a_key_of_tomorrow": [1]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "JSON"),
        ("[]", "summary of a run"),
        ({"status": "crashed"}, "status"),
        ({"final_test_accuracy": 101}, "final_test_accuracy"),
        ({"final_test_accuracy": None}, "final_test_accuracy is empty"),
        ({"fingerprint": None}, "fingerprint"),
    ],
)
def test_a_bad_summary_is_refused_by_file_and_key(tmp_path, content, complaint):
    path = write_run(tmp_path, "t/r/seed17", 81.5)
    path.write_text(content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content))
    with pytest.raises(EastError, match=complaint) as caught:
        read_summary(path)
    assert str(path) in str(caught.value)


def test_a_number_that_is_not_finite_is_refused(tmp_path):
    path = write_run(tmp_path, "t/r/seed17", float("nan"))
    with pytest.raises(EastError, match="final_test_accuracy"):
        read_summary(path)


def test_a_missing_file_is_an_error_for_people(tmp_path):
    with pytest.raises(EastError, match="nowhere"):
        read_summary(tmp_path / "nowhere.json")


def test_a_diverged_run_needs_no_accuracy(tmp_path):
    assert read_summary(write_run(tmp_path, "t/r/seed17", DIVERGED)).diverged_at_epoch == 7
