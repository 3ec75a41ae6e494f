"""What a process of `east train` takes besides its epochs, from processes that are made up."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from east.config import RunSpec
from east.config.run import DatasetSpec
from east.cost.timing import Conditions
from east.errors import EastError
from east.operations import start
from east.training.records import TimingRecord
from tests.unit.cost_specs import make_spec
from tests.unit.fake_runs import write_rows

ONE_BATCH = DatasetSpec(
    name="digits",
    margin=1,
    padding="zero",
    flip=False,
    validation=1406,
    validation_choice="last",
    augment_validation=False,
)
SPEC = make_spec(dataset="digit_pairs", epochs=40, batch_size=128)
CONDITIONS = Conditions("cpu", "sparse", threads=3, side_by_side=2, seconds=1.0, step="captured")


class Trainings:
    """In the place of `subprocess`: each training takes ten seconds more than the one before it."""

    def __init__(self, monkeypatch, device="cpu", returncode=0, stderr="warning: slow\nepoch 1/2\nwarning: shared\n"):
        self.commands, self.environments, self.together, self.seconds = [], [], threading.Barrier(2), 0.0
        self.returncode, self.stderr, self.options = returncode, stderr, []
        monkeypatch.setattr(start, "subprocess", self)
        monkeypatch.setattr(start, "time", SimpleNamespace(perf_counter=self.clock))
        monkeypatch.setattr(start, "choose_device", lambda name: torch.device(device))

    clocks = threading.local()

    def clock(self):
        return getattr(self.clocks, "now", 1000.0)

    def run(self, command, *, env, **options):
        self.together.wait(10)
        out = Path(command[command.index("--out") + 1])
        assert (Path(command[command.index("--data-dir") + 1]) / "digits/manifest.json").exists()
        # The folders are 0-0 and 1-0 of the first round, 0-1 and 1-1 of the second.
        place, round_ = map(int, out.name.split("-"))
        self.clocks.now = self.clock() + 20 + 10 * (2 * round_ + place)
        out.mkdir()
        write_rows(out, TimingRecord, {"epoch": 1, "seconds": 5.0}, {"epoch": 2, "seconds": 2.0})
        self.commands.append(command)
        self.environments.append(env)
        self.options.append(options)
        return SimpleNamespace(returncode=self.returncode, stderr=self.stderr)


def test_processes_train_a_batch_in_two_epochs_as_many_at_once_as_will_share_the_machine(monkeypatch):
    trainings = Trainings(monkeypatch)
    monkeypatch.setenv("MARK", "kept")
    found = start.time_start(SPEC, CONDITIONS)
    # 20, 30, 40 and 50 seconds, less twice the two of the second epoch.
    assert found == (31.0, ("warning: slow", "warning: shared"))
    assert len(trainings.commands) == 4
    for command, environment in zip(trainings.commands, trainings.environments, strict=True):
        spec = RunSpec.model_validate_json(command[5])
        assert (spec.dataset, spec.training.epochs, spec.training.batch_size) == (ONE_BATCH, 2, 32)
        assert spec.model_copy(update={"dataset": SPEC.dataset, "training": SPEC.training}) == SPEC
        out = Path(command[7])
        assert [*command[:5], command[6], *command[8:]] == [
            *(sys.executable, "-m", "east", "train", "--run", "--out"),
            *("--data-dir", str(out.parent / "data"), "--device", "cpu", "--engine", "sparse"),
            *("--threads", "3", "--runs-per-gpu", "2", "--step", "captured"),
        ]
        assert (environment["MARK"], environment["TMPDIR"]) == ("kept", str(out.parent))
        assert not out.parent.exists()
        assert out.parent.name.startswith("east-estimate-")
    assert all(options["capture_output"] and options["errors"] == "replace" for options in trainings.options)


def test_on_a_gpu_the_second_round_counts_which_finds_what_the_first_has_compiled(monkeypatch):
    Trainings(monkeypatch, device="cuda")
    assert start.time_start(SPEC, CONDITIONS)[0] == 41.0


@pytest.mark.parametrize(
    ("stderr", "words"),
    [("warning: slow\nerror: no such engine.\n", "failed: no such engine."), ("", "failed: it said nothing")],
)
def test_a_training_that_fails_is_an_error_with_its_last_words(monkeypatch, stderr, words):
    Trainings(monkeypatch, returncode=1, stderr=stderr)
    with pytest.raises(EastError) as caught:
        start.time_start(SPEC, CONDITIONS)
    assert str(caught.value).endswith(words)
