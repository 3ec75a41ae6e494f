# The whole appendix: data -> one training per (row, seed) -> tables, cost, figures -> report.
#   snakemake --cores all                                   the paper (config.yaml)
#   snakemake --cores 2 --configfile config/demo.yaml       the demo
# Targets: all (default), data, tables, cost, report, appendix.
# Another workflow may include it as a module: docs/extending.md.

from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")


configfile: Path(workflow.current_basedir, "config.yaml").as_posix()


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


# `localrule`: on a cluster it stays where Snakemake runs. Seconds of work each, and `prepare` needs the network.
rule all:
    input:
        REPORT,
        APPENDIX,
        TABLE_FILES,
        EVIDENCE_FILES,
        FIGURE_FILES,
        FRAMES,
    localrule: True


rule data:
    input:
        [manifest(images) for images in IMAGES.values()],
    localrule: True


rule tables:
    input:
        TABLE_FILES,
        FRAMES,
    localrule: True


rule cost:
    input:
        files_of("tables/table6"),
    localrule: True


rule report:
    input:
        REPORT,
    localrule: True


rule appendix:
    input:
        APPENDIX,
    localrule: True
