# A table's runs become one file: mean and spread over seeds, checked against the plan by fingerprint.


rule aggregate:
    input:
        table_summaries,
        made_again("aggregate/{table}"),
    output:
        f"{RESULTS}/aggregate/{{table}}.json",
    log:
        f"{LOGS}/aggregate/{{table}}.log",
    wildcard_constraints:
        table="|".join(TABLES_BY_ID),
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("aggregate/{table}"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"


rule analyse:
    input:
        made_again("analyse"),
        aggregated=[f"{RESULTS}/aggregate/{table}.json" for table in GRIDS],
        published=[f"{PUBLISHED}/table{number}.csv" for number in [2, 3, 4, 5, 6, "B1"]],
    output:
        EVIDENCE,
    log:
        f"{LOGS}/analyse.log",
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("analyse"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"
