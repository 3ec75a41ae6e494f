import pytest
from fake_runs import write_run

from east.analysis.run_record import read_records, read_run_record


def test_a_folder_that_is_not_there_is_an_empty_record(tmp_path):
    record = read_run_record(tmp_path, "table2/static/seed17")
    assert (record.epochs.rows, record.updates.rows, record.summary, record.problems) == ((), (), None, ())


@pytest.mark.parametrize(
    ("text", "epochs", "problem"),
    [
        ("epoch,test_acc\n1,50\n2,60\n", ["1", "2"], None),
        ("epoch,test_acc\n1,50\n2,6", ["1"], "is whole only up to line 2."),
        ("epoch,test_acc\n1,50\n2\n3,70\n", ["1"], "is whole only up to line 2."),
        ("epoch,test_acc\n", [], None),
        ("", [], "is empty."),
        ('epoch,test_acc\n1,"5', [], "is no CSV file"),
    ],
)
def test_a_file_is_read_up_to_where_it_is_whole(tmp_path, text, epochs, problem):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    records = read_records(path)
    assert records.texts("epoch") == epochs
    assert (problem in records.problem) if problem else records.problem is None


def test_what_is_no_number_is_none(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"epoch,val_acc\n1,\n2,nan\n3,\xff\n4,7.5\n")
    assert read_records(path).numbers("val_acc") == [None, None, None, 7.5]
    assert read_records(path).numbers("no such column") == [None] * 4


def test_a_summary_that_is_not_whole_is_a_problem_and_hides_nothing_else(tmp_path):
    path = write_run(tmp_path, "table2/static/seed17", 80.0)
    path.with_name("metrics.csv").write_text("epoch,test_acc\n1,50\n")
    path.write_text(path.read_text()[:40])
    record = read_run_record(tmp_path, "table2/static/seed17")
    assert record.epochs.numbers("test_acc") == [50.0]
    assert record.summary is None
    assert "summary.json is not the summary of a run" in record.problems[0]


def test_a_folder_in_place_of_a_file_is_a_problem(tmp_path):
    (tmp_path / "run" / "updates.csv").mkdir(parents=True)
    assert "updates.csv cannot be read" in read_run_record(tmp_path, "run").problems[0]
