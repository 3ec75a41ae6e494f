"""Time and memory of the commands around trainings against the size of the plan: `python -m benchmarks.scale`.

Plans are made of any number of tiny runs that nobody trains; `benchmarks.pretend` makes their results up.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmarks.machine import cores, peak_bytes
from benchmarks.results import ABSENT, RESULTS_FOLDER, ROOT, markdown, run_command, save, slug, today
from east.errors import EastError

TINY = ROOT / "config" / "test.yaml"
RUNS = (100, 1_000, 10_000)
MB = 2**20

SEEDS = 10
ROWS_A_MULTIPLIER = 10
MULTIPLIERS_A_TABLE = 10
RUNS_A_MULTIPLIER = SEEDS * ROWS_A_MULTIPLIER
EPOCHS = 8
"""Three cycles fit, each twice as long as the one before."""

Found = dict[str, Any]
"""What is measured, as the JSON holds it: of a command, of a plan, of all plans."""

SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "all"]
SNAKEMAKE += ["--workflow-profile", str(ROOT / "profiles" / "default")]
EAST = [sys.executable, "-m", "east"]


def overlay(runs: int) -> dict[str, Any]:
    """What to put over config/test.yaml for this many runs: tables of up to 100 rows, ten seeds each.

    Raises:
        EastError: the number is not a multiple of 100.
    """
    count, rest = divmod(runs, RUNS_A_MULTIPLIER)
    if count < 1 or rest:
        raise EastError(f"--runs {runs} is not a multiple of {RUNS_A_MULTIPLIER}.")
    multipliers = [round(1.5 + 0.1 * i, 1) for i in range(count)]
    tables = {
        f"tableS{start // MULTIPLIERS_A_TABLE + 1}": {
            "recipe": "resnet34-digits",
            "dataset": "digits",
            "rows": _rows(multipliers[start : start + MULTIPLIERS_A_TABLE], static=start == 0),
        }
        for start in range(0, count, MULTIPLIERS_A_TABLE)
    }
    return {
        "name": "synthetic",
        "title": f"{runs:,} runs that nobody trained",
        "seeds": list(range(1, SEEDS + 1)),
        "recipes": {"resnet34-digits": {"epochs": EPOCHS}},
        "tables": {"table2": None, "table3": None, **tables},
    }


def _rows(multipliers: list[float], *, static: bool) -> list[dict[str, Any]]:
    """Ten rows a multiplier. The static row, which the methods table shows as well, takes the place of one of them."""
    rows: list[dict[str, Any]] = [
        {"pattern": "cosine", "multiplier": multipliers, "cycles": 1},
        {
            "pattern": ["cosine", "triangular"],
            "multiplier": multipliers,
            "cycles": [2, 3],
            "length_multiplier": [1, 2],
        },
    ]
    single = multipliers[1:] if static else multipliers
    if single:
        rows.append({"pattern": "triangular", "multiplier": single, "cycles": 1})
    return [{"static": True}, *rows] if static else rows


def measure_paper() -> Found:
    """The paper's own plan, of which nothing is done."""
    with tempfile.TemporaryDirectory() as folder:
        workplace = _Workplace(Path(folder), [])
        planned = workplace.measure("east plan", [*EAST, "plan"])
        runs = workplace.printed_runs()
        dry = workplace.measure("snakemake -n, nothing done", [*SNAKEMAKE, "-n"])
    return {"plan": "the paper", "runs": runs, "page": None, "measured": [planned, dry]}


