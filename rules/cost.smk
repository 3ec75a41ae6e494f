# Table 6: the paper's accounting, and training steps timed on this machine.

from east.config.cost import cost_plan

COST_PLAN = cost_plan(PLAN.config).model_dump_json()
COST_OPTIONS = ["--device", EXECUTION.device, "--engine", EXECUTION.engine]


rule measure_cost:
    output:
        f"{RESULTS}/cost/cost.json",
    log:
        f"{LOGS}/cost.log",
    benchmark:
        f"{BENCHMARKS}/cost.tsv"
    threads: EXECUTION.threads
    resources:
        gpu=EXECUTION.gpus,
        mem_mb=EXECUTION.memory_mb,
        runtime=60,
    params:
        plan=COST_PLAN,
    priority: 1
    shell:
        "{EAST} cost --plan {params.plan:q} --out {output:q} --threads {threads} {COST_OPTIONS:q} 2> {log:q}"


rule table_6:
    input:
        costs=f"{RESULTS}/cost/cost.json",
        templates=TEMPLATES,
        published=f"{PUBLISHED}/table6.csv",
    output:
        multiext(f"{TABLES}/table6", ".csv", ".md", ".tex"),
        html=report(f"{TABLES}/table6.html", caption="../report/table.rst", category="Tables"),
    log:
        f"{LOGS}/table/table6.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        plan=COST_PLAN,
    shell:
        "{EAST} table-6 {input.costs:q} --plan {params.plan:q} --stem {TABLES:q}/table6 2> {log:q}"
