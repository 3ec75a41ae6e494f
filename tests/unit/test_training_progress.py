"""What a training shows of itself while it runs, and at its end."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from east.training import progress
from east.training.progress import epoch_reporter, finished_line
from east.training.records import EpochRecord, RunSummary

RECORD = EpochRecord(**dict.fromkeys(EpochRecord.__annotations__, 0) | {"epoch": 3, "nonzeros": 10_633, "lr": 0.1})
RECORD = EpochRecord(**vars(RECORD) | {"train_loss": 1.25, "train_acc": 50.5, "val_acc": 40.25, "test_acc": 30.0})
TRAINING = SimpleNamespace(schedule=SimpleNamespace(epochs=7))
SUMMARY = RunSummary(id="table2/static/seed17", fingerprint="a", status="finished", final_test_accuracy=81.5)


def shown(monkeypatch, *, is_terminal, **changes):
    stream = io.StringIO()

    def make_console(*, stderr):
        assert stderr
        return Console(file=stream, force_terminal=is_terminal, width=100, color_system=None)

    monkeypatch.setattr(progress, "Console", make_console)
    with epoch_reporter("a run\x1b", 7) as reporter:
        reporter.after_epoch(TRAINING, EpochRecord(**vars(RECORD) | changes))
    return stream.getvalue()


@pytest.mark.parametrize(("validation", "part"), [(40.25, "  val 40.25"), (None, "")])
def test_a_log_has_a_line_for_each_epoch(monkeypatch, capsys, validation, part):
    assert shown(monkeypatch, is_terminal=False, val_acc=validation) == ""
    assert capsys.readouterr().err == (
        f"epoch 3/7  loss 1.2500  train 50.50{part}  test 30.00  non-zeros 10633  lr 0.1  beta 0\n"
    )


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    text = shown(monkeypatch, is_terminal=True)
    assert capsys.readouterr().err == ""
    assert [part in text for part in ("a run", "3/7", "test 30.00 %", "━")] == [True] * 4
    assert "\x1b " not in text


def test_a_title_is_no_markup(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=stream, force_terminal=True, width=100))
    with epoch_reporter("[bold]run", 1):
        pass
    assert "[bold]run" in stream.getvalue()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seconds": 12.34}, "test  81.50 %     12.3 s"),
        ({}, "test  81.50 %      0.0 s"),
        ({"final_test_accuracy": None, "status": "diverged", "seconds": 1.0}, "diverged      1.0 s"),
        ({"runs_per_device": 1}, "test  81.50 %      0.0 s"),
        ({"runs_per_device": 2}, "test  81.50 %      0.0 s (2 trainings a GPU)"),
    ],
)
def test_the_last_line_says_what_came_of_a_run(tmp_path, changes, line):
    summary = SUMMARY.model_copy(update=changes)
    assert finished_line(summary, tmp_path, None) == f"table2/static/seed17{' ' * 32} {line}"


def test_the_last_line_counts_the_runs_that_have_ended(tmp_path):
    for name in ("table2/static/seed17", "table2/static/seed41", "table3/static/seed17"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "summary.json").touch()
    assert finished_line(SUMMARY, tmp_path / "table2/static/seed17", 9).endswith("s  [3/9]")
