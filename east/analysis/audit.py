"""What in the paper's tables does not fit together, found by rules that name no cell."""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from east.analysis.aggregate import published_value
from east.analysis.published import PublishedCost, PublishedGrid, PublishedRecipe
from east.analysis.words import listed, schedule_text, signed
from east.config.run import Frozen
from east.sparse.schedule import cycle_lengths

Rule = Literal[
    "change does not add up",
    "cycles do not fit",
    "setting of one table only",
    "parts do not add up",
    "activations without parameters",
    "parameters counted twice",
]

PRINTED = 0.005
"""Half a unit of the last printed decimal, in points or MB: what rounding may hide."""

DOUBLE = 0.005
"""Relative distance from twice a size that still counts as twice."""


class Finding(Frozen):
    """Something printed that cannot be, or cannot mean what it says."""

    rule: Rule
    table: str = Field(description="number of the table in the paper")
    row: str = Field(description="the row in words, or the method's name")
    numbers: dict[str, float] = Field(description="what was compared, by name")
    text: str = Field(description="the finding in sentences")


def audit(
    grids: Sequence[PublishedGrid], recipes: Sequence[PublishedRecipe], costs: Sequence[PublishedCost]
) -> tuple[Finding, ...]:
    """Apply every rule to the paper's tables.

    Args:
        grids: Tables 2-5.
        recipes: Table B.1.
        costs: Table 6.
    """
    return (
        *(finding for grid in grids for finding in changes_that_do_not_add_up(grid)),
        *(finding for grid in grids for finding in cycles_that_do_not_fit(grid, recipes)),
        *settings_of_one_table_only(grids),
        *parts_that_do_not_add_up(costs),
        *parameters_counted_twice(costs),
    )


def changes_that_do_not_add_up(grid: PublishedGrid) -> tuple[Finding, ...]:
    """Changes, to one decimal, that are not the row's mean minus the static row's."""
    findings = []
    for row in grid.rows:
        value = published_value(row, grid.static)
        if value.change is None or value.change_from_means is None or grid.static is None:
            continue
        if not value.change_contradicts_means:
            continue
        findings.append(
            Finding(
                rule="change does not add up",
                table=grid.number,
                row=row.settings,
                numbers={
                    "mean": row.accuracy_mean,
                    "static_mean": grid.static.accuracy_mean,
                    "printed_change": value.change,
                    "recomputed_change": round(value.change_from_means, 4),
                },
                text=f"Table {grid.number} prints a change of {signed(value.change, 1)} for {row.settings}, but "
                f"{row.accuracy_mean:.2f} minus the static row's {grid.static.accuracy_mean:.2f} is "
                f"{signed(value.change_from_means)}.",
            )
        )
    return tuple(findings)


def cycles_that_do_not_fit(grid: PublishedGrid, recipes: Sequence[PublishedRecipe]) -> tuple[Finding, ...]:
    """Rows whose cycles outlast every training with cycles that Table B.1 prints for the data set.

    Any network's recipe excuses a row, because the tables do not say which recipe they follow.
    """
    trainings = [(recipe.epochs, recipe.cycle_length) for recipe in recipes if _covers(recipe, grid)]
    findings = []
    for row in grid.rows:
        if row.cycles is None:
            continue
        growth = row.length_multiplier or 1.0
        schedules = [(epochs, length) for epochs, length in trainings if length is not None]
        if not schedules or any(
            math.fsum(cycle_lengths(row.cycles, length, growth)) <= epochs for epochs, length in schedules
        ):
            continue
        epochs, length = max(schedules)
        lengths = cycle_lengths(row.cycles, length, growth)
        printed = listed([str(epochs) for epochs in sorted({epochs for epochs, _ in schedules})])
        findings.append(
            Finding(
                rule="cycles do not fit",
                table=grid.number,
                row=row.settings,
                numbers={"epochs_of_cycles": sum(lengths), "epochs_of_longest_training": epochs},
                text=f"Table {grid.number}'s row {row.settings} cannot have run as printed: cycles of "
                f"{' + '.join(f'{length:g}' for length in lengths)} = {sum(lengths):g} epochs do not fit the trainings "
                f"of {printed} epochs that Table B.1 prints for {grid.rows[0].dataset}.",
            )
        )
    return tuple(findings)


def settings_of_one_table_only(grids: Sequence[PublishedGrid]) -> tuple[Finding, ...]:
    """Rows of one table alone, where all other tables print a row that differs from it in a single setting."""
    findings = []
    for grid in grids:
        others = [other for other in grids if other is not grid]
        if len(others) < 2:
            continue
        here = {row.key for row in grid.rows}
        everywhere_else = set.intersection(*({row.key for row in other.rows} for other in others))
        for row in grid.rows:
            if any(other.find(*row.key) for other in others):
                continue
            for key in everywhere_else - here:
                different = [_COLUMNS[i] for i in range(len(_COLUMNS)) if row.key[i] != key[i]]
                if len(different) != 1:
                    continue
                findings.append(
                    Finding(
                        rule="setting of one table only",
                        table=grid.number,
                        row=row.settings,
                        numbers={"tables_with_the_other_setting": len(others)},
                        text=f"Only Table {grid.number} prints {row.settings}; Tables "
                        f"{listed([other.number for other in others])} print {schedule_text(*key)} in its place. The "
                        f"number of its column {different[0]} may be a misprint.",
                    )
                )
    return tuple(findings)


