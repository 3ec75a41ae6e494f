"""Networks of a plugin: one with a description trains really sparse, an ordinary module densely, and each says so."""

import pytest
import torch

from east.config import RunSpec, make_plan, read_config
from east.errors import EastError
from east.models.initialise import initialise
from east.reproducibility import Reproducibility
from east.training.attempts import class_on_cpu
from east.training.describe import engine_of_run
from east.training.loop import run_loop
from east.training.run import Resources, open_and_begin
from tests.unit.fake_runs import TEST_CONFIG
from tests.unit.sparse_engines import CPU

DESCRIBED = '''
from east.methods import PositiveInt, network


@network(label="Mine")
def mine(images, classes, *, width: PositiveInt = 6, depth: PositiveInt = 3):
    """Blocks of one convolution each."""
    x = images.conv(width, stride=2).norm().act()
    x = x.repeat(depth, lambda x, index: (x.conv(width).norm() + x).act(), name="blocks")
    return x.mean().linear(classes)
'''
ORDINARY = '''
from torch import nn

from east.methods import network


@network(module=True)
def plain(images, classes):
    """A convolution, group norm and a linear layer."""
    first = nn.Conv2d(images.shape[0], 8, 3, stride=2), nn.GroupNorm(2, 8), nn.SiLU()
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
'''


@pytest.fixture
def planned(tmp_path):
    """The plan of the smallest configuration with a network of a plugin in its first table."""

    def made(text, model, **of_table):
        (tmp_path / "mine.py").write_text(text)
        further = "".join(f", {key}: {value}" for key, value in of_table.items())
        table = f"{{table2: {{model: {model}, rows: [{{static: true}}]{further}}}}}"
        (tmp_path / "mine.yaml").write_text(f"plugins: [mine.py]\ntables: {table}\n")
        return make_plan(read_config(TEST_CONFIG, tmp_path / "mine.yaml"))

    return made


@pytest.fixture
def begun(planned, data_dir):
    """A training of it, from its description alone."""

    def made(*arguments, **keys):
        plan = planned(*arguments, **keys)
        spec = RunSpec.model_validate_json(plan.runs[0].spec.canonical_json())
        places = tuple(plan.config.catalogue.paths.values())
        return open_and_begin(spec, Resources(device="cpu", data_dir=data_dir, plugins=places), CPU)

    return made


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("components", ["{}", "{activation: dyrelu, sharing_ratio: 2}"])
def test_a_description_of_a_plugin_trains_really_sparse(begun, components):
    training = begun(DESCRIBED, "{name: mine, depth: 4}", components=components)
    assert training.parts.engine.name == engine_of_run(training.spec) == "sparse"
    assert run_loop(training) == "finished"
    assert training.updates[-1].branches == 4
    assert training.spec.model.width == 4, "the recipe's"


@pytest.mark.usefixtures("one_thread")
def test_an_ordinary_module_trains_densely_and_says_so(begun, planned):
    plan = planned(ORDINARY, "plain")
    assert any("ordinary nn.Module" in note for note in plan.notes)
    training = begun(ORDINARY, "plain")
    assert training.parts.engine.name == engine_of_run(training.spec) == "dense"
    assert class_on_cpu(training.spec) == Reproducibility.THIS_PROCESSOR
    layers = training.masks.layers
    assert list(layers) == ["0", "5"]
    assert run_loop(training) == "finished"
    for layer in layers.values():
        assert not layer.weight[~layer.mask].any()
    assert training.updates[-1].nonzeros < sum(layer.weight.numel() for layer in layers.values())
    assert training.updates[-1].channels == 0


def test_an_ordinary_module_begins_with_weights_of_the_runs_seed(begun):
    before = torch.random.get_rng_state()
    one, other = (begun(ORDINARY, "plain").model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("text", "model", "words"),
    [
        (ORDINARY.replace("module=True", ""), "plain", "not a Sequential"),
        (DESCRIBED.replace('label="Mine"', "module=True"), "mine", "declares module=True and gives a Feature"),
        (DESCRIBED.replace("x.mean()", "x"), "mine", "Put .mean"),
        (DESCRIBED.replace("x.mean()", "x.nothing()"), "mine", r"mine.py:10: .*has no attribute 'nothing'"),
    ],
)
def test_mistakes_of_a_plugins_network_are_said_when_it_is_trained(begun, text, model, words):
    with pytest.raises(EastError, match=words):
        begun(text, model)


def test_a_density_that_a_plugins_network_cannot_have_is_said_when_it_is_trained(begun):
    with pytest.raises(EastError, match="each of which keeps at least one"):
        begun(DESCRIBED.replace("conv(width", "conv(1"), "{name: mine, depth: 9}")


@pytest.mark.parametrize(
    ("text", "model", "of_table", "words"),
    [
        (ORDINARY, "plain", {"components": "{activation: dyrelu}"}, "ordinary nn.Module, to which activation"),
        (DESCRIBED, "{name: mine, width: 3}", {}, "the width of a network is a key beside it"),
        (DESCRIBED, "{name: mine, depth: 0}", {}, "depth"),
        (DESCRIBED, "vgg16", {}, "too small for this network"),
        (DESCRIBED, "vgg16", {"components": "{sharing_ratio: 2}"}, "repeats no block"),
        (DESCRIBED, "nine", {}, "there is no network 'nine'. Did you mean 'mine'"),
    ],
)
def test_what_a_plan_refuses(planned, text, model, of_table, words):
    with pytest.raises(EastError, match=words):
        planned(text, model, **of_table)


def test_every_parameter_of_a_network_of_the_project_has_an_initial_value(one_thread):
    from east.models import build_model
    from east.sparse.kinds import network

    for entry in network:
        width = {} if entry.name == "mlp" else {"width": 2}
        model = build_model(entry.name, 10, activation="dyrelu", sharing_ratio=2, dct=True, **width)
        initialise(model, 1)
