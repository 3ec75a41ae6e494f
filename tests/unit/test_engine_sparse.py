"""Whole networks under both sparse engines: against the dense one in double precision, on a CPU bit against bit."""

import copy
import ctypes
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from east.engine import CrossEntropy, GradientRequest
from east.engine.cpu import bindings
from east.engine.cpu.cost import cheapest
from east.engine.cpu.engine import CpuEngine
from east.engine.cpu.storage import PlaneBuffer
from east.engine.graph.network import network_of
from east.errors import EastError
from east.models.dyrelu import retire_dyrelu, set_beta
from east.sparse.layers import apply_masks, masked_layers
from tests.unit.planes import assert_same_bits, on_threads
from tests.unit.sparse_engines import (
    ON_CPU,
    ON_GPU,
    agree,
    change_masks,
    evaluate_both,
    executing,
    gradients,
    signs_for,
    without_statistics,
)

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = (ON_CPU, ON_GPU)
NETWORKS = [pytest.param(kind, keys, id=f"{kind}-{name}") for kind in KINDS for name, keys in kind.networks.items()]


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return request.param


def dyrelu_of(kind):
    """The keys of a network with DyReLU."""
    return kind.networks["DyReLU"]


# Both engines


@pytest.mark.parametrize(("kind", "keys"), NETWORKS)
def test_every_network_equals_the_dense_engine(kind, keys):
    kind.check(kind.network(**keys), size=9 if "max_pool" in keys else None)


@pytest.mark.slow
def test_a_larger_network_on_a_gpu_equals_the_dense_engine():
    ON_GPU.check(ON_GPU.network(**{**ON_GPU.networks["combined"], "width": 4}), size=6)


@pytest.mark.parametrize(
    ("kind", "choose", "keys"),
    [
        *(
            (ON_CPU, choose, keys)
            for choose in ON_CPU.executions
            for keys in ({"name": "resnet50"}, {"activation": "dyrelu", "sharing_ratio": 3})
        ),
        *((ON_GPU, "mixed", keys) for keys in ({}, {"dyrelu": True, "blocks": (2,), "sharing_ratio": 1})),
    ],
    ids=str,
)
def test_every_execution_equals_the_dense_engine(kind, choose, keys):
    """Each unit reads what another kind of execution has written, and sends its gradient to another kind."""
    kind.check(kind.network(**keys), kind.executions[choose])


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        *((ON_CPU, {"width": 16, "density": density}) for density in (0.0005, 0.001, 0.005)),
        (ON_GPU, {"width": 4, "density": 0.04}),
    ],
    ids=str,
)
def test_few_nonzeros_equal_the_dense_engine(kind, keys):
    """Many channels have no non-zero, and many are read by none."""
    kind.check(kind.network(**keys))


@pytest.mark.parametrize(
    ("kind", "width", "execution"), [(ON_CPU, 4, "fused"), (ON_CPU, 4, "rows"), (ON_GPU, 1, "fused")], ids=str
)
def test_all_weights_active_equal_the_dense_engine(kind, width, execution):
    kind.check(kind.network(density=1.0, width=width), executing(execution))


@pytest.mark.parametrize(
    ("kind", "execution", "off"),
    [
        *(
            (ON_CPU, execution, (off,))
            for execution in ("fused", "rows")
            for off in ("conv1", "stages.0.1.conv1", "stages.1.0.conv2", "stages.2.0.shortcut.0", "classifier")
        ),
        (ON_GPU, "fused", ("conv1",)),
        (ON_GPU, "fused", ("stages.0.0.conv1", "stages.1.0.shortcut.0")),
        (ON_GPU, "fused", ("stages.1.0.conv2", "classifier")),
    ],
    ids=str,
)
def test_layers_without_nonzeros_equal_the_dense_engine(kind, execution, off):
    model = kind.network(density=0.1, **({"blocks": (1, 1)} if kind is ON_GPU else {}))
    layers = {name: masked_layers(model)[name] for name in off}
    for layer in layers.values():
        layer.mask.zero_()
    apply_masks(layers)
    kind.check(model, executing(execution))


def test_single_precision_agrees_with_double(kind):
    single = gradients(kind.sparse(kind.network(dtype=torch.float32)), *kind.batch(dtype=torch.float32))
    double = gradients(kind.dense(kind.network()), *kind.batch())
    agree({name: tensor.double() for name, tensor in single.items()}, double, 1e-3)
    agree({"logits": single["logits"].double()}, {"logits": double["logits"]}, 1e-5)