def parts_that_do_not_add_up(costs: Sequence[PublishedCost]) -> tuple[Finding, ...]:
    """A combined system of Table 6 that has more parameters, or fewer, than its parts add to the baseline.

    The first row is the baseline, a row `<system> w/ <part>` adds one part to it, and `<system> Combined` adds all. A
    part has the same parameters in both rows if both were measured under the same conditions. Where some are
    left over, the parts that have activations but no parameters in their own row are named as well: a module that
    is executed and has none stands in for one that has.
    """
    findings: list[Finding] = []
    for combined in costs:
        system, _, last = combined.method.rpartition(" ")
        parts = [row for row in costs if row.method.startswith(f"{system} w/ ")]
        if last != "Combined" or not parts:
            continue
        baseline = costs[0]
        added = {row.method: row.param_size_mb - baseline.param_size_mb for row in parts}
        expected = baseline.param_size_mb + sum(added.values())
        left_over = combined.param_size_mb - expected
        if abs(left_over) <= PRINTED * 2 * len(parts) + 1e-9:
            continue
        sums = listed([f"{method} {signed(size)}" for method, size in added.items()])
        findings.append(
            Finding(
                rule="parts do not add up",
                table="6",
                row=combined.method,
                numbers={
                    "param_size_mb": combined.param_size_mb,
                    "param_size_mb_of_parts": round(expected, 4),
                    "difference_mb": round(left_over, 4),
                },
                text=f"Table 6 prints {combined.param_size_mb:.2f} MB of parameters for {combined.method}, but "
                f"{baseline.method}'s {baseline.param_size_mb:.2f} with what its parts' own rows add ({sums}) is "
                f"{expected:.2f}: {signed(left_over)} MB. So not all of these rows were measured under the same "
                "conditions.",
            )
        )
        if left_over > 0:
            findings += _activations_without_parameters(baseline, parts, combined, left_over)
    return tuple(findings)


def parameters_counted_twice(costs: Sequence[PublishedCost]) -> tuple[Finding, ...]:
    """Rows of Table 6 with twice the parameters of its first row: a second, dense weight for every weight."""
    if not costs:
        return ()
    baseline = costs[0]
    return tuple(
        Finding(
            rule="parameters counted twice",
            table="6",
            row=row.method,
            numbers={"param_size_mb": row.param_size_mb, "baseline_param_size_mb": baseline.param_size_mb},
            text=f"Table 6 prints {row.param_size_mb:.2f} MB of parameters for {row.method}, twice {baseline.method}'s "
            f"{baseline.param_size_mb:.2f}: a second number is counted for every weight. The caption calls the column "
            "trainable parameters, which a fixed matrix is not.",
        )
        for row in costs
        if abs(row.param_size_mb / (2 * baseline.param_size_mb) - 1) < DOUBLE
    )


def _activations_without_parameters(
    baseline: PublishedCost, parts: Sequence[PublishedCost], combined: PublishedCost, left_over: float
) -> list[Finding]:
    findings = []
    for part in parts:
        parameters = part.param_size_mb - baseline.param_size_mb
        activations = (part.est_total_mb - baseline.est_total_mb) - parameters
        if abs(parameters) > 2 * PRINTED + 1e-9 or activations <= 4 * PRINTED:
            continue
        findings.append(
            Finding(
                rule="activations without parameters",
                table="6",
                row=part.method,
                numbers={
                    "param_size_mb_added": round(parameters, 4),
                    "activations_mb_added": round(activations, 4),
                    "param_size_mb_left_over": round(left_over, 4),
                },
                text=f"In Table 6, {part.method} adds {activations:.2f} MB of activations to {baseline.method} and no "
                f"parameters, while {combined.method} has {left_over:.2f} MB of parameters that no part's own row has. "
                "Most likely this row was measured with its part switched off, and the combined one with it on.",
            )
        )
    return findings


_COLUMNS = ("Pattern", "Multiplier", "Cycles", "Length Mult.")


def _covers(recipe: PublishedRecipe, grid: PublishedGrid) -> bool:
    """Whether a recipe is for the data set of a table; `CIFAR-10/100` is for both."""
    family, _, name = grid.rows[0].dataset.rpartition("-")
    recipe_family, _, names = recipe.data.rpartition("-")
    return family == recipe_family and name in names.split("/")
