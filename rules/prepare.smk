# Data sets: downloaded where needed, verified, stored once as tensors that every run memory-maps.


rule prepare:
    input:
        prepared_again,
    output:
        f"{DATA}/{{dataset}}/manifest.json",
    log:
        f"{LOGS}/prepare/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/prepare/{{dataset}}.tsv"
    localrule: True
    resources:
        mem_mb=4000,
        runtime=120,
    shell:
        "east prepare {wildcards.dataset} > {log:q} 2>&1"