def test_dense_gradients_are_there_in_the_step_that_asks_for_them_alone(kind):
    sparse = kind.sparse(kind.network())
    for dense in (False, True, False):
        gradients(sparse, *kind.batch(), dense=dense)
        for weights in sparse.active.values():
            assert (weights.layer.weight.grad is not None) == dense


def test_a_request_for_more_does_not_change_the_rest(kind):
    """Channels without non-zeros or readers are left out unless gradients of off weights count."""
    sparse, dense = kind.both(kind.network(density=kind.density / 2))
    plain = gradients(sparse, *kind.batch())
    agree(plain, gradients(dense, *kind.batch()))
    for request in ({"dense": True}, {"signs": signs_for(sparse)}):
        more = gradients(sparse, *kind.batch(), **request)
        agree({name: more[name] for name in without_statistics(plain)}, without_statistics(plain))


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(ON_CPU, [(6, 16), (3, 16), (6, 16), (9, 16), (2, 20), (6, 16)]), (ON_GPU, [(3, 4), (5, 4)])],
    ids=str,
)
def test_batches_of_any_size_equal_the_dense_engine(kind, sizes):
    sparse, dense = kind.both(kind.network())
    for number, (images, size) in enumerate(sizes):
        inputs = kind.batch(images, size, number=number)
        agree(gradients(sparse, *inputs), gradients(dense, *inputs))
    evaluate_both(sparse, dense, kind.batch(images + 4, size)[0])


@pytest.mark.parametrize(
    ("kind", "images", "size"),
    [
        *((ON_CPU, images, 8) for images in (1, ON_CPU.evaluation, ON_CPU.evaluation + 3)),
        (ON_GPU, ON_GPU.evaluation + 3, 2),
    ],
    ids=str,
)
def test_a_step_may_follow_an_evaluation_with_new_masks(kind, images, size):
    """Evaluations run in inference mode, and may be the first to need memory."""
    sparse, dense = kind.both(kind.network(**{**dyrelu_of(kind), "width": 4 if kind is ON_CPU else 1}))
    evaluate_both(sparse, dense, kind.batch(images, size)[0])
    agree(gradients(sparse, *kind.batch(5, size)), gradients(dense, *kind.batch(5, size)))


@pytest.mark.parametrize(
    ("kind", "densities", "room"),
    [
        *((ON_CPU, densities, False) for densities in [(0.001, 0.3), (0.3, 0.001), (0.02, 1.0), (1.0, 0.02)]),
        *((ON_GPU, (0.3, 0.05), room) for room in (False, True)),
    ],
    ids=str,
)
def test_after_a_change_of_the_masks_all_follows_them(kind, densities, room):
    """With memory for as many weights as there are, or for more."""
    model = kind.network(**kind.networks["sharing"])
    capacities = {name: layer.weight.numel() // 2 for name, layer in masked_layers(model).items()} if room else None
    sparse, dense = kind.both(model, capacities=capacities)
    for number, density in enumerate(densities):
        for engine in (sparse, dense):
            change_masks(engine, density, seed=number)
        inputs = kind.batch(number=number)
        agree(gradients(sparse, *inputs, dense=True), gradients(dense, *inputs, dense=True), 1e-8)


def test_weights_that_are_loaded_are_used(kind):
    """Checkpoints are loaded into the network that an engine holds; and the optimizer writes new values."""
    sparse, dense = kind.both(kind.network(**kind.networks["sharing"]))
    gradients(sparse, *kind.batch())
    with torch.no_grad():
        for engine in (sparse, dense):
            for parameter in engine.model.parameters():
                parameter.mul_(1.1)
            for weights in engine.active.values():
                weights.read()
    agree(*(without_statistics(gradients(engine, *kind.batch())) for engine in (sparse, dense)))


def test_a_dyrelu_that_fades_and_retires_while_training_equals_the_dense_engine(kind):
    sparse, dense = kind.both(kind.network(**dyrelu_of(kind)))
    for beta in (1.0, 0.5, 0.0):
        for engine in (dense, sparse):
            set_beta(engine.model, beta)
            if beta == 0:
                retire_dyrelu(engine.model)
        agree(gradients(sparse, *kind.batch()), gradients(dense, *kind.batch()))
    evaluate_both(sparse, dense, kind.batch()[0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_may_be_channels_last_or_part_of_a_larger_tensor(layout, kind):
    sparse, dense = kind.both(kind.network())
    images, labels = kind.batch(8)
    part = images.to(memory_format=layout)[::2]
    agree(gradients(sparse, part, labels[::2]), gradients(dense, part, labels[::2]))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("activation", ["retired DyReLU", "DyReLU"])
def test_an_image_that_is_not_a_number_gives_a_loss_that_is_none(value, activation, kind):
    sparse = kind.sparse(kind.network(density=0.5, dtype=torch.float32, **kind.networks[activation]))
    images, labels = kind.batch(dtype=torch.float32)
    images[1, :, 3, 3] = value
    assert not gradients(sparse, images, labels)["loss"].isfinite()


def test_another_kind_of_network_is_refused(kind):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).to(kind.device)
    with pytest.raises(EastError, match="not a Sequential; use engine: dense"):
        kind.sparse(model)(kind.batch(dtype=torch.float32)[0])


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (torch.zeros(2, 3, 8, 8), "float32, but the network is torch.float64"),
        (torch.zeros(0, 3, 8, 8).double(), "N at least 1"),
    ],
)
def test_images_that_kernels_would_read_out_of_bounds_are_refused(images, problem, kind):
    with pytest.raises(EastError, match=problem):
        kind.sparse(kind.network()).gradients(images.to(kind.device), torch.Tensor.sum, GradientRequest())


