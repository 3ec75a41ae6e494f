"""The terms of the configuration: each with its meaning, unit and range, and for a choice what every name stands for.

A term that a configuration and a run share is described here, once. What is generated from it: see
`east.config.reference`.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.fields import FieldInfo

from east.config.choices import Choice, ChoiceOf, NameOf, TopologyChoice, TopologySpec
from east.data.kind import dataset
from east.parameters import A_NUMBER as A_NUMBER
from east.parameters import Epochs as Epochs
from east.parameters import Fraction as Fraction
from east.parameters import NonNegative as NonNegative
from east.parameters import Positive as Positive
from east.parameters import PositiveInt as PositiveInt
from east.parameters import Seed as Seed
from east.parameters import Steps as Steps
from east.parameters import UnitName as UnitName
from east.parameters import metadata_in
from east.registry import NAME
from east.sparse import kinds


@dataclass(frozen=True, eq=False)  # what annotates a type must have a hash
class Choices:
    """The names of a `Literal` and what each stands for: metadata of the type."""

    meanings: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Ambiguity:
    """What the paper leaves open and a key settles: metadata of the key's field.

    Args:
        number: its number in docs/reproduction-notes.md.
        matter: what is open.
        paper: what the paper says.
        as_coded: what the authors' code does.
        reason: why config.yaml reads it as it does.
        reading: what config.yaml says, as the report prints it; the key's default if empty.
        other: what else it can mean; the other names of a choice if empty.
        overlays: the files of config/ that set another reading.
        keys: all keys that settle it, where there are several.
    """

    number: int
    matter: str
    paper: str = "silent"
    as_coded: str = "–"
    reason: str
    reading: str = ""
    other: str = ""
    overlays: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class OfRunsAlone:
    """No key of the configuration has it, though a run's description does: metadata of a field."""


@dataclass(frozen=True)
class Retrains:
    """Which runs train again where a section changes: metadata of the section."""

    what: str


def metadata_of(field: FieldInfo) -> Iterator[Any]:
    """All metadata of a field, the outermost first: its own, then its type's members' and items'."""
    yield from field.metadata
    yield from metadata_in(field.annotation)


def names_of(annotation: Any) -> tuple[Any, ...]:
    """The names of an annotated `Literal`."""
    return tuple(name for found in metadata_in(annotation) if isinstance(found, Choices) for name in found.meanings)


UNSEEN = {"Cc": "a control character", "Cs": "half a character", "Zl": "a line separator", "Zp": "a separator"}
"""Categories of Unicode that no text of a plan has -> what they are."""
JOINERS = "\u200c\u200d"
"""Characters that cannot be seen, and that some scripts and emoji need."""


def check_visible(text: str) -> str:
    """A text, if all of it can be seen.

    Raises:
        ValueError: it has a character that cannot be seen, or that makes a line read as another.
    """
    for character in text:
        category = unicodedata.category(character)
        what = UNSEEN.get(category) or ("an invisible character" if category in ("Cf", "Cn", "Co") else None)
        if what and character not in JOINERS:
            raise ValueError(f"must not contain {what} (U+{ord(character):04X})")
    return text


def _one_line(text: str) -> str:
    """A text with every stretch of white space as one space, so that folded YAML reads as it was meant."""
    line = check_visible(" ".join(text.split()))
    if not line:
        raise ValueError("must not be empty; leave the key out or write a text")
    return line


