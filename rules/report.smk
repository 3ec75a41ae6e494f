# Figures, and the one page that holds everything.

import json

from east.render.contents import density_schedules


rule figures_grid:
    input:
        f"{RESULTS}/aggregate/{{table}}.json",
    output:
        svg=multiext(f"{FIGURES}/{{table}}", "-curves.svg", "-multiplier.svg"),
        png=report(
            multiext(f"{FIGURES}/{{table}}", "-curves.png", "-multiplier.png"),
            caption="../report/figure.rst",
            category="Figures",
        ),
    log:
        f"{LOGS}/figures/{{table}}.log",
    wildcard_constraints:
        table="|".join(GRIDS),
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        runs=RUNS,
    shell:
        'east figures {input:q} --runs {params.runs:q} --stem "$(dirname {output.svg[0]:q})/{wildcards.table}" 2> {log:q}'


rule figures_methods:
    input:
        f"{RESULTS}/aggregate/tablemethods.json",
    output:
        svg=f"{FIGURES}/tablemethods-curves.svg",
        png=report(
            f"{FIGURES}/tablemethods-curves.png",
            caption="../report/figure.rst",
            category="Figures",
        ),
    log:
        f"{LOGS}/figures/tablemethods.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        runs=RUNS,
    shell:
        'east figures {input:q} --runs {params.runs:q} --stem "$(dirname {output.svg:q})/tablemethods" 2> {log:q}'


rule figure_density:
    output:
        svg=f"{FIGURES}/density.svg",
        png=report(
            f"{FIGURES}/density.png",
            caption="../report/figure.rst",
            category="Figures",
        ),
    log:
        f"{LOGS}/figures/density.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        schedules=json.dumps(density_schedules(PLAN)),
    shell:
        'east figure-density --schedules {params.schedules:q} --stem "$(dirname {output.svg:q})/density" 2> {log:q}'


rule write_report:
    input:
        tables=TABLE_FILES,
        figures=FIGURE_FILES,
        templates=TEMPLATES,
    output:
        REPORT,
    log:
        f"{LOGS}/report.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=report_description(),
        runs=RUNS,
    shell:
        "east report --spec {params.spec:q} --runs {params.runs:q} --out {output:q} 2> {log:q}"
