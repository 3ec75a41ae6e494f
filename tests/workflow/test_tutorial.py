"""The trainings of docs/tutorial.md, as it has them but smaller: its files, its one run, its table."""

import shlex
import shutil

import pytest
import yaml

from tests.unit.in_process import east
from tests.unit.test_tutorial import BLOCK, COMMAND, TEXT, write
from tests.workflow.conftest import ROOT, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SMALLER = {"seeds": [1], "recipes": {"resnet34-digits": {"width": 4, "epochs": 2, "lr_drop_epochs": [1]}}}


def test_the_method_of_a_paper_is_tried_and_becomes_a_row_of_a_table(with_data):
    shutil.copy(ROOT / "config.yaml", with_data)
    shutil.copytree(ROOT / "config", with_data / "config")
    for kind, _, content in BLOCK.findall(TEXT):
        if kind != "console":
            write(content, with_data)
    (with_data / "smaller.yaml").write_text(yaml.safe_dump(SMALLER))
    (trying,) = [command for command, _ in COMMAND.findall(TEXT) if command.startswith("east try ")]
    done = east(*shlex.split(trying)[1:], "--device", "cpu", "--threads", 1, folder=with_data)
    assert done.returncode == 0, done.stderr
    assert "Test accuracy (%) by epoch" in done.stdout
    (making,) = [command for command, _ in COMMAND.findall(TEXT) if command.startswith("snakemake ")]
    files = shlex.split(making.partition("--configfile")[2])
    done = snakemake(with_data, "all", "--configfile", *(with_data / file for file in (*files, "smaller.yaml")))
    assert done.returncode == 0, done.stderr
    results = with_data / "results" / "acdc"
    lines = (results / "tables" / "tableAcdc.md").read_text().splitlines()
    shown = TEXT[TEXT.index("| Method |") :].splitlines()[:5]
    assert [line.split("|")[1] for line in lines if line.startswith("|")] == [line.split("|")[1] for line in shown]
    assert "AC/DC" in (results / "report" / "index.html").read_text()
