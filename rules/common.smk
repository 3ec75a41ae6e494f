# The validated plan, the paths of its results, and every function that a job's inputs or params come from.

import json
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from east import files, locks
from east.config import make_plan
from east.config.files import read_given
from east.config.tables import GridTable
from east.data.catalog import is_streamed
from east.data.manifest import TENSOR_FILE
from east.errors import EastError
from east.launch import passing
from east.launch.cores import FIXED_THREADS, training_threads
from east.launch.lease import visible_gpus
from east.operations.ready import check_ready
from east.operations.steps import Steps
from east.render import contents
from east.shown import visible

# The folder of this workflow, wherever the one is that includes it as a module.
PROJECT = Path(workflow.current_basedir).parent

try:
    PLAN = make_plan(read_given(config, workflow.configfiles, PROJECT))
    RESULTS = f"results/{PLAN.config.name}"
    CONFIG_FILES = sorted(
        (os.path.relpath(file, PROJECT) for file in PLAN.config.sources.contents),
        key="config.yaml".__ne__,
    )
    STEPS = Steps(PLAN, Path(RESULTS), CONFIG_FILES)
    check_ready(PLAN, Path.cwd())
except EastError as error:
    raise WorkflowError("\n".join(map(visible, str(error).split("\n")))) from None

EXECUTION = PLAN.config.execution
IMAGES = {images.store: images for images in PLAN.images().values()}
RUNS, TABLES, FIGURES = f"{RESULTS}/runs", f"{RESULTS}/tables", f"{RESULTS}/figures"
LOGS, BENCHMARKS = f"{RESULTS}/logs", f"{RESULTS}/benchmarks"
REPORT = f"{RESULTS}/report/index.html"
EVIDENCE = f"{RESULTS}/analysis/evidence.json"
APPENDIX = f"{TABLES}/appendix.tex"
COSTS = f"{RESULTS}/cost/cost.json"


def literal(path):
    """A path of which no part is a wildcard, whatever characters it has."""
    return str(path).replace("{", "{{").replace("}", "}}")


REPORT_FILES = PROJECT / "report"
if "<" in str(REPORT_FILES):  # Snakemake would take a folder's `<name>` for its own
    REPORT_FILES = Path(os.path.relpath(REPORT_FILES))
DATA = literal(EXECUTION.data_dir)
PUBLISHED = literal(REPORT_FILES / "published")
STYLE = literal(REPORT_FILES / "figures.mplstyle")
SCRIPT = literal(REPORT_FILES / "script.js")
TEMPLATES = sorted(
    literal(file)
    for folder in ["templates", "captions"]
    for file in (REPORT_FILES / folder).glob("*.j2")
) + [literal(REPORT_FILES / "style.css")]

TABLES_BY_ID = {table.id: table for table in PLAN.tables}
GRIDS = [table.id for table in PLAN.tables if isinstance(table, GridTable)]
AGGREGATED = [f"{RESULTS}/aggregate/{table}.json" for table in TABLES_BY_ID]
TABLES_OF_A_KIND = {
    kind: [table.id for table in PLAN.tables if contents.figure_kind(table) == kind]
    for kind in contents.TABLE_KINDS
}
PLAN_FIGURES = contents.plan_figures(PLAN)


def files_of(*kinds):
    """All files of the steps whose names begin so."""
    return [
        f"{RESULTS}/{file}"
        for name in STEPS
        if name.startswith(kinds)
        for file in STEPS[name].files
    ]


FRAMES = files_of("frames")
EVIDENCE_FILES = files_of("tables/evidence")
TABLE_FILES = [file for file in files_of("tables/") if file not in EVIDENCE_FILES]
FIGURE_FILES = files_of("figures/")

# `east` is the one beside the Python that runs Snakemake, activated or not. How jobs execute reaches it through the
# environment, because a job's params are what decides its numbers. Nothing of it passes through a shell's text.
os.environ |= {
    "PATH": os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    ),
    "PYTHONUTF8": "1",  # whatever the locale
    "EAST_RESULTS": RESULTS,
    "EAST_DEVICE": EXECUTION.device,
    "EAST_ENGINE": EXECUTION.engine,
    "EAST_STEP": EXECUTION.step,
    "EAST_DATA_DIR": EXECUTION.data_dir,
    "EAST_RUNS_PER_GPU": str(EXECUTION.runs_per_gpu),
    "EAST_TRACKING": EXECUTION.tracking,
    "EAST_PLANNED_RUNS": str(len(PLAN.runs)),
    "EAST_PLUGINS": os.pathsep.join(
        str(path.absolute()) for path in PLAN.config.catalogue.paths.values()
    ),
    "EAST_CHANGED_PLUGIN": EXECUTION.changed_plugin,
}
# Store of a data set -> what `east prepare` and `east train` must know of it beside its name.
DATASETS = {
    store: {
        "images": images.model_dump(mode="json"),
        "folder": PLAN.config.datasets[images.name].folder,
    }
    for store, images in IMAGES.items()
}
os.environ |= {"EAST_DATASETS": json.dumps(DATASETS)}


ON_A_CLUSTER = (
    workflow.resource_settings.nodes is not None or not workflow.is_main_process
)


