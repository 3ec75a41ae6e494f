# Figures, the one page that holds everything, and the one LaTeX document.

from east.render.schedules import SCHEDULES, distinct_schedules

for kind, tables, drawn in [
    ("grid", GRIDS, GRID_FIGURES),
    ("methods", [METHODS_TABLE], METHODS_FIGURES),
]:

    rule:
        name:
            f"figures_{kind}"
        input:
            aggregated=f"{RESULTS}/aggregate/{{table}}.json",
            style=STYLE,
        output:
            svg=figures_of_a_table(drawn, "svg"),
            png=report(
                figures_of_a_table(drawn, "png"),
                caption="../report/figure.rst",
                category="Figures",
                subcategory="{table}",
            ),
        log:
            f"{LOGS}/figures/{{table}}.log",
        wildcard_constraints:
            table="|".join(tables) or "(?!)",  # of no table: matches nothing
        # The longest of the jobs without training: the short ones fill the gaps beside them.
        priority: 1
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            runs=RUNS,
        shell:
            'east figures {input.aggregated:q} --runs {params.runs:q} --stem "$(dirname {output.png[0]:q})/{wildcards.table}"'
            " 2> {log:q}"


rule figures_plan:
    input:
        costs=f"{RESULTS}/cost/cost.json",
        evidence=EVIDENCE if "differences" in PLAN_FIGURES else [],
        style=STYLE,
    output:
        svg=plan_figures("svg"),
        png=report(
            plan_figures("png"),
            caption="../report/figure.rst",
            category="Figures",
            subcategory="the plan",
        ),
    log:
        f"{LOGS}/figures/plan.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        schedules=SCHEDULES.dump_json(distinct_schedules(PLAN)).decode(),
        cost_plan=COST_PLAN.model_dump_json(),
        evidence=lambda wildcards, input: (
            f"--evidence {input.evidence}" if input.evidence else ""
        ),
    shell:
        'east plan-figures --folder "$(dirname {output.png[0]:q})" --schedules - --costs {input.costs:q}'
        " --cost-plan {params.cost_plan:q} {params.evidence} 2> {log:q} <<< {params.schedules:q}"


rule write_report:
    input:
        tables=TABLE_FILES + EVIDENCE_FILES,
        aggregated=[f"{RESULTS}/aggregate/{table}.json" for table in TABLES_BY_ID],
        evidence=EVIDENCE,
        figures=FIGURE_FILES,
        templates=TEMPLATES,
        script=str(PROJECT / "report" / "script.js"),
    output:
        report(REPORT, caption="../report/page.rst", category="Report"),
    log:
        f"{LOGS}/report.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=report_description(),
        runs=RUNS,
    shell:
        "east report --spec - --runs {params.runs:q} --out {output:q} 2> {log:q} <<< {params.spec:q}"


rule write_appendix:
    input:
        tables=TABLE_FILES,
        aggregated=[f"{RESULTS}/aggregate/{table}.json" for table in TABLES_BY_ID],
        evidence=EVIDENCE,
        figures=FIGURE_FILES,
        templates=TEMPLATES,
    output:
        report(
            APPENDIX,
            caption="../report/appendix.rst",
            category="Tables",
            subcategory="LaTeX",
        ),
    log:
        f"{LOGS}/appendix.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=report_description(),
        runs=RUNS,
    shell:
        "east appendix --spec - --runs {params.runs:q} --out {output:q} 2> {log:q} <<< {params.spec:q}"
