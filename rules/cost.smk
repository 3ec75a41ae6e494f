# Table 6: the paper's accounting, and training steps timed on this machine.


rule measure_cost:
    input:
        made_again("cost"),
    output:
        COSTS,
    log:
        f"{LOGS}/cost.log",
    benchmark:
        f"{BENCHMARKS}/cost.tsv"
    priority: 1
    threads: THREADS
    resources:
        gpu=EXECUTION.gpus,
        mem_mb=EXECUTION.memory_mb,
        runtime=60,
    params:
        request=request("cost"),
        device=EXECUTION.device,
        engine=EXECUTION.engine,
    shell:
        "east cost --request - --device {params.device} --engine {params.engine}"
        " --threads {threads} 2> {log:q} <<< {params.request:q}"


rule table_6:
    input:
        made_again("tables/table6"),
        costs=COSTS,
        templates=TEMPLATES,
        published=f"{PUBLISHED}/table6.csv",
    output:
        multiext(f"{TABLES}/table6", ".csv", ".md", ".tex"),
        html=report(
            f"{TABLES}/table6.html",
            caption="../report/table.rst",
            category="Tables",
            subcategory="as in the paper",
        ),
    log:
        f"{LOGS}/table/table6.log",
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("tables/table6"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"
