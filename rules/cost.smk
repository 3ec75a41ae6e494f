# Table 6: the paper's accounting, and training steps timed on this machine.


rule measure_cost:
    output:
        f"{RESULTS}/cost/cost.json",
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
        plan=COST_PLAN.model_dump_json(),
        device=EXECUTION.device,
        engine=EXECUTION.engine,
    shell:
        "east cost --plan {params.plan:q} --out {output:q} --device {params.device} --engine {params.engine}"
        " --threads {threads} 2> {log:q}"


rule table_6:
    input:
        costs=f"{RESULTS}/cost/cost.json",
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
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        plan=COST_PLAN.model_dump_json(),
    shell:
        'east table-6 {input.costs:q} --plan {params.plan:q} --stem "$(dirname {output.html:q})/table6" 2> {log:q}'
