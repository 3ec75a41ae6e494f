"""A plan with a rule of the user's own, by the whole workflow."""

import pytest

from east import load_results
from tests.unit.test_extending import EXAMPLES, OVERLAY
from tests.workflow.conftest import TEST_CONFIG, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

FEWER = "seeds: [1]\ntables: {table3: null}\n"


def test_a_rule_of_ones_own_is_trained_tabulated_and_reported(with_data):
    """As docs/extending.md has it: `snakemake --cores all --configfile config/test.yaml mine.yaml`."""
    files = next(example["files"] for example in EXAMPLES if "my_rule.py" in example["files"])
    for name, content in {**files, "fewer.yaml": FEWER}.items():
        (with_data / name).write_text(content)
    done = snakemake(with_data, "all", "--configfile", TEST_CONFIG, with_data / OVERLAY, with_data / "fewer.yaml")
    assert done.returncode == 0, done.stderr
    results = with_data / "results" / "test"
    runs = load_results(results, TEST_CONFIG, with_data / OVERLAY, with_data / "fewer.yaml").runs.set_index("id")
    (mixed,) = [name for name in runs.index if "mixed" in name]
    assert runs.loc[mixed, "status"] == "finished"
    assert list((results / "runs" / mixed).glob("plugin-*.py"))
    assert "mixed" in (results / "tables" / "table2.md").read_text()
    assert "mixed" in (results / "report" / "index.html").read_text()


def test_a_data_set_of_ones_own_is_prepared_trained_on_and_tabulated(with_data):
    files = next(example["files"] for example in EXAMPLES if "my_data.py" in example["files"])
    for name, content in {**files, "fewer.yaml": FEWER}.items():
        (with_data / name).write_text(content)
    config = ("--configfile", TEST_CONFIG, with_data / OVERLAY, with_data / "fewer.yaml")
    done = snakemake(with_data, "results/test/tables/table2.md", *config)
    assert done.returncode == 0, done.stderr
    assert "corners" in (with_data / "results" / "test" / "tables" / "table2.md").read_text()
    (store,) = (with_data / "data").glob("corners.*")
    again = snakemake(with_data, "results/test/tables/table2.md", *config)
    assert "Nothing to be done" in again.stdout + again.stderr
    (store / "images.safetensors").unlink()
    assert snakemake(with_data, "data", *config).returncode == 0
    assert (store / "images.safetensors").is_file()
