"""The form of config.yaml: every key with its type, range, default and meaning, and what the paper leaves open there.

Messages about mistakes, config/README.md, config/schema.json, the readings of the report and their table in
docs/reproduction-notes.md are generated from it (`east.config.reference`).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from east.config import vocabulary as terms
from east.config.places import Origins
from east.config.run import ClipSpec, Frozen, ImagesSpec, OptimizerSpec
from east.config.tables import Comparing, PublishedSource
from east.config.vocabulary import Ambiguity, Choices, Retrains, UnitName
from east.plugins import NO_PLUGINS, Catalogue


class _OneOrMany:
    """A tuple that may be written as its only item."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, list | tuple) else (value,), handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


T = TypeVar("T")
OneOrMany = Annotated[tuple[T, ...], _OneOrMany()]
"""One value, or a list of values that each make a row."""


def _number_or_auto(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """One complaint in place of one for each of the two."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError("must be a number of threads, at least 1, or auto") from None


DIGITS_OF_A_SEED = 18


def _whole_seed(value: object) -> object:
    """A seed names a run's folder, so it is written in one way alone; as text by Snakemake's `--config`."""
    if isinstance(value, float) or (isinstance(value, str) and not re.fullmatch(r"0|[1-9][0-9]*", value)):
        raise ValueError("must be a whole number, written in digits alone")
    if isinstance(value, int) and abs(value) >= 10**DIGITS_OF_A_SEED:
        raise ValueError(f"must have at most {DIGITS_OF_A_SEED} digits, as folders are named by it")
    return value


OfReadings = Annotated[Literal["readings"], Choices({"readings": "that of the readings"})]


def _clip_or_readings(value: object) -> object:
    """One complaint in place of one for each of the three."""
    if value is None or value == "readings" or isinstance(value, Mapping | ClipSpec):
        return value
    raise ValueError("must be a section with norm and scope, readings, or null")


class Execution(Frozen):
    """Where and how runs execute; never part of a run's identity."""

    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Choices({"auto": "a GPU where there is one", "cpu": "the CPU", "cuda": "an NVIDIA GPU, or an error"}),
    ] = Field(default="auto", description="where trainings compute")
    engine: Annotated[
        Literal["auto", "dense", "sparse"],
        Choices(
            {
                "auto": "on a CPU the one that suits the run, from its first step to its last (`east plan` names its "
                "class); on a GPU the cheaper one with the masks of the moment",
                "dense": "PyTorch's own layers",
                "sparse": "the non-zeros alone; on a CPU by kernels that are compiled once, which needs a C++ compiler",
            }
        ),
    ] = Field(default="auto", description="how networks are executed")
    step: Annotated[
        Literal["auto", "eager", "captured", "compiled"],
        Choices(
            {
                "auto": "compiled",
                "eager": "operation by operation, as PyTorch does by default: slower, and simpler to look into",
                "captured": "the whole step as one CUDA graph",
                "compiled": "as `captured`, with the network compiled by PyTorch; the sparse engine has its kernels",
            }
        ),
    ] = Field(default="auto", description="how a GPU is given the operations of a training step")
    threads: Annotated[terms.PositiveInt | Literal["auto"], WrapValidator(_number_or_auto)] = Field(
        default="auto",
        description="CPU threads of a training; auto: those with which the whole plan ends soonest on these cores",
    )
    runs_per_gpu: terms.PositiveInt = Field(default=1, description="trainings that share a GPU at the same time")
    data_dir: terms.Folder = Field(default="data", description="folder of downloads and prepared data sets")
    partial: bool = Field(default=False, description="render whatever runs there are, and train nothing")
    memory_mb: Annotated[terms.PositiveInt, UnitName("MB")] = Field(
        default=8000, description="memory that a training declares"
    )
    minutes: Annotated[terms.PositiveInt, UnitName("minutes")] = Field(
        default=720, description="time that a training declares; a training that is cut off resumes"
    )
    tracking: Annotated[
        Literal["none", "tensorboard"],
        Choices({"none": "no event files", "tensorboard": "event files for TensorBoard in the folder of each run"}),
    ] = Field(default="none", description="what a training writes beside its records")
    changed_plugin: Annotated[
        Literal["refuse", "go_on", "begin_again"],
        Choices(
            {
                "refuse": "it ends, and the checkpoint stays",
                "go_on": "it goes on, with another content than it began with, and says so",
                "begin_again": "it begins again",
            }
        ),
    ] = Field(
        default="refuse",
        description="what a training does that finds its checkpoint made with another content of a plugin",
    )

    @property
    def gpus(self) -> int:
        """GPUs that a training declares."""
        return 0 if self.device == "cpu" else 1


