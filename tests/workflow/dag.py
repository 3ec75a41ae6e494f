"""Snakemake asked in-process which jobs it would run, and why."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
    WorkflowSettings,
)

ROOT = Path(__file__).parents[2]
TRIGGERS = ("mtime", "params", "input", "software-env")


def planned_jobs(workdir: Path, *overlays: Path, forced: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(rule, first output) of every job that Snakemake would run in `workdir`, sorted; the files stay as they are.

    Args:
        workdir: holds results and Snakemake's records.
        overlays: configuration files merged over config.yaml.
        forced: rules to run in any case.
    """
    with _dag(workdir, overlays, forced) as dag:
        return sorted((job.rule.name, str(job.output[0]) if job.output else "") for job in dag.jobs if dag.needrun(job))


def cluster_rules(workdir: Path, *overlays: Path) -> set[str]:
    """Rules whose jobs a cluster gets, as they are not `localrules`."""
    with _dag(workdir, overlays, ()) as dag:
        return {rule.name for rule in dag.workflow.rules} - dag.workflow._localrules


@contextmanager
def _dag(workdir: Path, overlays: tuple[Path, ...], forced: tuple[str, ...]) -> Iterator:
    from snakemake.settings.enums import RerunTrigger

    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(configfiles=list(overlays)),
            workflow_settings=WorkflowSettings(),
            snakefile=ROOT / "Snakefile",
            workdir=workdir,
        )
        dag_api = workflow.dag(
            DAGSettings(
                rerun_triggers=frozenset(RerunTrigger.parse_choice(trigger) for trigger in TRIGGERS),
                forcerun=frozenset(forced),
            )
        )
        dag_api.execute_workflow(executor="dryrun")
        # The plan as data; the public interface only prints it.
        yield workflow._workflow.dag
