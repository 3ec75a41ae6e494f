"""The schema of what a run writes, each column and key with type, unit and meaning; and its one writer and reader.

It decides the files' columns, the data frames of `east.analysis.results`, and the tables in docs/results.md. Nothing
here needs PyTorch: whoever reads results does not wait for it.
"""

import csv
import io
import json
import logging
import math
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic import Field as Limits

from east.errors import EastError
from east.files import parse_json, read_csv, read_regular, sha256_of, write_atomically
from east.reproducibility import Reproducibility

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Meaning:
    """What a column or key says.

    Attributes:
        text: in a few words.
        unit: of its numbers; empty for counts, names and ratios.
        repeatable: whether two trainings of a run that give the same bytes have it in common; seconds, say, are not.
    """

    text: str
    unit: str = ""
    repeatable: bool = True


LARGEST = 2**63 - 1
"""Counts are no larger: data frames have no place for more."""

MAY_BE_NO_NUMBER = ("train_loss", "train_acc", "val_acc", "test_acc")
"""Columns of metrics.csv that are not finite in the epoch in which a run diverges."""

PARTS = ("weights", "masks", "statistics", "optimizer", "clip")
"""The parts of a training's state that have a digest of their own, the first to look at first."""

Percent = Annotated[float, Limits(ge=0, le=100, allow_inf_nan=False)]
LiveChannels = Annotated[int, Meaning("channels on a path of non-zeros from input to logits")]
LiveWeights = Annotated[int, Meaning("non-zeros on such a path")]
DeadBranches = Annotated[int, Meaning("residual branches without such a path")]
ActiveZeros = Annotated[int, Meaning("active weights that were exactly zero before the last update")]
FrozenLayers = Annotated[int, Meaning("layers whose mask the last update left as it was")]


@dataclass(frozen=True)
class EpochRecord:
    """A row of metrics.csv: the state after an epoch.

    Nothing in it depends on the machine's speed, so that a run that was killed and resumed has the same file, byte for
    byte, as one that was not; seconds are in timing.csv.
    """

    epoch: Annotated[int, Meaning("epochs that are done")]
    step: Annotated[int, Meaning("optimizer steps that are done")]
    lr: Annotated[float, Meaning("learning rate of the epoch's last step")]
    density: Annotated[float, Meaning("non-zeros divided by the weights of the dense network")]
    drop_fraction: Annotated[float, Meaning("share of the non-zeros that an update would drop now")]
    beta: Annotated[float, Meaning("weight of DyReLU against ReLU; 0 without DyReLU")]
    train_loss: Annotated[float, Meaning("mean cross-entropy over the epoch's images", "nats")]
    train_acc: Annotated[float, Meaning("accuracy on the epoch's training images, while training", "%")]
    val_acc: Annotated[float | None, Meaning("accuracy on the validation images; empty where none are held out", "%")]
    test_acc: Annotated[float, Meaning("accuracy on the test images", "%")]
    nonzeros: Annotated[int, Meaning("active weights")]
    mask_updates: Annotated[int, Meaning("mask updates in the epoch")]
    grown: Annotated[int, Meaning("weights grown in the epoch")]
    blind_growth: Annotated[int, Meaning("of the grown weights: those whose gradient was exactly zero")]
    active_zeros: ActiveZeros
    frozen_layers: FrozenLayers
    live_channels: LiveChannels
    live_weights: LiveWeights
    dead_branches: DeadBranches


@dataclass(frozen=True)
class UpdateRecord:
    """A row of updates.csv: the masks after a change, the random ones of the start included (step 0)."""

    step: Annotated[int, Meaning("optimizer step after which the masks changed")]
    epoch: Annotated[int, Meaning("epoch of that step")]
    kind: Annotated[str, Meaning("`initial`, `exchange`, `cycle`, `schedule`, or `return` to the target density")]
    density: Annotated[float, Meaning("non-zeros divided by the weights of the dense network")]
    drop_fraction: Annotated[float, Meaning("share of the non-zeros that an update drops at this step")]
    nonzeros: Annotated[int, Meaning("active weights")]
    dropped: Annotated[int, Meaning("weights dropped")]
    grown: Annotated[int, Meaning("weights grown")]
    blind_growth: Annotated[int, Meaning("of the grown weights: those whose gradient was exactly zero")]
    active_zeros: ActiveZeros
    frozen_layers: FrozenLayers
    live_channels: LiveChannels
    channels: Annotated[int, Meaning("channels there are")]
    live_weights: LiveWeights
    reachable_positions: Annotated[int, Meaning("weights, active or not, between live channels")]
    dead_branches: DeadBranches
    branches: Annotated[int, Meaning("residual branches there are")]