class Readings(Frozen):
    """What is run where the paper leaves room (docs/reproduction-notes.md)."""

    lr_drops: Annotated[
        Literal["printed", "as_coded"],
        Choices({"printed": "after the epochs of the recipe", "as_coded": "at 1/2 and 3/4 of the training"}),
        Ambiguity(
            number=1,
            matter="Learning-rate drops",
            paper="75, 150 of 250 epochs; 25, 50 of 100",
            as_coded="at 1/2 and 3/4 of the training",
            reason="Table B.1 prints 75 and 150 of 250 epochs; the authors' code and logs drop after 125 and 187.",
            overlays=("as_coded",),
        ),
    ] = Field(default="printed", description="when the learning rate drops, in recipes where it does")
    cycle_end: Annotated[
        terms.CycleEnd,
        Ambiguity(
            number=2,
            matter="End of the cyclic phase",
            paper="cycles end at the target density",
            as_coded="the density of the last update inside them stays",
            reason="Left as coded, a triangular schedule keeps up to 66 % more weights than its row says.",
            overlays=("as_coded",),
        ),
    ] = "target"
    static_topology: Annotated[
        terms.Topology,
        Ambiguity(
            number=5,
            matter="Static rows",
            paper="“Static”, without more",
            reason="81.47 % is the paper's RigL result at this density.",
            other="fixed: random masks that never change",
            overlays=("alternatives",),
        ),
    ] = Field(default="rigl", description="how the masks of static rows move")
    topology: terms.Topology = Field(default="rigl", description="how the masks of all other rows move")
    update_on_last_step: Annotated[
        bool,
        Ambiguity(
            number=9,
            matter="Exchange on the last step",
            as_coded="yes: step 88,000 of 88,000",
            reason="Step 88,000 of 88,000 would swap in weights that are never trained.",
            other="yes, as coded",
            overlays=("as_coded",),
        ),
    ] = Field(default=False, description="whether the very last step exchanges weights")
    drop_fraction: Annotated[
        terms.Fraction,
        Ambiguity(
            number=17,
            matter="Drop fraction",
            as_coded="a cosine from 0.5 to 0.005",
            reason="As the authors' code has it, to the end of training.",
            reading="0.5 to 0.005",
            keys=("readings.drop_fraction", "readings.drop_fraction_end"),
        ),
    ] = Field(default=0.5, description="share of a tensor's non-zeros that an update drops, at the start of training")
    drop_fraction_end: terms.Fraction = Field(default=0.005, description="the same at the end; a cosine leads there")
    gradient_clip: Annotated[
        ClipSpec | None,
        Ambiguity(
            number=8,
            matter="Gradient clip",
            as_coded="norm 1 over dense gradients, exact",
            reason="The dense norm is 60 to 180 times the norm over active weights, so it is part of the method. "
            "A sketch estimates it without computing the gradients of weights that are off.",
            reading="norm 1 over dense gradients (sketch)",
            other="exact, as coded; over active weights only; none",
            overlays=("as_coded", "alternatives"),
            keys=("readings.gradient_clip", "recipes.*.gradient_clip"),
        ),
    ] = Field(default=ClipSpec(norm=1.0, scope="dense"), description="limit of the global gradient norm; null: none")
    phasing_freeze: Annotated[
        bool,
        Ambiguity(
            number=10,
            matter="Freezing DyReLU when its fade starts",
            as_coded="yes, where that is a whole epoch",
            reason="At 250 epochs the authors' test for the start never fires.",
            other="yes, as coded (fires only where that is a whole epoch)",
            overlays=("as_coded",),
        ),
    ] = Field(default=False, description="freeze the parameters of DyReLU where its fade starts")
    augment_validation: Annotated[
        bool,
        Ambiguity(
            number=13,
            matter="Validation images are augmented",
            as_coded="yes",
            reason="As the authors' code has it; test images never are.",
            other="no",
            overlays=("alternatives",),
        ),
    ] = Field(default=True, description="crop and flip validation images as well")
    accuracy: Annotated[
        terms.ReportedAccuracy,
        Ambiguity(
            number=14,
            matter="Reported accuracy",
            as_coded="older versions: best validation epoch; newest: last epoch",
            reason="The authors' newest code reports the network after the last epoch.",
            overlays=("alternatives",),
        ),
    ] = "final"
    spread: Annotated[
        terms.Spread,
        Ambiguity(
            number=15,
            matter="Standard deviation behind each ±",
            paper="silent; three runs",
            reason="The paper does not say; with three seeds the two differ by a factor of 1.22.",
            overlays=("alternatives",),
        ),
    ] = "sample"
    numerics: Annotated[
        terms.Numerics,
        Ambiguity(
            number=16,
            matter="Numerics",
            as_coded="PyTorch's defaults: TF32 convolutions",
            reason="What PyTorch did on the paper's GPUs by default. A CPU computes in float32.",
            overlays=("alternatives",),
        ),
    ] = "tf32"


