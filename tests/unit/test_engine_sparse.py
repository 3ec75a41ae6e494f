"""Whole networks under the sparse engine: against the dense one in double precision, and bit against bit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from east.engine import CrossEntropy, GradientRequest
from east.engine.cpu.engine import CPU_EVALUATION_BATCH as EVALUATION_BATCH
from east.engine.cpu.engine import CpuEngine
from east.engine.dense import DenseEngine
from east.errors import EastError
from east.models import build_model
from east.models.dyrelu import retire_dyrelu, set_beta
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import apply_masks, masked_layers
from east.sparse.masks import Allocation, initialise_masks
from tests.unit.planes import assert_same_bits, on_threads

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def network(name="resnet34", density=0.02, width=8, dtype=torch.float64, beta=1.0, **parts):
    """A sparse network whose batch norms differ from channel to channel."""
    torch.manual_seed(0)
    model = build_model(name, 10, width=width, **parts)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    draw_masks(model, density)
    set_beta(model, beta)
    if beta == 0:
        retire_dyrelu(model)
    return model.to(dtype)


def draw_masks(model, density, seed=1):
    layers = masked_layers(model)
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    allocation = Allocation(shapes, "erk", sum(layer.weight.numel() for layer in layers.values()))
    initialise_masks(layers, allocation.counts(density), seed)


def dense_engine(model):
    return DenseEngine(model, active_weights(masked_layers(model)), numerics="fp32", device=CPU)


def by_nonzeros(network, nonzeros):
    """Fused where non-zeros are few, by rows where they are many."""
    sizes = {unit.layer: unit.y.channels for unit in network.units} | {network.head.layer: 0}
    return {name: "fused" if nonzeros[name] <= 6 * size else "rows" for name, size in sizes.items()}


def executing(execution):
    """Every layer in this way."""
    return lambda network, nonzeros: dict.fromkeys(nonzeros, execution)


def mixed(network, nonzeros):
    """Each unit reads what another kind of execution has written."""
    return {name: ("fused", "rows")[number // 2 % 2] for number, name in enumerate(nonzeros)}


def sparse_engine(model, choose=by_nonzeros):
    return CpuEngine(model, active_weights(masked_layers(model)), device=CPU, choose=choose)


def batch(images=5, size=12, dtype=torch.float64, number=0):
    draw = generator(0, "batch", number)
    return torch.randn(images, 3, size, size, generator=draw).to(dtype), torch.randint(10, (images,), generator=draw)


def signs_for(engine, probes=2):
    return {
        name: 2.0 * torch.randint(2, (probes, len(weights.layer.weight)), generator=generator(0, "signs", name)) - 1
        for name, weights in engine.active.items()
    }


def gradients(engine, images, labels, *, dense=False, signs=None):
    """One pass of an engine: what it returns, and everything that it leaves, by name."""
    engine.model.zero_grad()
    found = engine.gradients(images, CrossEntropy(labels), GradientRequest(dense, signs))
    left = {"loss": found.loss, "logits": found.logits}
    if signs is not None:
        left["squared norms"] = found.squared_norms
    for name, weights in engine.active.items():
        assert not weights.gradient[weights.count :].any()
        left[f"{name}, active"] = weights.to_row_major(weights.gradient)
        if dense:
            left[f"{name}, dense"] = weights.layer.weight.grad
    masked = {f"{name}.weight" for name in engine.active}
    left |= {name: parameter.grad for name, parameter in engine.model.named_parameters() if name not in masked}
    left |= {name: buffer for name, buffer in engine.model.named_buffers() if "running" in name or "tracked" in name}
    return {name: tensor.clone() for name, tensor in left.items()}


def agree(found, expected, tolerance=1e-9):
    """Compare tensors by name; gradients that are nothing but rounding are compared on the scale of the largest one."""
    assert found.keys() == expected.keys()
    largest = max(float(tensor.abs().max()) for tensor in expected.values() if tensor.numel())
    for name, tensor in expected.items():
        scale = float(tensor.abs().max()) if tensor.numel() else 0.0
        bound = tolerance * scale + 1e-4 * tolerance * largest
        assert found[name].shape == tensor.shape
        error = float((found[name] - tensor).abs().max()) if tensor.numel() else 0.0
        assert error <= bound, f"{name}: {error:.2g}, allowed {bound:.2g}, largest {scale:.2g}"


def both_engines(model, choose=by_nonzeros):
    """The sparse and the dense engine, on networks of their own that are alike."""
    return sparse_engine(copy.deepcopy(model), choose), dense_engine(model)


def check(model, choose=by_nonzeros):
    """Compare both engines for every request, and in evaluation after it."""
    sparse, dense = both_engines(model, choose)
    for number, request in enumerate(({}, {"signs": signs_for(sparse)}, {"dense": True, "signs": signs_for(sparse)})):
        inputs = batch(number=number)
        agree(gradients(sparse, *inputs, **request), gradients(dense, *inputs, **request))
    evaluate_both(sparse, dense, batch()[0])


def evaluate_both(sparse, dense, images):
    for engine in (sparse, dense):
        engine.model.eval()
    with torch.inference_mode():
        agree({"logits": sparse(images)}, {"logits": dense(images)})
    for engine in (sparse, dense):
        engine.model.train()


NETWORKS = {
    "resnet34": {},
    "resnet50": {"name": "resnet50"},
    "max-pool": {"name": "resnet50_imagenet"},
    "sharing": {"sharing_ratio": 2},
    "DyReLU": {"activation": "dyrelu"},
    "fading DyReLU": {"activation": "dyrelu", "beta": 0.3},
    "retired DyReLU": {"activation": "dyrelu", "beta": 0.0},
    "combined": {"name": "resnet50", "activation": "dyrelu", "sharing_ratio": 2},
}
"""Networks of the paper that the engine executes."""


@pytest.mark.parametrize("keys", NETWORKS.values(), ids=NETWORKS)
def test_every_network_equals_the_dense_engine(keys):
    check(network(**keys))


EXECUTIONS = {"fused": executing("fused"), "rows": executing("rows"), "mixed": mixed}


@pytest.mark.parametrize("choose", EXECUTIONS.values(), ids=EXECUTIONS)
@pytest.mark.parametrize("keys", [{"name": "resnet50"}, {"activation": "dyrelu", "sharing_ratio": 3}], ids=str)
def test_every_execution_equals_the_dense_engine(choose, keys):
    check(network(**keys), choose)


def everything(keys, choose, request, images=37):
    """A step in single precision, of networks in which many channels have no reader or no non-zero."""
    sparse = sparse_engine(network(dtype=torch.float32, density=0.01, **keys), choose)
    signs = signs_for(sparse) if request["signs"] else None
    return gradients(sparse, *batch(images, dtype=torch.float32), dense=request["dense"], signs=signs)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("keys", NETWORKS.values(), ids=NETWORKS)
def test_no_bit_of_a_step_depends_on_the_execution(keys, signs, dense):
    request = {"signs": signs, "dense": dense}
    found = [everything(keys, choose, request) for choose in EXECUTIONS.values()]
    for other in found[1:]:
        assert_same_bits(other, found[0])


@pytest.mark.parametrize("density", [0.0005, 0.001, 0.005])
def test_few_nonzeros_equal_the_dense_engine(density):
    """Many channels have no non-zero, and many are read by none."""
    check(network(width=16, density=density))


@pytest.mark.parametrize("execution", ["fused", "rows"])
def test_all_weights_active_equal_the_dense_engine(execution):
    check(network(density=1.0, width=4), executing(execution))


@pytest.mark.parametrize("execution", ["fused", "rows"])
@pytest.mark.parametrize(
    "off", ["conv1", "stages.0.1.conv1", "stages.1.0.conv2", "stages.2.0.shortcut.0", "classifier"]
)
def test_a_layer_without_nonzeros_equals_the_dense_engine(off, execution):
    model = network(density=0.1)
    layer = masked_layers(model)[off]
    layer.mask.zero_()
    apply_masks({off: layer})
    check(model, executing(execution))


def test_single_precision_agrees_with_double():
    single = gradients(sparse_engine(network(dtype=torch.float32)), *batch(dtype=torch.float32))
    double = gradients(dense_engine(network()), *batch())
    agree({name: tensor.double() for name, tensor in single.items()}, double, 1e-3)
    agree({"logits": single["logits"].double()}, {"logits": double["logits"]}, 1e-5)


def test_dense_gradients_are_there_in_the_step_that_asks_for_them_alone():
    sparse = sparse_engine(network())
    for dense in (False, True, False):
        gradients(sparse, *batch(), dense=dense)
        for weights in sparse.active.values():
            assert (weights.layer.weight.grad is not None) == dense


def test_a_request_for_more_does_not_change_the_rest():
    """Channels that nothing reads are left out unless gradients of off weights count."""
    found = []
    for request in ({}, {"dense": True}, {"signs": True}):
        sparse = sparse_engine(network(width=16, density=0.002, dtype=torch.float32))
        if "signs" in request:
            request["signs"] = signs_for(sparse)
        found.append(gradients(sparse, *batch(dtype=torch.float32), **request))
    for more in found[1:]:
        assert all(torch.equal(more[name], tensor) for name, tensor in found[0].items())


def test_batches_of_any_size_equal_the_dense_engine():
    sparse, dense = both_engines(network())
    for number, (images, size) in enumerate([(6, 16), (3, 16), (6, 16), (9, 16), (2, 20), (6, 16)]):
        inputs = batch(images, size, number=number)
        agree(gradients(sparse, *inputs), gradients(dense, *inputs))
        evaluate_both(sparse, dense, batch(images + 4, size)[0])


@pytest.mark.parametrize("images", [1, EVALUATION_BATCH, EVALUATION_BATCH + 3])
def test_evaluation_needs_no_training_first(images):
    sparse, dense = both_engines(network(width=4, activation="dyrelu"))
    evaluate_both(sparse, dense, batch(images, 8)[0])


@pytest.mark.parametrize("images", [6, EVALUATION_BATCH])
def test_a_step_may_follow_an_evaluation_with_new_masks(images):
    """Evaluations run in inference mode, and may be the first to need memory."""
    sparse, dense = both_engines(network(width=4))
    evaluate_both(sparse, dense, batch(images, 8)[0])
    agree(gradients(sparse, *batch(images, 8)), gradients(dense, *batch(images, 8)))
    agree(gradients(sparse, *batch(6, 8)), gradients(dense, *batch(6, 8)))


def test_an_evaluation_between_steps_changes_nothing():
    found = []
    for interrupted in (False, True):
        sparse = sparse_engine(network(activation="dyrelu"))
        gradients(sparse, *batch())
        if interrupted:
            sparse.model.eval()
            sparse(batch(10)[0])
            sparse.model.train()
        found.append(gradients(sparse, *batch(number=1), dense=True))
    assert all(torch.equal(found[1][name], tensor) for name, tensor in found[0].items())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_may_be_channels_last_or_part_of_a_larger_tensor(layout):
    sparse, dense = both_engines(network())
    images, labels = batch(12)
    part = images.to(memory_format=layout)[::2]
    agree(gradients(sparse, part, labels[::2]), gradients(dense, part, labels[::2]))


@pytest.mark.parametrize("densities", [(0.001, 0.3), (0.3, 0.001), (0.02, 1.0), (1.0, 0.02)])
def test_after_a_change_of_the_masks_all_follows_them(densities):
    sparse, dense = both_engines(network(density=densities[0], sharing_ratio=2))
    for number, density in enumerate(densities):
        for engine in (sparse, dense):
            draw_masks(engine.model, density, seed=number)
            with torch.no_grad():
                for name, layer in masked_layers(engine.model).items():  # weights that have grown
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator(0, name)) * layer.mask)
            for weights in engine.active.values():
                weights.read()
            engine.masks_changed()
        inputs = batch(number=number)
        agree(gradients(sparse, *inputs, dense=True), gradients(dense, *inputs, dense=True), 1e-8)


def test_weights_that_are_loaded_are_used():
    """Checkpoints are loaded into the network that an engine holds; and the optimizer writes new values."""
    model = network(activation="dyrelu", sharing_ratio=2)
    sparse = sparse_engine(model)
    gradients(sparse, *batch())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    for weights in sparse.active.values():
        weights.read()
    dense = dense_engine(copy.deepcopy(model))
    agree(gradients(sparse, *batch()), gradients(dense, *batch()))


def test_a_dyrelu_that_retires_while_training_equals_the_dense_engine():
    sparse, dense = both_engines(network(activation="dyrelu", sharing_ratio=2))
    for beta in (1.0, 0.5, 0.0):
        for engine in (dense, sparse):
            set_beta(engine.model, beta)
            if beta == 0:
                retire_dyrelu(engine.model)
        agree(gradients(sparse, *batch(), signs=signs_for(sparse)), gradients(dense, *batch(), signs=signs_for(sparse)))
        evaluate_both(sparse, dense, batch()[0])


@pytest.mark.parametrize("choose", [executing("fused"), executing("rows")], ids=["fused", "rows"])
@pytest.mark.parametrize("keys", NETWORKS.values(), ids=NETWORKS)
def test_no_bit_of_a_step_depends_on_the_number_of_threads(keys, choose):
    """Dense gradients and sketches included."""
    on_threads(lambda: everything(keys, choose, {"signs": True, "dense": True}))


def test_no_bit_of_a_step_depends_on_the_memory_that_was_used_before():
    """Steps and evaluations of other sizes, with other masks, leave anything in it."""
    keys, request = {"activation": "dyrelu", "sharing_ratio": 2}, {"signs": True, "dense": True}
    expected = everything(keys, by_nonzeros, request)
    sparse = sparse_engine(network(dtype=torch.float32, density=0.01, **keys))
    before = copy.deepcopy(sparse.model.state_dict())
    gradients(sparse, *batch(70, 16, torch.float32, 1), dense=True)
    for value in (float("nan"), 1e30):
        sparse._arena._memory.fill_(value)
        sparse.model.load_state_dict(before)
        found = gradients(sparse, *batch(37, dtype=torch.float32), dense=True, signs=signs_for(sparse))
        assert_same_bits(found, expected)


def test_an_images_logits_depend_on_no_other_image():
    """Nor on how an evaluation is divided."""
    sparse = sparse_engine(network(activation="dyrelu", dtype=torch.float32))
    sparse.model.eval()
    images = batch(EVALUATION_BATCH + 40, dtype=torch.float32)[0]
    logits = sparse(images)
    for first, count in ((0, 1), (EVALUATION_BATCH - 1, 12), (EVALUATION_BATCH, 40)):
        assert torch.equal(sparse(images[first : first + count]), logits[first : first + count])


def test_any_other_criterion_is_differentiated_by_pytorch():
    images, labels = batch(37)
    found = []
    for criterion in (CrossEntropy(labels), lambda logits: F.cross_entropy(logits, labels)):
        sparse = sparse_engine(network())
        loss = sparse.gradients(images, criterion, GradientRequest()).loss
        found.append({"loss": loss, **{name: weights.gradient for name, weights in sparse.active.items()}})
    agree(*found, tolerance=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("activation", ["relu", "dyrelu"])
def test_an_image_that_is_no_number_gives_a_loss_that_is_none(value, activation):
    sparse = sparse_engine(network(density=0.2, activation=activation, dtype=torch.float32))
    images, labels = batch(dtype=torch.float32)
    images[2, :, 5, 5] = value
    assert not gradients(sparse, images, labels)["loss"].isfinite()


@pytest.mark.parametrize("layer", ["conv1", "stages.1.0.conv1", "classifier"])
def test_weights_that_are_infinite_give_a_loss_that_is_no_number(layer):
    sparse = sparse_engine(network(density=0.2, dtype=torch.float32))
    sparse.active[layer].values.fill_(float("inf"))
    assert not gradients(sparse, *batch(dtype=torch.float32))["loss"].isfinite()


def test_another_kind_of_network_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    sparse = sparse_engine(model)
    with pytest.raises(EastError, match="not a Sequential; use engine: dense"):
        sparse(batch(dtype=torch.float32)[0])


def test_a_gpu_is_refused():
    with pytest.raises(EastError, match="runs on the CPU, not on cuda"):
        CpuEngine(network(), {}, device=torch.device("cuda"), choose=by_nonzeros)


def test_a_network_with_dct_layers_is_refused():
    """Their dense part would be left out."""
    with pytest.raises(EastError, match="does not execute DCT layers, which are dense; use engine: auto or dense"):
        sparse_engine(network(dct=True))


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (torch.zeros(2, 3, 8, 8), "float32, but the network is torch.float64"),
        (torch.zeros(0, 3, 8, 8).double(), "N at least 1"),
    ],
)
def test_images_that_kernels_would_read_out_of_bounds_are_refused(images, problem):
    with pytest.raises(EastError, match=problem):
        sparse_engine(network()).gradients(images, torch.Tensor.sum, GradientRequest())


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_are_no_class_are_refused(label):
    images, labels = batch()
    labels[2] = label
    with pytest.raises(EastError, match=f"labels must be from 0 to 9, not .*{label}"):
        gradients(sparse_engine(network()), images, labels)


def test_it_says_how_layers_are_executed():
    sparse = sparse_engine(network(), mixed)
    gradients(sparse, *batch())
    layers = len(sparse.active)
    executions = sparse.executed().executions
    assert sum(executions.values()) == layers
    assert abs(executions["rows"] - layers / 2) <= 1


def test_training_on_one_number_a_channel_is_refused():
    sparse = sparse_engine(network())
    one = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(EastError, match="a batch of 2 or more"):
        sparse.gradients(one, torch.Tensor.sum, GradientRequest())
    sparse.model.eval()
    assert sparse(one).isfinite().all()


def test_gradients_in_evaluation_are_refused():
    sparse = sparse_engine(network())
    sparse.model.eval()
    with pytest.raises(EastError, match="training mode only"):
        gradients(sparse, *batch())
