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
        partial="--partial" if EXECUTION.partial else "",
        there=summaries_there,
    shell:
        "east aggregate --table - --runs {params.runs:q} --out {output:q} {params.partial}"
        " 2> {log:q} <<< {params.table:q}"


rule analyse:
    input:
        aggregated=[f"{RESULTS}/aggregate/{table}.json" for table in GRIDS],
        published=[f"{PUBLISHED}/table{number}.csv" for number in [2, 3, 4, 5, 6, "B1"]],
    output:
        EVIDENCE,
    log:
        f"{LOGS}/analyse.log",
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "east analyse {input.aggregated:q} --out {output:q} 2> {log:q}"