@dataclass(frozen=True)
class TimingRecord:
    """A row of timing.csv: how long an attempt spent on an epoch; one that was cut has a row for each part."""

    epoch: Annotated[int, Meaning("the epoch")]
    seconds: Annotated[float, Meaning("training and evaluation", "s")]
    attempt: Annotated[int, Meaning("which attempt at the run, counted from 1")]


@dataclass(frozen=True)
class TraceRecord:
    """A row of trace.csv: the state after an optimizer step and what goes with it.

    A digest is one of tensors: their names in order, types, shapes, and numbers in row-major order, in which -0.0
    counts as 0.0 and every NaN as the same. So it depends neither on how memory is laid out nor on any file format.
    """

    step: Annotated[int, Meaning("optimizer steps that are done")]
    epoch: Annotated[int, Meaning("epoch of that step")]
    event: Annotated[
        str, Meaning("why there is a row: `start`, `step` (1, 2, 4, 8, ...), `update`, `epoch`; several joined by +")
    ]
    state: Annotated[str, Meaning("digest of all of the following")]
    weights: Annotated[str, Meaning("of all parameters; of masked ones the active weights")]
    masks: Annotated[str, Meaning("of the places of active weights")]
    statistics: Annotated[str, Meaning("of batch norm's running mean and variance, and all else that is not trained")]
    optimizer: Annotated[str, Meaning("of the optimizer's state")]
    clip: Annotated[str, Meaning("of the norm that the gradient clip holds")]


SUMMARY = "summary.json"
KEPT_SUMMARY = "summary.kept.json"
"""The same once more. Snakemake removes the declared result of a job that it repeats, but not what it does not know."""

DIGEST = "sha256"
"""The key of a JSON file that holds the digest of its other keys."""

FILES: dict[type, str] = {
    EpochRecord: "metrics.csv",
    UpdateRecord: "updates.csv",
    TraceRecord: "trace.csv",
    TimingRecord: "timing.csv",
}
"""Where a run writes its rows of each kind, in its folder."""

Record = EpochRecord | UpdateRecord | TimingRecord | TraceRecord
R = TypeVar("R", bound=Record)


