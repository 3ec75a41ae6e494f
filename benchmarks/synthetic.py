"""Configurations of any number of runs, so that the workflow can be timed without any training."""

from typing import Any

from east.errors import EastError

SEEDS = 10
ROWS_A_MULTIPLIER = 10
MULTIPLIERS_A_TABLE = 10
RUNS_A_MULTIPLIER = SEEDS * ROWS_A_MULTIPLIER
EPOCHS = 8
"""Three cycles fit, each twice as long as the one before."""


def overlay(runs: int) -> dict[str, Any]:
    """What to put over config/test.yaml for this many runs: tables of up to 100 rows, ten seeds each.

    Args:
        runs: a multiple of 100.

    Raises:
        EastError: it is none.
    """
    count, rest = divmod(runs, RUNS_A_MULTIPLIER)
    if count < 1 or rest:
        raise EastError(f"--runs {runs} is no multiple of {RUNS_A_MULTIPLIER}.")
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
