# Every run and epoch as CSV; Tables 2-5, B.1 and the methods, and how they stand to the paper's, each in four formats.

import json

from east.render.hyperparameters import hyperparameter_rows


rule frames:
    input:
        planned_summaries,
    output:
        runs=f"{TABLES}/runs.csv",
        epochs=f"{TABLES}/epochs.csv",
    log:
        f"{LOGS}/frames.log",
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        planned=planned_runs(),
        runs=RUNS,
        there=summaries_there,
    shell:
        'east frames --planned - --runs {params.runs:q} --folder "$(dirname {output.runs:q})"'
        " 2> {log:q} <<< {params.planned:q}"


rule table:
    input:
        aggregated=f"{RESULTS}/aggregate/{{table}}.json",
        templates=TEMPLATES,
    output:
        multiext(f"{TABLES}/{{table}}", ".csv", ".md", ".tex"),
        html=report(
            f"{TABLES}/{{table}}.html",
            caption="../report/table.rst",
            category="Tables",
            subcategory="as in the paper",
        ),
    log:
        f"{LOGS}/table/{{table}}.log",
    wildcard_constraints:
        table="|".join(TABLES_BY_ID),
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        'east table {input.aggregated:q} --stem "$(dirname {output.html:q})/{wildcards.table}" 2> {log:q}'


rule table_b1:
    input:
        templates=TEMPLATES,
        published=f"{PUBLISHED}/tableB1.csv",
    output:
        multiext(f"{TABLES}/tableB1", ".csv", ".md", ".tex"),
        html=report(
            f"{TABLES}/tableB1.html",
            caption="../report/table.rst",
            category="Tables",
            subcategory="as in the paper",
        ),
    log:
        f"{LOGS}/table/tableB1.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=json.dumps(hyperparameter_rows(PLAN.config)),
    shell:
        'east table-b1 --rows {params.rows:q} --stem "$(dirname {output.html:q})/tableB1" 2> {log:q}'


rule evidence_tables:
    input:
        evidence=EVIDENCE,
        templates=TEMPLATES,
    output:
        [file for file in EVIDENCE_FILES if not file.endswith(".html")],
        html=report(
            [file for file in EVIDENCE_FILES if file.endswith(".html")],
            caption="../report/table.rst",
            category="Tables",
            subcategory="beside the paper",
        ),
    log:
        f"{LOGS}/table/evidence.log",
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        'east evidence-tables {input.evidence:q} --folder "$(dirname {output.html[0]:q})" 2> {log:q}'
