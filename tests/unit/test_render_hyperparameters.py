import csv
import io

import pytest

from east.analysis.published import read_published_rows
from east.errors import EastError
from east.render.hyperparameters import render_hyperparameters
from tests.unit.fake_runs import PUBLISHED

TABLE = PUBLISHED / "tableB1.csv"


def rows() -> list[dict[str, object]]:
    return [dict(row) for row in read_published_rows(TABLE)]


def test_the_papers_own_settings_differ_nowhere_however_they_are_written():
    plan = rows()
    plan[0] |= {"weight_decay": 0.0001, "epochs": 250, "lr_drop_epochs": "10x[75, 150]"}
    plan[2] |= {"cyclic_n": None, "cyclic_l": ""}
    output = render_hyperparameters(plan, TABLE)
    assert {row["differs"] for row in csv.DictReader(io.StringIO(output.csv))} == {""}
    assert "**" not in output.md.split("\n", 1)[1]


def test_differences_are_marked_in_every_format():
    plan = [rows()[0] | {"lr_drop_epochs": "10x[125,187]", "data": "Digits"}]
    output = render_hyperparameters(plan, TABLE)
    ours, paper = csv.DictReader(io.StringIO(output.csv))
    assert (ours["source"], ours["differs"]) == ("plan", "data lr_drop_epochs")
    assert (paper["source"], paper["lr_drop_epochs"]) == ("paper", "10x[75,150]")
    assert "| **Digits** ≠ |" in output.md
    assert r"\textbf{Digits} $\neq$" in output.tex
    assert '<td class="left differs">Digits <span class="mark">≠</span></td>' in output.html


def test_a_system_that_the_paper_prints_twice_stands_beside_the_one_with_the_same_data(tmp_path):
    published = tmp_path / "tableB1.csv"
    lines = TABLE.read_text().splitlines()
    published.write_text("\n".join([*lines, lines[1].replace("CIFAR-10/100", "Digits").replace(",250,", ",30,"), ""]))
    for data, epochs in (("CIFAR-10/100", "250"), ("Digits", "30")):
        _, paper = csv.DictReader(io.StringIO(render_hyperparameters([rows()[0] | {"data": data}], published).csv))
        assert (paper["data"], paper["epochs"]) == (data, epochs)


def test_a_system_that_the_paper_lacks_stands_alone_with_a_note():
    output = render_hyperparameters([rows()[0] | {"method": "SET"}], TABLE)
    assert "| Paper |" not in output.md
    assert "This plan<sup>a</sup>" in output.md
    assert output.md.rstrip().splitlines()[-1].startswith("<sup>a</sup> ")


def test_wrong_columns_are_named():
    row = rows()[0]
    del row["init"]
    with pytest.raises(EastError, match="init, momentum"):
        render_hyperparameters([row | {"momentum": 0.9}], TABLE)
    with pytest.raises(EastError, match=r"table6\.csv does not have the columns"):
        render_hyperparameters([], PUBLISHED / "table6.csv")
