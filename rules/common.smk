# The validated plan, the paths of its results, and every function that a job's inputs or params come from.

import json
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from east.config import make_plan, validate
from east.config.plan import METHODS_TABLE, cost_plan
from east.config.tables import GridTable
from east.errors import EastError
from east.launch.cores import FIXED_THREADS, training_threads
from east.launch.lease import visible_gpus
from east.render import contents
from east.shown import visible

try:
    PLAN = make_plan(validate(config, workflow.configfiles))
    COST_PLAN = cost_plan(PLAN.config)
except EastError as error:
    raise WorkflowError("\n".join(map(visible, str(error).split("\n")))) from None

EXECUTION = PLAN.config.execution
DATA = EXECUTION.data_dir
RESULTS = f"results/{PLAN.config.name}"
RUNS, TABLES, FIGURES = f"{RESULTS}/runs", f"{RESULTS}/tables", f"{RESULTS}/figures"
LOGS, BENCHMARKS = f"{RESULTS}/logs", f"{RESULTS}/benchmarks"
REPORT = f"{RESULTS}/report/index.html"

PROJECT = Path(workflow.basedir)
PUBLISHED = str(PROJECT / "report" / "published")
TEMPLATES = sorted(
    str(file)
    for folder in ["templates", "captions"]
    for file in (PROJECT / "report" / folder).glob("*.j2")
) + [str(PROJECT / "report" / "style.css")]

TABLES_BY_ID = {table.id: table for table in PLAN.tables}
GRIDS = [table.id for table in PLAN.tables if isinstance(table, GridTable)]
TABLE_FILES = [
    f"{TABLES}/{table}.{form}"
    for table in [*TABLES_BY_ID, "table6", "tableB1"]
    for form in contents.FORMATS
]
GRID_FIGURES = contents.grid_figures()
METHODS_FIGURES = contents.methods_figures()
PLAN_FIGURES = contents.plan_figures(PLAN)
FIGURE_FILES = [
    f"{FIGURES}/{figure}.{form}"
    for figure in [
        *(f"{table}-{figure}" for table in GRIDS for figure in GRID_FIGURES),
        *(f"{METHODS_TABLE}-{figure}" for figure in METHODS_FIGURES),
        *PLAN_FIGURES,
    ]
    for form in ["png", "svg"]
]
EVIDENCE = f"{RESULTS}/analysis/evidence.json"
EVIDENCE_FILES = [
    f"{TABLES}/{table}.{form}"
    for table in contents.EVIDENCE
    for form in contents.FORMATS
]
FRAMES = [f"{TABLES}/runs.csv", f"{TABLES}/epochs.csv"]
APPENDIX = f"{TABLES}/appendix.tex"
STYLE = str(PROJECT / "report" / "figures.mplstyle")

# `east` is the one beside the Python that runs Snakemake, activated or not. How jobs execute reaches it through the
# environment, because a job's params are what decides its numbers.
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:$PATH",
    "EAST_DEVICE": EXECUTION.device,
    "EAST_ENGINE": EXECUTION.engine,
    "EAST_STEP": EXECUTION.step,
    "EAST_DATA_DIR": DATA,
    "EAST_RUNS_PER_GPU": EXECUTION.runs_per_gpu,
    "EAST_TRACKING": EXECUTION.tracking,
    "EAST_PLANNED_RUNS": len(PLAN.runs),
}
if "imagenet" in PLAN.config.datasets and PLAN.config.datasets["imagenet"].folder:
    ENVIRONMENT["EAST_IMAGE_FOLDER"] = PLAN.config.datasets["imagenet"].folder
shell.prefix(
    "".join(f'export {name}="{value}"; ' for name, value in ENVIRONMENT.items())
)


def threads_of_a_training():
    """`execution.threads`; `auto` divides the cores of this machine where trainings compute on them."""
    if EXECUTION.threads != "auto":
        return EXECUTION.threads
    limits, settings = workflow.global_resources, workflow.resource_settings
    on_a_cluster = settings.nodes is not None or not workflow.is_main_process
    on_gpus = EXECUTION.gpus > 0 and visible_gpus(os.environ)
    if on_a_cluster or on_gpus or settings.cores is None:
        return FIXED_THREADS
    needed = {"gpu": EXECUTION.gpus, "mem_mb": EXECUTION.memory_mb}
    allowed = [
        limits[name].value // need
        for name, need in needed.items()
        if need and name in limits
    ]
    return training_threads(
        EXECUTION.threads,
        runs=len(PLAN.runs),
        cores=settings.cores,
        at_most=min(allowed, default=None),
        engine=EXECUTION.engine,
    )


THREADS = threads_of_a_training()


def figures_of_a_table(figures, form):
    """Files of a rule whose wildcard is the table."""
    return [f"{FIGURES}/{{table}}-{figure}.{form}" for figure in figures]


def plan_figures(form):
    """Files of the figures that belong to no single table."""
    return [f"{FIGURES}/{figure}.{form}" for figure in PLAN_FIGURES]


def manifest(dataset):
    """The small file that stands for a prepared data set."""
    return f"{DATA}/{dataset}/manifest.json"


def planned_run(wildcards):
    return PLAN.run(f"{wildcards.table}/{wildcards.row}/seed{wildcards.seed}")


def run_manifest(wildcards):
    """The data set of a run."""
    return manifest(planned_run(wildcards).spec.dataset.name)


def run_identity(wildcards):
    """Canonical JSON of everything that decides the run's numbers: what Snakemake compares, and what is trained."""
    return planned_run(wildcards).spec.canonical_json()


def summary_files(table):
    runs = dict.fromkeys(run.id for row in TABLES_BY_ID[table].rows for run in row.runs)
    return [f"{RUNS}/{run}/summary.json" for run in runs]


def table_summaries(wildcards):
    """The summaries a table needs; none in a partial report, which must not ask for any training."""
    return [] if EXECUTION.partial else summary_files(wildcards.table)


def table_description(wildcards):
    """Rows, labels and the identities that their runs must have, as JSON."""
    return TABLES_BY_ID[wildcards.table].model_dump_json()


def planned_runs():
    """Every run with its identity and its method, as JSON."""
    runs = [
        {"id": run.id, "fingerprint": run.fingerprint, "method": run.label}
        for run in PLAN.runs
    ]
    return json.dumps(runs)


def planned_summaries(wildcards):
    """The summaries of all runs; none in a partial report, which must not ask for any training."""
    return (
        []
        if EXECUTION.partial
        else [f"{RUNS}/{run.id}/summary.json" for run in PLAN.runs]
    )


def summaries_there(wildcards):
    """In a partial report, which has no summaries as inputs: what is there now. No command reads it; as a param it
    makes Snakemake render again when a run has ended since."""
    if not EXECUTION.partial:
        return []
    tables = [wildcards.table] if "table" in wildcards.keys() else TABLES_BY_ID
    files = dict.fromkeys(file for table in tables for file in summary_files(table))
    there = filter(Path.exists, map(Path, files))
    return [file.stat().st_mtime_ns for file in there]


def report_description():
    """What goes where in the report, as JSON."""
    files = sorted(
        (os.path.relpath(file, PROJECT) for file in workflow.configfiles),
        key="config.yaml".__ne__,
    )
    return contents.report_contents(PLAN, Path(RESULTS), files).model_dump_json()
