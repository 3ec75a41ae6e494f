"""The form of config.yaml: every key, its type and its range."""

from typing import Annotated, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from east.config.run import (
    Activation,
    ClipSpec,
    CycleEnd,
    DatasetName,
    DatasetSpec,
    Density,
    Distribution,
    Fraction,
    Frozen,
    ModelName,
    Numerics,
    OptimizerSpec,
    Pattern,
    Positive,
    PositiveInt,
    Topology,
)
from east.config.tables import Comparing

T = TypeVar("T")
OneOrMany = Annotated[
    tuple[T, ...], BeforeValidator(lambda value: value if isinstance(value, list | tuple) else (value,))
]
"""One value, or a list of values that each make a row."""

Fit = Literal["refuse", "rescale"]
Ratio = Annotated[int, Field(ge=2)]
Multiplier = Annotated[float, Field(gt=1)]


def _number_or_auto(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """One complaint in place of one for each of the two."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError("must be a number of threads, at least 1, or auto") from None


Threads = Annotated[
    PositiveInt | Literal["auto"],
    WrapValidator(_number_or_auto),
    Field(description="CPU threads of a training; auto: those with which the whole plan ends soonest on these cores"),
]


class Execution(Frozen):
    """Where and how runs execute; never part of a run's identity."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: Literal["auto", "dense", "sparse"] = "auto"
    step: Literal["auto", "eager", "captured", "compiled"] = Field(
        default="auto", description="how a GPU is given the operations of a training step"
    )
    threads: Threads = "auto"
    runs_per_gpu: PositiveInt = Field(default=1, description="trainings that share a GPU at the same time")
    data_dir: str = "data"
    partial: bool = Field(default=False, description="render whatever runs there are, and train nothing")
    memory_mb: PositiveInt = Field(default=8000, description="memory that a training declares")
    minutes: PositiveInt = Field(default=720, description="time that a training declares; it resumes if it is cut off")
    tracking: Literal["none", "tensorboard"] = Field(default="none", description="event files in the folder of a run")

    @property
    def gpus(self) -> int:
        """GPUs that a training declares."""
        return 0 if self.device == "cpu" else 1


class Readings(Frozen):
    """What is run where the paper leaves room (docs/reproduction-notes.md)."""

    lr_drops: Literal["printed", "as_coded"] = "printed"
    cycle_end: CycleEnd = "target"
    static_topology: Topology = "rigl"
    topology: Topology = "rigl"
    update_on_last_step: bool = False
    drop_fraction: Fraction = 0.5
    drop_fraction_end: Fraction = 0.005
    gradient_clip: ClipSpec | None = ClipSpec(norm=1.0, scope="dense")
    phasing_freeze: bool = False
    augment_validation: bool = True
    accuracy: Literal["final", "best_validation"] = "final"
    spread: Literal["sample", "population"] = "sample"
    numerics: Numerics = "tf32"


class Dataset(Frozen):
    """How a data set is split and augmented."""

    margin: Annotated[int, Field(ge=0)] = 4
    padding: Literal["reflect", "zero"]
    flip: bool
    validation: Annotated[int, Field(ge=0)]
    validation_choice: Literal["last", "shuffled"]
    folder: str | None = Field(default=None, description="image folder with train/ and val/ (ImageNet only)")

    def spec(self, name: DatasetName, *, augment_validation: bool) -> DatasetSpec:
        """The part of it that decides a run's numbers."""
        return DatasetSpec(name=name, augment_validation=augment_validation, **self.model_dump(exclude={"folder"}))


class Components(Frozen):
    """What a system adds to RigL."""

    activation: Activation = "relu"
    sharing_ratio: Ratio | None = None
    dct: bool = False


class Cyclic(Frozen):
    """The cyclic columns of Table B.1, and what it leaves out (pattern and length multiplier)."""

    pattern: Pattern = "cosine"
    multiplier: Multiplier
    cycles: PositiveInt
    cycle_length: Positive
    length_multiplier: Positive = 1.0
    update_period: PositiveInt


class Recipe(Frozen):
    """A row of Table B.1."""

    system: str
    model: ModelName
    width: PositiveInt
    datasets: tuple[DatasetName, ...]
    density: Density | None = Field(default=None, description="in place of the configuration's")
    components: Components = Components()
    batch_size: PositiveInt
    epochs: PositiveInt
    lr: Positive
    lr_drop_epochs: tuple[PositiveInt, ...]
    lr_drop_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    optimizer: OptimizerSpec
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: ClipSpec | None = Field(default=None, description="in place of that of the readings")
    distribution: Distribution
    update_period: PositiveInt
    cyclic: Cyclic | None


class Row(Frozen):
    """A row of Tables 2-5, or several: any of the four schedule keys may be a list."""

    static: bool = False
    pattern: OneOrMany[Pattern] = ()
    multiplier: OneOrMany[Multiplier] = ()
    cycles: OneOrMany[PositiveInt] = ()
    length_multiplier: OneOrMany[Positive] = (1.0,)
    fit: Fit = "refuse"
    cycle_length: Positive | None = Field(default=None, description="epochs of the first cycle; the recipe's if absent")
    printed_cycles: PositiveInt | None = Field(
        default=None, description="the number the paper prints, where it differs"
    )
    topology: Topology | None = None
    distribution: Distribution | None = None
    density: Density | None = None
    label: str | None = Field(default=None, description="name shown in the tables; never part of a run's identity")
    footnote: str | None = None

    @property
    def is_printed(self) -> bool:
        """Whether nothing but what the paper's tables print sets the row apart."""
        return not (self.topology or self.distribution or self.density or self.cycle_length)

    @model_validator(mode="after")
    def _static_or_cyclic(self) -> "Row":
        schedule = (self.pattern, self.multiplier, self.cycles)
        if self.static and any(schedule):
            raise ValueError("a static row has no pattern, multiplier or cycles")
        if not self.static and not all(schedule):
            raise ValueError("a cyclic row needs pattern, multiplier and cycles (or set 'static: true')")
        return self


class TableConfig(Frozen):
    """One of Tables 2-5."""

    recipe: str
    dataset: DatasetName
    model: ModelName | None = Field(default=None, description="the recipe's if absent")
    components: Components = Components()
    title: str | None = None
    published: str | None = None
    rows: tuple[Row, ...]


class Method(Components):
    """A row of Table 6."""

    cyclic: bool = False
    measured_at_beta: Literal[0, 1] = Field(default=1, description="DyReLU weight in the paper's memory measurement")

    def components(self) -> Components:
        """What the method adds to RigL's network."""
        return Components(activation=self.activation, sharing_ratio=self.sharing_ratio, dct=self.dct)


class Methods(Frozen):
    """Table 6 and the methods table."""

    recipes: dict[DatasetName, str] = Field(description="data set -> the recipe that every method follows on it")
    rows: dict[str, Method]
    systems: tuple[str, ...] = Field(default=(), description="recipes trained with their own components")


class Cost(Frozen):
    """How Table 6 is measured."""

    recipe: str
    model: ModelName
    dataset: DatasetName
    density: Density
    published: str | None = None
    measured_steps: PositiveInt = 3
    measured_batch: dict[Literal["cpu", "cuda"], PositiveInt]


class Config(Frozen):
    """The whole of config.yaml."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    title: str
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    density: Density
    execution: Execution = Execution()
    readings: Readings = Readings()
    comparison: Comparing = Comparing()
    datasets: dict[DatasetName, Dataset]
    recipes: dict[str, Recipe]
    tables: dict[Annotated[str, Field(pattern=r"^table[A-Za-z0-9]+$")], TableConfig]
    methods: Methods
    cost: Cost

    @model_validator(mode="after")
    def _references_exist(self) -> "Config":
        used = {f"tables.{name}.recipe": table.recipe for name, table in self.tables.items()}
        used |= {f"methods.recipes.{dataset}": recipe for dataset, recipe in self.methods.recipes.items()}
        used["cost.recipe"] = self.cost.recipe
        used |= {f"methods.systems.{i}": system for i, system in enumerate(self.methods.systems)}
        for key, recipe in used.items():
            if recipe not in self.recipes:
                raise ValueError(f"{key}: '{recipe}' is not a recipe; there are {', '.join(self.recipes)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} names a seed twice")
        wanted = {
            *(table.dataset for table in self.tables.values()),
            *self.methods.recipes,
            self.cost.dataset,
            *(dataset for system in self.methods.systems for dataset in self.recipes[system].datasets),
        }
        for dataset in sorted(wanted - set(self.datasets)):
            raise ValueError(f"datasets: '{dataset}' is used by a table or method but not described here")
        return self
