"""What in the paper's tables does not fit together, found by rules that name no cell."""

import itertools
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


class AuditFinding(Frozen):
    """Something printed that cannot be, or cannot mean what it says."""

    rule: Rule
    table: str = Field(description="number of the table in the paper")
    row: str = Field(description="the row in words, or the method's name")
    numbers: dict[str, float] = Field(description="what was compared, by name")
    text: str = Field(description="the finding in sentences")


def audit(
    grids: Sequence[PublishedGrid], recipes: Sequence[PublishedRecipe], costs: Sequence[PublishedCost]
) -> tuple[AuditFinding, ...]:
    """Apply every rule to the paper's tables."""
    return (
        *(finding for grid in grids for finding in changes_that_do_not_add_up(grid)),
        *(finding for grid in grids for finding in cycles_that_do_not_fit(grid, recipes)),
        *settings_of_one_table_only(grids),
        *parts_that_do_not_add_up(costs),
        *parameters_counted_twice(costs),
    )


def changes_that_do_not_add_up(grid: PublishedGrid) -> tuple[AuditFinding, ...]:
    """Changes, to one decimal, that are not the row's mean minus the static row's."""
    static = grid.static
    values = [(row, published_value(row, static)) for row in grid.rows]
    return tuple(
        AuditFinding(
            rule="change does not add up",
            table=grid.number,
            row=row.settings,
            numbers={
                "mean": row.accuracy_mean,
                "static_mean": static.accuracy_mean,
                "printed_change": value.change,
                "recomputed_change": round(value.change_from_means, 4),
            },
            text=f"Table {grid.number} prints a change of {signed(value.change, 1)} for {row.settings}, but "
            f"{row.accuracy_mean:.2f} minus the static row's {static.accuracy_mean:.2f} is "
            f"{signed(value.change_from_means)}.",
        )
        for row, value in values
        if static and value.change is not None and value.change_from_means is not None
        if value.change_contradicts_means
    )


def cycles_that_do_not_fit(grid: PublishedGrid, recipes: Sequence[PublishedRecipe]) -> tuple[AuditFinding, ...]:
    """Rows whose cycles outlast every training with cycles that Table B.1 prints for the data set.

    Any network's recipe excuses a row, because the tables do not say which recipe they follow. A recipe for
    `CIFAR-10/100` is for both.
    """
    family, _, name = grid.rows[0].dataset.rpartition("-")
    schedules = []
    for recipe in recipes:
        recipe_family, _, names = recipe.data.rpartition("-")
        if recipe.cycle_length is not None and recipe_family == family and name in names.split("/"):
            schedules.append((recipe.epochs, recipe.cycle_length))
    printed = listed([str(epochs) for epochs in sorted({epochs for epochs, _ in schedules})])
    findings = []
    for row in grid.rows:
        if row.cycles is None or not schedules:
            continue
        growth = row.length_multiplier or 1.0
        if any(math.fsum(cycle_lengths(row.cycles, length, growth)) <= epochs for epochs, length in schedules):
            continue
        epochs, length = max(schedules)
        lengths = cycle_lengths(row.cycles, length, growth)
        findings.append(
            AuditFinding(
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


def settings_of_one_table_only(grids: Sequence[PublishedGrid]) -> tuple[AuditFinding, ...]:
    """Rows of one table alone, where all other tables print a row that differs from it in a single setting."""
    findings = []
    for grid in grids:
        others = [other for other in grids if other is not grid]
        if len(others) < 2:
            continue
        everywhere_else = set.intersection(*({row.key for row in other.rows} for other in others))
        here = {row.key for row in grid.rows}
        alone = [row for row in grid.rows if not any(other.find(*row.key) for other in others)]
        for row, key in itertools.product(alone, everywhere_else - here):
            different = [column for column, ours, theirs in zip(_COLUMNS, row.key, key, strict=True) if ours != theirs]
            if len(different) == 1:
                findings.append(
                    AuditFinding(
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


def parts_that_do_not_add_up(costs: Sequence[PublishedCost]) -> tuple[AuditFinding, ...]:
    """A combined system of Table 6 that has more parameters, or fewer, than its parts add to the baseline.

    The first row is the baseline, a row `<system> w/ <part>` adds one part to it, and `<system> Combined` adds all. A
    part has the same parameters in both rows if both were measured under the same conditions. Where some are
    left over, the parts that have activations but no parameters in their own row are named as well: a module that
    is executed and has none stands in for one that has.
    """
    findings: list[AuditFinding] = []
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
            AuditFinding(
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


def parameters_counted_twice(costs: Sequence[PublishedCost]) -> tuple[AuditFinding, ...]:
    """Rows of Table 6 with twice the parameters of its first row: a second, dense weight for every weight."""
    if not costs:
        return ()
    baseline = costs[0]
    return tuple(
        AuditFinding(
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
) -> list[AuditFinding]:
    findings = []
    for part in parts:
        parameters = part.param_size_mb - baseline.param_size_mb
        activations = (part.est_total_mb - baseline.est_total_mb) - parameters
        if abs(parameters) > 2 * PRINTED + 1e-9 or activations <= 4 * PRINTED:
            continue
        findings.append(
            AuditFinding(
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
