import pytest

from east.analysis.published import read_published_grid, read_published_rows
from east.errors import EastError
from tests.unit.fake_runs import PUBLISHED


def test_rows_are_found_as_printed():
    table2, table5 = (read_published_grid(PUBLISHED / f"table{number}.csv") for number in "25")
    row = table2.find("triangular", 10, 2, 1)
    assert row is not None
    assert (row.accuracy_mean, row.accuracy_std, row.change) == (86.10, 0.24, 4.6)
    assert table2.find("cosine", 3, 1, None) is not None
    assert table2.find("cosine", 3, 1, 1) is None
    assert table5.find("cosine", 30, 3, 2) is not None
    assert table5.find("cosine", 30, 2, 2) is None


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda text: text.replace("cosine,10,2,2", "cosine,10,2,1"), "line 8: an earlier row has the same settings"),
        (lambda text: text.replace("84.08", "84,08"), "whole only up to line 4"),
        (lambda text: text.replace("84.08", "x"), "line 5: accuracy_mean"),
        (lambda text: text.splitlines()[0], "within its first line"),
        (lambda text: text.splitlines(keepends=True)[0], "it has none"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_line(tmp_path, edit, complaint):
    path = tmp_path / "broken.csv"
    path.write_text(edit((PUBLISHED / "table2.csv").read_text()))
    with pytest.raises(EastError, match=complaint) as caught:
        read_published_grid(path)
    assert "broken.csv" in str(caught.value)


def test_other_tables_are_read_as_they_are():
    rows = read_published_rows(PUBLISHED / "tableB1.csv")
    assert [row["delta_t_dst"] for row in rows] == ["4000", "100", "4000"]
    with pytest.raises(EastError, match=r"none\.csv"):
        read_published_rows(PUBLISHED / "none.csv")
