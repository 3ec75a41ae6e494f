"""A share of the campaigns of faults, so that the suite notices what they would find."""

import pytest

from benchmarks.faults import readers, surroundings


def test_no_damaged_file_ends_in_a_traceback():
    assert [f"{found.case}: {found.failure}" for found in readers.cases(150, seed=2) if found.failure] == []


def test_a_traceback_is_a_failure_and_a_sentence_is_none(tmp_path):
    def fail(path):
        raise ZeroDivisionError(path.read_bytes())

    reader = readers.Reader("a reader", b"whole", tmp_path / "file", fail)
    assert "ZeroDivisionError" in readers.failure_of(reader, b"damaged")
    assert reader.path.read_bytes() == b"whole"
    with pytest.raises(ZeroDivisionError):
        fail(reader.path)


@pytest.mark.slow
def test_failures_of_the_surroundings_end_in_sentences_and_the_command_goes_on():
    assert [f"{found.case}: {found.failure}" for found in surroundings.cases(3, seed=0) if found.failure] == []
