"""The loop by itself: a training in memory with hooks, from which nothing is written."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from east.training.assembly import Training
from east.training.hooks import Hook
from east.training.interrupt import Interruption, Stopped
from east.training.loop import change_masks, fade_dyrelu, finish_epoch, run_loop
from east.training.records import EpochRecord
from east.training.run import Resources, best_epoch, open_and_begin
from east.training.step import EpochSums
from east.training.trace import Tracing
from tests.unit.test_training_loop import changed, combined

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
STEPS = 6
"""Of an epoch of the short run, whose masks change at every second step."""


@pytest.fixture
def begin(data_dir):
    """A training at its start, or where another one was left."""

    def make(spec, state=None) -> Training:
        return open_and_begin(spec, Resources(engine="dense", data_dir=data_dir), CPU, state)

    return make


class Log(Hook):
    """Writes down at which moments it is called."""

    def __init__(self):
        self.moments = []

    def on_begin(self, training):
        self.moments.append("begin")

    def before_epoch(self, training):
        self.moments.append(f"epoch {training.epoch + 1}")

    def before_batch(self, training):
        self.moments.append("batch")

    def after_step(self, training, update):
        self.moments.append(f"step {training.steps_done}" + (f" {update.kind}" if update else ""))

    def after_epoch(self, training, record):
        self.moments.append(f"end of {record.epoch}")

    def on_end(self, training, ending):
        self.moments.append(ending)


def test_hooks_are_called_at_every_moment_in_order(begin, short_spec):
    first, second = Log(), Log()
    assert run_loop(begin(short_spec), [first, second]) == "finished"
    assert first.moments == second.moments
    epoch = [moment for moment in first.moments if moment != "batch"]
    assert epoch[:10] == [
        *("begin", "epoch 1", "step 1", "step 2 cycle", "step 3", "step 4 cycle", "step 5", "step 6 cycle"),
        *("end of 1", "epoch 2"),
    ]
    assert epoch[-1] == "finished"
    # Each epoch trains on six batches and evaluates one of the validation and one of the test images.
    assert Counter(first.moments)["batch"] == 3 * (STEPS + 2)


def test_a_training_that_pauses_goes_on_as_if_it_had_not(begin, short_spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, parts = Tracing(), Tracing()
    run_loop(begin(short_spec), [whole])
    training = begin(short_spec)
    assert begin(short_spec).state_dict()["retired"] is False
    for place in (3, 4, STEPS, 13):
        assert run_loop(training, [parts], until=place) == "paused"
        assert training.steps_done == place
        training = begin(short_spec, training.state_dict())
    assert run_loop(training, [parts]) == "finished"
    assert parts.rows == whole.rows
    assert [row.epoch for row in training.epochs] == [1, 2, 3]
    assert list(tmp_path.iterdir()) == []


def test_a_request_stops_before_the_next_batch_and_is_not_obeyed_after_the_last(begin, short_spec):
    class Request(Interruption):
        def after_step(self, training, update):
            if training.steps_done == self.step:
                self.request(15)

    training, asking, log = begin(short_spec), Request(), Log()
    asking.step = 4
    with pytest.raises(Stopped):
        run_loop(training, [log, asking])
    assert (training.steps_done, log.moments[-1]) == (4, "stopped")
    late = Interruption()
    late.after_epoch = lambda training, record: late.request(15) if record.epoch == 3 else None
    assert run_loop(training, [late]) == "finished"


class Told:
    """A step that is told of changes and does nothing."""

    def __init__(self):
        self.masks = self.phases = 0

    def masks_changed(self):
        self.masks += 1

    def phase_changed(self):
        self.phases += 1


@pytest.fixture
def fading(begin, tiny_spec):
    """A training with DyReLU that freezes in epoch 1 and has faded in epoch 3, whose step notes what it is told."""
    spec = changed(combined(tiny_spec), model={"dct": False}, phasing={"start": 1.0, "end": 3.0, "freeze": True})
    training = begin(spec)
    training.parts = replace(training.parts, step=Told())
    return training


def test_the_step_is_told_when_dyrelu_freezes_and_when_it_leaves_and_only_then(fading):
    told = []
    for epoch in (1, 2, 3, 4):
        fade_dyrelu(fading, epoch)
        told.append(fading.parts.step.phases)
    assert told == [1, 1, 2, 2]
    assert len(fading.parts.optimizer.state) == len(list(fading.model.parameters()))


def test_a_training_without_dyrelu_goes_on_without_it(fading, begin):
    assert not fading.state_dict()["retired"]
    fade_dyrelu(fading, 2)
    resumed = begin(fading.spec, fading.state_dict())
    assert resumed.model.state_dict().keys() == fading.model.state_dict().keys()
    fade_dyrelu(fading, 3)
    assert fading.state_dict()["retired"]
    resumed = begin(fading.spec, fading.state_dict())
    assert resumed.model.state_dict().keys() == fading.model.state_dict().keys()
    assert len(resumed.parts.optimizer.state) == len(list(resumed.model.parameters()))


def test_the_step_is_told_when_the_masks_have_changed(fading):
    for layer in fading.masks.layers.values():
        layer.weight.grad = torch.ones_like(layer.weight)
    assert change_masks(fading, 1) is None
    assert fading.parts.step.masks == 0
    assert change_masks(fading, 2) is fading.updates[-1]
    assert fading.parts.step.masks == 1


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_is_a_divergence_whatever_the_network_is(begin, short_spec, loss):
    training = begin(short_spec)
    training.sums = EpochSums.load({"steps": STEPS, "images": 10, "loss": loss, "correct": 0}, CPU)
    finish_epoch(training, 1, lambda training: None)
    assert (training.diverged_at_step, training.is_over) == (STEPS, True)


@pytest.mark.parametrize("part", ["validation", "test", None])
def test_logits_of_either_part_that_are_not_finite_are_a_divergence(begin, short_spec, monkeypatch, part):
    training = begin(short_spec)
    training.sums = EpochSums.load({"steps": STEPS, "images": 10, "loss": 1.0, "correct": 5}, CPU)
    odd = part and getattr(training.data, part)
    monkeypatch.setattr("east.training.loop.evaluate", lambda engine, model, batches, *_: (50.0, batches is not odd))
    finish_epoch(training, 1, lambda training: None)
    assert (training.diverged_at_step is None) == (part is None)


def test_the_loss_and_accuracy_of_an_epoch_are_means_over_images():
    sums = EpochSums.begin(CPU)
    sums.add(torch.tensor(12.0), torch.tensor(3), 4)
    sums.add(torch.tensor(1.0), torch.tensor(0), 1)
    assert (sums.steps, sums.mean_loss, sums.accuracy) == (2, 13 / 5, 60.0)


def epoch(number, accuracy):
    plain = dict.fromkeys(EpochRecord.__annotations__, 0)
    return EpochRecord(**plain | {"epoch": number, "val_acc": accuracy})


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ([90, 80, 50, 60], 4),
        ([90, 80, 60, 60], 4),
        ([90, 80, 60, 50], 3),
        ([None, None, None, None], None),
        ([90, 80], None),
    ],
)
def test_the_best_epoch_is_the_last_of_the_best_once_the_network_is_settled(fading, accuracies, best):
    """The cycle ends with the second epoch, DyReLU has faded from the third on."""
    rows = [epoch(number, accuracy) for number, accuracy in enumerate(accuracies, start=1)]
    found = best_epoch(rows, fading.schedule)
    assert (None if found is None else found.epoch) == best
