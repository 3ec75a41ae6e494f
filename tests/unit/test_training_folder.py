from hashlib import sha256

import pytest

from east.training.folder import DIGESTED, discard_summary, finished_summary, intact_run, write_summary
from east.training.records import KEPT_SUMMARY, SUMMARY, RunSummary, read_summary
from east.training.run import Resources, train
from tests.unit.test_training_loop import Interrupted, interrupt_at

RESULT = RunSummary(id="table2/static/seed17", fingerprint="a", status="finished", final_test_accuracy=81.5)


def ended(folder):
    """A finished run, with the files that its summary names."""
    for name in DIGESTED:
        (folder / name).write_text(name)
    digests = {name: sha256(name.encode()).hexdigest() for name in DIGESTED}
    return write_summary(folder, RESULT.model_copy(update={"files": digests}))


@pytest.mark.parametrize("name", DIGESTED)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_finished_run_without_one_of_its_files_is_trained_again(tmp_path, name, is_there):
    ended(tmp_path)
    assert intact_run(tmp_path, "a") is not None
    (tmp_path / name).unlink()
    if is_there:
        (tmp_path / name).write_text("other")
    assert finished_summary(tmp_path, "a") is None
    assert intact_run(tmp_path, "a") is None


def test_a_run_is_intact_only_as_the_planned_one_and_with_a_summary_that_is_whole(tmp_path):
    summary = ended(tmp_path)
    assert intact_run(tmp_path, "a") == summary.sha256
    assert intact_run(tmp_path, "b") is None
    (tmp_path / SUMMARY).write_text((tmp_path / SUMMARY).read_text().replace("81.5", "81.6"))
    assert intact_run(tmp_path, "a") is None


def test_a_summary_that_was_removed_is_put_back(tmp_path):
    ended(tmp_path)
    text = (tmp_path / SUMMARY).read_text()
    (tmp_path / SUMMARY).unlink()
    assert finished_summary(tmp_path, "a") is not None
    assert (tmp_path / SUMMARY).read_text() == text


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"fingerprint": "b"}'])
def test_a_summary_that_is_not_whole_or_of_another_run_gives_way_to_the_kept_one(tmp_path, content):
    summary = ended(tmp_path)
    if content is None:
        (tmp_path / SUMMARY).unlink()
    else:
        (tmp_path / SUMMARY).write_text(content)
    assert finished_summary(tmp_path, "a") == read_summary(tmp_path / SUMMARY) == summary


def test_nothing_is_put_back_for_another_run(tmp_path):
    write_summary(tmp_path, RESULT)
    (tmp_path / SUMMARY).unlink()
    assert finished_summary(tmp_path, "c") is None
    assert not (tmp_path / SUMMARY).exists()


def test_discarding_leaves_neither(tmp_path):
    write_summary(tmp_path, RESULT)
    discard_summary(tmp_path)
    discard_summary(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_summary_is_not_put_back_once_another_run_has_begun_in_its_folder(tmp_path, tiny_spec, data_dir):
    """The records beside it would be those of the other run."""
    write_summary(tmp_path, RESULT.model_copy(update={"fingerprint": "of older settings"}))

    with pytest.raises(Interrupted):
        train(tiny_spec, tmp_path, Resources(device="cpu", data_dir=data_dir), interrupt_at(1))
    assert not (tmp_path / SUMMARY).exists()
    assert not (tmp_path / KEPT_SUMMARY).exists()
