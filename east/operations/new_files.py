"""The first version of a file of one's own for a registry, and of its test: a body that works, to be changed."""

import keyword
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from east.errors import EastError
from east.plugins import kinds
from east.registry import NAME, Entry, Kind

NAMED = "NAME"
"""What stands for the name in a template."""


@dataclass(frozen=True)
class Template:
    """A file and its test.

    Attributes:
        source: a plugin that registers an entry.
        test: tests of that entry alone; every file is also tested for what a plan reads of it.
        use: how a configuration names it.
    """

    source: str
    test: str = ""
    use: str = ""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        kind: of the entry.
        source: the plugin.
        test: its test.
        use: lines of configuration that name it; empty where nobody has said.
    """

    kind: Kind
    source: Path
    test: Path
    use: str


LAYER = '''
def a_layer():
    """Four output channels of six weights, a third of them on, of which five are to be chosen."""
    mask = torch.arange(24).view(4, 6) % 3 == 0
    weight = torch.linspace(-1.0, 0.9, 24).view(4, 6) * mask
    gradient = torch.linspace(2.0, -1.0, 24).view(4, 6)
    return Layer("conv1", weight, gradient, mask, count=5, candidates=CANDIDATES)


def test_each_weight_has_a_number():
    found = NAME(a_layer())
    assert found.shape == a_layer().shape
    assert found.isfinite().all()


def test_the_same_layer_gives_the_same_numbers():
    assert torch.equal(NAME(a_layer()), NAME(a_layer()))
'''

TEMPLATES = {
    "growth_rule": Template(
        '''"""Growth by the gradient, channel by channel."""

from east.methods import growth_rule


@growth_rule(gradient="updates", paper="")
def NAME(layer, *, relative: bool = True):
    """The largest magnitudes of the gradient grow, each beside the mean of its output channel.

    Args:
        layer: at the update.
        relative: whether they are divided by that mean; otherwise this is RigL.
    """
    size = layer.gradient.abs().flatten(1)
    scores = size / size.mean(1, keepdim=True).clamp_min(1e-12) if relative else size
    return scores.view(layer.shape)
''',
        LAYER.replace("CANDIDATES", "~mask"),
        "tables: {table2: {rows: [{static: true}, {static: true, topology: {grow: NAME}}]}}",
    ),
    "drop_rule": Template(
        '''"""Magnitude, channel by channel."""

from east.methods import drop_rule


@drop_rule(paper="")
def NAME(layer, *, relative: bool = True):
    """The smallest magnitudes are dropped, each beside the mean of its output channel.

    Args:
        layer: at the update.
        relative: whether they are divided by that mean; otherwise these are magnitudes.
    """
    size = layer.weight.abs().flatten(1)
    scores = size / size.mean(1, keepdim=True).clamp_min(1e-12) if relative else size
    return scores.view(layer.shape)
''',
        LAYER.replace("CANDIDATES", "mask"),
        "tables: {table2: {rows: [{static: true}, {static: true, topology: {drop: NAME}}]}}",
    ),
    "initial_values": Template(
        '''"""Small random values for weights that grow."""

from east.methods import Positive, initial_values


@initial_values(paper="")
def NAME(layer, *, size: Positive = 0.001):
    """Uniform random values.

    Args:
        layer: at the update.
        size: the largest of them.
    """
    shares = layer.random.uniform(layer.weight.numel()).view(layer.shape)
    return size * (2 * shares - 1).to(layer.weight)
''',
        LAYER.replace("CANDIDATES", "~mask"),
        "tables: {table2: {rows: [{static: true}, {static: true, topology: {initial: NAME}}]}}",
    ),
    "distribution": Template(
        '''"""A density for each layer, by its size."""

import math

from east.methods import Positive, allocate, distribution


@distribution(paper="")
def NAME(shapes, total, *, power: Positive = 0.5):
    """Non-zeros in proportion to a power of the size of each tensor.

    Args:
        shapes: name of each tensor -> its shape.
        total: non-zeros of all of them.
        power: 1 gives every tensor the same density.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return allocate({name: size**power for name, size in sizes.items()}, sizes, total)
