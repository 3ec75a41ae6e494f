"""How the parts of a training are timed: what is clocked, on what, in which processes, and what is made of it."""

import json
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from east.config.run import ClipSpec
from east.cost import measure, timing
from east.cost.timing import Conditions, KindTimes, PartSeconds, Situation, Stopwatch, clock, time_kind, time_kinds
from east.errors import EastError
from east.training.assembly import Training
from east.training.hooks import Hook
from east.training.records import EpochRecord, UpdateRecord
from tests.unit.cost_specs import make_spec
from tests.unit.fake_runs import record

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONDITIONS = Conditions("cpu", "dense", threads=1, side_by_side=1, seconds=3.0)


class Clock:
    """Seconds that pass when it is told so."""

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        for module in (measure, timing):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.seconds))

    def wait(self, seconds):
        self.seconds += seconds


@dataclass(frozen=True)
class Parts:
    step: object


class FakeTraining:
    """A training of six steps an epoch whose parts take seconds by the clock: drawing a batch 1, a plain step 10."""

    def __init__(self, clock):
        self.clock, self.said, self.parts = clock, [], Parts(self)
        self.epoch, self.schedule = 0, SimpleNamespace(steps_per_epoch=6)
        self.sums = SimpleNamespace(loss=torch.zeros(()), steps=0)

    @property
    def steps_done(self):
        return 6 * self.epoch + self.sums.steps

    # Its step

    def __call__(self, images, labels, lr, number, *, dense_gradients):
        self.said.append((images, labels, lr, number, dense_gradients))
        # Two that settle, and one that dense gradients take longer; the one after a mask update takes longer as well.
        self.clock.wait({1: 500, 2: 400, 5: 14, 6: 13}.get(number, 10))
        return "loss", "correct"

    def masks_changed(self):
        self.said.append("masks changed")

    def phase_changed(self):
        self.said.append("phase changed")


class Records(Hook):
    """Takes seconds wherever it is called, and notes that it was."""

    def __init__(self, clock):
        self.clock, self.called = clock, []

    def on_begin(self, training):
        self.called.append("begin")

    def before_epoch(self, training):
        self.called.append("epoch")
        self.clock.wait(1000)

    def after_step(self, training, update):
        self.called.append(update)
        self.clock.wait(0.5)

    def after_epoch(self, training, record):
        self.called.append(record)
        self.clock.wait(3)


UPDATE, EPOCH = record(UpdateRecord), record(EpochRecord)


def train(stopwatch, training, clock, updates=(5,)):
    """One epoch, as the loop makes it."""
    stopwatch.before_epoch(training)
    for _ in range(6):
        stopwatch.before_batch(training)
        clock.wait(1 if training.sums.steps else 30)  # the first of an epoch draws the order of all images
        number = training.steps_done + 1
        assert training.parts.step("images", "labels", 0.1, number, dense_gradients=number in updates) == (
            "loss",
            "correct",
        )
        training.sums.steps += 1
        if number in updates:
            clock.wait(7)
        stopwatch.after_step(training, UPDATE if number in updates else None)
    clock.wait(20)
    stopwatch.after_epoch(training, EPOCH)
    training.epoch, training.sums.steps = training.epoch + 1, 0


def test_every_part_of_a_training_has_its_seconds(monkeypatch):
    clock = Clock(monkeypatch)
    training, records = FakeTraining(clock), Records(clock)
    stopwatch = Stopwatch(training, [records], settling=2, seconds=10_000)
    stopwatch.on_begin(training)
    for _ in range(2):
        train(stopwatch, training, clock)
    assert stopwatch.means() == {
        "step": 11,  # with the drawing of its batch
        "dense gradients": 4,
        "update": 7.5 + 3,
        "evaluation": 20,
        "save": 3 + 0.5,
    }
    assert training.said[4] == ("images", "labels", 0.1, 5, True)
    assert records.called == ["begin", *["epoch", *[None] * 4, UPDATE, None, EPOCH], "epoch", *[None] * 6, EPOCH]
    stopwatch.masks_changed()
    stopwatch.phase_changed()
    assert training.said[-2:] == ["masks changed", "phase changed"]


