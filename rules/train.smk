# One training per run and seed. Its only param is the run's identity, so nothing but a change of it trains again.


rule train:
    input:
        ancient(run_manifest),
    output:
        f"{RUNS}/{{table}}/{{row}}/seed{{seed}}/summary.json",
    log:
        f"{LOGS}/train/{{table}}/{{row}}/seed{{seed}}.log",
    wildcard_constraints:
        table=r"table\w+",
        row=r"[^/]+",
        seed=r"\d+",
    priority: seed_priority
    threads: THREADS
    resources:
        gpu=EXECUTION.gpus,
        mem_mb=EXECUTION.memory_mb,
        runtime=EXECUTION.minutes,
    params:
        run=run_identity,
    shell:
        # In place of the shell, which a signal to the whole job would end before the training has saved its state.
        'exec east train --run {params.run:q} --out "$(dirname {output:q})" --threads {threads} 2> {log:q}'
