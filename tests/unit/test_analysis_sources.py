"""Derived files: what they were made from is recorded, and whoever reads one knows whether it is right."""

import ast
import json

import pytest

from east.analysis.sources import RECORDS, Request, Sources, read_made_from, read_run_record, record_path
from east.errors import EastError
from east.files import sha256_of
from east.training.records import EpochRecord, UpdateRecord
from tests.conftest import ROOT
from tests.unit.fake_runs import seal, write_curve, write_rows, write_run

RUN = "table2/static/seed17"
REQUEST = Request(step="x", of={"a": [1]})


@pytest.fixture
def made(tmp_path):
    """A file that was made from a run, and one that was made from that file."""
    write_run(tmp_path / "runs", RUN, 80.0)
    first, second = Sources(tmp_path), Sources(tmp_path)
    first.summary(RUN)
    first.write(REQUEST, {tmp_path / "aggregate" / "t.json": "{}"})
    second.derived(tmp_path / "aggregate" / "t.json")
    second.write(Request(step="y"), {tmp_path / "tables" / "t.csv": "a\n", tmp_path / "tables" / "t.md": "|"})
    return tmp_path


def test_a_record_names_request_runs_and_files(made):
    summary = json.loads((made / "runs" / RUN / "summary.json").read_text())
    aggregated, table = read_made_from(made, "aggregate/t"), read_made_from(made, "tables/t")
    assert (aggregated.request, aggregated.runs) == (REQUEST.digest, {RUN: summary["sha256"]})
    assert table.results == {"aggregate/t.json": aggregated.files["t.json"]}
    assert table.runs == aggregated.runs
    assert list(table.files) == ["t.csv", "t.md"]


def test_what_is_right_is_read(made):
    sources = Sources(made, {"tables/t": Request(step="y").digest})
    assert sources.derived(made / "tables" / "t.csv") == b"a\n"


def change_file(results):
    (results / "tables" / "t.csv").write_text("b\n")


def change_run(results):
    seal(results / "runs" / RUN / "summary.json", final_test_accuracy=81.0)


def delete_run(results):
    (results / "runs" / RUN / "summary.json").unlink()


def delete_record(results):
    record_path(results, "tables/t").unlink()


def change_record(results):
    path = record_path(results, "tables/t")
    path.write_text(path.read_text().replace('"request": "', '"request": "0'))


@pytest.mark.parametrize("change", [change_file, change_run, delete_run, delete_record, change_record])
def test_what_is_not_right_is_refused_by_name(made, change):
    change(made)
    with pytest.raises(EastError, match=r"tables/t.* cannot be used: .* makes it again"):
        Sources(made).derived(made / "tables" / "t.csv")


def test_a_record_that_is_no_file_is_named(tmp_path):
    record_path(tmp_path, "tables/t").mkdir(parents=True)
    with pytest.raises(EastError, match=r"tables/t.* cannot be used: .* cannot be read"):
        read_made_from(tmp_path, "tables/t")


def test_what_was_made_for_another_plan_is_refused(made):
    with pytest.raises(EastError, match="other settings than the plan's"):
        Sources(made, {"tables/t": REQUEST.digest}).derived(made / "tables" / "t.csv")


def test_requests_differ_with_what_is_expected_of_their_inputs():
    assert Request(step="x", expected={"a": "1"}).digest != Request(step="x", expected={"a": "2"}).digest


def test_half_written_files_of_a_killed_process_are_removed(made):
    left = made / "tables" / ".t.csv.abcdefgh"
    left.touch()
    Sources(made).write(Request(step="y"), {made / "tables" / "t.csv": "c\n"})
    assert not left.exists()


def test_records_of_a_finished_run_are_read_only_as_its_summary_knows_them(tmp_path):
    folder = write_run(tmp_path / "runs", RUN, 80.0).parent
    path = write_curve(folder, [50.0, 80.0])
    assert len(Sources(tmp_path).rows(RUN, EpochRecord).checked()) == 2
    path.write_text(path.read_text().replace("80.0", "81.0"))
    assert "damaged" in Sources(tmp_path).rows(RUN, EpochRecord).problem
    path.unlink()
    assert "missing" in Sources(tmp_path).rows(RUN, EpochRecord).problem


