import math
import subprocess
import sys
from dataclasses import asdict

import pytest
from fake_runs import DIVERGED, record, write_curve, write_rows, write_run
from pydantic import ValidationError

from east.analysis.sources import read_run_record
from east.errors import EastError
from east.reproducibility import Reproducibility
from east.training.records import (
    EpochRecord,
    RunSummary,
    TimingRecord,
    TraceRecord,
    UpdateRecord,
    columns,
    describe,
    read_records,
    read_summary,
)
from tests.unit.fake_runs import seal, sources

KINDS = (EpochRecord, UpdateRecord, TimingRecord, TraceRecord)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_again(tmp_path, kind):
    values = {int: 3, float: 0.1 + 0.2, str: "a,b"}
    row = kind(**{column.name: values[column.kind] for column in columns(kind)})
    path = write_rows(tmp_path, kind, asdict(row), {})
    assert read_records(path, kind).checked() == (row, record(kind))


@pytest.mark.parametrize("schema", [*KINDS, RunSummary])
def test_every_column_and_key_says_what_it_means(schema):
    assert [column.name for column in columns(schema) if not column.meaning.text] == []


@pytest.mark.parametrize(
    ("name", "kind", "optional", "unit"),
    [
        ("id", str, False, ""),
        ("run", dict, False, ""),
        ("status", str, False, ""),
        ("final_test_accuracy", float, True, "%"),
        ("best_epoch", int, True, ""),
        ("seconds", float, True, "s"),
        ("reproducibility", Reproducibility, True, ""),
        ("attempt_records", list, False, ""),
        ("versions", dict, False, ""),
    ],
)
def test_a_key_has_the_type_of_its_values(name, kind, optional, unit):
    (column,) = (column for column in columns(RunSummary) if column.name == name)
    assert (column.kind, column.optional, column.meaning.unit) == (kind, optional, unit)


def test_the_first_complaint_is_named_with_its_key_and_others_are_counted():
    def described(**changes):
        with pytest.raises(ValidationError) as caught:
            RunSummary(**{"id": "a", "fingerprint": "b", "status": "finished", "final_test_accuracy": 1.0} | changes)
        return describe(caught.value)

    assert described(steps="many").startswith("steps: Input should be a valid integer")
    assert described(steps="many").endswith("as an integer")
    assert described(final_test_accuracy=None) == "final_test_accuracy is empty although the run is finished"
    assert described(liveness={"channels": "x"}).startswith("liveness.channels: ")
    assert described(steps="many", epochs="few", id=3).startswith("id: ")
    assert described(steps="many", epochs="few", id=3).endswith(" (and 2 more)")


def test_only_what_may_be_empty_is_read_as_none(tmp_path):
    path = write_rows(tmp_path, EpochRecord, {"val_acc": None, "train_loss": float("nan")})
    (row,) = read_records(path, EpochRecord).checked()
    assert row.val_acc is None
    assert row.train_loss != row.train_loss
    path.write_text(path.read_text().replace("nan", ""))
    assert read_records(path, EpochRecord).problem == f"{path}, line 2: '' is not a value of train_loss."


@pytest.mark.parametrize(
    ("column", "value", "is_read"),
    [
        ("test_acc", math.nan, True),
        ("train_loss", math.inf, True),
        ("density", math.nan, False),
        ("lr", math.inf, False),
        ("nonzeros", 2**63 - 1, True),
        ("nonzeros", 2**63, False),
        ("nonzeros", 1 - 2**63, True),
        ("nonzeros", -(10**400), False),
    ],
)
def test_only_what_diverges_is_no_number_and_counts_are_countable(tmp_path, column, value, is_read):
    path = write_rows(tmp_path, EpochRecord, {column: value})
    found = read_records(path, EpochRecord)
    assert (len(found.rows), found.problem is None) == (is_read, is_read)
    assert is_read or column in found.problem


