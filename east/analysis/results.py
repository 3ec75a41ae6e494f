"""Results as data frames: a row a run, a row a run and epoch, a row a run and mask update."""

import io
import json
import types
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, Union, get_args, get_origin

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from east.analysis.sources import Request, Sources
from east.cells import guarded, unguarded
from east.config import make_plan, read_config
from east.config.choices import Choice, TopologySpec
from east.config.run import Frozen, OptimizerSpec, Run, RunSpec, fingerprint_of_content
from east.config.vocabulary import OfRunsAlone, metadata_of
from east.errors import EastError
from east.files import parse_json, read_regular
from east.training.folder import RUN
from east.training.records import EpochRecord, Meaning, RunSummary, SchemaColumn, UpdateRecord, columns


class PlannedRun(Frozen):
    """A run that has a row whether it is there or not."""

    id: str
    fingerprint: str | None = None
    method: str | None = None

    @classmethod
    def of(cls, run: Run) -> Self:
        """A run of a plan."""
        return cls(id=run.id, fingerprint=run.fingerprint, method=run.label)


PLANNED_RUNS: TypeAdapter[tuple[PlannedRun, ...]] = TypeAdapter(tuple[PlannedRun, ...])


@dataclass(frozen=True)
class ResultFrames:
    """What the runs of a folder of results have left.

    Attributes:
        runs: a row a run; its columns are those of tables/runs.csv.
        epochs: a row a run and epoch, as in tables/epochs.csv: `id`, and the columns of metrics.csv.
        updates: a row a run and mask update: `id`, and the columns of updates.csv.
        problems: files that could be read in part only, or not at all, a sentence each.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame
    updates: pd.DataFrame
    problems: tuple[str, ...]


def load_results(results: str | Path, *configfiles: str | Path) -> ResultFrames:
    """Read results, finished or not, as they are on disk now.

    Args:
        results: the name of a configuration, such as `demo`, for results/demo; or the path of such a folder.
        configfiles: overlays of config.yaml, as they were given to Snakemake. With them there is a row for every run
            of the plan, with its method, whether it has begun or not. Without any, there is one for each run on disk,
            and the methods are those of tables/runs.csv, where that has been written.

    Raises:
        EastError: there is no such folder, or a configuration is wrong.
    """
    folder = next((path for path in (Path(results), Path("results") / results) if (path / "runs").is_dir()), None)
    if folder is None:
        raise EastError(f"there are no results in {Path('results') / results}: the folder runs is missing.")
    if configfiles:
        planned = [PlannedRun.of(run) for run in make_plan(read_config(*configfiles)).runs]
    else:
        planned = list(_runs_on_disk(folder))
    return read_results(Sources(folder), planned)


def read_results(sources: Sources, planned: Sequence[PlannedRun]) -> ResultFrames:
    """Read the folders of some runs as far as they are whole."""
    problems: list[str] = []
    runs = read_runs(sources, planned, problems)
    begun = runs.loc[~runs["status"].isin(["missing", "stale"]), "id"]
    epochs = read_rows(sources, begun, EpochRecord, problems)
    return ResultFrames(runs, epochs, read_rows(sources, begun, UpdateRecord, problems), tuple(dict.fromkeys(problems)))


def write_frames(sources: Sources, request: Request) -> None:
    """Write tables/runs.csv and tables/epochs.csv of the runs that a request names.

    Raises:
        EastError: a file of a run cannot be read, or a run that has ended is not the planned one.
    """
    found = read_results(sources, PLANNED_RUNS.validate_python(request.of))
    stale = found.runs.loc[found.runs["status"] == "stale", "id"]
    if len(stale):
        raise EastError(f"{', '.join(stale)} in {sources.runs} ended with other settings than the plan's; train again.")
    if found.problems:
        raise EastError(found.problems[0])
    for name, frame in (("runs", found.runs), ("epochs", found.epochs)):
        path = sources.results / "tables" / f"{name}.csv"
        sources.write(request, {path: frame_csv(frame)})


def frame_csv(frame: pd.DataFrame) -> str:
    """A data frame as a CSV file, in which a spreadsheet takes no text for a formula."""
    texts = [name for name, column in frame.items() if not pd.api.types.is_numeric_dtype(column)]
    cells = {str(name): frame[name].map(guarded, na_action="ignore") for name in texts}
    text: str = frame.assign(**cells).to_csv(index=False)
    return text


def read_runs(sources: Sources, planned: Iterable[PlannedRun], problems: list[str] | None = None) -> pd.DataFrame:
    """A row a run, in the given order. Of a stale run there are its identity and its revision alone.

    Args:
        sources: what reads the runs.
        planned: the runs.
        problems: gets a sentence for each summary that cannot be read.

    Raises:
        EastError: a summary cannot be read, and there are no `problems` to note that in.
    """
    return _frame([_run_row(sources, run, problems) for run in planned], run_columns())


def read_rows(
    sources: Sources,
    run_ids: Iterable[str],
    kind: type[EpochRecord] | type[UpdateRecord],
    problems: list[str] | None = None,
) -> pd.DataFrame:
    """The records of some runs under each other, with the run's `id` before them; as for `read_runs`."""
    of = row_columns(kind)
    frames = [_frame([], of)]
    for run in run_ids:
        found = sources.rows(run, kind)
        if found.problem is not None:
            _note(found.problem, problems)
        frames.append(_frame([{"id": run, **vars(row)} for row in found.rows], of))
    return pd.concat(frames, ignore_index=True)


