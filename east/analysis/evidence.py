"""How the tables stand to published numbers, in one file: comparison, claims and audit of the paper's."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from east.analysis.aggregate import AggregatedGrid, parsed
from east.analysis.audit import AuditFinding, audit
from east.analysis.claims import ClaimTest, check_claims
from east.analysis.compare import TableComparison, compare_with_published
from east.analysis.published import FROM_DISK, PublishedCost, PublishedRecipe, Read, read_published, read_published_grid
from east.analysis.sources import Sources
from east.config.plan import PAPER_TABLES
from east.config.run import Frozen
from east.config.tables import ClaimSpec, Comparing


class Evidence(Frozen):
    """What the tables say of published numbers, and the paper's of themselves."""

    comparing: Comparing = Field(description="what the claims were tested with; every comparison carries its own")
    comparisons: tuple[TableComparison, ...]
    claims: tuple[ClaimTest, ...]
    audit: tuple[AuditFinding, ...]


def gather_evidence(
    tables: Sequence[AggregatedGrid],
    claims: Sequence[ClaimSpec],
    comparing: Comparing,
    published_dir: Path,
    read: Read = FROM_DISK,
) -> Evidence:
    """Compare some tables with published ones, put claims to both, and audit what the paper prints.

    Args:
        tables: Ours.
        claims: About any of them; whatever plugins their forms need are loaded.
        comparing: How the paper's numbers are read, and the level of the tests of claims.
        published_dir: The folder with the paper's.
        read: What gives the content of a file there.

    Raises:
        EastError: The published numbers cannot be read, or a plugin's form of a claim fails.
    """
    grids = [read_published_grid(published_dir / name, read) for name in PAPER_TABLES]
    recipes = read_published(published_dir / "tableB1.csv", PublishedRecipe, read)
    costs = read_published(published_dir / "table6.csv", PublishedCost, read)
    by_number = {grid.number: grid for grid in grids}
    return Evidence(
        comparing=comparing,
        comparisons=tuple(
            compare_with_published(table, by_number.get(table.published_table) if table.published_table else None)
            for table in tables
        ),
        claims=check_claims(claims, grids, tables, comparing),
        audit=audit(grids, recipes, costs),
    )


def evidence_json(evidence: Evidence) -> bytes:
    """Evidence as JSON; `read_evidence` gives the same object back."""
    return evidence.model_dump_json(indent=2).encode() + b"\n"


def read_evidence(path: Path, sources: Sources) -> Evidence:
    """Evidence that another step wrote.

    Raises:
        EastError: It is not there, not the plan's, or damaged.
    """
    return parsed(sources.derived(path), path, Evidence.model_validate_json, "evidence")