def test_without_updates_theirs_take_no_time(monkeypatch):
    clock = Clock(monkeypatch)
    training = FakeTraining(clock)
    stopwatch = Stopwatch(training, [], settling=2, seconds=0.0)
    train(stopwatch, training, clock, updates=())
    found = stopwatch.means()
    # The first of those that count is left out, as it takes memory: 10, 10, 14 and 13 seconds with 1 for the batch.
    assert (found["step"], found["dense gradients"], found["update"]) == (pytest.approx((11 + 15 + 14) / 3), 0, 0)


def test_an_update_that_slows_down_nothing_takes_its_own_time_alone(monkeypatch):
    clock = Clock(monkeypatch)
    training = FakeTraining(clock)
    stopwatch = Stopwatch(training, [], settling=2, seconds=0.0)
    train(stopwatch, training, clock, updates=(3,))
    found = stopwatch.means()
    # The third step and the fourth, after the update, take 11 s; plain ones, without the first of them, 14 s.
    assert (found["step"], found["dense gradients"], found["update"]) == (14, 0, 7)


@pytest.mark.parametrize(
    ("epoch", "step", "seconds", "ends"),
    [(1, 0, 10.5, True), (1, 0, 10.0, False), (1, 0, 9.5, False), (0, 0, 11.0, False), (1, 1, 11.0, False)],
)
def test_a_training_ends_between_two_epochs_once_its_time_is_over(monkeypatch, epoch, step, seconds, ends):
    clock = Clock(monkeypatch)
    training = FakeTraining(clock)
    stopwatch = Stopwatch(training, [], settling=0, seconds=10.0)
    training.epoch, training.sums.steps = epoch, step
    clock.wait(seconds)
    if ends:
        with pytest.raises(SystemExit):
            stopwatch.before_batch(training)
    else:
        stopwatch.before_batch(training)


# A kind of run


@pytest.fixture
def clocked(monkeypatch):
    """What was clocked, each time with other seconds; and what was done before, and on how many images."""
    asked, images = [], []

    def clock(begin, conditions, folder, settling, seconds):
        asked.append((begin, conditions, folder, settling, seconds))
        n = len(asked)
        parts = {"step": 1.0 * n, "dense gradients": 2.0 * n, "update": 3.0 * n, "evaluation": 5.0 * n, "save": 7.0 * n}
        return 11.0 * n, parts, 13 * (5 - n)

    def random_images(spec, device, **how):
        images.append((spec.training.batch_size, device, how))
        return "data"

    monkeypatch.setattr(timing, "clock", clock)
    monkeypatch.setattr(timing, "random_images", random_images)
    monkeypatch.setattr(timing, "choose_device", torch.device)
    monkeypatch.setattr(timing, "choose_step", lambda step, device: "captured" if device == CUDA else "eager")
    monkeypatch.setattr(timing, "prepare_costs", lambda *_: None)
    monkeypatch.setattr(timing, "keep_freed_memory", lambda: images.append("memory is kept"))
    return asked, images


SITUATIONS = [Situation(True, 0.05), *(Situation(False, density) for density in (0.02, 0.1, 0.2))]


def runs(asked):
    """Of the trainings that were clocked."""
    return [begin.args[0] for begin, *_ in asked]