def run_columns() -> tuple[SchemaColumn, ...]:
    """The columns of runs.csv: where the run stands, what it came to, its settings, and where the numbers come from."""
    said = {column.name: column for column in columns(RunSummary) if column.kind not in (dict, list)}
    return (
        *(SchemaColumn(name, kind, optional, Meaning(text)) for name, kind, optional, text in _PLACE),
        *(column for name, column in said.items() if name not in ("id", "status")),
        *(SchemaColumn(name, kind, True, Meaning(text)) for name, kind, text in _NESTED),
        *setting_columns(),
    )


def setting_columns() -> tuple[SchemaColumn, ...]:
    """Of runs.csv: every setting that decides a run's numbers, by its dotted key."""
    plugins = SchemaColumn("plugins", str, True, Meaning("SHA-256 of the plugins that the run uses"))
    return (*(column for column in _settings(RunSpec, "") if column.name != "seed"), plugins)


def row_columns(kind: type[EpochRecord] | type[UpdateRecord]) -> tuple[SchemaColumn, ...]:
    """The columns of a data frame of records, such as epochs.csv."""
    return (SchemaColumn("id", str, False, Meaning("the run, as in runs.csv")), *columns(kind))


def dtypes(of: Iterable[SchemaColumn]) -> dict[str, str]:
    """How pandas holds some columns, as `pandas.read_csv(..., dtype=...)` takes it."""
    names: dict[type, str] = {float: "float64", bool: "boolean"}
    return {
        column.name: ("Int64" if column.optional else "int64") if column.kind is int else names.get(column.kind, "str")
        for column in of
    }


_PLACE = (
    ("id", str, False, "table/row/seedN"),
    ("table", str, False, "table under whose name it is trained"),
    ("row", str, False, "row of that table"),
    ("seed", int, False, "seed of everything random in it"),
    ("method", str, True, "method as the tables name it"),
    ("status", str, False, "`finished`, `diverged`, `unfinished`, `missing`, or `stale`: ended with other settings"),
)
_NESTED = (
    ("parameters.batch_norm", int, "parameters of batch norm, which are never masked"),
    ("parameters.dyrelu", int, "parameters of DyReLU at the end"),
    ("liveness.channels", int, "output channels of all convolutions"),
    ("liveness.live_channels", int, "of them on a path of non-zeros from input to logits"),
    ("versions.torch", str, "version of PyTorch"),
)