''',
        """
SHAPES = {"conv1": (8, 3, 3, 3), "conv2": (8, 8, 3, 3), "classifier": (10, 8)}


@pytest.mark.parametrize("total", [3, 50, 872])
def test_all_non_zeros_are_given_out_and_no_tensor_is_empty_or_over_full(total):
    counts = NAME(SHAPES, total)
    assert sum(counts.values()) == total
    assert all(1 <= counts[name] <= math.prod(shape) for name, shape in SHAPES.items())
""",
        "recipes: {resnet34-cifar: {distribution: NAME}}",
    ),
    "cycle_pattern": Template(
        '''"""A density cycle with a level top."""

from east.methods import Share, cycle_pattern


@cycle_pattern(paper="")
def NAME(position, *, ramp: Share = 0.25):
    """Up in a straight line, level, and down again.

    Args:
        position: share of the cycle that has passed.
        ramp: share of the cycle that each slope takes, at most a half.
    """
    return min(1.0, position / ramp, (1 - position) / ramp)
''',
        """
def test_it_begins_and_ends_at_nothing():
    assert NAME(0.0) == NAME(1.0) == 0.0


def test_its_height_stays_between_nothing_and_one():
    assert all(0 <= NAME(k / 100) <= 1 for k in range(101))
    assert max(NAME(k / 100) for k in range(101)) == 1
""",
        "tables: {table2: {rows: [{static: true}, {pattern: NAME, multiplier: 10, cycles: 2}]}}",
    ),
    "density_schedule": Template(
        '''"""A density that falls by the same factor in equal times."""

from east.methods import Share, density_schedule


@density_schedule(paper="")
def NAME(moment, target, *, initial: Share = 0.5, end: Share = 0.75):
    """From a density to the target, as a power.

    Args:
        moment: when.
        target: the density of the end.
        initial: the density of the start.
        end: share of the training after which the density is the target.
    """
    passed = float(moment.share)
    return target if passed >= end else initial * (target / initial) ** (passed / end)
''',
        """
def at(step):
    return NAME(Moment(step, total_steps=100, steps_per_epoch=10), 0.05)


def test_it_ends_at_the_target():
    assert at(100) == 0.05


def test_it_is_a_density_all_the_time():
    assert all(0 < at(step) <= 1 for step in range(101))
""",
        "tables: {table2: {rows: [{static: true}, {density_schedule: NAME}]}}",
    ),
    "learning_rate": Template(
        '''"""A rate that falls by the same factor in equal times."""

from east.methods import Share, learning_rate


@learning_rate(paper="")
def NAME(moment, lr, *, end: Share = 0.01):
    """From the recipe's rate to a share of it, as a power.

    Args:
        moment: before the step.
        lr: the recipe's.
        end: the rate of the end, divided by `lr`.
    """
    return lr * end ** float(moment.share)
''',
        """
def at(step):
    return NAME(Moment(step, total_steps=100, steps_per_epoch=10), 0.1)


def test_it_begins_at_the_rate_of_the_recipe():
    assert at(0) == 0.1


def test_it_is_a_rate_all_the_time():
    assert all(0 <= at(step) <= 0.1 for step in range(101))
""",
        "recipes: {resnet34-cifar: {lr_drop_epochs: [], lr_schedule: NAME}}",
    ),
    "optimizer": Template(
        '''"""The sign of a momentum."""

from east.methods import Fraction, optimizer


@optimizer(state=("momentum",), paper="")
def NAME(step, *, decay: Fraction = 0.9):
    """Every weight moves by the rate, against the sign of its mean gradient.

    Args:
        step: values, gradients and state, parameter by parameter.
        decay: of the mean; the higher it is, the farther back it reaches.
    """
    for value, gradient, momentum in step:
        momentum.mul_(decay).add_((1 - decay) * gradient)
        value.sub_(step.lr * (momentum.sign() + step.weight_decay * value))