class Dataset(Frozen):
    """Where a data set comes from, and how it is split and augmented."""

    source: terms.DatasetSource | None = None
    margin: terms.Margin = 4
    padding: terms.Padding
    flip: terms.Flip
    validation: Annotated[
        terms.HeldOut,
        Ambiguity(
            number=12,
            matter="Validation images",
            as_coded="5,000 of 50,000",
            reason="45,000 training images of CIFAR give the 352 steps an epoch that an update period of 350 implies.",
            reading="5,000",
        ),
    ]
    validation_choice: terms.HeldOutChoice
    folder: terms.Folder | None = Field(
        default=None, description="its files, or its images; null: the folder of downloads, `raw` in `data_dir`"
    )
    classes: terms.PositiveInt | None = Field(default=None, description="where its source does not know them")
    train_images: terms.PositiveInt | None = Field(
        default=None, description="likewise, those included that are held out; of an image folder they are counted"
    )
    test_images: terms.PositiveInt | None = Field(default=None, description="likewise; accuracy is reported on them")
    mean: terms.ChannelMeans | None = None
    std: terms.ChannelDeviations | None = None

    @model_validator(mode="after")
    def _mean_and_deviation(self) -> "Dataset":
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together, or computed from the training images together")
        return self


class Components(Frozen):
    """What a system adds to RigL."""

    activation: terms.Activation = "relu"
    sharing_ratio: terms.SharingRatio | None = None
    dct: terms.Dct = False


class Cyclic(Frozen):
    """The cyclic columns of Table B.1, and what it leaves out (pattern and length multiplier)."""

    pattern: terms.Pattern = "cosine"
    multiplier: terms.Multiplier
    cycles: terms.Cycles
    cycle_length: terms.CycleLength
    length_multiplier: terms.LengthMultiplier = 1.0
    update_period: terms.CycleUpdatePeriod


class Recipe(Frozen):
    """A row of Table B.1."""

    system: terms.Name = Field(description="the method's name in Table B.1")
    model: terms.ModelName = Field(description="network")
    width: terms.Width | None = Field(
        default=None, description="channels of the stem, 64 in the paper; null: the network's own"
    )
    datasets: tuple[terms.DatasetName, ...] = Field(
        description="what Table B.1 prints, and where `methods.systems` trains it; tables name their own"
    )
    density: terms.Density | None = Field(default=None, description="target density in place of the plan's")
    components: Components = Field(
        default=Components(), description="what the system adds to RigL, where `methods.systems` trains it"
    )
    batch_size: terms.PositiveInt = Field(description="images of a step")
    epochs: terms.Epochs = Field(description="length of a training")
    lr: terms.Positive = Field(description="learning rate")
    lr_drop_epochs: tuple[terms.Epochs, ...] = Field(
        description="after which the learning rate drops; an empty list: never"
    )
    lr_drop_factor: terms.LearningRateDropFactor = 0.1
    optimizer: Annotated[
        OptimizerSpec,
        Ambiguity(
            number=11,
            matter="Nesterov momentum",
            paper="SGD(0.9)",
            as_coded="on",
            reason="The paper says SGD(0.9); the code turns Nesterov on.",
            reading="yes",
            other="no",
            overlays=("alternatives",),
            keys=("recipes.*.optimizer.nesterov",),
        ),
    ] = Field(description="how weights are trained")
    lr_schedule: terms.LearningRateSchedule | None = None
    warmup_epochs: terms.WarmupEpochs = 0.0
    weight_decay: terms.WeightDecay
    gradient_clip: Annotated[ClipSpec | OfReadings | None, BeforeValidator(_clip_or_readings)] = Field(
        default="readings", description="limit of the global gradient norm; readings: theirs; null: none"
    )
    distribution: Annotated[
        terms.Distribution,
        Ambiguity(
            number=7,
            matter="ERK",
            paper="“ERK”",
            as_coded="rounded per tensor, nothing redistributed",
            reason="Exact counts by largest remainder, at least one weight a tensor.",
            reading="erk",
            other="erk_as_coded: rounded per tensor, nothing redistributed",
            overlays=("as_coded",),
        ),
    ]
    update_period: terms.UpdatePeriod
    cyclic: Annotated[
        Cyclic | None,
        Ambiguity(
            number=18,
            matter="Pattern and length multiplier of the EAST rows",
            paper="n, l, m and ΔT_cs only",
            as_coded="cosine, g = 1 in the newest version",
            reason="The defaults of the authors' newest code; Table B.1 prints neither.",
            reading="cosine, 1×",
            keys=("recipes.*.cyclic.pattern", "recipes.*.cyclic.length_multiplier"),
        ),
    ] = Field(description="cyclic density schedule of a cyclic method; grids take what their rows leave out from it")