class RunSummary(BaseModel):
    """summary.json: what a run that has ended says about itself. Its keys are written in this order.

    Keys that it does not know are kept, so that older analyses read newer runs.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    id: Annotated[str, Meaning("table/row/seedN")]
    run: Annotated[dict[str, Any], Meaning("the run that was trained, as in run.json")] = {}
    fingerprint: Annotated[str, Meaning("identity of that run")]
    status: Annotated[Literal["finished", "diverged"], Meaning("`finished`, or `diverged`: no longer finite")]
    diverged_at_epoch: Annotated[int | None, Meaning("epoch in which it diverged")] = None
    diverged_at_step: Annotated[int | None, Meaning("step at the end of that epoch")] = None
    final_test_accuracy: Annotated[Percent | None, Meaning("test accuracy after the last epoch", "%")]
    final_validation_accuracy: Annotated[float | None, Meaning("validation accuracy after the last epoch", "%")] = None
    best_test_accuracy: Annotated[
        Percent | None, Meaning("test accuracy at the best validation epoch of the final network", "%")
    ] = None
    best_epoch: Annotated[int | None, Meaning("that epoch")] = None
    epochs: Annotated[int | None, Meaning("epochs that were trained")] = None
    steps: Annotated[int | None, Meaning("optimizer steps")] = None
    nonzeros: Annotated[int | None, Meaning("active weights at the end")] = None
    masked_weights: Annotated[int | None, Meaning("weights of the dense network that masks apply to")] = None
    parameters: Annotated[dict[str, int], Meaning("trained numbers by kind")] = {}
    liveness: Annotated[dict[str, int], Meaning("channels, weights and branches, and how many are live")] = {}
    seconds: Annotated[
        float | None, Limits(ge=0), Meaning("training and evaluation over all attempts", "s", repeatable=False)
    ] = None
    attempts: Annotated[int | None, Meaning("processes that had a part in it", repeatable=False)] = None
    peak_memory_mb: Annotated[
        float | None, Meaning("most memory: of the GPU, or of the process on a CPU", "MB", repeatable=False)
    ] = None
    runs_per_device: Annotated[
        int | None, Meaning("trainings that may have shared the device, at most", repeatable=False)
    ] = None
    reproducibility: Annotated[
        Reproducibility | None, Meaning("where the run gives the same bytes again: its class", repeatable=False)
    ] = None
    dataset_digest: Annotated[str | None, Meaning("of the prepared images")] = None
    engine: Annotated[str | None, Meaning("what executed: `sparse`, `dense`, or both", repeatable=False)] = None
    executions: Annotated[dict[str, int], Meaning("kind of execution: number of layers", repeatable=False)] = {}
    instruction_set: Annotated[str | None, Meaning("vector instructions of the CPU's kernels", repeatable=False)] = None
    threads: Annotated[int | None, Meaning("CPU threads", repeatable=False)] = None
    commit: Annotated[str | None, Meaning("commit of the code; `+changes` if edited", repeatable=False)] = None
    code_digest: Annotated[str | None, Meaning("digest of the code that decides numbers", repeatable=False)] = None
    versions: Annotated[
        dict[str, str | None], Meaning("of Python, this package, and the libraries that compute", repeatable=False)
    ] = {}
    device: Annotated[str | None, Meaning("name of the processor or GPU", repeatable=False)] = None
    platform: Annotated[str | None, Meaning("system and processor architecture", repeatable=False)] = None
    attempt_records: Annotated[
        list[dict[str, Any]],
        Meaning("every attempt: when it began and ended, what computed, its steps", repeatable=False),
    ] = []
    files: Annotated[dict[str, str], Meaning("SHA-256 of each other file of the run, by name", repeatable=False)] = {}
    sha256: Annotated[
        str, Meaning("SHA-256 of all other keys, as JSON with sorted keys and without spaces", repeatable=False)
    ] = ""

    @property
    def is_shared(self) -> bool:
        """Whether other trainings may have slowed this one down, so that its seconds are not those of one alone."""
        return (self.runs_per_device or 1) > 1

    @model_validator(mode="after")
    def _counts_can_be_counted(self) -> Self:
        for name, value in self:
            for number in value.values() if isinstance(value, dict) else (value,):
                if isinstance(number, int) and not -LARGEST <= number <= LARGEST:
                    raise ValueError(f"{name} is larger than anything that is counted")
        return self

    @model_validator(mode="after")
    def _finished_has_accuracy(self) -> Self:
        if self.status == "finished" and self.final_test_accuracy is None:
            raise ValueError("final_test_accuracy is empty although the run is finished")
        return self

    def json_text(self) -> str:
        """The file's content, with its digest."""
        return sealed_json(self.model_dump(mode="json", exclude={"sha256"}))


def sealed_json(content: Mapping[str, Any]) -> str:
    """JSON that carries its own digest: `sha256`, its last key, is that of all others."""
    others = {key: value for key, value in content.items() if key != DIGEST}
    return json.dumps(others | {DIGEST: _digest_of(others)}, indent=2, allow_nan=False) + "\n"


def unsealed(content: bytes) -> dict[str, Any]:
    """What `sealed_json` holds, its digest among it.

    Raises:
        ValueError: it is not a JSON object, or not what its digest was made of.
    """
    found = parse_json(content)
    if DIGEST not in found:
        raise ValueError("it carries no digest of itself")
    if found[DIGEST] != _digest_of({key: value for key, value in found.items() if key != DIGEST}):
        raise ValueError("it is not what its digest was made of")
    return found


def _digest_of(content: Mapping[str, Any]) -> str:
    # No NaN: a file with one was not written here.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of(text.encode())


@dataclass(frozen=True)
class SchemaColumn:
    """A column or key of the schema.

    Attributes:
        name: as it is written.
        kind: type of its values; of nested ones `dict` or `list`.
        optional: whether it may be empty.
        meaning: what it says.
    """

    name: str
    kind: type
    optional: bool
    meaning: Meaning


def columns(schema: type[Any]) -> tuple[SchemaColumn, ...]:
    """The columns or keys of a class of the schema, in the order in which they are written."""
    hints = get_type_hints(schema, include_extras=True)
    names = schema.model_fields if issubclass(schema, BaseModel) else [field.name for field in fields(schema)]
    return tuple(_column(name, hints[name]) for name in names)