''',
        """
def test_values_move_against_the_gradient_and_state_is_kept():
    value, gradient, momentum = torch.zeros(2), torch.tensor([1.0, -2.0]), torch.zeros(2)
    step = OptimizerStep([value], [gradient], {"momentum": [momentum]}, (), 0.1, 0.0, arithmetic=None)
    NAME(step)
    assert (value * gradient < 0).all()
    assert momentum.any()
""",
        "recipes: {resnet34-cifar: {optimizer: {name: NAME, momentum: null, nesterov: null}}}",
    ),
    "dataset": Template(
        '''"""Images of stripes: a data set to be replaced by one that is read from its folder."""

import numpy as np

from east.methods import dataset


@dataset(classes=2, train_images=6000, test_images=1000, image_size=(16, 16), paper="")
def NAME(folder):
    """Stripes across or along, in noise.

    Args:
        folder: of its files; `np.load(folder / "mine.npz")` would read one.
    """
    random = np.random.default_rng(0)
    parts = []
    for count in (6000, 1000):
        labels = random.permutation(count) % 2
        images = random.integers(0, 128, (count, 16, 16), dtype=np.uint8)
        images[labels == 0, ::2] = 255
        images[labels == 1, :, ::2] = 255
        parts += [images, labels]
    return parts
''',
        """
def test_it_has_as_many_images_of_that_size_and_of_all_classes_as_it_declares(tmp_path):
    (entry,) = declared(Path(__file__).with_name("NAME.py"))
    train_images, train_labels, test_images, test_labels = NAME(tmp_path)
    assert (len(train_images), len(test_images)) == (entry.facts.train_images, entry.facts.test_images)
    assert train_images.shape[1:] == test_images.shape[1:] == entry.facts.image_size
    assert {*train_labels.tolist()} == {*test_labels.tolist()} == {*range(entry.facts.classes)}
""",
        "datasets: {NAME: {margin: 2, padding: zero, flip: false, validation: 500, validation_choice: shuffled}}\n"
        "tables: {table2: {dataset: NAME}}",
    ),
    "network": Template(
        '''"""A small residual network."""

from east.methods import PositiveInt, network


@network(paper="")
def NAME(images, classes, *, width: PositiveInt = 16):
    """Two stages of two residual blocks, and the mean of every channel.

    Args:
        images: what the network sees.
        classes: how many there are.
        width: channels of the first stage; the second has twice as many.
    """

    def block(x, index):
        y = x.conv(x.shape[0]).norm().act().conv(x.shape[0]).norm()
        return (y + x).act()

    x = images
    for stage in range(2):
        x = x.conv(width * 2**stage, stride=1 + stage).norm().act().repeat(2, block, name=f"stage{stage}")
    return x.mean().linear(classes)
''',
        """
def test_it_gives_a_number_for_each_class_of_images_of_any_size():
    for side in (12, 32):
        assert describe(NAME, (3, side, side), 7).head.shape == (7, 1, 1)
""",
        "tables: {table2: {model: NAME, rows: [{static: true}]}}",
    ),
    "claim_form": Template(
        '''"""A claim about the order of rows."""

from itertools import pairwise

import pandas as pd

from east.methods import claim_form


@claim_form(paper="")
def NAME(rows):
    """Every row of a table beats the row above it.

    Args:
        rows: a line for each row that has a mean; its columns are `table`, `model`, `label`, `settings` and the axes.
    """
    of_tables = [table.index for _, table in rows.groupby("table", sort=False)]
    pairs = [(below, above) for index in of_tables for above, below in pairwise(index)]
    return pd.DataFrame(pairs, columns=["higher", "lower"])
''',
        """
def test_rows_of_one_table_are_compared_with_the_one_above_and_with_no_other():
    rows = pd.DataFrame({"table": ["one", "one", "one", "other"], "label": list("abcd")})
    assert NAME(rows).values.tolist() == [[1, 0], [2, 1]]
""",
        "claims: {NAME: {statement: Every row beats the row above it., form: NAME}}",
    ),
}
"""Name of a decorator -> where a file for it begins. Kinds without one begin as the project's own first entry."""

TEST = '''"""The KIND `NAME` does what a plan and a training ask of it."""