def test_training_on_one_number_a_channel_is_refused(kind):
    sparse = kind.sparse(kind.network())
    one = torch.zeros(1, 3, 8 if kind is ON_CPU else 1, 8 if kind is ON_CPU else 1, dtype=torch.float64).to(kind.device)
    with pytest.raises(EastError, match="a batch of 2 or more"):
        sparse.gradients(one, torch.Tensor.sum, GradientRequest())
    sparse.model.eval()
    assert sparse(one).isfinite().all()


def test_gradients_in_evaluation_are_refused(kind):
    sparse = kind.sparse(kind.network())
    sparse.model.eval()
    with pytest.raises(EastError, match="training mode only"):
        gradients(sparse, *kind.batch())


# The CPU's alone: the same bits, however it is executed


def everything(keys, choose, request, images=37):
    """A step in single precision, of networks in which many channels have no reader or no non-zero."""
    sparse = ON_CPU.sparse(ON_CPU.network(dtype=torch.float32, density=0.01, **keys), choose)
    signs = signs_for(sparse) if request["signs"] else None
    return gradients(sparse, *ON_CPU.batch(images, dtype=torch.float32), dense=request["dense"], signs=signs)


@pytest.mark.parametrize("everything_asked", [False, True])
@pytest.mark.parametrize("keys", ON_CPU.networks.values(), ids=ON_CPU.networks)
def test_no_bit_of_a_step_depends_on_the_execution(keys, everything_asked):
    request = dict.fromkeys(("signs", "dense"), everything_asked)
    found = [everything(keys, choose, request) for choose in ON_CPU.executions.values()]
    for other in found[1:]:
        assert_same_bits(other, found[0])


@pytest.mark.parametrize("keys", ON_CPU.networks.values(), ids=ON_CPU.networks)
def test_no_bit_of_a_step_depends_on_the_number_of_threads(keys):
    """Dense gradients and sketches included."""
    on_threads(lambda: everything(keys, ON_CPU.executions["mixed"], {"signs": True, "dense": True}))


@pytest.mark.parametrize("keys", [{"activation": "dyrelu", "sharing_ratio": 2}, {"name": "resnet50"}], ids=str)
@pytest.mark.parametrize("everything_asked", [False, True])
@pytest.mark.parametrize("choose", ["fused", "rows"])
def test_no_bit_of_a_step_depends_on_the_memory_that_was_used_before(choose, everything_asked, keys):
    """Steps and evaluations of other sizes, with other masks, leave anything in it."""
    choose, request = executing(choose), dict.fromkeys(("signs", "dense"), everything_asked)
    expected = everything(keys, choose, request)
    sparse = ON_CPU.sparse(ON_CPU.network(dtype=torch.float32, density=0.01, **keys), choose)
    before = copy.deepcopy(sparse.model.state_dict())
    gradients(sparse, *ON_CPU.batch(70, 16, torch.float32, 1), dense=True)
    for value in (float("nan"), 1e30):
        sparse._arena._memory.fill_(value)
        sparse.model.load_state_dict(before)
        signs = signs_for(sparse) if everything_asked else None
        found = gradients(sparse, *ON_CPU.batch(37, dtype=torch.float32), dense=everything_asked, signs=signs)
        assert_same_bits(found, expected)


