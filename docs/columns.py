"""Writes the tables of columns and keys in docs/results.md from the schema: `python docs/columns.py [--check]`."""

import sys
from collections.abc import Iterable
from pathlib import Path

from east.analysis.results import row_columns, run_columns, setting_columns
from east.analysis.sources import MadeFrom
from east.training.records import (
    FILES,
    EpochRecord,
    RunSummary,
    SchemaColumn,
    TimingRecord,
    TraceRecord,
    UpdateRecord,
    columns,
)
from east.training.state import RunState

PAGE = Path(__file__).with_name("results.md")
BEGIN, END = "<!-- from the schema, by docs/columns.py -->\n", "<!-- end -->\n"
TYPES = {int: "whole number", float: "number", bool: "true or false", dict: "object", list: "list"}


def main() -> int:
    """Write the tables, or with --check only say whether they are as the schema has them."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    fresh = f"{before}{BEGIN}\n{_tables()}\n{END}{rest.partition(END)[2]}"
    if "--check" not in sys.argv:
        PAGE.write_text(fresh, encoding="utf-8")
    elif fresh != page:
        print(f"{PAGE} is not as the schema has it: run `python docs/columns.py`.", file=sys.stderr)
        return 1
    return 0


def _tables() -> str:
    said = {column.name for column in columns(RunSummary)} - {"id", "status"}
    settings = {column.name for column in setting_columns()}
    files = {
        "tables/runs.csv": (column for column in run_columns() if column.name not in said | settings),
        "tables/epochs.csv": row_columns(EpochRecord)[:1],
        "summary.json": columns(RunSummary),
        **{FILES[kind]: columns(kind) for kind in (EpochRecord, UpdateRecord, TraceRecord, TimingRecord)},
        "state.json": columns(RunState),
        "made_from/": columns(MadeFrom),
    }
    also = {
        "tables/runs.csv": "The keys of `summary.json` that are neither objects nor lists, the run's settings, which "
        "[config/README.md](../config/README.md) explains, and these columns. The settings are "
        f"{', '.join(f'`{name}`' for name in sorted(settings))}.",
        "tables/epochs.csv": "The columns of `metrics.csv`, and:",
    }
    return "\n".join(
        f"### {name}\n\n{also[name] + chr(10) * 2 if name in also else ''}{_table(of)}" for name, of in files.items()
    )


def _table(of: Iterable[SchemaColumn]) -> str:
    lines = ["| name | type | unit | meaning |", "|---|---|---|---|"]
    for column in of:
        kind = TYPES.get(column.kind, "text") + (", may be empty" if column.optional else "")
        lines.append(f"| `{column.name}` | {kind} | {column.meaning.unit} | {column.meaning.text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
