"""The estimate beside a real run of a part of the demo, timed right before and after it by the same machine."""

import json
import subprocess
import sys
from statistics import fmean

import pytest

from tests.workflow.conftest import ROOT, snakemake

pytestmark = [pytest.mark.slow, pytest.mark.workflow, pytest.mark.timing]

DEMO = ROOT / "config" / "demo.yaml"
PART = """\
seeds: [1]
tables:
  table2: {rows: &rows [{static: true}, {pattern: cosine, multiplier: 10, cycles: 2}]}
  table3: null
  table4: {rows: *rows}
  table5: {rows: *rows}
"""


@pytest.fixture
def configured(tmp_path):
    """Options that name a part of the demo: eleven runs of seven kinds."""
    overlay = tmp_path / "part.yaml"
    overlay.write_text(PART)
    return ("--configfile", str(DEMO), str(overlay))


def estimate(workdir, configured):
    """What the command says of the plan, for two cores."""
    _, *files = configured
    options = [argument for file in files for argument in ("--configfile", file)]
    command = [sys.executable, "-m", "east", "estimate", *options, "--cores", "2", "--json"]
    # A results folder of its own, so that nothing counts as done.
    command += ["--results", str(workdir / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trainings(workdir):
    """When each training began and ended, as Snakemake recorded it."""
    records = [
        json.loads(path.read_text()) for path in (workdir / ".snakemake" / "metadata").rglob("*") if path.is_file()
    ]
    return [(record["starttime"], record["endtime"]) for record in records if record["rule"] == "train"]


def test_an_estimate_is_within_a_fifth_of_the_truth(tmp_path, configured):
    workdir = tmp_path / "work"
    workdir.mkdir()
    assert snakemake(workdir, *configured, "--", "data").returncode == 0
    before = estimate(workdir, configured)
    done = snakemake(workdir, *configured, "--until", "train")
    assert done.returncode == 0, done.stderr
    after = estimate(workdir, configured)

    times = trainings(workdir)
    assert len(times) == before["total"]["left"] == 11
    core_seconds = sum(end - start for start, end in times)
    wall_seconds = max(end for _, end in times) - min(start for start, _ in times)
    ratios = {
        "core-seconds": fmean(found["total"]["seconds"] for found in (before, after)) / core_seconds,
        "wall time": fmean(found["total"]["wall_seconds"] for found in (before, after)) / wall_seconds,
    }
    print(ratios, "before", before["total"], "after", after["total"], "true", core_seconds, wall_seconds)
    assert ratios == pytest.approx({"core-seconds": 1.0, "wall time": 1.0}, abs=0.2)
