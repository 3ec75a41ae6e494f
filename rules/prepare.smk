# Data sets: downloaded where needed, verified, stored once as tensors that every run memory-maps.


def image_folder_option(wildcards):
    """Where ImageNet is, for the one data set that is a folder of images."""
    folder = PLAN.config.datasets[wildcards.dataset].folder
    return ["--image-folder", folder] if folder else []


rule prepare:
    output:
        f"{DATA}/{{dataset}}/manifest.json",
    log:
        f"{LOGS}/prepare/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/prepare/{{dataset}}.tsv"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        folder=image_folder_option,
    shell:
        "{EAST} prepare {wildcards.dataset} --data-dir {DATA:q} {params.folder:q} > {log:q} 2>&1"
