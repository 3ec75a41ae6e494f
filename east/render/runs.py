"""The runs behind a row of a table, as its cells open them: value, curve, time, code and files of each seed."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from east.analysis.aggregate import Accuracy, AggregatedGrid, AggregatedMethods, GridResult, MethodResult, SeedValue
from east.analysis.compare import RowComparison
from east.analysis.curves import Curve, read_curve
from east.analysis.sources import Sources
from east.analysis.words import capital, sharing_text
from east.render.drawing import curve_drawing
from east.render.names import DATASETS, network_label, table_label, width_label
from east.render.numbers import accuracy_text, duration, fixed, plus_minus, thousands
from east.training.records import RunSummary

COMMIT_DIGITS = 12


@dataclass(frozen=True)
class RunOutcome:
    """What there is of a run; a run that has not finished may have a curve, and one without epochs has none."""

    summary: RunSummary | None
    curve: Curve | None


def run_ids(tables: Iterable[AggregatedGrid | AggregatedMethods]) -> Iterator[str]:
    """The runs behind some tables; a run that several rows show comes several times."""
    for table in tables:
        for row in table.rows:
            yield from (seed.run for seed in row.accuracy.seeds)


def read_outcomes(runs: Iterable[str], sources: Sources) -> dict[str, RunOutcome]:
    """Read what there is of some runs, by id; a run that is named twice is read once.

    Raises:
        EastError: A file is there and cannot be read.
    """
    return {run: RunOutcome(sources.summary(run), read_curve(sources, run)) for run in dict.fromkeys(runs)}


def row_details(
    table: AggregatedGrid | AggregatedMethods,
    outcomes: Mapping[str, RunOutcome],
    comparisons: Mapping[str, RowComparison],
    *,
    runs_dir: Path,
    logs_dir: Path | None,
) -> dict[str, dict[str, object]]:
    """What the cells of a table open, by row id, as `runs.html.j2` names it; rows without any run open nothing."""
    rows: Sequence[GridResult | MethodResult] = table.rows
    source = table.source if isinstance(table, AggregatedGrid) else None
    details: dict[str, dict[str, object]] = {}
    for number, row in enumerate(rows, start=1):
        if not row.accuracy.planned:
            continue
        comparison = comparisons.get(row.id)
        if isinstance(row, GridResult):
            published, text = row.published, capital(row.settings)
        else:
            published = None
            text = f"{row.method}, {network_label(row.model)}{width_label(row.width)} on {DATASETS[row.dataset]}"
        details[row.id] = {
            "id": re.sub("[^A-Za-z0-9]+", "-", f"runs-{table.id}-{number}"),
            "table": table_label(table.id) or table.title,
            "row": text,
            "accuracy": accuracy_text(row.accuracy),
            "source": "Paper" if source is None else source.name,
            "published": plus_minus(published.mean, published.std) if published else None,
            "verdict": comparison.verdict if comparison else None,
            "reason": comparison.reason if comparison else None,
            "seeds": _seeds(row.accuracy, outcomes, runs_dir, logs_dir),
        }
    return details


def _seeds(
    accuracy: Accuracy, outcomes: Mapping[str, RunOutcome], runs_dir: Path, logs_dir: Path | None
) -> list[dict[str, object]]:
    """The runs of a row: what each came to, its curve, and where it is to be found."""
    found = [(seed, outcomes[seed.run]) for seed in accuracy.seeds]
    curves = [outcome.curve for _, outcome in found if outcome.curve]
    epochs = max((curve.epochs[-1] for curve in curves), default=1)
    # The curves of a row share their axes; the upper end is the next multiple of ten, so that rows differ.
    highest = 10 * max(1, math.ceil(max((max(curve.values) for curve in curves), default=0) / 10))
    return [
        {
            "seed": seed.seed,
            "status": seed.status,
            "result": _result(seed, curve.epochs[-1] if (curve := outcome.curve) else None),
            "curve": curve_drawing(curve, epochs=epochs, highest=highest) if curve else None,
            "facts": _facts(outcome.summary) if outcome.summary else [],
            "files": [
                ("Folder", str(runs_dir / seed.run)),
                *([("Log", str(logs_dir / f"{seed.run}.log"))] if logs_dir else []),
            ],
        }
        for seed, outcome in found
    ]


def _result(seed: SeedValue, epochs: int | None) -> str:
    if seed.accuracy is not None:
        return f"{fixed(seed.accuracy)} %"
    if seed.status == "diverged":
        return "diverged" + (f" in epoch {seed.diverged_at_epoch}" if seed.diverged_at_epoch else "")
    return f"not finished, {epochs} epochs so far" if epochs else "not run"


def _facts(summary: RunSummary) -> Sequence[tuple[str, str]]:
    facts = []
    if summary.best_test_accuracy is not None and summary.best_epoch is not None:
        best = f"{fixed(summary.best_test_accuracy)} % after epoch {summary.best_epoch}"
        facts.append(("At the best validation epoch", best))
    if summary.seconds is not None:
        attempts = f"{summary.attempts} attempts" if (summary.attempts or 1) > 1 else None
        parts = (duration(summary.seconds), attempts, sharing_text(summary.runs_per_device))
        facts.append(("Wall time", ", ".join(filter(None, parts))))
    channels, live = summary.liveness.get("channels"), summary.liveness.get("live_channels")
    if isinstance(channels, int) and isinstance(live, int):
        facts.append(("Live channels", f"{thousands(live)} of {thousands(channels)}"))
    if summary.device:
        facts.append(("Device", summary.device))
    if summary.reproducibility:
        facts.append(("Reproducibility", summary.reproducibility))
    facts.append(("Commit", summary.commit[:COMMIT_DIGITS] if summary.commit else "not recorded"))
    return facts
