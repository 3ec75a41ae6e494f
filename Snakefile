# The whole appendix: data -> one training per (row, seed) -> tables, cost, figures -> report.
#   snakemake --cores all                                   the paper (config.yaml)
#   snakemake --cores 2 --configfile config/demo.yaml       the demo
# Targets: all (default), data, tables, cost, report, appendix.

from snakemake.utils import min_version

min_version("9.27")


configfile: f"{workflow.basedir}/config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"


onstart:
    hold_results()
    mend_times()
    share_imports()


include: "rules/prepare.smk"
include: "rules/train.smk"
include: "rules/aggregate.smk"
include: "rules/tables.smk"
include: "rules/cost.smk"
include: "rules/report.smk"


# On a cluster these stay where Snakemake runs: seconds of work each, and `prepare` needs the network.
localrules:
    all,
    data,
    tables,
    cost,
    report,
    prepare,
    aggregate,
    frames,
    table,
    table_b1,
    table_6,
    figures_grid,
    figures_methods,
    figures_plan,
    analyse,
    evidence_tables,
    write_report,
    appendix,
    write_appendix,


rule all:
    default_target: True
    input:
        REPORT,
        APPENDIX,
        TABLE_FILES,
        EVIDENCE_FILES,
        FIGURE_FILES,
        FRAMES,


rule data:
    input:
        [manifest(images) for images in IMAGES.values()],


rule tables:
    input:
        TABLE_FILES,
        FRAMES,


rule cost:
    input:
        files_of("tables/table6"),


rule report:
    input:
        REPORT,


rule appendix:
    input:
        APPENDIX,
