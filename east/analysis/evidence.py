"""How the reproduction stands to the paper, in one file: comparison, claims and audit."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from east.analysis.aggregate import AggregatedGrid, table_json
from east.analysis.audit import Finding, audit
from east.analysis.claims import ClaimTest, check_claims
from east.analysis.compare import TableComparison, compare
from east.analysis.published import read_published_costs, read_published_grid, read_published_recipes
from east.config.plan import PAPER_TABLES
from east.config.run import Frozen
from east.config.tables import Comparing
from east.errors import EastError
from east.files import write_atomically
from east.training.records import Inputs, describe


class Evidence(Frozen):
    """What the tables of a reproduction say of the paper's, and the paper's of themselves."""

    inputs: Inputs = Inputs()
    comparing: Comparing = Field(description="what the claims were tested with; every comparison carries its own")
    comparisons: tuple[TableComparison, ...]
    claims: tuple[ClaimTest, ...]
    audit: tuple[Finding, ...]


def gather(tables: Sequence[AggregatedGrid], published_dir: Path) -> Evidence:
    """Compare some tables with the paper's, put its claims to both, and audit what it prints.

    Args:
        tables: Summarised grids of one configuration.
        published_dir: The folder with the paper's numbers, `report/published`.

    Raises:
        EastError: The published numbers cannot be read.
    """
    grids = [read_published_grid(published_dir / name) for name in PAPER_TABLES]
    recipes = read_published_recipes(published_dir / "tableB1.csv")
    costs = read_published_costs(published_dir / "table6.csv")
    by_number = {grid.number: grid for grid in grids}
    comparing = tables[0].comparing if tables else Comparing()
    printed = [published_dir / name for name in (*PAPER_TABLES, "table6.csv", "tableB1.csv")]
    contents = {path.name: path.read_bytes() for path in printed}
    contents |= {f"aggregate/{table.id}.json": table_json(table) for table in tables}
    return Evidence(
        inputs=Inputs(files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}),
        comparing=comparing,
        comparisons=tuple(
            compare(table, by_number.get(table.published_table) if table.published_table else None) for table in tables
        ),
        claims=check_claims(grids, tables, comparing),
        audit=audit(grids, recipes, costs),
    )


def write_evidence(evidence: Evidence, path: Path) -> None:
    """Write evidence; `read_evidence` gives the same object back."""
    write_atomically(path, evidence.model_dump_json(indent=2).encode() + b"\n")


def read_evidence(path: Path) -> Evidence:
    """Read what `write_evidence` wrote.

    Raises:
        EastError: The file cannot be read or holds something else.
    """
    try:
        return Evidence.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EastError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise EastError(f"{path} is not what `east analyse` writes: {describe(error)}.") from error