OF_METHODS = (
    *("topology", "distribution", "density", "density_schedule", "exchange_when_resizing"),
    *("drop_fraction", "drop_fraction_end", "update_period", "update_until", "changes"),
)
"""Keys of a row that make it another method than the recipe's; the columns of a table do not show them."""


class Row(Frozen):
    """A row of Tables 2-5, or several: any of the four schedule keys may be a list."""

    static: bool = Field(default=False, description="constant density: no cycles")
    pattern: OneOrMany[terms.Pattern] = ()
    multiplier: OneOrMany[terms.Multiplier] = ()
    cycles: OneOrMany[terms.Cycles] = ()
    length_multiplier: OneOrMany[terms.LengthMultiplier] = (1.0,)
    fit: Annotated[
        Literal["refuse", "rescale"],
        Choices({"refuse": "an error", "rescale": "all cycles are shortened in proportion, with a footnote"}),
        Ambiguity(
            number=3,
            matter="Cycles that do not fit the training",
            paper="Table 5: three cycles of 50, 100 and 200 of 250 epochs",
            as_coded="not checked",
            reason="Table 5 prints three cycles of 50, 100 and 200 epochs.",
            reading="rescaled in the rows that say so",
            other="two cycles, as in Tables 2–4",
            overlays=("as_coded",),
        ),
    ] = Field(default="refuse", description="what happens to cycles that outlast the training")
    cycle_length: terms.CycleLength | None = Field(
        default=None, description="length of the first cycle; null: the recipe's"
    )
    printed_cycles: terms.Cycles | None = Field(
        default=None, description="the number the paper prints, where it differs"
    )
    topology: terms.Topology | None = Field(default=None, description="in place of that of the readings")
    distribution: terms.Distribution | None = Field(default=None, description="in place of the recipe's")
    density: terms.Density | None = Field(default=None, description="target density in place of the recipe's")
    density_schedule: terms.DensitySchedule | None = None
    exchange_when_resizing: terms.ExchangeWhenResizing = False
    drop_fraction: terms.DropFraction | None = Field(default=None, description="in place of that of the readings")
    drop_fraction_end: terms.DropFraction | None = Field(default=None, description="likewise, at the end of training")
    update_period: terms.UpdatePeriod | None = Field(default=None, description="in place of the recipe's")
    update_until: terms.UpdateUntil = 1.0
    changes: dict[str, Any] = Field(
        default_factory=dict,
        description="keys of the recipe that the row has otherwise, merged as an overlay is; a section with another "
        "`name` takes the recipe's place",
    )
    label: terms.Name | None = Field(
        default=None, description="name shown in the tables; never part of a run's identity"
    )
    footnote: terms.Text | None = Field(default=None, description="what a reader must know about the row")

    @property
    def is_printed(self) -> bool:
        """Whether nothing but what the paper's tables print sets the row apart."""
        fields = type(self).model_fields
        return all(
            getattr(self, key) == fields[key].get_default(call_default_factory=True)
            for key in (*OF_METHODS, "cycle_length")
        )

    @model_validator(mode="after")
    def _static_or_cyclic(self) -> "Row":
        of_cycles = ("pattern", "multiplier", "cycles", "length_multiplier", "cycle_length", "printed_cycles", "fit")
        if self.static and (given := [key for key in of_cycles if key in self.model_fields_set]):
            raise ValueError(f"a static row has no {' or '.join(given)}")
        if self.density_schedule is not None:
            of_others = [key for key in ("static", *of_cycles) if key in self.model_fields_set]
            if of_others:
                raise ValueError(f"a row with a density_schedule has no {' or '.join(of_others)}")
            return self
        if not self.static and not (self.pattern and self.multiplier and self.cycles):
            raise ValueError(
                "a cyclic row needs pattern, multiplier and cycles (or set 'static: true', or a density_schedule)"
            )
        if not self.length_multiplier:
            raise ValueError("an empty list of length_multiplier makes no row; leave it out or name values")
        return self