def test_a_sparse_kind_is_timed_in_every_situation(clocked, tmp_path, one_thread):
    asked, images = clocked
    spec, conditions = make_spec(activation="dyrelu", batch_size=64), Conditions("cpu", "sparse", 2, 1, 6.0)
    found = time_kind(spec, SITUATIONS, conditions, tmp_path)
    assert torch.get_num_threads() == 2
    # Of looking at all positions for an update, and at dense gradients, the first of a phase stands for all.
    parts = [PartSeconds(1.0, 2.0, 3.0, 5.0), PartSeconds(2.0, 4.0, 6.0, 10.0)]
    parts += [PartSeconds(3.0, 4.0, 6.0, 15.0), PartSeconds(4.0, 4.0, 6.0, 20.0)]
    assert found == KindTimes(33.0, 17.5, 13 * 4, 64, dict(zip(SITUATIONS, parts, strict=True)))
    assert [one[1:] for one in asked] == [(conditions, tmp_path, 1, 1.5)] * 4
    assert images == ["memory is kept", (64, CPU, {"training": 6 * 64, "evaluation": 500})]
    for run, situation in zip(runs(asked), SITUATIONS, strict=True):
        assert (run.sparsity.density, run.phasing is None) == (situation.density, situation.dynamic)
        assert run.training.batch_size == 64
        assert run.training.epochs > 10**6
    first, second, third, fourth = (run.sparsity.update_period for run in runs(asked))
    assert (first, second) == (5, 5)
    assert min(third, fourth) > 10**6
    begin = asked[0][0]
    assert (begin.func, begin.args[1]) == (Training.begin, "data")
    assert begin.keywords == {"device": CPU, "engine": "sparse", "kind": "eager"}


def test_a_dense_kind_is_timed_in_the_middle_of_each_phase(clocked, tmp_path):
    asked, _ = clocked
    found = time_kind(make_spec(activation="dyrelu", batch_size=64), SITUATIONS, CONDITIONS, tmp_path)
    assert list(found.parts) == [SITUATIONS[0], SITUATIONS[2]]
    assert found.build == 22.0  # of two, the first takes memory
    assert [one[-1] for one in asked] == [1.5, 1.5]


def test_on_a_gpu_steps_settle_before_they_count_and_more_images_are_evaluated(clocked, tmp_path):
    asked, images = clocked
    conditions = Conditions("cuda", "auto", 1, 1, 3.0, "a way")
    spec = make_spec(dataset="cifar10", batch_size=128)
    time_kind(spec, SITUATIONS[1:2], conditions, tmp_path)
    clip = ClipSpec(norm=1.0, scope="dense", every=16)
    clipped = spec.model_copy(update={"training": spec.training.model_copy(update={"gradient_clip": clip})})
    time_kind(clipped, SITUATIONS[1:2], conditions, tmp_path)
    # An image has 3 * 32 * 32 bytes, and 64 MiB of them are affordable.
    assert images[1] == (128, CUDA, {"training": 32 * 128, "evaluation": 21_845})
    # A kind of step is made three times before it counts, one of sixteen is of another kind; then two turns and one.
    assert images[3][2]["training"] == (3 * 16 + 2 * 16 + 1) * 128
    assert [one[3] for one in asked] == [3, 48]
    assert asked[0][0].keywords == {"device": CUDA, "engine": "auto", "kind": "captured"}
    assert runs(asked)[0].sparsity.update_period == 31


@pytest.mark.parametrize(
    ("name", "device", "engine", "prepared"),
    [
        ("auto", CPU, "chosen", True),
        ("sparse", CPU, "sparse", True),
        ("dense", CPU, "dense", False),
        ("auto", CUDA, "auto", True),
        ("sparse", CUDA, "sparse", False),
        ("dense", CUDA, "dense", False),
    ],
)
@pytest.mark.parametrize("kind", ["captured", "compiled"])
def test_what_is_compiled_or_measured_once_is_not_timed(monkeypatch, name, device, engine, prepared, kind):
    asked = []
    monkeypatch.setattr(timing, "prepare_costs", lambda *what: asked.append(what))
    monkeypatch.setattr(timing, "engine_of_run", lambda spec: "chosen")
    assert timing._engine(make_spec(), name, device, kind) == engine
    assert asked == [(device, "fp32", kind == "compiled")] * prepared


def test_the_engine_of_a_kind_is_chosen_at_its_lowest_density(clocked, tmp_path, monkeypatch):
    densities = []
    monkeypatch.setattr(timing, "engine_of_run", lambda spec: densities.append(spec.sparsity.density) or "sparse")
    time_kind(make_spec(), SITUATIONS[1:], Conditions("cpu", "auto", 1, 1, 3.0), tmp_path)
    assert densities == [0.02]