@cache
def on_gpus():
    """Whether trainings compute on GPUs of this machine; a driver that is asked takes its time."""
    return not ON_A_CLUSTER and EXECUTION.gpus > 0 and bool(visible_gpus(os.environ))


def threads_of_a_training():
    """`execution.threads`; `auto` divides the cores of this machine where trainings compute on them."""
    cores, limits = workflow.resource_settings.cores, workflow.global_resources
    if EXECUTION.threads != "auto":
        return EXECUTION.threads
    if ON_A_CLUSTER or cores is None or on_gpus():
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
        cores=cores,
        at_most=min(allowed, default=None),
        engine=EXECUTION.engine,
    )


THREADS = threads_of_a_training()
HELD = []


def hold_results():
    """Keep other Snakemakes off these results until this process ends, however it ends."""
    if not workflow.is_main_process:
        return
    lock = Path(RESULTS) / ".workflow.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    HELD.append(lock.open("a"))
    if not locks.take(HELD[-1]):
        raise WorkflowError(
            f"Another snakemake works in {RESULTS}. Wait until it has ended, or end it: what is done stays."
        )


def mend_times():
    """Snakemake refuses what is made from files of the future, as there are where a clock was put back."""
    data_sets = (Path(EXECUTION.data_dir) / name for name in IMAGES)
    try:
        files.end_the_future([Path(RESULTS), REPORT_FILES, *data_sets])
    except EastError as error:
        raise WorkflowError(visible(str(error))) from None


def share_imports():
    """Let the jobs on this machine be forks of one process, which imports what they need once.

    Only where a fork is known to compute as a process of its own does: not with a GPU, nor on a Mac.
    """
    if not ON_A_CLUSTER and sys.platform == "linux" and not on_gpus():
        HELD.append(passing.start(Path(LOGS) / "server.log"))


def made_again(name):
    """For the inputs of a step's rule: no file, but the step runs again unless its files are right.

    Snakemake itself goes by times, and by records of its own in .snakemake, which may be lost or of something else.

    Args:
        name: the step's; wildcards in braces.
    """

    def inputs(wildcards):
        step = name.format(**dict(wildcards.items()))
        if workflow.is_main_process and STEPS.problem(step):
            again(STEPS[step].files)
        return []

    return inputs


def again(files):
    """Have the job that makes these files run again."""
    workflow.dag.forcefiles.update(f"{RESULTS}/{file}" for file in files)


def request(name):
    """For the params of a step's rule: what the step is asked for, as JSON.

    Args:
        name: the step's; wildcards in braces.
    """
    return lambda wildcards: STEPS[name.format(**dict(wildcards.items()))].request.text


def figures_of_a_table(figures, form):
    """Files of a rule whose wildcard is the table."""
    return [f"{FIGURES}/{{table}}-{figure}.{form}" for figure in figures]


def plan_figures(form):
    """Files of the figures that belong to no single table."""
    return [f"{FIGURES}/{figure}.{form}" for figure in PLAN_FIGURES]


def manifest(images):
    """The small file that stands for a prepared data set."""
    return f"{DATA}/{images.store}/manifest.json"


def prepared_again(wildcards):
    """For the inputs of `prepare`: no file, but it runs again where images are gone that its manifest describes.

    Damaged ones are noticed, and prepared again, by the training that reads them.
    """
    folder = Path(EXECUTION.data_dir) / wildcards.dataset
    images = IMAGES.get(wildcards.dataset)
    is_streaming = images is not None and is_streamed(images)
    is_whole = is_streaming or (folder / TENSOR_FILE).is_file()
    if (
        workflow.is_main_process
        and not is_whole
        and (folder / "manifest.json").is_file()
    ):
        workflow.dag.forcefiles.add(
            f"{EXECUTION.data_dir}/{wildcards.dataset}/manifest.json"
        )
    return []


def planned_run(wildcards):
    return PLAN.run(f"{wildcards.table}/{wildcards.row}/seed{wildcards.seed}")


def run_manifest(wildcards):
    """The data set of a run, which trains again unless what it left is whole and the plan's."""
    run = planned_run(wildcards)
    if workflow.is_main_process and STEPS.run_problem(run.id):
        again([f"runs/{run.id}/summary.json"])
    return manifest(run.spec.dataset)


def run_identity(wildcards):
    """Canonical JSON of everything that decides the run's numbers: what Snakemake compares, and what is trained."""
    return planned_run(wildcards).spec.canonical_json()


def seed_priority(wildcards):
    """The first seed of all rows comes first, so that an unfinished plan has whole tables of fewer seeds."""
    seeds = PLAN.config.seeds
    return 1 - (seeds.index(int(wildcards.seed)) + 1) / len(seeds)


def summary_files(table):
    runs = dict.fromkeys(run.id for row in TABLES_BY_ID[table].rows for run in row.runs)
    return [f"{RUNS}/{run}/summary.json" for run in runs]


def table_summaries(wildcards):
    """The summaries a table needs; none in a partial report, which must not ask for any training."""
    return [] if EXECUTION.partial else summary_files(wildcards.table)


def planned_summaries(wildcards):
    """The summaries of all runs; none in a partial report, which must not ask for any training."""
    return (
        []
        if EXECUTION.partial
        else [f"{RUNS}/{run.id}/summary.json" for run in PLAN.runs]
    )