def measure_synthetic(runs: int, *, render: bool) -> Found:
    """A synthetic plan: planned, watched and dry-run, with nothing done and with all runs made up as finished.

    With `render`, tables, figures and report are then made for real, and the whole is dry-run once more.

    Raises:
        EastError: that number cannot be made, or a command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "synthetic.yaml"
        config.write_text(yaml.safe_dump(overlay(runs), sort_keys=False), encoding="utf-8")
        workplace = _Workplace(Path(folder), [TINY, config])
        files = workplace.configfiles
        east_files = [argument for file in files for argument in ("--configfile", file)]
        dry_run = [*SNAKEMAKE, "-n", "--configfile", *files]
        measured = [workplace.measure("east plan", [*EAST, "plan", *east_files])]
        if workplace.printed_runs() != runs:
            raise EastError(f"the synthetic plan has {workplace.printed_runs()} runs instead of {runs}.")
        measured += [
            workplace.measure("east plan --json", [*EAST, "plan", "--json", *east_files]),
            workplace.measure("east status, nothing done", [*EAST, "status", *east_files]),
            workplace.measure("snakemake -n, nothing done", dry_run),
        ]
        workplace.measure("benchmarks.pretend", [sys.executable, "-m", "benchmarks.pretend", *files])
        measured += [
            workplace.measure("east status, all trained", [*EAST, "status", *east_files]),
            workplace.measure("snakemake -n, all trained", dry_run),
        ]
        if not render:
            return {"plan": "synthetic", "runs": runs, "page": None, "measured": measured}
        measured += [
            workplace.measure("snakemake, tables to report", [*SNAKEMAKE, "--configfile", *files]),
            workplace.measure("snakemake -n, all done", dry_run),
        ]
        page = Path(folder) / "results" / "synthetic" / "report" / "index.html"
        return {"plan": "synthetic", "runs": runs, "page": page.stat().st_size, "measured": measured}


class _Workplace:
    """A folder in which commands run, one after another."""

    def __init__(self, folder: Path, configfiles: Sequence[Path]) -> None:
        self.folder = folder
        self.configfiles = [str(file) for file in configfiles]
        self.output = folder / "output.txt"

    def measure(self, name: str, command: Sequence[str]) -> Found:
        """Run a command, which must succeed."""
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with self.output.open("wb") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise EastError(f"{name} failed:\n{self.output.read_text(encoding='utf-8', errors='replace')[-2000:]}")
        print(f"{name}: {seconds:.1f} s", flush=True)
        return {
            "command": name,
            "seconds": round(seconds, 3),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "megabytes": round(peak_bytes(usage) / MB, 1),
        }

    def printed_runs(self) -> int:
        """The number of runs in the last line of `east plan`."""
        return int(self.output.read_text(encoding="utf-8").splitlines()[-1].split()[0])


def as_markdown(scale: Found) -> str:
    """A Markdown document of everything that was found: a row a command, a column a plan."""
    sizes = scale["sizes"]
    heading = ["", *(f"{size['plan']}, {size['runs']:,} runs" for size in sizes)]
    cells: dict[str, list[str]] = {}
    for number, size in enumerate(sizes):
        for one in size["measured"]:
            row = cells.setdefault(f"`{one['command']}`", [ABSENT] * len(sizes))
            row[number] = f"{one['seconds']:.1f} s ({one['cpu_seconds']:.1f}), {one['megabytes']:.0f} MB"
    cells["size of the report"] = [f"{size['page'] / MB:.1f} MB" if size["page"] else ABSENT for size in sizes]
    return (
        f"# Plans of many runs\n\n{scale['processor']}, {scale['cores']} cores, {scale['platform']}; Python "
        f"{scale['python']}, Snakemake {scale['snakemake']}; commit {scale['commit']}. {scale['date']}, load "
        f"{scale['load']:.1f} at the start. Wall time, in brackets processor time, and peak memory of each command, "
        f"run once.\n\n{markdown(heading, ([command, *row] for command, row in cells.items()))}\n"
    )


def main(
    runs: Annotated[list[int] | None, typer.Option(help="Size of a synthetic plan, a multiple of 100.")] = None,
    paper: Annotated[bool, typer.Option(help="Plan the paper as well.")] = True,
    render: Annotated[bool, typer.Option(help="Make tables, figures and report for real.")] = True,
    out: Annotated[
        Path, typer.Option(help="The folder of the results; benchmarks/results when left out.", show_default=False)
    ] = RESULTS_FOLDER,
) -> None:
    """Time the commands around trainings on plans of many runs. --runs may be repeated."""
    load = os.getloadavg()[0]
    sizes = [measure_paper()] if paper else []
    for count in runs or RUNS:
        print(f"{count:,} runs", flush=True)
        sizes.append(measure_synthetic(count, render=render))
    # Imports PyTorch: only now, because a child's peak memory is never less than its parent's at the fork.
    import torch

    from east.checkout import commit
    from east.training.provenance import device_name

    scale = {
        "processor": device_name(torch.device("cpu")),
        "cores": cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "snakemake": metadata.version("snakemake"),
        "commit": commit(),
        "date": today(),
        "load": load,
        "sizes": sizes,
    }
    path = save(
        json.dumps(scale, indent=1, ensure_ascii=False),
        as_markdown(scale),
        out,
        f"scale-{slug(scale['processor'])}-{scale['date']}",
    )
    print(f"{as_markdown(scale)}\nWritten to {path} and the .json beside it.")


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
