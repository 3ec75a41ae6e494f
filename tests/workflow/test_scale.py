import json

import pytest
import yaml

from benchmarks.pretend import write_runs
from benchmarks.scale import overlay
from east.config import make_plan, read_config
from tests.workflow.conftest import TEST_CONFIG, snakemake

pytestmark = pytest.mark.workflow

LONGEST_ARGUMENT = 128 * 1024
"""Bytes; the kernel of Linux starts no command with a longer one."""


@pytest.mark.slow
def test_a_table_whose_description_is_longer_than_an_argument_may_be_is_made(tmp_path):
    config = tmp_path / "synthetic.yaml"
    config.write_text(yaml.safe_dump(overlay(1_000)))
    plan = make_plan(read_config(TEST_CONFIG, config))
    assert len(plan.tables[0].model_dump_json()) > LONGEST_ARGUMENT
    results = tmp_path / "results" / "synthetic"
    write_runs(plan, results / "runs")
    (tmp_path / "data" / "digits").mkdir(parents=True)
    (tmp_path / "data" / "digits" / "manifest.json").write_text("{}")

    done = snakemake(tmp_path, "--configfile", TEST_CONFIG, config, "--until", "aggregate")

    assert done.returncode == 0, done.stderr
    made = json.loads((results / "aggregate" / "tableS1.json").read_text())
    assert sum(len(row["accuracy"]["seeds"]) for row in made["rows"]) == 1_000
    assert "rule train" not in done.stderr + done.stdout
