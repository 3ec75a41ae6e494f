import csv
import os

import pytest

from east.config import load_plan
from east.errors import EastError
from east.training.records import EpochRecord
from east.training.run import Resources, train
from east.training.tracking import TAGS, epoch_tracker
from tests.unit.test_cli import east_process
from tests.unit.test_training_loop import Interrupted, interrupt_at


@pytest.fixture
def resources(data_dir):
    return Resources(device="cpu", threads=1, data_dir=data_dir)


def attempt(spec, folder, resources, *, until=None, tracking="tensorboard"):
    """Train with tracking; end after epoch `until`."""
    with epoch_tracker(tracking, folder) as track:
        train(spec, folder, resources, [track, *interrupt_at(until or 0)])


def tensorboard(folder):
    """The event files as TensorBoard reads them; `Reload` reads what has been written since."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})


def assert_shows_the_metrics(reader, folder):
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    reader.Reload()
    scalars = {tag: reader.Scalars(tag) for tag in reader.Tags()["scalars"]}
    assert scalars.keys() == TAGS.keys()
    for tag, column in TAGS.items():
        assert [point.step for point in scalars[tag]] == [int(row["step"]) for row in rows]
        assert [point.value for point in scalars[tag]] == pytest.approx([float(row[column]) for row in rows], rel=1e-6)
        times = [point.wall_time for point in scalars[tag]]
        assert times == sorted(times)


def test_the_events_of_a_run_are_its_metrics_against_the_step(tmp_path, tiny_spec, resources):
    attempt(tiny_spec, tmp_path, resources)
    assert_shows_the_metrics(tensorboard(tmp_path), tmp_path)


def test_an_epoch_can_be_seen_as_soon_as_it_is_done(tmp_path, monkeypatch):
    class Writer:
        def __init__(self, folder, purge_step):
            self.begun = (folder, purge_step)

        def __getattr__(self, called):
            return lambda *_: calls.append(called)

    calls, row = [], EpochRecord(**dict.fromkeys(EpochRecord.__annotations__, 0))
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Writer)
    with epoch_tracker("tensorboard", tmp_path) as track:
        for _ in range(2):
            track.after_epoch(None, row)
            assert calls == ["add_scalar"] * len(TAGS) + ["flush"]
            calls.clear()
    assert calls == ["close"]


def test_epochs_trained_twice_are_shown_once_also_while_watching(tmp_path, tiny_spec, resources):
    with pytest.raises(Interrupted):
        attempt(tiny_spec, tmp_path, resources, until=3)
    watching = tensorboard(tmp_path)
    assert_shows_the_metrics(watching, tmp_path)
    (tmp_path / "checkpoint-000003.pt").unlink()
    attempt(tiny_spec, tmp_path, resources)
    assert_shows_the_metrics(watching, tmp_path)
    assert_shows_the_metrics(tensorboard(tmp_path), tmp_path)


def test_tracking_asked_for_late_shows_the_epochs_before_it(tmp_path, tiny_spec, resources):
    with pytest.raises(Interrupted):
        attempt(tiny_spec, tmp_path, resources, until=2, tracking="none")
    assert not (tmp_path / "tensorboard").exists()
    attempt(tiny_spec, tmp_path, resources)
    assert_shows_the_metrics(tensorboard(tmp_path), tmp_path)


def test_a_missing_package_is_named_with_key_and_mend_before_anything_is_trained(tmp_path, tiny_spec, data_dir):
    (tmp_path / "tensorboard.py").write_text("raise ImportError('not here')")
    done = east_process(
        *("train", "--run", tiny_spec.canonical_json(), "--out", tmp_path / "run", "--data-dir", data_dir),
        env=os.environ | {"PYTHONPATH": str(tmp_path), "EAST_TRACKING": "tensorboard"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: execution.tracking: tensorboard needs the package tensorboard")
    assert "-m pip install tensorboard" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_an_unknown_kind_of_tracking_is_refused(tmp_path):
    with pytest.raises(EastError, match=r"there is no 'wandb'\. Choose none or tensorboard"):
        epoch_tracker("wandb", tmp_path).__enter__()


def test_tracking_is_no_part_of_a_runs_identity(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("execution: {tracking: tensorboard}")
    assert load_plan(overlay) == load_plan()