def write_records(path: Path, kind: type[R], rows: Sequence[R]) -> str:
    """Write rows of one kind as CSV, whole or not at all, and return its SHA-256; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in columns(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    content = text.getvalue().encode()
    write_atomically(path, content)
    return sha256_of(content)


def as_dicts(rows: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows as plain mappings, for a checkpoint."""
    return [asdict(row) for row in rows]


@dataclass(frozen=True)
class Records(Generic[R]):
    """The rows of a file of records, in its order, up to the first that is not whole.

    Attributes:
        rows: of one class of the schema; none where there is no file.
        problem: why the rest could not be read, in a sentence; None where all was.
    """

    rows: tuple[R, ...] = ()
    problem: str | None = None

    def checked(self) -> tuple[R, ...]:
        """All rows of the file.

        Raises:
            EastError: some could not be read.
        """
        if self.problem:
            raise EastError(self.problem)
        return self.rows


def read_records(path: Path, kind: type[R], sha256: str | None = None) -> Records[R]:
    """Read a file that `write_records` wrote, as far as it is whole; columns that the schema lacks are passed over.

    Args:
        path: the file.
        kind: of its rows.
        sha256: what the summary of the run says of the file, once there is one; a file that differs is not read.
    """
    text = read_csv(path, sha256)
    if not text.names:
        return Records(problem=text.problem)
    known = columns(kind)
    missing = [column.name for column in known if column.name not in text.names]
    if missing:
        return Records(problem=f"{path} has no column {', '.join(missing)}.")
    rows: list[R] = []
    for number, row in enumerate(text.rows, start=2):
        said = dict(zip(text.names, row, strict=True))
        try:
            rows.append(kind(**{column.name: _parsed(said[column.name], column) for column in known}))
        except ValueError as error:
            return Records(tuple(rows), f"{path}, line {number}: {error}.")
    return Records(tuple(rows), text.problem)


def summary_path(runs_dir: Path, run_id: str) -> Path:
    """Where the summary of a run lies."""
    return runs_dir / run_id / SUMMARY


def read_summary(path: Path) -> RunSummary:
    """Read and verify a summary.json; if it is damaged, its copy, and say so.

    Raises:
        EastError: the file cannot be read, or is not a summary; the message names the file and the key.
    """
    try:
        return parse_summary(read_regular(path), path)
    except FileNotFoundError:
        raise EastError(f"{path} cannot be read: there is no such file.") from None
    except (OSError, EastError) as error:
        damage = error if isinstance(error, EastError) else EastError(f"{path} cannot be read: {error.strerror}.")
    with suppress(OSError, EastError):
        kept = path.with_name(KEPT_SUMMARY)
        summary = parse_summary(read_regular(kept), kept)
        LOG.warning("%s is damaged; its copy %s is used.", path, kept.name)
        return summary
    raise damage


def parse_summary(content: bytes, path: Path) -> RunSummary:
    """The summary that a file holds.

    Raises:
        EastError: it is not one, or was changed after it was written.
    """
    try:
        return RunSummary.model_validate(unsealed(content))
    except ValidationError as error:
        problem = describe(error)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise EastError(
        f"{path} is not the summary of a run, or is damaged: {problem}. The same `snakemake` command trains it again."
    )


def describe(error: ValidationError) -> str:
    """The first complaint of a validation error in one line, with the key it is about."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    return (f"{key}: " if key else "") + message + (f" (and {more} more)" if more else "")


def _column(name: str, hint: Any) -> SchemaColumn:
    """A column from its annotation, which is a type, perhaps with None, and the meaning."""
    meaning = next(part for part in hint.__metadata__ if isinstance(part, Meaning))
    kind, optional = hint.__origin__, False
    if get_origin(kind) in (Union, types.UnionType):
        kind, optional = next(part for part in get_args(kind) if part is not type(None)), True
    if get_origin(kind) is Annotated:
        kind = kind.__origin__
    kind = str if get_origin(kind) is Literal else get_origin(kind) or kind
    return SchemaColumn(name, kind, optional, meaning)


def _parsed(text: str, column: SchemaColumn) -> Any:
    if column.optional and not text:
        return None
    try:
        value = column.kind(text)
    except ValueError:
        value = None
    is_odd = isinstance(value, float) and not math.isfinite(value) and column.name not in MAY_BE_NO_NUMBER
    if value is None or is_odd or (isinstance(value, int) and not -LARGEST <= value <= LARGEST):
        raise ValueError(f"'{text:.40}' is not a value of {column.name}")
    return value