def _folder(text: str) -> str:
    """A folder as it is meant in a shell: `~` and `$NAME` stand for what they do there, and a last slash for nothing.

    Raises:
        ValueError: a name stands for nothing, or the path cannot be one.
    """
    if not check_visible(text).strip():
        raise ValueError("must not be empty")
    for name in re.findall(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", text, re.ASCII):
        if not os.environ.get("".join(name)):
            raise ValueError(f"names the environment variable {''.join(name)}, which is not set here")
    folder = os.path.expanduser(os.path.expandvars(text))  # noqa: PTH111 - the library's own refuses no unknown user
    if folder.startswith("~") and Path(folder).parts[0] != "~":
        raise ValueError("names the home folder of a user who is not known here; write its path")
    if any(sign in folder for sign in "{}<>"):
        raise ValueError("must not contain {, }, < or >, which Snakemake reads as signs of its own")
    return str(Path(folder))


Text = Annotated[str, Field(max_length=1000), AfterValidator(_one_line)]
"""Words for people, on one line."""
Name = Annotated[str, Field(max_length=100), AfterValidator(_one_line)]
"""What something is called; names of files may be made of it."""
Folder = Annotated[str, Field(max_length=1000), AfterValidator(_folder)]
FileName = Annotated[str, Field(max_length=1000), AfterValidator(check_visible)]

# Which images, and what is done to them.

DatasetName = Annotated[
    str,
    Field(pattern=f"^{NAME.pattern}$", max_length=60, description="data set, as `datasets` calls it"),
    NameOf(dataset),
]
DatasetSource = Annotated[
    str | Choice,
    Field(description="what reads its images, where that is not the data set of its name or has parameters"),
    ChoiceOf(dataset),
]
ChannelMeans = Annotated[
    tuple[Fraction, Fraction, Fraction], Field(description="means of red, green and blue of pixels in [0, 1]")
]
ChannelDeviations = Annotated[
    tuple[Positive, Positive, Positive], Field(description="standard deviations of the same pixels")
]
Margin = Annotated[
    int,
    Field(ge=0, description="border added on each side before the random crop; 0 for no crop"),
    A_NUMBER,
    UnitName("pixels"),
]
Padding = Annotated[
    Literal["reflect", "zero"],
    Field(description="what fills the border"),
    Choices({"reflect": "the image, mirrored at its edge", "zero": "black"}),
]
Flip = Annotated[bool, Field(description="mirror images at random")]
HeldOut = Annotated[
    int, Field(ge=0, description="training images held out for validation"), A_NUMBER, UnitName("images")
]
HeldOutChoice = Annotated[
    Literal["last", "shuffled"],
    Field(description="which images are held out"),
    Choices({"last": "the last ones", "shuffled": "drawn by the run's seed"}),
]

# The network.

ModelName = Annotated[
    str | Choice,
    Field(description="network"),
    ChoiceOf(kinds.network),
]
Width = Annotated[
    int, Field(gt=0, le=4096, description="channels of the stem; 64 in the paper"), A_NUMBER, UnitName("channels")
]
Activation = Annotated[
    Literal["relu", "dyrelu"],
    Field(description="activation"),
    Choices({"relu": "ReLU", "dyrelu": "DyReLU, which fades into ReLU during training"}),
]
SharingRatio = Annotated[
    int,
    Field(ge=2, description="blocks of a stage that own weights; later ones reuse those of the last owner"),
    A_NUMBER,
    UnitName("blocks"),
]
Dct = Annotated[bool, Field(description="add a fixed DCT matrix to every masked layer (DCTpS)")]

# The mask. The density that a key sets is the target density; a cycle's schedule starts from it, rises to the peak
# density, and returns to it. The density of a layer follows from the target by the distribution.

Density = Annotated[
    float,
    Field(gt=0, le=1, description="target density: non-zeros divided by the weights of the dense network"),
    A_NUMBER,
]
Distribution = Annotated[
    str | Choice,
    Field(description="how the target density is spread over layers"),
    ChoiceOf(kinds.distribution),
]
Topology = Annotated[
    str | TopologySpec,
    Field(
        description="how a mask update chooses weights: `rigl`: drop `magnitude`, grow `gradient`; `set`: drop "
        "`magnitude`, grow `random`; `fixed`: random masks that never change; or rule by rule, with `drop`, `grow` and "
        "`initial` (see [drop rules](#drop-rules), [growth rules](#growth-rules), [initial values](#initial-values))"
    ),
    TopologyChoice(),
]
DropFraction = Annotated[Fraction, Field(description="share of a tensor's non-zeros that an exchange drops")]
UpdatePeriod = Annotated[Steps, Field(description="between mask updates outside cycles (ΔT_dst)")]
UpdateUntil = Annotated[
    float,
    Field(
        gt=0, le=1, description="share of the training after which weights are exchanged no more; 0.75 in RigL's paper"
    ),
    A_NUMBER,
]
ExchangeWhenResizing = Annotated[
    bool, Field(description="exchange weights as well at mask updates that change the density")
]
DensitySchedule = Annotated[
    str | Choice,
    Field(description="how the density moves in time, in place of cycles; masks follow it at every mask update"),
    ChoiceOf(kinds.density_schedule),
]

# The cyclic density schedule.

Pattern = Annotated[
    str | Choice,
    Field(description="shape of a cycle"),
    ChoiceOf(kinds.cycle_pattern),
]
Multiplier = Annotated[float, Field(gt=1, description="peak density divided by the target density (m)"), A_NUMBER]
Cycles = Annotated[int, Field(gt=0, le=1000, description="number of cycles (n)"), A_NUMBER]
CycleLength = Annotated[Positive, Field(description="length of the first cycle (l)"), UnitName("epochs")]
LengthMultiplier = Annotated[
    float,
    Field(
        gt=0,
        le=1000,
        description="length of each cycle divided by that of the one before (g); without effect on one",
    ),
    A_NUMBER,
]
CycleUpdatePeriod = Annotated[Steps, Field(description="between mask updates inside cycles (ΔT_cs)")]
CycleEnd = Annotated[
    Literal["target", "as_coded"],
    Field(description="density after the last cycle"),
    Choices(
        {
            "target": "exactly back to the target density",
            "as_coded": "the density stays where the last update left it",
        }
    ),
]

# The training.

LearningRateDropFactor = Annotated[
    float, Field(gt=0, le=1, description="the learning rate is multiplied by it at each drop"), A_NUMBER
]
WeightDecay = Annotated[float, Field(ge=0, description="of all parameters"), A_NUMBER]
LearningRateSchedule = Annotated[
    str | Choice,
    Field(description="how the learning rate moves in time, in place of drops"),
    ChoiceOf(kinds.learning_rate),
]
WarmupEpochs = Annotated[
    NonNegative,
    Field(description="in which the learning rate rises in a straight line to what its schedule begins with"),
    UnitName("epochs"),
]
OptimizerName = Annotated[str, Field(description="optimizer"), NameOf(kinds.optimizer)]
ClipScope = Annotated[
    Literal["dense", "active"],
    Field(description="which gradients of masked layers the norm is over"),
    Choices({"dense": "all, those of weights that are off included", "active": "those of active weights only"}),
]
ClipEstimator = Annotated[
    Literal["exact", "sketch"],
    Field(description="how the norm over dense gradients is found; that over active weights is always exact"),
    Choices(
        {
            "exact": "computed, as in the authors' code",
            "sketch": "estimated by random projections, without the gradients of weights that are off",
        }
    ),
]
Numerics = Annotated[
    Literal["tf32", "fp32", "bf16"],
    Field(description="arithmetic on CUDA; a CPU computes in float32"),
    Choices(
        {
            "tf32": "TF32 matrix units",
            "fp32": "32-bit floats throughout",
            "bf16": "bfloat16 activations and, on CUDA, products; on a CPU activations of the sparse engine alone",
        }
    ),
]

# What is claimed of a table.

ClaimForm = Annotated[
    str | Choice,
    Field(description="which rows the claim compares"),
    ChoiceOf(kinds.claim_form),
]

# How seeds become a number of a table.

ReportedAccuracy = Annotated[
    Literal["final", "best_validation"],
    Field(description="which test accuracy the tables report"),
    Choices({"final": "after the last epoch", "best_validation": "test accuracy at the best validation epoch"}),
]
Spread = Annotated[
    Literal["sample", "population"],
    Field(description="which standard deviation over seeds the ± of a table is"),
    Choices({"sample": "over n - 1", "population": "over n"}),
]
PublishedSpread = Annotated[
    Literal["sample", "population", "standard_error"],
    Field(description="what the ± of published numbers is taken for; the paper does not say"),
    Choices(
        {
            "sample": "standard deviation with n - 1",
            "population": "standard deviation with n",
            "standard_error": "standard error of the mean",
        }
    ),
]