class TableConfig(Frozen):
    """One of Tables 2-5, or a table of one's own."""

    recipe: Annotated[
        str,
        Ambiguity(
            number=6,
            matter="ResNet-50 in Tables 4 and 5",
            paper="Table B.1 has ResNet-50 on CIFAR only as DCT+RigL+EAST",
            reason="A static row of 30 % looks like plain RigL; the paper does not say.",
            reading="resnet34-cifar",
            other="the DCT+RigL+EAST recipe of Table B.1",
            overlays=("alternatives",),
            keys=("tables.table4.recipe", "tables.table5.recipe"),
        ),
    ] = Field(description="the recipe that its runs follow")
    dataset: terms.DatasetName = Field(description="data set")
    model: terms.ModelName | None = Field(default=None, description="network; null: the recipe's")
    components: Components = Field(default=Components(), description="what all rows add to RigL")
    title: terms.Text | None = Field(default=None, description="caption")
    axes: tuple[terms.Name, ...] = Field(
        default=(),
        description="keys of a run that tell its rows apart beside their labels, each a column; none: the four columns "
        "of Tables 2–5",
    )
    each: dict[terms.Name, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="key of a row or a recipe -> values at each of which every row is run; such a key is an axis too",
    )
    reference: terms.Name | None = Field(
        default=None,
        description="label of the rows that changes are measured against, at the same values of `each`; in a table "
        "without axes of its own it is the first static row",
    )
    published: terms.FileName | None = Field(
        default=None,
        description="file of report/published with the paper's numbers, or a CSV file of your own, from this file's "
        "folder on",
    )
    source: PublishedSource | None = Field(default=None, description="where a file of your own comes from")
    rows: tuple[Row, ...] = Field(
        min_length=1, description="rows; a list in a row stands for one row for each of its values"
    )


class ClaimConfig(Frozen):
    """A claim about tables, tested on published numbers and on ours."""

    statement: terms.Text = Field(description="what is claimed, as a sentence")
    source: terms.Text | None = Field(default=None, description="who claims it; null: this configuration")
    form: terms.ClaimForm
    tables: tuple[str, ...] = Field(default=(), description="tables that it is about; none: all")
    possibility: bool = Field(
        default=False, description="whether it says that something may happen, which one pair shows, and no majority"
    )


class Method(Components):
    """A row of Table 6."""

    cyclic: bool = Field(default=False, description="follow the recipe's cyclic density schedule")
    measured_at_beta: Annotated[Literal[0, 1], Choices({"0": "faded out", "1": "active"})] = Field(
        default=1, description="DyReLU in the paper's memory measurement"
    )


class Methods(Frozen):
    """Table 6 and the methods table."""

    recipes: dict[terms.DatasetName, str] = Field(description="data set -> the recipe that every method follows on it")
    rows: dict[terms.Name, Method] = Field(description="name -> what the method adds to RigL")
    systems: tuple[str, ...] = Field(default=(), description="recipes trained with their own components and cycles")


class Cost(Frozen):
    """What Table 6 counts and measures."""

    recipe: str = Field(description="the recipe that every method follows")
    model: terms.ModelName | None = Field(default=None, description="network; null: the recipe's")
    dataset: terms.DatasetName = Field(description="data set, for the size of images and the number of classes")
    density: terms.Density | None = Field(
        default=None, description="target density in place of the recipe's or the plan's"
    )
    published: terms.FileName | None = Field(
        default=None, description="file of report/published with the paper's numbers"
    )
    measured_steps: terms.Steps = Field(default=3, description="timed for each method")
    measured_batch: dict[Literal["cpu", "cuda"], terms.PositiveInt] = Field(
        description="device -> images of a timed step"
    )


