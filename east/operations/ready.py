"""What a plan needs besides itself when its runs have ended: the paper's numbers, the report's files, its folders.

Looked at before anything is trained. Without PyTorch: the dry run does it too.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from east.analysis.published import PublishedCost, PublishedRecipe, read_published, read_published_grid
from east.config.places import Mistake
from east.config.plan import PAPER_TABLES, Plan
from east.config.tables import GridTable
from east.errors import EastError
from east.render.hyperparameters import published_systems
from east.render.templating import REPORT_FOLDER

TABLE_6, TABLE_B1 = "table6.csv", "tableB1.csv"

REPORT_FILES = (
    "style.css",
    "script.js",
    "figures.mplstyle",
    *(
        f"templates/{name}.j2"
        for name in (
            "appendix.tex",
            "document.html",
            "report.html",
            "runs.html",
            "table.html",
            "table.md",
            "table.tex",
        )
    ),
    *(
        f"captions/{name}.j2"
        for name in ("audit", "claims", "comparison", "table-6", "table-B1", "table-methods", "tables-2-to-5")
    ),
)
"""What of the folder `report` tables, figures and report are made with."""


def check_ready(plan: Plan, folder: Path, *, report: Path = REPORT_FOLDER) -> None:
    """Refuse a plan that would end before its report.

    Args:
        plan: what is to run.
        folder: where it is to run; relative folders of the plan start from it.
        report: the folder `report` of the project.

    Raises:
        EastError: something that it needs is missing, or cannot be used.
    """
    missing = lacking(plan, report)
    if missing:
        plan.config.sources.refuse([mistake for mistake in missing if mistake.location])
        raise EastError("\n".join(mistake.sentence for mistake in missing))
    problems = list(unwritable(plan, folder))
    if problems:
        raise EastError("\n".join(problems))


def lacking(plan: Plan, report: Path = REPORT_FOLDER) -> list[Mistake]:
    """Files of the project that the plan needs at its end and that cannot be used; a location where a key names one."""
    if absent := [name for name in REPORT_FILES if not os.access(report / name, os.R_OK)]:
        sentence = (
            f"the report's files are not whole: {report / absent[0]} cannot be read. Run in a whole checkout of the "
            "project, and install it from there (`make setup`)."
        )
        return [Mistake((), sentence)]
    published = report / "published"
    named: list[tuple[str, tuple[str, ...]]] = [(name, ()) for name in (*PAPER_TABLES, TABLE_6, TABLE_B1)]
    grids = [table for table in plan.tables if isinstance(table, GridTable)]
    named += [(table.published, ("tables", table.id, "published")) for table in grids if table.published]
    if plan.config.cost.published:
        named.append((plan.config.cost.published, ("cost", "published")))
    problems = []
    for name, location in named:
        try:
            _reader(name, location)(published / name)
        except (EastError, OSError, ValueError) as error:
            problems.append(Mistake(location, str(error) or type(error).__name__))
    return problems


def _reader(name: str, location: Sequence[str]) -> Callable[[Path], object]:
    """What reads a file of published numbers in the place that names it."""
    if location[:1] == ("cost",) or (name == TABLE_6 and not location):
        return lambda path: read_published(path, PublishedCost)
    if name == TABLE_B1 and not location:
        return lambda path: (read_published(path, PublishedRecipe), published_systems(path))
    return read_published_grid


def unwritable(plan: Plan, folder: Path) -> Iterator[str]:
    """Folders that the plan writes to and cannot, in sentences."""
    execution = plan.config.execution
    places = {"results": Path("results") / plan.config.name, "data sets (execution.data_dir)": Path(execution.data_dir)}
    for what, place in places.items():
        there = folder / place
        while not os.path.lexists(there):
            there = there.parent
        if not there.is_dir():
            yield f"{place} is to hold {what}, but {there} is no folder. Move it away, or name another."
        elif not os.access(there, os.W_OK | os.X_OK) and not _is_whole(what, folder / place, plan):
            yield f"{place} is to hold {what}, but {there} cannot be written. Make it writable, or name another."


def _is_whole(what: str, place: Path, plan: Plan) -> bool:
    """Whether a folder of data has all that the plan needs, so that nothing need be written."""
    return what.startswith("data") and all(
        (place / images.store / "manifest.json").is_file() for images in plan.images().values()
    )