def _settings(model: type[BaseModel], prefix: str) -> Iterator[SchemaColumn]:
    """Every setting by its dotted key, with what its own schema says of it."""
    for name, field in model.model_fields.items():
        if any(isinstance(found, OfRunsAlone) for found in metadata_of(field)):
            continue  # it is in the column of what it belongs to
        kind: Any = field.annotation
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(part for part in get_args(kind) if part is not type(None))
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in (Choice, TopologySpec):
            yield from _settings(kind, f"{prefix}{name}.")
        else:
            scalar = kind if kind in (int, float, bool) else str
            yield SchemaColumn(prefix + name, scalar, True, Meaning(field.description or ""))


def _run_row(sources: Sources, run: PlannedRun, problems: list[str] | None) -> dict[str, Any]:
    table, _, rest = run.id.partition("/")
    row, _, seed = rest.rpartition("/seed")
    place = {"id": run.id, "table": table, "row": row, "seed": int(seed), "method": run.method}
    summary = _summary(sources, run.id, problems)
    spec = summary.run if summary else _begun(sources.runs / run.id / RUN)
    fingerprint = summary.fingerprint if summary else fingerprint_of_content(spec) if spec else None
    if run.fingerprint not in (None, fingerprint):
        return {**place, "status": "stale" if summary else "missing", "revision": _revision(spec)}
    begun = {**_settings_of(spec), **place, "fingerprint": fingerprint}
    if summary is None:
        return {**begun, "status": "unfinished" if spec else "missing"}
    return {**begun, **_flat(summary.model_dump(exclude={"run", "id"}), "")}


def _settings_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, those that were left out as well; of one of another version nothing but the revision."""
    try:
        run = RunSpec.model_validate(spec)
    except ValidationError:
        return {"revision": _revision(spec)}
    return {**_written(run, ""), "plugins": " ".join(sorted(run.plugins)) or None}


def _written(part: BaseModel, prefix: str) -> dict[str, Any]:
    """The settings of a part of a run by their dotted keys; lists as JSON, choices in words."""
    found: dict[str, Any] = {}
    for name in type(part).model_fields:
        value, key = getattr(part, name), prefix + name
        if isinstance(value, Choice | TopologySpec):
            found[key] = str(value)
        elif isinstance(value, BaseModel):
            found |= _written(value, f"{key}.")
        else:
            found[key] = json.dumps(value) if isinstance(value, tuple) else value
    if isinstance(part, OptimizerSpec):
        found[f"{prefix}name"] = str(Choice(name=part.name, parameters=part.parameters))
    return found


def _revision(spec: dict[str, Any]) -> int | None:
    revision = spec.get("revision")
    return revision if isinstance(revision, int) else None


def _summary(sources: Sources, run: str, problems: list[str] | None) -> RunSummary | None:
    try:
        return sources.summary(run)
    except EastError as error:
        _note(str(error), problems)
        return None


def _note(problem: str, problems: list[str] | None) -> None:
    if problems is None:
        raise EastError(problem)
    problems.append(problem)


def _begun(path: Path) -> dict[str, Any]:
    """The run that was begun in a folder; empty where there is none that can be read."""
    try:
        return parse_json(read_regular(path))
    except (OSError, ValueError):
        return {}


def _flat(content: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Nested mappings as one with dotted keys; lists as JSON."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _frame(rows: Sequence[dict[str, Any]], of: Sequence[SchemaColumn]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[column.name for column in of]).astype(dtypes(of))


def _runs_on_disk(folder: Path) -> Iterator[PlannedRun]:
    """Every run that has begun, with its method where tables/runs.csv knows the same run."""
    known: dict[str, Any] = {}
    path = folder / "tables" / "runs.csv"
    with suppress(EastError):  # methods are a convenience
        content = io.BytesIO(Sources(folder).derived(path))
        written = pd.read_csv(content, dtype="str", usecols=["id", "method"]).dropna()
        known = dict(zip(written["id"].map(unguarded), written["method"].map(unguarded), strict=True))
    for path in sorted((folder / "runs").glob("*/*/seed*")):
        run = path.relative_to(folder / "runs").as_posix()
        if path.name.removeprefix("seed").isdigit():
            yield PlannedRun(id=run, method=known.get(run))