@pytest.mark.parametrize(
    ("engine", "device", "threads", "seconds", "images"),
    [
        ("dense", CPU, 1, 3.0, 43),
        ("dense", CPU, 2, 3.0, 86),
        ("dense", CPU, 1, 0.1, 32),
        ("dense", CPU, 1, 30.0, 128),
        ("sparse", CPU, 1, 0.1, 128),
        ("dense", CUDA, 1, 0.1, 128),
    ],
)
def test_a_dense_step_is_timed_on_as_many_images_as_the_time_allows(engine, device, threads, seconds, images):
    # Three passes of 2.32e9 FLOPs an image, less the gradient of the image.
    spec = make_spec(width=64, dataset="cifar10", batch_size=128)
    assert timing.timed_batch(spec, engine, device, Conditions("cpu", engine, threads, 1, seconds)) == images


def test_a_training_is_clocked_with_all_that_a_run_writes(tmp_path, monkeypatch, one_thread):
    spec = make_spec(width=4, density=0.05, update_period=4, batch_size=2, epochs=50)
    data = measure.random_images(spec, CPU, training=10, evaluation=2)
    written, loop = {}, timing.run_loop

    def look(training, hooks):
        try:
            loop(training, hooks)
        finally:
            (folder,) = tmp_path.iterdir()
            written.update({path.name: path.stat().st_size for path in folder.iterdir()})
            written["state"] = json.loads((folder / "state.json").read_text())

    monkeypatch.setattr(timing, "run_loop", look)
    conditions = Conditions("cpu", "dense", 3, 2, 0.0)
    build, seconds, size = clock(
        lambda: time.sleep(0.1) or Training.begin(spec, data, device=CPU, engine="dense"), conditions, tmp_path, 1, 0.0
    )
    assert 0.1 <= build < 60
    assert seconds.keys() == {"step", "dense gradients", "update", "evaluation", "save"}
    assert size == max(written[name] for name in written if name.startswith("checkpoint"))
    assert {"metrics.csv", "updates.csv", "trace.csv"} <= written.keys()
    state = written["state"]
    assert (state["device"], state["threads"], state["runs_per_device"], state["epoch"]) == ("cpu", 3, 2, 1)
    assert state["epochs"] > 10**6
    assert not list(tmp_path.iterdir())


# Kinds of run in processes


class Pool:
    """In place of processes: does what it is given at once."""

    def __init__(self, failure=None):
        self.failure, self.given, self.ended = failure, [], []

    @contextmanager
    def __call__(self, count, context):
        self.started = (count, context.get_start_method())
        yield self

    def submit(self, function, kind, situations, conditions, folder):
        self.given.append((function, kind, situations, conditions))
        self.folder = folder
        assert folder.is_dir()
        future = Future()
        if self.failure and len(self.given) == 2:
            future.set_exception(self.failure)
        else:
            future.set_result(len(self.given))
        return future

    def shutdown(self, **how):
        self.ended.append(how)


KINDS = {make_spec(width=width): SITUATIONS[number:] for number, width in enumerate((4, 8))}
BESIDE = Conditions("cpu", "sparse", threads=1, side_by_side=3, seconds=3.0)


def test_processes_that_have_nothing_left_to_time_begin_again_until_the_last_kind_is_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "workers", pool := Pool())
    reports = []
    first, second = KINDS
    assert time_kinds(KINDS, BESIDE, tmp_path, lambda: reports.append(len(reports))) == {first: [1, 3], second: [2, 4]}
    assert pool.given == [(time_kind, kind, KINDS[kind], BESIDE) for kind in (first, second, first, second)]
    assert (pool.started, pool.ended, reports) == ((3, "spawn"), [{"cancel_futures": True}], [0, 1, 2, 3])
    assert (pool.folder.parent, pool.folder.name.startswith(".estimate.")) == (tmp_path, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [BrokenProcessPool("killed"), torch.OutOfMemoryError("full")])
def test_runs_at_once_that_do_not_fit_into_memory_are_told_so(monkeypatch, tmp_path, failure):
    monkeypatch.setattr(timing, "workers", pool := Pool(failure))
    with pytest.raises(EastError, match=r"3 runs at once did not fit into memory.*--cores"):
        time_kinds(KINDS, BESIDE, tmp_path)
    assert pool.ended == [{"cancel_futures": True}]
