"""The steps of a plan from finished runs to the report: what each is asked for, and whether its files are right."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from east.analysis.sources import Request, read_made_from
from east.config.plan import Plan, cost_plan
from east.config.tables import GridTable
from east.errors import EastError
from east.files import read_regular, sha256_of
from east.render import contents
from east.render.hyperparameters import hyperparameter_rows
from east.render.schedules import distinct_schedules
from east.render.templating import PUBLISHED
from east.training.folder import intact_run


@dataclass(frozen=True)
class Step:
    """A job of the workflow that derives files.

    Attributes:
        request: what it is asked for.
        files: what it makes, by place in the results.
        runs: all that it must stand on, by id and identity; none for a step that reads summarised tables.
    """

    request: Request
    files: tuple[str, ...]
    runs: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The files without their endings, each once."""
        return tuple(dict.fromkeys(map(_stem, self.files)))


class Steps:
    """All steps of a plan, by name, such as `aggregate/table2`, `figures/table2` or `report`.

    Args:
        plan: the plan.
        results: results/<name>.
        config_files: the configuration's files, as the report names them.
    """

    def __init__(self, plan: Plan, results: Path, config_files: list[str]) -> None:
        self._plan, self._results = plan, results
        self._config_files = config_files
        self._digests: dict[Path, str | None] = {}
        self._steps = dict(self._derived())

    def __getitem__(self, name: str) -> Step:
        return self._steps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def files_of(self, name: str) -> list[str]:
        """The files of one name, which differ in their endings."""
        return [file for step in self._steps.values() for file in step.files if _stem(file) == name]

    def problem(self, name: str) -> str | None:
        """Why the files of a step are to be made again; None if they are right."""
        step = self._steps[name]
        try:
            for one in step.names:
                if found := self._difference(step, one):
                    return found
        except EastError as error:
            return str(error)
        return None

    def is_right(self, name: str) -> bool:
        """Whether the files of a step, and all that they were made from, are there, whole and the plan's."""
        needed = (other for other in self if set(self[other].names) & self[name].request.expected.keys())
        return self.problem(name) is None and all(map(self.is_right, needed))

    def run_problem(self, run: str) -> str | None:
        """Why a run that has a summary is to be trained again; None if it is right, or has none."""
        has_summary = (self._results / "runs" / run / "summary.json").exists()
        return f"{run} is not whole, or of another plan" if has_summary and self._run_digests[run] is None else None

    def _difference(self, step: Step, name: str) -> str | None:
        """What of the files of one name is not as its record says, or not as the plan has it."""
        record = read_made_from(self._results, name)
        if record.request != step.request.digest:
            return f"{name} was made for other settings"
        folder = (self._results / name).parent
        named = {folder / file: digest for file, digest in record.files.items()}
        named |= {self._results / place: digest for place, digest in record.results.items()}
        named |= {PUBLISHED / file: digest for file, digest in record.published.items()}
        for path, digest in named.items():
            if self._digest_of(path) != digest:
                return f"{path} is not what {name} was made of"
        if missing := [file for file in step.files if self._results / file not in named and _stem(file) == name]:
            return f"{missing[0]} is not in the record of {name}"
        for run in {*step.runs, *record.runs}:
            if record.runs.get(run) != self._run_digests.get(run):
                return f"run {run} is not the one that {name} was made from"
        return None

    @cached_property
    def _run_digests(self) -> dict[str, str | None]:
        """The digest of each finished run of the plan; None where it is not finished, damaged, or another one."""
        return {run.id: intact_run(self._results / "runs" / run.id, run.fingerprint) for run in self._plan.runs}

    def _digest_of(self, path: Path) -> str | None:
        if path not in self._digests:
            try:
                self._digests[path] = sha256_of(read_regular(path))
            except OSError:
                self._digests[path] = None
        return self._digests[path]

    def _derived(self) -> Iterator[tuple[str, Step]]:
        plan, partial = self._plan, self._plan.config.execution.partial
        costs = cost_plan(plan.config).model_dump()
        identities = {run.id: run.fingerprint for run in plan.runs}
        asked: dict[str, str] = {}

        needs: tuple[str, ...]

        def step(kind: str, of: Any, *files: str, needs: tuple[str, ...] = (), runs: Mapping[str, str] = {}) -> Step:
            request = Request(step=kind, of=of, expected={name: asked[name] for name in needs})
            found = Step(request, files, runs)
            asked.update(dict.fromkeys(found.names, request.digest))
            return found

        def in_all_formats(name: str) -> list[str]:
            return [f"tables/{name}.{form}" for form in contents.FORMATS]

        yield "cost", step("cost", {"cost_plan": costs}, "cost/cost.json")
        for table in plan.tables:
            described = {"table": table.model_dump(), "partial": partial}
            runs = {run.id: run.fingerprint for row in table.rows for run in row.runs}
            yield f"aggregate/{table.id}", step("aggregate", described, f"aggregate/{table.id}.json", runs=runs)
        summaries = tuple(f"aggregate/{table.id}" for table in plan.tables)
        grids = [table.id for table in plan.tables if isinstance(table, GridTable)]
        of_grids = tuple(f"aggregate/{table}" for table in grids)
        claims = [claim.model_dump(mode="json") for claim in plan.claims]
        tested = {"tables": grids, "claims": claims, "comparing": plan.config.comparison.model_dump()}
        yield "analyse", step("analyse", tested, "analysis/evidence.json", needs=of_grids)
        planned = [{"id": run.id, "fingerprint": run.fingerprint, "method": run.label} for run in plan.runs]
        yield "frames", step("frames", planned, "tables/runs.csv", "tables/epochs.csv", runs=identities)
        for table in plan.tables:
            files, needs = in_all_formats(table.id), (f"aggregate/{table.id}",)
            yield f"tables/{table.id}", step("table", {"table": table.id}, *files, needs=needs)
        yield "tables/tableB1", step("table-b1", {"rows": hyperparameter_rows(plan.config)}, *in_all_formats("tableB1"))
        priced = {"cost_plan": costs}
        yield "tables/table6", step("table-6", priced, *in_all_formats("table6"), needs=("cost/cost",))
        files = [file for name in contents.EVIDENCE for file in in_all_formats(name)]
        yield "tables/evidence", step("evidence-tables", None, *files, needs=("analysis/evidence",))
        for table in plan.tables:
            drawn = contents.table_figures(contents.figure_kind(table))
            files, needs = _figure_files(*(f"{table.id}-{name}" for name in drawn)), (f"aggregate/{table.id}",)
            yield f"figures/{table.id}", step("figures", {"table": table.id}, *files, needs=needs)
        drawn = contents.plan_figures(plan)
        schedules = [schedule.model_dump() for schedule in distinct_schedules(plan)]
        shown = {"schedules": schedules, "cost_plan": costs, "differences": "differences" in drawn}
        needs = ("cost/cost", *(("analysis/evidence",) if "differences" in drawn else ()))
        yield "figures/plan", step("plan-figures", shown, *_figure_files(*drawn), needs=needs)
        spec = {"spec": contents.report_contents(plan, self._results, self._config_files).model_dump()}
        needs = tuple(name for name in asked if name not in ("cost/cost", "tables/runs", "tables/epochs"))
        yield "report", step("report", spec, "report/index.html", needs=needs)
        needs = (*summaries, "analysis/evidence", *(f"tables/{name}" for name in _in_appendix(plan)))
        yield "appendix", step("appendix", spec, "tables/appendix.tex", needs=needs)


def _stem(file: str) -> str:
    """A file without its ending."""
    return file.rpartition(".")[0]


def _figure_files(*names: str) -> list[str]:
    return [f"figures/{name}.{form}" for name in names for form in ("png", "svg")]


def _in_appendix(plan: Plan) -> list[str]:
    return [*(table.id for table in plan.tables), "tableB1", "table6"]
