"""How the reproduction stands to the paper, in one file: comparison, claims and audit."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from east.analysis.aggregate import AggregatedGrid, table_json, validated
from east.analysis.audit import AuditFinding, audit
from east.analysis.claims import ClaimTest, check_claims
from east.analysis.compare import TableComparison, compare_with_paper
from east.analysis.published import PublishedCost, PublishedRecipe, read_published, read_published_grid
from east.config.plan import PAPER_TABLES
from east.config.run import Frozen
from east.config.tables import Comparing
from east.files import write_atomically
from east.training.records import Inputs


class Evidence(Frozen):
    """What the tables of a reproduction say of the paper's, and the paper's of themselves."""

    inputs: Inputs = Inputs()
    comparing: Comparing = Field(description="what the claims were tested with; every comparison carries its own")
    comparisons: tuple[TableComparison, ...]
    claims: tuple[ClaimTest, ...]
    audit: tuple[AuditFinding, ...]


def gather_evidence(tables: Sequence[AggregatedGrid], published_dir: Path) -> Evidence:
    """Compare some tables with the paper's, put its claims to both, and audit what it prints.

    Raises:
        EastError: The published numbers cannot be read.
    """
    grids = [read_published_grid(published_dir / name) for name in PAPER_TABLES]
    recipes = read_published(published_dir / "tableB1.csv", PublishedRecipe)
    costs = read_published(published_dir / "table6.csv", PublishedCost)
    by_number = {grid.number: grid for grid in grids}
    comparing = tables[0].comparing if tables else Comparing()
    printed = [published_dir / name for name in (*PAPER_TABLES, "table6.csv", "tableB1.csv")]
    contents = {path.name: path.read_bytes() for path in printed}
    contents |= {f"aggregate/{table.id}.json": table_json(table) for table in tables}
    return Evidence(
        inputs=Inputs(files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}),
        comparing=comparing,
        comparisons=tuple(
            compare_with_paper(table, by_number.get(table.published_table) if table.published_table else None)
            for table in tables
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
    return validated(path, Evidence.model_validate_json, "what `east analyse` writes")
