# Figures, and the one page that holds everything.

from pathlib import Path

from east.config.tables import GridTable
from east.render.contents import density_schedules, report_contents

FIGURES = f"{RESULTS}/figures"
REPORT = f"{RESULTS}/report/index.html"
GRIDS = [table.id for table in PLAN.tables if isinstance(table, GridTable)]
FIGURE_FILES = [
    *(f"{FIGURES}/{table}-curves.{form}" for table in TABLES_BY_ID for form in ["png", "svg"]),
    *(f"{FIGURES}/{table}-multiplier.{form}" for table in GRIDS for form in ["png", "svg"]),
    *(f"{FIGURES}/density.{form}" for form in ["png", "svg"]),
]


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
    shell:
        "{EAST} figures {input:q} --runs {RUNS:q} --stem {FIGURES:q}/{wildcards.table} 2> {log:q}"


rule figures_methods:
    input:
        f"{RESULTS}/aggregate/tablemethods.json",
    output:
        svg=f"{FIGURES}/tablemethods-curves.svg",
        png=report(f"{FIGURES}/tablemethods-curves.png", caption="../report/figure.rst", category="Figures"),
    log:
        f"{LOGS}/figures/tablemethods.log",
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "{EAST} figures {input:q} --runs {RUNS:q} --stem {FIGURES:q}/tablemethods 2> {log:q}"


rule figure_density:
    output:
        svg=f"{FIGURES}/density.svg",
        png=report(f"{FIGURES}/density.png", caption="../report/figure.rst", category="Figures"),
    log:
        f"{LOGS}/figures/density.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        schedules=json.dumps(density_schedules(PLAN)),
    shell:
        "{EAST} figure-density --schedules {params.schedules:q} --stem {FIGURES:q}/density 2> {log:q}"


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
        spec=report_contents(PLAN, Path(RESULTS), [str(file) for file in workflow.configfiles]).model_dump_json(),
    shell:
        "{EAST} report --spec {params.spec:q} --runs {RUNS:q} --out {output:q} 2> {log:q}"
