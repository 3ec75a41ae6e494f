# One training per run and seed. Its only param is the run's identity, so nothing but a change of it trains again.

TOTAL_RUNS = len(PLAN.runs)


def planned_run(wildcards):
    return PLAN.run(f"{wildcards.table}/{wildcards.row}/seed{wildcards.seed}")


def run_manifest(wildcards):
    """The data set of a run."""
    return manifest(planned_run(wildcards).spec.dataset.name)


def run_identity(wildcards):
    """Canonical JSON of everything that decides the run's numbers: what Snakemake compares, and what is trained."""
    return planned_run(wildcards).spec.canonical_json()


def execution_options():
    """How runs execute; part of the command, never of a run's identity."""
    options = ["--device", EXECUTION.device, "--engine", EXECUTION.engine, "--data-dir", EXECUTION.data_dir]
    imagenet = PLAN.config.datasets.get("imagenet")
    if imagenet and imagenet.folder:
        options += ["--image-folder", imagenet.folder]
    return options


EXECUTION_OPTIONS = execution_options()


rule train:
    input:
        ancient(run_manifest),
    output:
        f"{RUNS}/{{table}}/{{row}}/seed{{seed}}/summary.json",
    log:
        f"{LOGS}/train/{{table}}/{{row}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/train/{{table}}/{{row}}/seed{{seed}}.tsv"
    wildcard_constraints:
        table=r"table\w+",
        row=r"[^/]+",
        seed=r"\d+",
    threads: EXECUTION.threads
    resources:
        gpu=EXECUTION.gpus,
        mem_mb=EXECUTION.memory_mb,
        runtime=EXECUTION.minutes,
    params:
        run=run_identity,
    shell:
        "{EAST} train --run {params.run:q} --out $(dirname {output:q}) --threads {threads} --total {TOTAL_RUNS}"
        " {EXECUTION_OPTIONS:q} 2> {log:q}"
