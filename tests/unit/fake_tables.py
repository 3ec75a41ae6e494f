"""Summarised tables made up for the tests of the statistics."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from east.analysis.aggregate import (
    Accuracy,
    AggregatedGrid,
    GridResult,
    SeedValue,
    mean_and_std,
    published_value,
)
from east.analysis.evidence import Evidence, gather_evidence
from east.analysis.published import PublishedGrid, PublishedRow, read_published_grid
from east.config import read_config
from east.config.claims import claims_of
from east.config.tables import ClaimSpec, Comparing, PublishedSource, PublishedValue, Summarising
from tests.unit.fake_runs import PUBLISHED

DIVERGED = "diverged"
MISSING = "missing"

Outcome = float | str


def paper(number: str) -> PublishedGrid:
    return read_published_grid(PUBLISHED / f"table{number}.csv")


def papers() -> list[PublishedGrid]:
    return [paper(number) for number in "2345"]


def accuracy(outcomes: Sequence[Outcome]) -> Accuracy:
    seeds = tuple(
        SeedValue(run=f"run{seed}", seed=seed, status=outcome)
        if isinstance(outcome, str)
        else SeedValue(run=f"run{seed}", seed=seed, status="finished", accuracy=outcome)
        for seed, outcome in enumerate(outcomes)
    )
    mean, std = mean_and_std([seed.accuracy for seed in seeds if seed.accuracy is not None], "sample")
    return Accuracy(seeds=seeds, mean=mean, std=std)


def result(row: PublishedRow, outcomes: Sequence[Outcome], static: PublishedRow | None, **keys: Any) -> GridResult:
    """A row of ours with the settings of a printed one, beside it."""
    fields = {
        "id": "-".join(str(part) for part in row.key),
        "method": row.method,
        "pattern": row.pattern,
        "multiplier": row.multiplier,
        "cycles": row.cycles,
        "length_multiplier": row.length_multiplier,
        "footnote": None,
        "accuracy": accuracy(outcomes),
        "change": None,
        "published": published_value(row, static),
        "difference": None,
    }
    return GridResult(**(fields | keys))


def summarised(
    grid: PublishedGrid, outcomes: Callable[[PublishedRow], Sequence[Outcome]], **keys: Any
) -> AggregatedGrid:
    """A table of ours with every row of a printed one."""
    fields = {
        "id": f"table{grid.number}",
        "title": "Cyclic sparse training results",
        "model": grid.rows[0].model.lower(),
        "width": 64,
        "dataset": "cifar10",
        "density": 0.0005,
        "comparable": True,
        "summarising": Summarising(),
        "published_table": grid.number,
        "rows": tuple(result(row, outcomes(row), grid.static) for row in grid.rows),
    }
    return AggregatedGrid(**(fields | keys))


def around(shift: float = 0.0, spread: float = 0.1) -> Callable[[PublishedRow], list[float]]:
    """Three seeds about the printed mean, `shift` above it, with this standard deviation."""
    return lambda row: [row.accuracy_mean + shift + step * spread for step in (-1, 0, 1)]


SOURCE = PublishedSource(name="Doe et al.", citation="Doe et al., 2020, Table 1")
MEANS = {"RigL": {0.01: 90.0, 0.003: 80.0, 0.001: 70.0}, "EAST": {0.01: 91.0, 0.003: 85.0, 0.001: 78.0}}


def row_of_a_sweep(method: str, density: float, outcomes: Sequence[Outcome]) -> GridResult:
    """A row of a table whose axes are the growth rule and the density."""
    fields = {
        "id": f"{method}-{density}",
        "method": method,
        "values": {"topology.grow": "gradient", "density": density},
        **dict.fromkeys(("pattern", "multiplier", "cycles", "length_multiplier", "footnote", "published")),
        "accuracy": accuracy(outcomes),
        "change": None,
        "difference": None,
    }
    return GridResult(**fields)


def sweep(means: Mapping[str, Mapping[float, float]] = MEANS, **keys: Any) -> AggregatedGrid:
    """A table with axes of its own: three seeds a tenth of a point apart."""
    rows = tuple(
        row_of_a_sweep(method, density, [mean - 0.1, mean, mean + 0.1])
        for method, of_method in means.items()
        for density, mean in of_method.items()
    )
    own = {"id": "tableOwn", "published_table": None, "axes": ("topology.grow", "density"), "reference": "RigL"}
    return summarised(paper("2"), lambda _: [], **(own | {"title": "A sweep", "rows": rows} | keys))


def beside(table: AggregatedGrid, mean: float = 80.0, std: float | None = 0.5) -> AggregatedGrid:
    """The table beside a source that prints the same for each row of one density."""
    value = PublishedValue(mean=mean, std=std, change=None, change_from_means=None)
    rows = [
        one.model_copy(update={"published": value, "difference": one.accuracy.mean - mean})
        if one.values["density"] == 0.003
        else one
        for one in table.rows
    ]
    return table.model_copy(update={"source": SOURCE, "rows": tuple(rows)})


@cache
def papers_claims() -> dict[str, ClaimSpec]:
    """The claims of config.yaml, by id."""
    return {claim.id: claim for claim in claims_of(read_config())}


def gather(tables: Sequence[AggregatedGrid], published: Path) -> Evidence:
    """Evidence on some tables, with the paper's claims."""
    comparing = tables[0].comparing if tables else Comparing()
    return gather_evidence(tables, list(papers_claims().values()), comparing, published)
