"""`east doctor`: whether the plan can run here, and how to fix what is wrong."""

import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from east.cli.common import AsJson, ConfigFiles, Results, counted, print_json, read_plan_and_results

if TYPE_CHECKING:
    from rich.console import Console

    from east.operations.doctor.surroundings import Finding

WIDTH = 100
INDENT = " " * 11
STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


def doctor(
    configfile: ConfigFiles = None,
    results: Results = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Verify the checksums of the data as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether the plan can run here: what is wrong, why it matters, and the command that fixes it.

    The exit status is 0 if nothing would stop the plan, and 1 otherwise.
    """
    from rich.console import Console

    from east.cli.console import VisibleConsole
    from east.operations.doctor.ask import Asker
    from east.operations.doctor.checks import can_run, examine
    from east.operations.doctor.surroundings import Surroundings

    plan, folder = read_plan_and_results(configfile, results)
    here = Surroundings(plan, Asker(os.environ, Path.cwd()), folder, tuple(configfile or ()), thorough)
    with Console(stderr=True).status("Looking around ..."):
        findings = examine(here)
    if as_json:
        rows = [{"subject": subject} | asdict(finding) for subject, found in findings.items() for finding in found]
        print_json({"plan": plan.config.name, "can_run": can_run(findings), "findings": rows})
    else:
        console = VisibleConsole(highlight=False, markup=False, emoji=False)
        for subject, found in findings.items():
            _print_subject(console, subject, found)
        counts = Counter(finding.level for found in findings.values() for finding in found)
        console.print(
            f"The plan '{plan.config.name}' {'can' if can_run(findings) else 'cannot'} run: "
            f"{', '.join(counted(counts[level], level) for level in ('error', 'warning', 'note'))}."
        )
    if not can_run(findings):
        raise typer.Exit(1)


def _print_subject(console: "Console", subject: str, found: "list[Finding]") -> None:
    """Print what was found of a subject; commands stay on one line, so that they can be copied."""
    import textwrap

    from rich.text import Text

    width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    wrapper = textwrap.TextWrapper(width - len(INDENT), break_long_words=False, break_on_hyphens=False)
    console.print(subject, style="bold")
    for finding in found:
        wrapped = wrapper.wrap(finding.found) + wrapper.wrap(finding.why)
        label = Text(f"  {finding.level:9}", style=STYLES[finding.level])
        console.print(label + Text(wrapped[0]), soft_wrap=True)
        for row in wrapped[1:]:
            console.print(INDENT + row, soft_wrap=True)
        if finding.fix:
            console.print(f"{INDENT}-> {finding.fix}", soft_wrap=True)
    console.print()