CUTS = {
    "whole": (lambda text: text, 2, None),
    "within the last line": (lambda text: text[:-2], 1, "is whole only up to line 2."),
    "before the end of the last line": (lambda text: text[:-1], 1, "is whole only up to line 2."),
    "a line without its fields": (lambda text: text.replace("\n2,", "\n2\n3,"), 1, "is whole only up to line 2."),
    "within the header": (lambda text: text[:20], 0, "ends within its first line."),
    "the header alone": (lambda text: text.splitlines(keepends=True)[0], 0, None),
    "nothing": (lambda text: "", 0, "is empty."),
    "a quote without an end": (lambda text: text + '"5', 0, "is not a CSV file"),
    "no number": (lambda text: text.replace("\n2,", "\ntwo,"), 1, "line 3: 'two' is not a value of epoch"),
    "another file": (lambda text: "epoch,accuracy\n1,2\n", 0, "has no column step, lr"),
    "a byte that is no text": (lambda text: text.replace("\n2,", "\n\udcff,"), 1, "line 3"),
    "a column more": (lambda text: "new," + text.replace("\n1,", "\nx,1,").replace("\n2,", "\nx,2,"), 2, None),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_file_is_read_up_to_where_it_is_whole(tmp_path, cut):
    change, rows, problem = CUTS[cut]
    path = write_curve(tmp_path, [50.0, 60.0])
    path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))
    found = read_records(path, EpochRecord)
    assert [row.test_acc for row in found.rows] == [50.0, 60.0][:rows]
    if problem is None:
        assert found.checked() == found.rows
    else:
        assert problem in found.problem
        with pytest.raises(EastError, match=r"metrics\.csv"):
            found.checked()


def test_a_folder_that_is_not_there_is_an_empty_record(tmp_path):
    record = read_run_record(sources(tmp_path), "table2/static/seed17")
    assert (record.epochs, record.updates, record.summary, record.problems) == ((), (), None, ())


def test_nothing_vouches_for_the_records_beside_a_damaged_summary(tmp_path):
    path = write_run(tmp_path, "table2/static/seed17", 80.0)
    write_curve(path.parent, [50.0])
    path.write_text(path.read_text()[:40])
    record = read_run_record(sources(tmp_path), "table2/static/seed17")
    assert (record.epochs, record.updates, record.summary) == ((), (), None)
    assert "summary.json is not the summary of a run" in record.problems[0]


# summary.json


def test_a_summary_keeps_what_it_knows_and_what_it_does_not(tmp_path):
    summary = read_summary(write_run(tmp_path, "t/r/seed17", 81.5))
    assert (summary.final_test_accuracy, summary.status) == (81.5, "finished")
    assert summary.model_extra == {"a_key_of_tomorrow": [1]}
    assert read_summary(write_run(tmp_path, "t/r/seed17", DIVERGED)).diverged_at_epoch == 7


def test_a_summary_counts_as_far_as_a_data_frame_does(tmp_path):
    path = write_run(tmp_path, "t/r/seed17", 81.5)
    seal(path, steps=2**63 - 1, liveness={"channels": 1 - 2**63})
    assert read_summary(path).steps == 2**63 - 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "summary of a run"),
        ("[]", "no keys"),
        ("[" * 100_000, "damaged"),
        ('{"sha256": "", "seconds": NaN}', "damaged"),
        ({"status": "crashed"}, "status"),
        ({"final_test_accuracy": 101}, "final_test_accuracy"),
        ({"final_test_accuracy": None}, "final_test_accuracy is empty"),
        ({"fingerprint": None}, "fingerprint"),
        ({"steps": 10**400}, "steps"),
        ({"liveness": {"channels": 2**63}}, "liveness"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_summary_is_refused_by_file_and_key(tmp_path, content, complaint):
    path = write_run(tmp_path, "t/r/seed17", 81.5)
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        seal(path, **content)
    with pytest.raises(EastError, match=complaint) as caught:
        read_summary(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("modules", "libraries"),
    [
        ("east.training.records, east.training.folder", {"torch", "pandas", "numpy"}),
        ("east.training.loop, east.training.progress, east.training.tracking", {"pandas"}),
        ("east.cli, east.operations.status, east.operations.changes, east.render.contents", {"pandas"}),
    ],
)
def test_neither_training_nor_planning_waits_for_what_it_does_not_need(modules, libraries):
    code = f"import sys, {modules}; assert not {libraries} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
