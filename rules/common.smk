# What every rule shares: the validated plan, paths, and the helpers that rules call.

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from east.config import make_plan, validate
from east.errors import EastError

try:
    PLAN = make_plan(validate(config, workflow.configfiles))
except EastError as error:
    raise WorkflowError(str(error)) from None

EXECUTION = PLAN.config.execution
EAST = f"{sys.executable} -m east"
DATA = EXECUTION.data_dir
RESULTS = f"results/{PLAN.config.name}"
RUNS, TABLES = f"{RESULTS}/runs", f"{RESULTS}/tables"
LOGS, BENCHMARKS = f"{RESULTS}/logs", f"{RESULTS}/benchmarks"
FORMATS = ["csv", "md", "tex", "html"]
PROJECT = Path(workflow.basedir)
PUBLISHED = str(PROJECT / "report" / "published")
TEMPLATES = sorted(
    str(file) for folder in ["templates", "captions"] for file in (PROJECT / "report" / folder).glob("*.j2")
)


def manifest(dataset):
    """The small file that stands for a prepared data set."""
    return f"{DATA}/{dataset}/manifest.json"