def test_weights_are_those_that_the_summary_knows(tmp_path):
    path = write_run(tmp_path / "runs", RUN, 80.0).with_name("weights.safetensors")
    assert Sources(tmp_path).weights(RUN) is None
    path.write_bytes(b"weights")
    with pytest.raises(EastError, match=r"weights\.safetensors is damaged"):
        Sources(tmp_path).weights(RUN)
    seal(path.with_name("summary.json"))
    assert Sources(tmp_path).weights(RUN) == b"weights"
    path.unlink()
    path.mkdir()
    with pytest.raises(EastError, match=r"weights\.safetensors cannot be read"):
        Sources(tmp_path).weights(RUN)


def test_weights_of_a_run_that_goes_on_are_taken_as_they_are(tmp_path):
    path = tmp_path / "runs" / RUN / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert Sources(tmp_path).weights(RUN) == b"weights"


def test_a_file_is_read_once_and_what_cannot_be_read_is_named(made):
    sources = Sources(made)
    assert sources.derived(made / "tables" / "t.csv") == b"a\n"
    (made / "tables" / "t.csv").unlink()
    assert sources.derived(made / "tables" / "t.csv") == b"a\n"
    with pytest.raises(EastError, match=r"tables/t\.csv cannot be read: .* makes it again"):
        Sources(made).derived(made / "tables" / "t.csv")
    with pytest.raises(EastError, match=r"numbers in .*none\.csv cannot be used"):
        sources.published(made / "none.csv")


def test_a_record_of_published_numbers_has_their_digest_by_name(made):
    sources, path = Sources(made), made / "table2.csv"
    path.write_bytes(b"1\n")
    assert sources.published(path) == sources.published(path) == b"1\n"
    sources.write(REQUEST, {made / "tables" / "u.csv": b"bytes"})
    record = read_made_from(made, "tables/u")
    assert record.published == {"table2.csv": sha256_of(b"1\n")}
    assert record.files == {"u.csv": sha256_of(b"bytes")}


def test_a_folder_of_a_run_is_read_as_far_as_it_is_whole(tmp_path):
    folder = write_run(tmp_path / "runs", RUN, 80.0).parent
    write_curve(folder, [50.0, 80.0])
    path = write_rows(folder, UpdateRecord, {"kind": "initial"})
    whole = read_run_record(Sources(tmp_path), RUN)
    assert (len(whole.epochs), len(whole.updates), whole.problems) == (2, 1, ())
    assert whole.summary.final_test_accuracy == 80.0
    path.write_text("")
    (folder / "summary.json").write_text("{")
    damaged = read_run_record(Sources(tmp_path), RUN)
    assert (damaged.summary, len(damaged.epochs), len(damaged.problems)) == (None, 0, 1)


# How files are opened

READERS = {
    "analysis/sources.py": "the verified reader",
    "render/templating.py": "the project's own templates",
    "operations/steps.py": "digests alone",
    "operations/on_disk.py": "run.json, which is compared with the plan",
    "operations/run_files.py": "state, logs and summaries while a run goes on",
    "operations/log_tail.py": "logs",
    "operations/results_lock.py": "locks, and the digests of files",
    "operations/archive.py": "archives, whose files the lock names by digest",
    "operations/merge.py": "files of runs that were verified, to copy them",
    "operations/changes.py": "the digest of weights",
    "operations/new_files.py": "files for a user's own methods, which it writes",
    "analysis/results.py": "run.json of a run that goes on",
    "analysis/published.py": "the paper's numbers, by what is given as reader",
    "cli/runs.py": "a run's description on the command line",
    "cli/__init__.py": "the null device",
}
"""Modules that open files, and why each may."""

OPENING = {"open", "open_regular", "read_text", "read_bytes", "read_regular", "read_csv", "read_json"}
OPENING |= {"safe_open", "load_file", "fromfile", "loadtxt"}


def test_results_are_opened_by_the_verified_reader_alone():
    found = set()
    for part in ("analysis", "cost", "render", "trained", "operations", "cli"):
        for file in (ROOT / "east" / part).rglob("*.py"):
            name = file.relative_to(ROOT / "east").as_posix()
            for node in ast.walk(ast.parse(file.read_text())):
                called = node.func if isinstance(node, ast.Call) else node
                opened = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
                if opened in OPENING and "doctor/" not in name:
                    found.add(name)
    assert found == READERS.keys()


def test_nothing_but_records_lies_among_the_records(made):
    assert {path.name for path in (made / RECORDS).rglob("*.json")} == {"t.json"}
