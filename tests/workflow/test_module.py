"""Another workflow that includes this one as a module, with an overlay or a whole configuration of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import ROOT, TEST_CONFIG
from tests.workflow.test_documented_commands import merge

TEXT = (ROOT / "docs" / "extending.md").read_text()
SNAKEFILE = re.search(r"^```python\n(configfile: .*?)^```$", TEXT, re.MULTILINE | re.DOTALL)[1]
"""The other workflow's, as the documentation has it."""


def other_workflow(folder: Path, section: dict) -> Path:
    """A folder with another workflow, which names ours by a path of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "Snakefile").write_text(SNAKEFILE.replace('"east/Snakefile"', repr(str(ROOT / "Snakefile"))))
    (folder / "config.yaml").write_text(yaml.safe_dump({"sparse": section}))
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def overlay() -> dict:
    section = yaml.safe_load(TEST_CONFIG.read_text()) | {"name": "sparse", "seeds": [1]}
    section["tables"] |= {"table2": section["tables"]["table2"] | {"rows": [{"static": True}]}, "table3": None}
    return section


def whole() -> dict:
    files = (yaml.safe_load(file.read_text()) for file in (ROOT / "config.yaml", TEST_CONFIG))
    return merge(*files) | {"name": "sparse", "seeds": [1]}


@pytest.mark.slow
@pytest.mark.parametrize(("section", "trainings"), [(overlay, 1), (whole, 2)], ids=["overlay", "whole"])
def test_another_workflow_plans_ours_under_names_of_its_own(tmp_path, section, trainings):
    done = snakemake(other_workflow(tmp_path / "other", section()), "-n", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert {name for name in counts if not name.startswith("east_")} == {"summary", "total"}
    assert counts["east_train"] == str(trainings)
    assert counts["summary"] == "1"


@pytest.mark.slow
def test_a_mistake_in_the_section_is_named(tmp_path):
    done = snakemake(other_workflow(tmp_path / "other", overlay() | {"densty": 1}), "-n")
    assert done.returncode != 0
    assert "the module's config: densty: unknown key. Did you mean 'density'?" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.workflow
def test_another_workflow_trains_by_ours_and_goes_on_from_its_table(with_data):
    folder = other_workflow(with_data, overlay())
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "summary.txt").read_text().startswith("table,dataset,")
    assert (folder / "results" / "sparse" / "runs" / "table2" / "static" / "seed1" / "summary.json").is_file()


@pytest.mark.slow
def test_the_catalogues_snakefile_plans_the_same(tmp_path):
    ours = ["--snakefile", str(ROOT / "workflow" / "Snakefile"), "--configfile", str(TEST_CONFIG)]
    done = snakemake(ROOT, *ours, "--directory", str(tmp_path), "-n", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^everything +1$", done.stdout, re.MULTILINE)
    assert re.search(r"^train +6$", done.stdout, re.MULTILINE)


def test_the_catalogue_finds_what_it_looks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"] == {
        "conda": False,
        "apptainer": False,
        "apptainer+conda": False,
        "report": True,
    }
    assert "make setup" in usage["mandatory-flags"]["desc"]
    assert all((ROOT / name).is_file() for name in ("workflow/Snakefile", "config/README.md"))
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