@pytest.mark.parametrize("execution", ["fused", "rows"])
def test_control_registers_that_other_libraries_have_set_change_nothing(execution):
    """Denormal numbers are kept in every thread, and the caller finds its own setting again."""
    model = ON_CPU.network(dtype=torch.float32)
    images, labels = ON_CPU.batch(37, dtype=torch.float32)
    images *= 1e-38

    def step():
        return gradients(ON_CPU.sparse(copy.deepcopy(model), executing(execution)), images, labels)

    expected = on_threads(step, (1, 2))
    assert 0 < expected["bn1.running_mean"].abs().max() < 1e-38
    assert torch.set_flush_denormal(True)
    try:
        found = on_threads(step, (1, 2))
        assert (torch.tensor([1e-40]) * 0.5).item() == 0
    finally:
        torch.set_flush_denormal(False)
    assert_same_bits(found, expected)


def test_an_images_logits_depend_on_no_other_image():
    """Nor on how an evaluation is divided."""
    sparse, most = ON_CPU.sparse(ON_CPU.network(activation="dyrelu", dtype=torch.float32)), ON_CPU.evaluation
    sparse.model.eval()
    images = ON_CPU.batch(most + 40, dtype=torch.float32)[0]
    logits = sparse(images)
    for first, count in ((0, 1), (most - 1, 12), (most, 40)):
        assert torch.equal(sparse(images[first : first + count]), logits[first : first + count])


def test_any_other_criterion_is_differentiated_by_pytorch():
    images, labels = ON_CPU.batch(37)
    found = []
    for criterion in (CrossEntropy(labels), lambda logits: F.cross_entropy(logits, labels)):
        sparse = ON_CPU.sparse(ON_CPU.network())
        loss = sparse.gradients(images, criterion, GradientRequest()).loss
        found.append({"loss": loss, **{name: weights.gradient for name, weights in sparse.active.items()}})
    agree(*found, tolerance=1e-12)


@pytest.mark.parametrize("layer", ["conv1", "stages.1.0.conv1", "classifier"])
def test_weights_that_are_infinite_give_a_loss_that_is_not_a_number(layer):
    sparse = ON_CPU.sparse(ON_CPU.network(density=0.2, dtype=torch.float32))
    sparse.active[layer].values.fill_(float("inf"))
    assert not gradients(sparse, *ON_CPU.batch(dtype=torch.float32))["loss"].isfinite()


def test_a_gpu_is_refused():
    with pytest.raises(EastError, match="runs on the CPU, not on cuda"):
        CpuEngine(ON_CPU.network(), {}, device=torch.device("cuda"), choose=cheapest)


def test_a_network_with_dct_layers_is_refused():
    """Their dense part would be left out."""
    with pytest.raises(EastError, match="DCT layers"):
        ON_CPU.sparse(ON_CPU.network(dct=True))


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_are_no_class_are_refused(label):
    images, labels = ON_CPU.batch()
    labels[2] = label
    with pytest.raises(EastError, match=f"labels must be from 0 to 9, not .*{label}"):
        gradients(ON_CPU.sparse(ON_CPU.network()), images, labels)


def test_images_of_other_channels_than_the_network_takes_are_refused():
    with pytest.raises(EastError, match="images of 3 channels, not of 1"):
        network_of(ON_CPU.network(), (1, 16, 16))


def test_on_a_cpu_no_step_depends_on_what_is_captured():
    assert ON_CPU.sparse(ON_CPU.network()).signature(ON_CPU.batch()[0]) == ()


@pytest.mark.parametrize(("openmp", "told"), [(None, ["east_use_threads"]), ("libgomp.so", [])])
def test_kernels_without_pytorchs_threads_are_told_how_many_there_are(monkeypatch, openmp, told):
    class Library:
        def __getattr__(self, name):
            return lambda given: called.append(name) or numbers.append(given)

    called, numbers = [], []
    found = SimpleNamespace(library=Library(), toolchain=SimpleNamespace(openmp=openmp))
    monkeypatch.setattr(bindings, "load_kernels", lambda: found)
    kernels = bindings.KernelSet(torch.float32)
    kernels("dot", ctypes.c_int(7))
    assert called == [*told, f"east_{kernels.function('dot')}"]
    assert numbers[:-1] == [torch.get_num_threads()] * len(told)


def test_an_activation_that_is_not_stored_is_not_found():
    buffer = PlaneBuffer(SimpleNamespace(channels=2), None, None, torch.float32)
    with pytest.raises(RuntimeError, match="not stored"):
        _ = buffer.data
