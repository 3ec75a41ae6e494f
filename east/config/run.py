"""One training run, resolved: everything that decides its numbers, and nothing else.

What has its default value is left out of a run's identity, so that an option that comes later changes no run of today.
Therefore a default that is here, once released, never changes: another one would give old identities to other runs.
What a plan sets unless told otherwise is a matter of `east.config.schema`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from east import REVISION, REVISION_REASON

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Density = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]

DatasetName = Literal["cifar10", "cifar100", "imagenet", "digits", "digit_pairs"]
ModelName = Literal["resnet34", "resnet50", "resnet50_imagenet"]
Activation = Literal["relu", "dyrelu"]
Distribution = Literal["erk", "uniform", "erk_as_coded"]
Topology = Literal["rigl", "set", "fixed"]
Pattern = Literal["cosine", "triangular"]
CycleEnd = Literal["target", "as_coded"]
Numerics = Literal["tf32", "fp32", "bf16"]
ClipScope = Literal["dense", "active"]
ClipEstimator = Literal["exact", "sketch"]


class Frozen(BaseModel):
    """A validated, immutable record that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetSpec(Frozen):
    """Which images are trained on, and what is done to them."""

    name: DatasetName
    margin: int = Field(ge=0, description="pixels added on each side before the random crop; 0 for no crop")
    padding: Literal["reflect", "zero"] = Field(description="what these pixels are")
    flip: bool = Field(description="whether images are mirrored at random")
    validation: int = Field(ge=0, description="training images held out for validation")
    validation_choice: Literal["last", "shuffled"] = Field(
        description="hold out the last images, or images drawn by the run's seed"
    )
    augment_validation: bool = Field(description="whether validation images are cropped and flipped as well")


class ModelSpec(Frozen):
    """Which network is trained."""

    name: ModelName
    width: PositiveInt = Field(description="channels of the stem; 64 in the paper")
    activation: Activation = "relu"
    sharing_ratio: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="blocks of a stage that own weights; later ones reuse those of the last owner",
    )
    dct: bool = Field(default=False, description="add a fixed DCT matrix to every masked layer (DCTpS)")


class SparsitySpec(Frozen):
    """How many weights are non-zero, where, and how the mask moves."""

    density: Density = Field(description="stored non-zeros divided by the weights of the dense network")
    distribution: Distribution
    topology: Topology
    drop_fraction: Fraction = Field(description="share of a tensor's non-zeros dropped at the first update")
    drop_fraction_end: Fraction = Field(description="the same at the end of training")
    update_period: PositiveInt = Field(description="steps between mask updates outside cycles (Delta T_dst)")
    update_on_last_step: bool = False


class CycleSpec(Frozen):
    """The cyclic density schedule, in epochs."""

    pattern: Pattern
    multiplier: Annotated[float, Field(gt=1)] = Field(description="peak density divided by the target density")
    cycles: PositiveInt
    cycle_length: Positive = Field(description="epochs of the first cycle")
    length_multiplier: Positive = Field(
        default=1.0, description="length of each cycle divided by that of the one before"
    )
    update_period: PositiveInt = Field(description="steps between mask updates inside cycles (Delta T_cs)")
    end: CycleEnd = Field(
        default="target", description="return to the exact target density after the last cycle, or stay"
    )


class PhasingSpec(Frozen):
    """When DyReLU fades into ReLU, in epochs counted from 1."""

    start: float
    end: float
    freeze: bool = Field(default=False, description="freeze the DyReLU parameters at the start of the fade, as coded")


class OptimizerSpec(Frozen):
    """SGD or Adam, as in Table B.1."""

    name: Literal["sgd", "adam"]
    momentum: Fraction = 0.0
    nesterov: bool = False


class ClipSpec(Frozen):
    """The global gradient norm is clipped to `norm`."""

    norm: Positive
    scope: ClipScope = Field(description="over all dense gradients, or over those of active weights only")
    estimator: ClipEstimator = Field(
        default="sketch",
        validate_default=True,
        description="the norm of dense gradients exactly, or estimated by random projections; active ones are exact",
    )
    probes: PositiveInt = Field(default=1, description="random projections that a sketch is the mean of")
    every: PositiveInt = Field(
        default=1, description="measure at every k-th step from the first, and use it in between"
    )

    @field_validator("estimator")
    @classmethod
    def _active_norm_is_exact(cls, estimator: ClipEstimator, info: ValidationInfo) -> ClipEstimator:
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

    epochs: PositiveInt
    batch_size: PositiveInt
    lr: Positive
    lr_drop_epochs: tuple[PositiveInt, ...]
    lr_drop_factor: Annotated[float, Field(gt=0, le=1)]
    optimizer: OptimizerSpec
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: ClipSpec | None
    numerics: Numerics


class RunSpec(Frozen):
    """The identity of a run: two runs with equal specs have equal numbers on the same machine."""

    revision: int = REVISION
    seed: Annotated[int, Field(ge=0)]
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
    """A run's content as JSON has it, with the options that were left out; as it is where it is no run of this version.

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
    """Whole floats as integers, at any depth; beyond 2^53 a float is never told from its neighbours, and stays."""
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
