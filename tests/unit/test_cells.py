import pytest

from east.analysis.results import frame_csv
from east.cells import guarded, unguarded
from east.render import rendered


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-x", "\t=1", "\r=1", "'=1", "''=1", "-"])
def test_what_a_spreadsheet_would_execute_is_a_text_and_is_read_as_it_was(text):
    assert guarded(text) == f"'{text}"
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("text", ["", "x", "-1.5", "+2e5", "'x", "'-1", "it's", "a=b"])
def test_numbers_and_other_texts_stay(text):
    assert guarded(text) == unguarded(text) == text


def test_no_cell_of_our_csv_files_is_a_formula():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"method": ["=1", None], "change": [-1.5, None]})
    assert frame_csv(frame) == "method,change\n'=1,-1.5\n,\n"
    assert rendered.csv_text(["method", "change"], [{"method": "=1", "change": -1.5}]) == "method,change\n'=1,-1.5\n"
