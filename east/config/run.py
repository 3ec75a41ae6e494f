"""One training run, resolved: everything that decides its numbers, and nothing else.

What has its default value is left out of a run's identity, so that an option that comes later changes no run of today.
Therefore a default that is here, once released, never changes: another one would give old identities to other runs.
The defaults of a plan are in `east.config.schema`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from east.config import vocabulary as terms
from east.version import REVISION, REVISION_REASON


class Frozen(BaseModel):
    """A validated, immutable record that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetSpec(Frozen):
    """Which images are trained on, and what is done to them."""

    name: terms.DatasetName
    margin: terms.Margin
    padding: terms.Padding
    flip: terms.Flip
    validation: terms.HeldOut
    validation_choice: terms.HeldOutChoice
    augment_validation: bool = Field(description="whether validation images are cropped and flipped as well")


class ModelSpec(Frozen):
    """Which network is trained."""

    name: terms.ModelName
    width: terms.Width
    activation: terms.Activation = "relu"
    sharing_ratio: terms.SharingRatio | None = None
    dct: terms.Dct = False


class SparsitySpec(Frozen):
    """How many weights are non-zero, where, and how the mask moves."""

    density: terms.Density
    distribution: terms.Distribution
    topology: terms.Topology
    drop_fraction: terms.Fraction = Field(description="share of a tensor's non-zeros dropped at the first update")
    drop_fraction_end: terms.Fraction = Field(description="the same at the end of training")
    update_period: terms.UpdatePeriod
    update_on_last_step: bool = False


class CycleSpec(Frozen):
    """The cyclic density schedule, in epochs."""

    pattern: terms.Pattern
    multiplier: terms.Multiplier
    cycles: terms.Cycles
    cycle_length: terms.CycleLength
    length_multiplier: terms.LengthMultiplier = 1.0
    update_period: terms.CycleUpdatePeriod
    end: terms.CycleEnd = "target"


class PhasingSpec(Frozen):
    """When DyReLU fades into ReLU, in epochs counted from 1."""

    start: float
    end: float
    freeze: bool = Field(default=False, description="freeze the DyReLU parameters at the start of the fade, as coded")


class OptimizerSpec(Frozen):
    """SGD or Adam, as in Table B.1."""

    name: terms.OptimizerName
    momentum: terms.Fraction = Field(default=0.0, description="of SGD")
    nesterov: bool = Field(default=False, description="Nesterov's momentum in SGD")


class ClipSpec(Frozen):
    """The global gradient norm is clipped to `norm`."""

    norm: terms.Positive = Field(description="the global gradient norm is scaled down to it")
    scope: terms.ClipScope
    estimator: terms.ClipEstimator = Field(default="sketch", validate_default=True)
    probes: terms.PositiveInt = Field(default=1, description="random projections whose mean is the sketch")
    every: terms.Steps = Field(
        default=1, description="measure the norm at every k-th step, from the first, and keep it between"
    )

    @field_validator("estimator")
    @classmethod
    def _active_norm_is_exact(cls, estimator: terms.ClipEstimator, info: ValidationInfo) -> terms.ClipEstimator:
        """Nothing is estimated over active weights: whatever is written, it is one and the same run."""
        return "exact" if info.data.get("scope") == "active" else estimator

    @model_validator(mode="after")
    def _only_a_sketch_has_probes(self) -> "ClipSpec":
        if self.estimator == "exact" and self.probes != 1:
            which = "the norm over active weights" if self.scope == "active" else "an exact norm"
            raise ValueError(f"{which} is not estimated and has no probes; leave 'probes' out or set it to 1")
        return self


class TrainingSpec(Frozen):
    """The recipe: a row of Table B.1."""

    epochs: terms.Epochs
    batch_size: terms.PositiveInt
    lr: terms.Positive
    lr_drop_epochs: tuple[terms.Epochs, ...]
    lr_drop_factor: terms.LearningRateDropFactor
    optimizer: OptimizerSpec
    weight_decay: terms.WeightDecay
    gradient_clip: ClipSpec | None
    numerics: terms.Numerics


class RunSpec(Frozen):
    """The identity of a run: two runs with equal specs have equal numbers on the same machine."""

    revision: int = REVISION
    seed: terms.Seed
    dataset: DatasetSpec
    model: ModelSpec
    sparsity: SparsitySpec
    cycle: CycleSpec | None = None
    phasing: PhasingSpec | None = None
    training: TrainingSpec

    def canonical_json(self) -> str:
        """The spec as one line of JSON that names the run for good: equal specs give equal strings.

        Keys are sorted and whole numbers written as such (1, not 1.0). What has its default value is left out at any
        depth, but for the revision. Validating the line gives the spec again.
        """
        return canonical_json({"revision": self.revision} | self.model_dump(mode="json", exclude_defaults=True))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return fingerprint_of(self.canonical_json())


def canonical_json(content: Mapping[str, Any]) -> str:
    """A run's content as one line of JSON with sorted keys and normalised numbers."""
    return json.dumps(_normalised(content), sort_keys=True, separators=(",", ":"))


def with_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """A run's content as JSON has it, with the options that were left out; unchanged if it is not this version's.

    So what was written before an option came compares equal to what is written after.
    """
    try:
        return RunSpec.model_validate(content).model_dump(mode="json")
    except ValidationError:
        return dict(content)


def fingerprint_of_content(content: Mapping[str, Any]) -> str:
    """The fingerprint of the run that JSON describes, whether options are left out or not, and whatever keys it has."""
    try:
        return RunSpec.model_validate(content).fingerprint
    except ValidationError:
        return fingerprint_of(canonical_json(content))


def of_another_revision(revision: object) -> str:
    """Why results that were trained under another revision are not those of this one, for people."""
    words = f"trained under revision {revision}; this is {REVISION}"
    return f"{words}: {REVISION_REASON}" if isinstance(revision, int) and revision < REVISION else words


def fingerprint_of(canonical: str) -> str:
    """SHA-256 of canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical.encode()).hexdigest()


def _normalised(value: Any) -> Any:
    """Whole floats as integers, at any depth; beyond 2^53, where floats skip integers, they stay as they are."""
    if isinstance(value, Mapping):
        return {key: _normalised(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_normalised(part) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


class Run(Frozen):
    """A run of the plan: its spec, and where it stands in the paper (which never changes its numbers)."""

    id: str = Field(description="table/row/seedN, readable and stable")
    table: str
    row: str
    label: str = Field(description="how the tables name the row's method")
    recipe: str = Field(description="the recipe of config.yaml that it follows")
    spec: RunSpec

    @property
    def fingerprint(self) -> str:
        """The identity of the run."""
        return self.spec.fingerprint
