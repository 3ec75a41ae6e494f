"""What a finished training run says about itself: `summary.json`, validated."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from east.errors import EastError
from east.reproducibility import Reproducibility

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Summary(BaseModel):
    """The summary of one run. Keys that it does not know are kept, so that older analyses read newer runs."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    fingerprint: str = Field(description="identity of the run that was trained (`RunSpec.fingerprint`)")
    status: Literal["finished", "diverged"]
    final_test_accuracy: Percent | None = Field(description="after the last epoch, in percent")
    best_test_accuracy: Percent | None = Field(default=None, description="at the best validation epoch, in percent")
    best_epoch: int | None = None
    diverged_at_epoch: int | None = None
    diverged_at_step: int | None = None
    run: dict[str, Any] = Field(default_factory=dict, description="the RunSpec that was trained")
    epochs: int | None = None
    steps: int | None = None
    nonzeros: int | None = None
    masked_weights: int | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    liveness: dict[str, Any] = Field(default_factory=dict)
    seconds: float | None = Field(default=None, ge=0, description="training time over all attempts")
    attempts: int | None = None
    peak_memory_mb: float | None = None
    commit: str | None = None
    code_digest: str | None = None
    versions: dict[str, str | None] = Field(default_factory=dict)
    device: str | None = None
    platform: str | None = None
    engine: str | None = Field(default=None, description="what executed: sparse, dense, or both")
    executions: dict[str, int] = Field(default_factory=dict, description="kind of execution: number of layers")
    instruction_set: str | None = None
    threads: int | None = None
    reproducibility: Reproducibility | None = Field(default=None, description="the weakest class of all attempts")
    dataset_digest: str | None = None
    runs_per_device: int | None = Field(default=None, description="trainings that may have shared the device, at most")

    @property
    def is_shared(self) -> bool:
        """Whether other trainings may have slowed this one down, so that its seconds are not those of one alone."""
        return (self.runs_per_device or 1) > 1

    @model_validator(mode="after")
    def _finished_has_accuracy(self) -> Self:
        if self.status == "finished" and self.final_test_accuracy is None:
            raise ValueError("final_test_accuracy is empty although the run is finished")
        return self


def summary_path(runs_dir: Path, run_id: str) -> Path:
    """Where the summary of a run lies."""
    return runs_dir / run_id / "summary.json"


def describe(error: ValidationError) -> str:
    """The first complaint of a validation error in one line, with the key it is about."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    return (f"{key}: " if key else "") + message + (f" (and {more} more)" if more else "")


def read_summary(path: Path) -> Summary:
    """Read and validate a summary.

    Args:
        path: A `summary.json`.

    Raises:
        EastError: The file cannot be read, or is not a summary; the message names the file and the key.
    """
    try:
        return Summary.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EastError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise EastError(
            f"{path} is not the summary of a run: {describe(error)}. Delete that folder and train the run again."
        ) from error