IMPORTS


def test_a_configuration_can_name_it():
    (entry,) = declared(Path(__file__).with_name("NAME.py"))
    assert entry.title == "KIND 'NAME'"
'''


def kind_of(word: str) -> tuple[str, Kind]:
    """A registry and the name of its decorator, by that name or by the word that `east list` has for it.

    Raises:
        EastError: there is none.
    """
    for decorator, kind in kinds().items():
        if word in (decorator, kind.word):
            return decorator, kind
    raise EastError(f"there is no kind '{word}'. Choose one of {', '.join(kind.word for kind in kinds().values())}.")


def write_new(word: str, name: str, folder: Path) -> Written:
    """Write NAME.py, which registers an entry that works, and test_NAME.py. Nothing is written over.

    Args:
        word: a kind, see `kind_of`.
        name: of the entry, and of the file.
        folder: where both go.

    Raises:
        EastError: there is no such kind, the name is none or is taken, or a file is there.
    """
    decorator, kind = kind_of(word)
    source, test = folder / f"{name}.py", folder / f"test_{name}.py"
    _check(name, kind)
    for path in (source, test):
        if path.exists():
            raise EastError(f"{path} is there already, and is not written over. Choose another name or folder.")
    if find_spec(name) is not None:
        raise EastError(f"'{name}' is an installed module, which {source} would hide. Choose another name.")
    template = TEMPLATES.get(decorator) or _as_the_first(decorator, kind)
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in ((source, template.source), (test, _test(template, kind))):
        with path.open("x", encoding="utf-8") as stream:
            stream.write(content.replace(NAMED, name))
    return Written(kind, source, test, template.use.replace(NAMED, name))


def _check(name: str, kind: Kind) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise EastError(
            f"'{name}' must be small letters, digits and underscores, and no word of Python's, to be a name."
        )
    if name in kind:
        raise EastError(f"{kind.one} '{name}' is the project's own. Give yours another name.")


def _test(template: Template, kind: Kind) -> str:
    """The whole test of a template, which imports what its parts use."""
    body = template.test
    standard = ["import math"] * ("math." in body) + ["from pathlib import Path"]
    modules = {"pd.": "import pandas as pd", "pytest.": "import pytest", "torch.": "import torch"}
    installed = [line for name, line in modules.items() if name in body]
    offered = [name for name in ("Layer", "Moment", "OptimizerStep") if f"{name}(" in body]
    installed += [f"from east.methods import {', '.join(offered)}"] * bool(offered)
    installed += ["from east.models.description import describe"] * ("describe(" in body)
    installed += ["from east.plugins import declared"]
    own = [f"from {NAMED} import {NAMED}"] * bool(body)
    groups = ("\n".join(group) for group in (standard, installed, own) if group)
    whole = TEST.replace("KIND", kind.one).replace("IMPORTS", "\n\n".join(groups))
    return f"{whole}\n{body}" if body else whole


def _as_the_first(decorator: str, kind: Kind) -> Template:
    """A file whose entry does what an entry of the project does.

    Raises:
        EastError: the project has none that could be called without parameters.
    """
    entry: Entry | None = next((one for one in kind if not any(part.is_required for part in one.parameters)), None)
    if entry is None:
        raise EastError(f"there is no {kind.one} to begin with. See docs/extending.md.")
    facts = entry.facts.model_dump(exclude_defaults=True)
    declares = ", ".join(f"{key}={_literal(value)}" for key, value in facts.items())
    decorated = f"{decorator}({declares})" if facts else decorator
    arguments = ", ".join(kind.takes)
    return Template(
        f'''"""{kind.one.capitalize()} of one's own."""

from east.methods import KINDS, {decorator}


@{decorated}
def {NAMED}({arguments}):
    """What the project's `{entry.name}` does, until it is changed."""
    return KINDS["{decorator}"]["{entry.name}"].bind({{}})({arguments})
'''
    )


def _literal(value: object) -> str:
    """A value as it is written in Python, texts in double quotes."""
    return repr(value).replace("'", '"')