class Config(Frozen):
    """The whole of config.yaml."""

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100),
        Retrains("everything: a new name is an empty folder"),
    ] = Field(description="`results/<name>/` holds everything that the configuration produces")
    title: Annotated[terms.Text, Retrains("nothing")] = Field(description="heading of the report")
    plugins: Annotated[tuple[terms.FileName, ...], Retrains("runs that use what changed")] = Field(
        default=(),
        description="files `*.py` that add to the methods, from this file's folder on, or installed entry points",
    )
    seeds: Annotated[
        tuple[Annotated[terms.Seed, BeforeValidator(_whole_seed)], ...],
        Field(min_length=1),
        Ambiguity(
            number=19,
            matter="Seeds",
            paper="three runs",
            as_coded="17, 41, 18, in the code and its logs",
            reason="They occur in the authors' code and in its logs.",
            reading="17, 41, 18",
        ),
        Retrains("nothing: new seeds are added"),
    ] = Field(description="one run of every row for each")
    density: Annotated[
        terms.Density,
        Ambiguity(
            number=4,
            matter="Density",
            paper="0.0005 is the example of Section C",
            reason="The example of Section C; the static row of Table 2 equals the paper's 99.95 % result.",
            reading="0.0005",
            keys=("density", "recipes.*.density"),
        ),
        Retrains("everything"),
    ] = Field(
        description="target density of every run and of Table 6: non-zeros divided by the weights of the dense network"
    )
    training_length: Annotated[
        float, Field(gt=0, le=1), terms.A_NUMBER, Retrains("everything"), UnitName("of a recipe's length")
    ] = Field(
        default=1.0,
        description="share of its recipe's length that each training has: whatever counts epochs or steps of a "
        "training is multiplied by it (`epochs`, drops of the learning rate, warm-up, cycles, update periods), and "
        "whole numbers are rounded to the nearest; what a single step does stays as it is",
    )
    execution: Annotated[Execution, Retrains("nothing, but for `data_dir`")] = Field(
        default=Execution(), description="where and how runs execute: device, engine, threads, memory, time, tracking"
    )
    readings: Annotated[Readings, Retrains("everything, but for `accuracy` and `spread`: nothing")] = Field(
        default=Readings(), description="what is run where the paper leaves room"
    )
    comparison: Annotated[Comparing, Retrains("nothing")] = Field(
        default=Comparing(), description="how tables are compared with published numbers"
    )
    datasets: Annotated[dict[terms.DatasetName, Dataset], Retrains("runs on that data set")] = Field(
        description="where each data set comes from, and how it is split and augmented"
    )
    recipes: Annotated[dict[terms.Name, Recipe], Retrains("runs that follow it")] = Field(
        description="rows of Table B.1"
    )
    tables: Annotated[
        dict[Annotated[str, Field(pattern=r"^table[A-Za-z0-9]+$", max_length=50)], TableConfig],
        Retrains("the rows that changed"),
    ] = Field(description="Tables 2–5, and tables of your own, whose names begin with `table`")
    claims: Annotated[dict[terms.Name, ClaimConfig], Retrains("nothing")] = Field(
        default_factory=dict, description="what is said of the tables and tested on them"
    )
    methods: Annotated[Methods, Retrains("the methods that changed")] = Field(
        description="rows of the methods table and of Table 6"
    )
    cost: Annotated[Cost, Retrains("nothing; Table 6 is measured again")] = Field(
        description="what Table 6 counts and measures"
    )

    _sources: Origins = PrivateAttr(default_factory=Origins)
    _catalogue: Catalogue = PrivateAttr(default_factory=Catalogue)
    _images: dict[str, ImagesSpec] = PrivateAttr(default_factory=dict)
    _written: "Config | None" = PrivateAttr(default=None)

    def came_from(
        self, sources: Origins, catalogue: Catalogue = NO_PLUGINS, *, written: "Config | None" = None
    ) -> None:
        """Remember where the values were written, for what is said of them later, and what plugins register.

        `written` is the configuration as it is written, where this one is made of it.
        """
        self._sources, self._catalogue, self._written = sources, catalogue, written

    @property
    def written(self) -> "Config":
        """As it is written: before `training_length` shortens its recipes."""
        return self._written or self

    @property
    def catalogue(self) -> Catalogue:
        """What the plugins register."""
        return self._catalogue

    @property
    def images(self) -> dict[str, ImagesSpec]:
        """What is known of data sets, filled by `east.config.datasets`: folders are looked into once."""
        return self._images

    @property
    def sources(self) -> Origins:
        """Where the values were written."""
        return self._sources
