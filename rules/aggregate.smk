# A table's runs become one file: mean and spread over seeds, checked against the plan by fingerprint.


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
        runs=RUNS,
        partial=partial_options,
    shell:
        "east aggregate --table {params.table:q} --runs {params.runs:q} --out {output:q} {params.partial} 2> {log:q}"
