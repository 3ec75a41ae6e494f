# A table's runs become one file: mean and spread over seeds, checked against the plan by fingerprint.

from pathlib import Path

TABLES_BY_ID = {table.id: table for table in PLAN.tables}
PARTIAL = ["--partial"] if EXECUTION.partial else []


def table_summaries(wildcards):
    """The summaries a table needs; in a partial report, those that are there."""
    table = TABLES_BY_ID[wildcards.table]
    runs = dict.fromkeys(run.id for row in table.rows for run in row.runs)
    files = [f"{RUNS}/{run}/summary.json" for run in runs]
    return [file for file in files if Path(file).exists()] if EXECUTION.partial else files


def table_description(wildcards):
    """Rows, labels and the identities that their runs must have, as JSON."""
    return TABLES_BY_ID[wildcards.table].model_dump_json()


rule aggregate:
    input:
        table_summaries,
    output:
        f"{RESULTS}/aggregate/{{table}}.json",
    log:
        f"{LOGS}/aggregate/{{table}}.log",
    wildcard_constraints:
        table="|".join(TABLES_BY_ID),
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        table=table_description,
        partial=PARTIAL,
    shell:
        "{EAST} aggregate --table {params.table:q} --runs {RUNS:q} --out {output:q} {params.partial} 2> {log:q}"
