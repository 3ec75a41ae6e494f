# Every run and epoch as CSV; Tables 2-5, B.1 and the methods, and how they stand to the paper's, each in four formats.


rule frames:
    input:
        planned_summaries,
        made_again("frames"),
    output:
        runs=f"{TABLES}/runs.csv",
        epochs=f"{TABLES}/epochs.csv",
    log:
        f"{LOGS}/frames.log",
    localrule: True
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        request=request("frames"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"


rule table:
    input:
        made_again("tables/{table}"),
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
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("tables/{table}"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"


rule table_b1:
    input:
        made_again("tables/tableB1"),
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
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("tables/tableB1"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"


rule evidence_tables:
    input:
        made_again("tables/evidence"),
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
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("tables/evidence"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"
