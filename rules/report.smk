# Figures, the one page that holds everything, and the one LaTeX document.

for kind, tables in TABLES_OF_A_KIND.items():

    rule:
        name:
            f"figures_{kind}"
        input:
            made_again("figures/{table}"),
            aggregated=f"{RESULTS}/aggregate/{{table}}.json",
            style=STYLE,
        output:
            svg=figures_of_a_table(contents.table_figures(kind), "svg"),
            png=report(
                figures_of_a_table(contents.table_figures(kind), "png"),
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
        localrule: True
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            request=request("figures/{table}"),
        shell:
            "east make 2> {log:q} <<< {params.request:q}"


rule figures_plan:
    input:
        made_again("figures/plan"),
        costs=COSTS,
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
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("figures/plan"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"


rule write_report:
    input:
        made_again("report"),
        tables=TABLE_FILES + EVIDENCE_FILES,
        aggregated=AGGREGATED,
        evidence=EVIDENCE,
        figures=FIGURE_FILES,
        templates=TEMPLATES,
        script=SCRIPT,
    output:
        report(REPORT, caption="../report/page.rst", category="Report"),
    log:
        f"{LOGS}/report.log",
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("report"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"


rule write_appendix:
    input:
        made_again("appendix"),
        tables=TABLE_FILES,
        aggregated=AGGREGATED,
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
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        request=request("appendix"),
    shell:
        "east make 2> {log:q} <<< {params.request:q}"
