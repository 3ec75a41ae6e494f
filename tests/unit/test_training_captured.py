"""Steps that are recorded once and repeated: the same to the last bit as steps that are executed one by one."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from east.config.run import ClipSpec
from east.data.batches import TensorBatches
from east.engine.dense import CompiledNetwork, DenseEngine
from east.errors import EastError
from east.models.described import Parts
from east.models.dyrelu import dyrelu_units, retire_dyrelu, set_beta
from east.models.networks import BASIC
from east.seeding import torch_generator as generator
from east.sparse.active import active_weights
from east.sparse.layers import masked_layers
from east.sparse.masks import initialise_masks
from east.training import assembly, captured, run
from east.training.captured import STEPS, CapturedStep, CudaGraphs, choose_step
from east.training.clip import GradientClip
from east.training.step import EpochSums, TrainingStep
from tests.unit.optimizers import Adam, Sgd
from tests.unit.recorders import Tapes
from tests.unit.residual_networks import residual_network
from tests.unit.test_training_loop import Interrupted, changed, interrupt_at, results, rows

pytestmark = pytest.mark.usefixtures("one_thread")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
EPOCH = 5
"""Steps of an epoch, whose last batch is smaller."""

DENSITIES = {3: 0.12, 8: 0.05, 13: 0.6}
"""Updates of the masks: after these steps, to these densities. The last one is more than there is room for."""

SKETCH = ClipSpec(norm=0.5, scope="dense")


def batch(number):
    draw = generator(0, "batch", number)
    size = 4 if number % EPOCH == 0 else 6
    return torch.randn(size, 3, 8, 8, generator=draw), torch.randint(10, (size,), generator=draw)


class Training:
    """A few epochs of a small network.

    Args:
        recorder: records its steps; None executes them one by one.
        capacity: room for active weights, as a share of the weights; None for vectors that fit.
        betas: of each epoch, for a network with DyReLU, which is retired at 0.
        compiled: compile the network.
    """

    def __init__(
        self, recorder=None, *, capacity=0.2, clip=SKETCH, adam=False, betas=None, device=CPU, compiled=False, dct=False
    ):
        self.betas, self.device = betas, device
        self.model = self.network(dct=dct, dyrelu=betas is not None).to(device)
        self.layers = masked_layers(self.model)
        capacities = (
            {name: int(capacity * layer.weight.numel()) for name, layer in self.layers.items()} if capacity else None
        )
        self.active = active_weights(self.layers, capacities)
        self.engine = DenseEngine(self.model, self.active, numerics="fp32", device=device, compiled=compiled)
        arithmetic, parameters = self.engine.arithmetic, self.model.parameters()
        self.optimizer = (
            Adam(parameters, self.active, arithmetic=arithmetic, weight_decay=1e-3)
            if adam
            else Sgd(parameters, self.active, arithmetic=arithmetic, momentum=0.9, nesterov=True, weight_decay=1e-3)
        )
        self.clip = clip and GradientClip(clip, self.active, 1, arithmetic)
        self.step = TrainingStep(self.engine, self.optimizer, self.active, self.clip)
        if recorder is not None:
            self.step = CapturedStep(self.step, recorder, device)
        self.sums = EpochSums.begin(device)

    @staticmethod
    def network(dct, dyrelu):
        torch.manual_seed(0)
        model = residual_network(BASIC, (1, 1, 1, 1), 10, width=4, parts=Parts(dct=dct, dyrelu=dyrelu))
        layers = masked_layers(model)
        initialise_masks(layers, {name: layer.weight.numel() // 10 for name, layer in layers.items()}, seed=1)
        return model

    def run(self, numbers, densities=DENSITIES):
        for number in numbers:
            epoch = (number - 1) // EPOCH
            if self.betas is not None:
                self.set_beta(self.betas[epoch])
            images, labels = (part.to(self.device) for part in batch(number))
            loss, correct = self.step(images, labels, 0.1 / 2**epoch, number, dense_gradients=number in densities)
            self.sums.add(loss, correct, len(labels))
            if number in densities:
                self.change_masks(densities[number])
        return self

    def set_beta(self, beta):
        set_beta(self.model, beta)
        if beta == 0 and dyrelu_units(self.model):
            self.optimizer.remove(retire_dyrelu(self.model))
            self.step.phase_changed()

    def change_masks(self, density):
        """By the gradient, which therefore has to be there."""
        for layer in self.layers.values():
            score = (layer.weight + layer.weight.grad).abs().flatten()
            kept = score.topk(int(density * len(score))).indices
            layer.mask.copy_(torch.zeros_like(score, dtype=torch.bool).index_fill_(0, kept, True).view_as(layer.mask))
        self.step.masks_changed()

    def state(self):
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        state |= {f"{i} {slot}": v for i, s in enumerate(self.optimizer.state_dict()) for slot, v in s.items()}
        state |= {} if self.clip is None else self.clip.state_dict()
        return state | {"loss": self.sums.loss, "correct": self.sums.correct}


def check_equal(one, other):
    found, expected = one.state(), other.state()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


CASES = {
    "sketch": {},
    "exact": {"clip": ClipSpec(norm=0.5, scope="dense", estimator="exact")},
    "active weights": {"clip": ClipSpec(norm=0.5, scope="active")},
    "every other step": {"clip": ClipSpec(norm=0.5, scope="dense", every=2)},
    "no clip": {"clip": None},
    "adam": {"adam": True},
    "DyReLU that retires": {"betas": [1.0, 0.5, 0.25, 0.0]},
    "DCT": {"dct": True},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_recorded_steps_are_eager_ones_to_the_last_bit(case):
    """Over updates of the masks, two of which fit, of the learning rate and of β, and smaller last batches."""
    numbers = range(1, 4 * EPOCH + 1)
    check_equal(Training(Tapes(), **case).run(numbers), Training(**case).run(numbers))


def test_no_step_is_recorded_again_when_masks_density_learning_rate_or_beta_change():
    training = Training(recorder := Tapes(), betas=[1.0, 0.5, 0.25, 0.125])
    training.run(range(1, 2 * EPOCH + 1), {3: 0.12, 8: 0.05})
    assert len(recorder.tapes) == training.step.recorded == 2  # of the full and of the last batch
    training.run(range(2 * EPOCH + 1, 4 * EPOCH + 1), {12: 0.15, 17: 0.02})
    assert len(recorder.tapes) == recorder.warmed == 2


def test_steps_are_recorded_again_when_parameters_leave_the_network():
    training = Training(recorder := Tapes(), betas=[1.0, 1.0, 0.0, 0.0]).run(range(1, 2 * EPOCH + 1), {})
    assert len(recorder.tapes) == 2
    training.run(range(2 * EPOCH + 1, 4 * EPOCH + 1), {})
    assert len(recorder.tapes) == 4


def test_steps_are_recorded_again_when_there_is_no_room_for_the_active_weights():
    training = Training(recorder := Tapes()).run(range(1, 2 * EPOCH + 1), {})
    assert len(recorder.tapes) == 2
    training.run(range(2 * EPOCH + 1, 4 * EPOCH + 1), {11: 0.6, 13: 0.7})
    assert len(recorder.tapes) == 4


def test_steps_are_recorded_again_when_the_engine_executes_them_in_another_way():
    training = Training(recorder := Tapes()).run(range(1, 4), {})
    training.engine.signature = lambda images: "another"
    training.run(range(6, 9), {})
    assert (recorder.warmed, len(recorder.tapes)) == (2, 2)


def test_there_is_one_recording_more_where_the_clip_does_not_measure():
    training = Training(recorder := Tapes(), clip=ClipSpec(norm=0.5, scope="dense", every=2))
    training.run(range(1, 4 * EPOCH + 1), {})
    assert len(recorder.tapes) == 4


@pytest.mark.parametrize("last", [4, 7, 10])
def test_a_training_goes_on_from_its_state_as_if_it_had_not_been_cut(last):
    numbers = range(1, 4 * EPOCH + 1)
    whole = Training(Tapes()).run(numbers)
    first = Training(Tapes()).run(range(1, last + 1))
    state = first.model.state_dict(), first.optimizer.state_dict(), first.clip.state_dict(), first.sums.state_dict()
    second = Training(Tapes())
    second.model.load_state_dict(state[0])
    second.optimizer.masks_changed()
    second.optimizer.load_state_dict(state[1])
    second.clip.load_state_dict(state[2])
    second.sums = EpochSums.load(state[3], CPU)
    check_equal(second.run(range(last + 1, numbers.stop)), whole)


class NoRecorder(Tapes):
    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


def test_steps_that_cannot_be_recorded_are_executed_as_usual(capsys):
    numbers = range(1, 2 * EPOCH + 1)
    check_equal(Training(NoRecorder()).run(numbers), Training().run(numbers))
    assert capsys.readouterr().err == (
        "warning: step captured falls back to eager: operation not permitted when stream is capturing\n"
    )


def test_only_a_gpu_has_more_than_eager_steps(capsys):
    assert choose_step("auto", CPU) == choose_step("eager", CPU) == "eager"
    assert capsys.readouterr().err == ""
    assert choose_step("compiled", CPU) == "eager"
    assert "step compiled needs a GPU" in capsys.readouterr().err
    assert [choose_step(name, CUDA) for name in STEPS] == ["compiled", "eager", "captured", "compiled"]
    assert capsys.readouterr().err == ""


class FakeCuda:
    """Stands for `torch.cuda`, and writes down what is asked of it."""

    def __init__(self):
        self.said = []
        self.current = self.Stream("current")

    def Stream(self, device):
        return SimpleNamespace(
            name=device, wait_stream=lambda other: self.said.append((device, "waits for", other.name))
        )

    def current_stream(self, device):
        return self.current

    @contextmanager
    def stream(self, stream):
        self.said.append(("on", stream.name))
        yield
        self.said.append(("off", stream.name))

    def CUDAGraph(self):
        self.last = Graph(self.said)  # somebody holds it
        return self.last

    @contextmanager
    def graph(self, graph, **settings):
        self.said.append(("records", settings["pool"], settings["stream"].name, settings["capture_error_mode"]))
        yield


class Graph:
    def __init__(self, said):
        self.said = said

    def pool(self):
        return "pool"

    def replay(self):
        self.said.append("replay")


def test_work_is_recorded_on_a_stream_of_its_own_in_memory_that_all_recordings_share(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(captured.torch, "cuda", fake)
    graphs = CudaGraphs("own")
    graphs.warm_up(lambda: fake.said.append("work"))
    assert fake.said == [
        ("own", "waits for", "current"),
        ("on", "own"),
        "work",
        ("off", "own"),
        ("current", "waits for", "own"),
    ]
    for pool in (None, "pool"):
        fake.said.clear()
        repeat = graphs.record(lambda: fake.said.append("work"))
        repeat()
        assert fake.said == [
            ("on", "current"),
            ("records", pool, "own", "thread_local"),
            "work",
            ("off", "current"),
            "replay",
        ]


@pytest.mark.parametrize(("kind", "is_recorded"), [("eager", False), ("captured", True), ("compiled", True)])
def test_a_step_is_recorded_unless_it_is_eager(monkeypatch, kind, is_recorded):
    monkeypatch.setattr(captured, "CudaGraphs", lambda device: Tapes())
    parts = Training()
    step = captured.make_step(kind, parts.engine, parts.optimizer, parts.active, parts.clip, CPU)
    assert isinstance(step, CapturedStep) == is_recorded
    other = Training()
    for number in (1, 2, 3, 4):
        for one in (step, other.step):
            one(*batch(number), 0.1, number, dense_gradients=False)
    assert all(torch.equal(a, b) for a, b in zip(parts.model.parameters(), other.model.parameters(), strict=True))


def test_what_a_step_keeps_is_where_it_is_executed():
    plain = Training()
    with torch.device("meta"):
        step = CapturedStep(plain.step, Tapes(), CPU)
        GradientClip(SKETCH, plain.active, 1, plain.engine.arithmetic).request(1, dense=False)
        sums = EpochSums.begin(CPU)
    kept = [value for value in vars(step).values() if isinstance(value, torch.Tensor)]
    assert [value.dtype for value in kept] == [torch.float64, torch.float64, torch.int64]
    assert {value.device for value in (*kept, sums.loss, sums.correct)} == {CPU}
    assert CapturedStep(plain.step, Tapes(), torch.device("meta"))._lr.dtype == torch.float64


def test_an_unknown_step_is_refused():
    with pytest.raises(EastError, match="there is no step 'fast'"):
        choose_step("fast", CPU)


@pytest.mark.slow
def test_compiled_steps_are_eager_ones_up_to_rounding_and_compiled_once():
    """Over updates of the masks, of the learning rate and of β; for each phase of DyReLU."""
    # Not at the top: PyTorch's compiler takes seconds to import, and no other test here needs it.
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    numbers = [number for number in range(1, 3 * EPOCH) if number % EPOCH]  # without the smaller last batches
    training, counter = Training(betas=[1.0, 0.5, 0.0]), CompileCounterWithBackend("aot_eager")
    training.engine._training = CompiledNetwork(training.model, counter)
    found, expected = training.run(numbers).state(), Training(betas=training.betas).run(numbers).state()
    assert counter.frame_count == 2
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.slow
def test_a_run_of_recorded_steps_leaves_the_files_of_an_eager_one_even_if_it_is_cut(
    tmp_path, tiny_spec, data_dir, monkeypatch
):
    phasing = {"start": 1.0, "end": 3.0, "freeze": True}
    spec = changed(tiny_spec, model={"activation": "dyrelu"}, phasing=phasing)
    resources = run.Resources(device="cpu", engine="dense", threads=1, data_dir=data_dir)
    expected = run.train(spec, tmp_path / "eager", resources)
    recorders = []

    def make_step(kind, *parts):
        recorders.append(Tapes())
        *parts, device = parts
        return CapturedStep(TrainingStep(*parts), recorders[-1], device)

    def make_active(layers, capacities):
        return active_weights(layers, {name: layer.weight.numel() // 3 for name, layer in layers.items()})

    monkeypatch.setattr(assembly, "make_step", make_step)
    monkeypatch.setattr(assembly, "active_weights", make_active)
    for last in (1, 3):
        with pytest.raises(Interrupted):
            run.train(spec, tmp_path / "recorded", resources, interrupt_at(last))
    found = run.train(spec, tmp_path / "recorded", resources)
    assert (found.attempts, found.nonzeros) == (3, expected.nonzeros)
    assert len(rows(tmp_path / "recorded" / "updates.csv")) > 3
    assert sum(len(recorder.tapes) for recorder in recorders) >= 2
    assert results(tmp_path / "recorded") == results(tmp_path / "eager")


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_gpu
@pytest.mark.parametrize("compiled", [False, True], ids=["captured", "compiled"])
@pytest.mark.parametrize(
    "case", [CASES["sketch"], CASES["adam"], CASES["DyReLU that retires"]], ids=["sgd", "adam", "DyReLU"]
)
def test_cuda_graphs_do_what_eager_steps_do(case, compiled):
    numbers = range(1, 4 * EPOCH + 1)
    graphs = Training(CudaGraphs(CUDA), device=CUDA, compiled=compiled, **case)
    found, expected = graphs.run(numbers).state(), Training(device=CUDA, **case).run(numbers).state()
    assert graphs.step.recorded >= 2
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-3, msg=name)


@needs_gpu
@pytest.mark.parametrize("compiled", [False, True], ids=["captured", "compiled"])
def test_no_step_waits_for_the_gpu(compiled):
    images, labels = torch.randint(256, (26, 3, 8, 8), dtype=torch.uint8), torch.randint(10, (26,))
    batches = TensorBatches(
        images,
        labels,
        device=CUDA,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        batch_size=6,
        margin=1,
        padding="zero",
        flip=True,
        seed=1,
    )
    training = Training(CudaGraphs(CUDA), device=CUDA, compiled=compiled)

    def epoch(number):
        for place, (images, labels) in enumerate(batches.epoch(number), start=1):
            loss, correct = training.step(images, labels, 0.1 / number, EPOCH * number + place, dense_gradients=False)
            training.sums.add(loss, correct, len(labels))

    epoch(0)
    epoch(1)
    training.change_masks(0.15)
    recorded = training.step.recorded
    torch.cuda.set_sync_debug_mode("error")
    try:
        epoch(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert training.step.recorded == recorded == 2
    assert training.sums.images == 3 * 26


@needs_gpu
@pytest.mark.slow
@pytest.mark.parametrize("step", ["eager", "captured", "compiled"])
def test_a_run_on_a_gpu_that_is_cut_goes_on(tmp_path, tiny_spec, data_dir, step):
    resources = run.Resources(device="cuda", engine="dense", data_dir=data_dir, step=step)
    with pytest.raises(Interrupted):
        run.train(tiny_spec, tmp_path, resources, interrupt_at(2))
    summary = run.train(tiny_spec, tmp_path, resources)
    assert (summary.status, summary.attempts) == ("finished", 2)
    assert summary.final_test_accuracy > 20
