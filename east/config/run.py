"""One training run, resolved: everything that decides its numbers, and nothing else.

What has its default value is left out of a run's identity, so that an option that comes later changes no run of today.
Therefore a default that is here, once released, never changes: another one would give old identities to other runs.
The defaults of a plan are in `east.config.schema`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError

from east.config import vocabulary as terms
from east.config.choices import CATALOGUE, COMPLAINT, Choice, TopologySpec, is_plugins, member, named, named_topology
from east.data.kind import dataset
from east.registry import Kind
from east.sparse import kinds
from east.version import REVISION, REVISION_REASON


class Frozen(BaseModel):
    """A validated, immutable record that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Grown(Frozen):
    """A part of a run's description that has got further options since it was first released.

    Where such an option has its default it is not written at all, so that a run that does not use it is described by
    the bytes that have always described it.
    """

    _later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_ever(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = written(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in found.items()
            if name not in self._later or getattr(self, name) != fields[name].default
        }


class StatedFacts(Frozen):
    """What a run takes its images to be; verified when they are prepared and when they are opened."""

    classes: terms.PositiveInt
    train_images: terms.PositiveInt = Field(description="images to train on, those included that are held out")
    test_images: terms.PositiveInt
    image_size: tuple[terms.PositiveInt, terms.PositiveInt] = Field(description="height and width")
    mean: terms.ChannelMeans | None = None
    std: terms.ChannelDeviations | None = None


class ImagesSpec(Grown):
    """Which images they are, whatever is done to them.

    Attributes:
        name: as the configuration calls them.
        source: what reads them; None for the project's own data set of this name with its defaults.
        facts: their numbers; None where they are those of the source.
    """

    _later = ("source", "facts")

    name: terms.DatasetName
    source: terms.DatasetSource | None = None
    facts: StatedFacts | None = None

    @model_validator(mode="after")
    def _is_known(self) -> "ImagesSpec":
        reader, _, plugin = named(self.reader)
        if plugin is None and reader not in dataset:
            raise ValueError(f"there is no data set '{reader}'; choose one of {', '.join(one.name for one in dataset)}")
        if self.facts is None and (plugin is not None or dataset[reader].facts.classes is None):
            raise ValueError(f"'facts' must say how many classes and images '{self.name}' has")
        return self

    @property
    def reader(self) -> str | Choice:
        """What reads them."""
        return self.source or self.name

    @property
    def store(self) -> str:
        """The folder of the prepared images in that of all data sets: other parameters, other folder."""
        written = self.model_dump(mode="json", include={"source", "facts"})
        return f"{self.name}.{fingerprint_of(canonical_json(written))[:8]}" if written else self.name

    @property
    def images(self) -> "ImagesSpec":
        """The images alone."""
        return ImagesSpec(name=self.name, source=self.source, facts=self.facts)

    @property
    def plugins(self) -> dict[str, str]:
        """As of a run."""
        _, _, plugin = named(self.reader)
        return {} if plugin is None else {plugin: f"{dataset.one} '{named(self.reader)[0]}'"}


class DatasetSpec(ImagesSpec):
    """Which images are trained on, and what is done to them."""

    margin: terms.Margin
    padding: terms.Padding
    flip: terms.Flip
    validation: terms.HeldOut
    validation_choice: terms.HeldOutChoice
    augment_validation: bool = Field(description="whether validation images are cropped and flipped as well")


class ModelSpec(Grown):
    """Which network is trained."""

    _later = ("ordinary",)

    name: terms.ModelName
    width: terms.Width | None = Field(default=None, description="channels of the stem; null: the network has no width")
    activation: terms.Activation = "relu"
    sharing_ratio: terms.SharingRatio | None = None
    dct: terms.Dct = False
    ordinary: bool = Field(
        default=False, description="whether it is an ordinary module, which PyTorch executes with all its weights"
    )

    def __str__(self) -> str:
        """As messages print it."""
        return f"{self.name}" if self.width is None else f"{self.name} of width {self.width}"


class SparsitySpec(Grown):
    """How many weights are non-zero, where, and how the mask moves."""

    _later = ("update_until", "exchange_when_resizing")

    density: terms.Density
    distribution: terms.Distribution
    topology: terms.Topology
    drop_fraction: terms.Fraction = Field(description="share of a tensor's non-zeros dropped at the first update")
    drop_fraction_end: terms.Fraction = Field(description="the same at the end of training")
    update_period: terms.UpdatePeriod
    update_on_last_step: bool = False
    update_until: terms.UpdateUntil = 1.0
    exchange_when_resizing: terms.ExchangeWhenResizing = False


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
    """How weights are trained: an optimizer, with its parameters beside its name."""

    name: terms.OptimizerName
    momentum: terms.Fraction = Field(default=0.0, description="of SGD")
    nesterov: bool = Field(default=False, description="Nesterov's momentum in SGD")
    plugin: Annotated[SkipJsonSchema[str | None], terms.OfRunsAlone()] = None
    parameters: Annotated[SkipJsonSchema[tuple[tuple[str, Any], ...]], terms.OfRunsAlone()] = ()

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, value: object, info: ValidationInfo) -> object:
        """Check the parameters that stand beside the name and have no key of their own, and gather them."""
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            return value
        further = {key: part for key, part in value.items() if key != "name" and part is not None}
        further |= dict(further.pop("parameters", ()))
        catalogue = (info.context or {}).get(CATALOGUE)
        if catalogue is None and isinstance(further.get("plugin"), str):
            digest = further.pop("plugin")
            return {"name": value["name"], "plugin": digest, "parameters": tuple(further.items())}
        is_own = value["name"] in kinds.optimizer
        own = {key: further.pop(key) for key in ("momentum", "nesterov") if is_own and key in further}
        try:
            found = member(kinds.optimizer, value["name"], further, catalogue)
        except ValueError as error:
            raise PydanticCustomError(COMPLAINT, "{said}", {"said": str(error)}) from None
        if isinstance(found, Choice):
            own |= {"plugin": found.plugin, "parameters": found.parameters}
        return {"name": value["name"], **own}

    @model_serializer(mode="wrap")
    def _flat(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = written(self)
        # Keys that every run has had from the beginning, used or not; a plugin's optimizer has only its own.
        kept = ("name", "plugin") if self.plugin else ("name", "momentum", "nesterov")
        return {key: part for key, part in found.items() if key in kept} | dict(self.parameters)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """For editors: an optimizer of the project has its own parameters, one of a plugin any."""
        found = handler.resolve_ref_schema(handler(schema))
        entries = list(kinds.optimizer)
        for entry in entries:
            of_entry = entry.model.model_json_schema()["properties"] if entry.parameters else {}
            for name, described in of_entry.items():
                described.pop("title", None)
                found["properties"].setdefault(name, described)
        found.pop("additionalProperties", None)
        found["if"] = {"properties": {"name": {"enum": [entry.name for entry in entries]}}}
        found["then"] = {"propertyNames": {"enum": sorted(found["properties"])}}
        return found

    def options(self) -> dict[str, Any]:
        """The parameters that the optimizer is called with."""
        of_sgd = (
            {"momentum": self.momentum, "nesterov": self.nesterov} if self.name == "sgd" and not self.plugin else {}
        )
        return of_sgd | dict(self.parameters)


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


class TrainingSpec(Grown):
    """The recipe: a row of Table B.1."""

    _later = ("lr_schedule", "warmup_epochs")

    epochs: terms.Epochs
    batch_size: terms.PositiveInt
    lr: terms.Positive
    lr_drop_epochs: tuple[terms.Epochs, ...]
    lr_drop_factor: terms.LearningRateDropFactor
    optimizer: OptimizerSpec
    weight_decay: terms.WeightDecay
    gradient_clip: ClipSpec | None
    numerics: terms.Numerics
    lr_schedule: terms.LearningRateSchedule | None = None
    warmup_epochs: terms.WarmupEpochs = 0.0


class RunSpec(Grown):
    """The identity of a run: two runs with equal specs have equal numbers on the same machine."""

    _later = ("density_schedule",)

    revision: int = REVISION
    seed: terms.Seed
    dataset: DatasetSpec
    model: ModelSpec
    sparsity: SparsitySpec
    cycle: CycleSpec | None = None
    phasing: PhasingSpec | None = None
    training: TrainingSpec
    density_schedule: terms.DensitySchedule | None = None

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

    @property
    def plugins(self) -> dict[str, str]:
        """SHA-256 of each plugin that the run uses -> something of it that the run uses, for messages."""
        return {choice.plugin: f"{kind.one} '{choice.name}'" for kind, choice in _choices(self) if choice.plugin}

    @property
    def kin(self) -> str:
        """The fingerprint of the run with whatever content its plugins have: what a plugin that is corrected keeps."""
        content: Any = _without_plugins(self.model_dump(mode="json"))
        return fingerprint_of(canonical_json(content))


STAND_IN_NETWORK, STAND_IN_WIDTH = "resnet34", 64
"""What is counted in the place of a plugin's network; and of which width, where that has none."""
LEAST_STAND_IN_WIDTH = 16
"""So that it can have every density that a larger network can."""


def stand_in(spec: RunSpec) -> RunSpec:
    """A run like this one in which nothing is a plugin's, for those who count work or files and may execute no plugin.

    The network is a ResNet-34. ERK spreads the density, cycles are cosines, the density is constant, and masks move as
    by RigL. Of images the description says all that is counted, so they stay as they are.
    """
    if not spec.plugins:
        return spec
    sparsity, cycle, training, model = spec.sparsity, spec.cycle, spec.training, spec.model
    topology = sparsity.topology
    if isinstance(topology, TopologySpec):
        own = {name: choice for name, choice in topology if not is_plugins(choice)}
        topology = named_topology(TopologySpec(**own))
    optimizer = OptimizerSpec(name="sgd", momentum=0.9) if training.optimizer.plugin else training.optimizer
    if is_plugins(model.name):
        width = max(model.width or STAND_IN_WIDTH, LEAST_STAND_IN_WIDTH)
        model = model.model_copy(update={"name": STAND_IN_NETWORK, "width": width})
    changes = {
        "model": model,
        "sparsity": sparsity.model_copy(
            update={
                "distribution": "erk" if is_plugins(sparsity.distribution) else sparsity.distribution,
                "topology": topology,
            }
        ),
        "cycle": cycle and cycle.model_copy(update={"pattern": "cosine"} if is_plugins(cycle.pattern) else {}),
        "density_schedule": None if is_plugins(spec.density_schedule) else spec.density_schedule,
        "training": training.model_copy(
            update={
                "optimizer": optimizer,
                "lr_schedule": None if is_plugins(training.lr_schedule) else training.lr_schedule,
            }
        ),
    }
    return spec.model_copy(update=changes)


def _choices(spec: RunSpec) -> Iterator[tuple[Kind, Choice]]:
    """What a run chooses of registries with parameters, or of plugins."""
    topology, optimizer = spec.sparsity.topology, spec.training.optimizer
    found: list[tuple[Kind, object]] = [
        (kinds.network, spec.model.name),
        (kinds.distribution, spec.sparsity.distribution),
        (kinds.density_schedule, spec.density_schedule),
        (kinds.cycle_pattern, spec.cycle and spec.cycle.pattern),
        (kinds.learning_rate, spec.training.lr_schedule),
        (kinds.optimizer, Choice(name=optimizer.name, plugin=optimizer.plugin)),
        (dataset, spec.dataset.source),
    ]
    if isinstance(topology, TopologySpec):
        found += [(kinds.drop_rule, topology.drop), (kinds.growth_rule, topology.grow)]
        found.append((kinds.initial_values, topology.initial))
    return ((kind, choice) for kind, choice in found if isinstance(choice, Choice))


def _without_plugins(value: Any) -> Any:
    """Content without the digests of plugins, at any depth."""
    if isinstance(value, Mapping):
        return {key: _without_plugins(part) for key, part in value.items() if key != "plugin"}
    return value


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
