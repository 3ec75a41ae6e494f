"""What a plan needs at its end, looked at before its beginning."""

import os
import shutil
from pathlib import Path

import pytest

from east.config import make_plan, read_config
from east.config.plan import PAPER_TABLES
from east.errors import EastError
from east.operations.ready import check_ready, lacking, unwritable
from tests.conftest import ROOT

PLAN = make_plan(read_config())


@pytest.mark.parametrize("name", [*PAPER_TABLES, "table6.csv", "tableB1.csv"])
def test_a_damaged_file_of_the_paper_s_numbers_is_named(tmp_path, name):
    report = shutil.copytree(ROOT / "report", tmp_path / "report")
    assert lacking(PLAN, report) == []
    (report / "published" / name).write_text("a,b\n1,2\n")
    found = lacking(PLAN, report)
    # By the paper's own tables, and by the key of the plan that names it.
    assert () in [mistake.location for mistake in found]
    assert all(str(report / "published" / name) in mistake.sentence for mistake in found)


def test_a_mistake_that_a_key_makes_is_refused_in_its_place_and_any_other_as_it_is(tmp_path, overlay):
    file = overlay("cost: {published: none.csv}")
    with pytest.raises(EastError) as caught:
        check_ready(make_plan(read_config(file)), tmp_path)
    assert str(caught.value).startswith(f"{file}:1: cost.published")
    report = shutil.copytree(ROOT / "report", tmp_path / "report")
    (report / "published/tableB1.csv").write_text("a,b\n1,2\n")
    with pytest.raises(EastError, match=r"^[^:]*tableB1\.csv"):
        check_ready(PLAN, tmp_path, report=report)


def test_folders_that_cannot_be_written_are_told_with_what_they_are_for(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    for name in PLAN.datasets():
        (tmp_path / "data" / name).mkdir(parents=True)
    assert list(unwritable(PLAN, tmp_path)) == []
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK or Path(path) == tmp_path)
    results, data = unwritable(PLAN, tmp_path)
    assert results.startswith(f"results/paper is to hold results, but {tmp_path}/results cannot be written.")
    assert data.startswith(f"data is to hold data sets (execution.data_dir), but {tmp_path}/data cannot be written.")
    for name in PLAN.datasets():
        (tmp_path / "data" / name / "manifest.json").touch()
    assert list(unwritable(PLAN, tmp_path)) == [results]
    (tmp_path / "results").rmdir()
    (tmp_path / "results").write_text("")
    [file] = unwritable(PLAN, tmp_path)
    assert file.startswith(f"results/paper is to hold results, but {tmp_path}/results is no folder.")
