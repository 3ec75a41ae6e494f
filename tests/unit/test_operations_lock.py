import io
import json
import os
import shutil
import tarfile
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path

import pytest

from east.config import make_plan, read_config
from east.errors import EastError
from east.operations.archive import read_archive, write_archive
from east.operations.archive import restore as restore_archive
from east.operations.on_disk import SMALL_FILES
from east.operations.results_lock import locked_keys, make_lock, parse_lock, read_lock, verify
from east.training.folder import plugin_copy
from east.training.records import RunSummary
from tests.unit.fake_runs import PLAN, TEST_CONFIG, seal, write_planned_run, write_steps
from tests.unit.in_process import east

STATIC = "table2/static/seed1"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with results (all runs finished but one, costs, and a table), their lock and their archive."""
    made = tmp_path_factory.mktemp("made")
    for run in list(PLAN.values())[:-1]:
        write_planned_run(made / "results/runs", run, 50.0, versions={"torch": "2.11"})
    write_steps(made / "results", "cost", "aggregate/table2", "tables/table2")
    for done in (
        command("lock", made / "results", "--out", made / "results.lock.json"),
        command("archive", made / "results", made / "out.tar.gz"),
    ):
        assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def results(made, tmp_path):
    return shutil.copytree(made / "results", tmp_path / "results")


COSTS = {"cost/cost.json", "made_from/cost/cost.json"}


def command(name, results, *options):
    return east(name, *options, "--configfile", TEST_CONFIG, "--results", results)


@pytest.fixture
def locked(made, results):
    return Path(shutil.copy(made / "results.lock.json", results))


@pytest.fixture
def archive(made, tmp_path):
    return Path(shutil.copy(made / "out.tar.gz", tmp_path))


def restore(archive, results):
    return east("restore", archive, "--results", results)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_lock_tells_identity_origin_and_checksums_of_every_finished_run(results):
    done = command("lock", results)
    assert done.stdout == (
        f"{results}/results.lock.json: 5 of 6 runs; 1 are missing or of other settings (`east plan --changed`)\n"
    )
    lock = json.loads((results / "results.lock.json").read_text())
    assert (lock["name"], lock["planned"], lock["missing"]) == ("test", 6, [list(PLAN)[-1]])
    assert list(lock["runs"]) == sorted(list(PLAN)[:-1])
    entry = lock["runs"][STATIC]
    assert entry.pop("files").keys() == {
        "summary.json",
        "run.json",
        "metrics.csv",
        "updates.csv",
        "trace.csv",
        "timing.csv",
    }
    assert len(entry.pop("repeatable")) == 64
    assert entry == {
        "fingerprint": PLAN[STATIC].fingerprint,
        "status": "finished",
        "final_test_accuracy": 50.0,
        "device": "cpu",
        "engine": "sparse",
        "instruction_set": None,
        "threads": 1,
        "reproducibility": "any processor",
        "versions": {"torch": "2.11"},
        "commit": "c0ffee",
        "code_digest": "d1",
    }
    assert lock["files"].keys() == {*COSTS, "tables/table2.csv"}


def test_a_lock_is_written_in_one_way_only(locked):
    text = locked.read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def test_what_trainings_of_a_run_share_is_digested_as_json_in_one_way_only():
    said = {"id": "table2/static/seed1", "status": "finished", "fingerprint": "f" * 64, "final_test_accuracy": 50.0}
    summary = RunSummary.model_validate(said | {"epochs": 2, "device": "cpu", "seconds": 1.5})
    text = '{"epochs":2,"final_test_accuracy":50.0,"fingerprint":"' + "f" * 64 + '","status":"finished"}'
    assert locked_keys(summary)["repeatable"] == sha256(text.encode()).hexdigest()


def test_equal_results_give_equal_locks_and_equal_archives(locked, archive, results, tmp_path):
    copy = shutil.copytree(results, tmp_path / "copy")
    command("lock", copy, "--out", tmp_path / "again.json")
    command("archive", copy, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.json").read_bytes() == locked.read_bytes()
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()


def change_a_run(results):
    seal(results / "runs" / STATIC / "summary.json", seconds=61.0)


def change_the_table(results):
    (results / "tables" / "table2.csv").write_text("nicer")


def change_what_it_was_made_from(results):
    (results / "aggregate" / "table2.json").write_text("other")


@pytest.mark.parametrize("change", [change_a_run, change_the_table, change_what_it_was_made_from])
def test_a_table_that_was_made_from_something_else_is_not_locked(results, change):
    change(results)
    command("lock", results)
    assert json.loads((results / "results.lock.json").read_text())["files"].keys() == COSTS


def test_a_run_of_other_settings_counts_as_missing(results):
    write_planned_run(results / "runs", PLAN[STATIC], 50.0, fingerprint="f" * 64)
    command("lock", results)
    lock = json.loads((results / "results.lock.json").read_text())
    assert STATIC in lock["missing"]
    assert STATIC not in lock["runs"]


def test_there_is_no_lock_of_runs_that_are_not_whole(results):
    (results / "runs" / STATIC / "updates.csv").unlink()
    done = command("lock", results)
    assert done.returncode == 1
    assert f"{STATIC}: its updates.csv is missing" in done.stderr
    assert not (results / "results.lock.json").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "2"}'])
def test_what_is_no_lock_is_refused_by_name(tmp_path, content):
    (tmp_path / "lock.json").write_text(content)
    with pytest.raises(EastError, match=r"lock\.json is not a results\.lock\.json"):
        read_lock(tmp_path / "lock.json")


@pytest.mark.parametrize(("planned", "fits"), [(0, True), (-1, False)])
def test_a_lock_counts_its_plan_from_nothing_on(planned, fits):
    lock = {"format": 2, "name": "test", "planned": planned, "missing": [], "runs": {}, "files": {}}
    with nullcontext() if fits else pytest.raises(EastError, match="planned"):
        parse_lock(json.dumps(lock).encode(), "the lock")


@pytest.mark.parametrize("files", [{"../cost.json": "0" * 64}, {"cost/cost.json": "0" * 63 + "g"}])
def test_a_lock_names_only_its_own_files_by_their_digests(files):
    lock = {"format": 2, "name": "test", "planned": 1, "missing": [], "runs": {}}
    parse_lock(json.dumps(lock | {"files": {"cost/cost.json": "0" * 64}}).encode(), "the lock")
    with pytest.raises(EastError, match="the lock is not a"):
        parse_lock(json.dumps(lock | {"files": files}).encode(), "the lock")


def test_a_locked_summary_that_is_none_is_named(locked):
    """Though its checksum is right."""
    lock, name = read_lock(locked), f"runs/{STATIC}/summary.json"
    entry = lock.runs[STATIC]
    entry = entry.model_copy(update={"files": entry.files | {"summary.json": sha256(b"{}").hexdigest()}})
    wrong, tables = verify(lock.model_copy(update={"runs": {STATIC: entry}, "files": {}}), {name: b"{}"})
    assert any(line.startswith(f"{name} is not a summary: ") for line in wrong)
    assert (wrong, tables) == (sorted(wrong), [])


def test_untouched_results_verify(locked, results, archive):
    done = east("verify", locked, results)
    assert (done.returncode, done.stdout) == (0, f"33 files of 5 runs in {results} are as {locked} says.\n")
    done = east("verify", locked, archive)
    assert done.returncode == 0
    assert "tables/table2.csv" in done.stdout


def test_verifying_names_every_file_that_differs(locked, results):
    (results / "runs" / STATIC / "metrics.csv").write_text("epoch,test_acc\n2,99.0\n")
    (results / "runs" / "table2/static/seed2" / "summary.json").unlink()
    (results / "tables" / "table2.csv").write_text("nicer")
    done = east("verify", locked, results)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"runs/{STATIC}/metrics.csv is not the locked file",
        "runs/table2/static/seed2/summary.json is missing",
        "tables/table2.csv is not the locked file",
    ]
    assert done.stderr == f"error: 3 of 32 files of {results} are not as {locked} says.\n"


def test_a_lock_that_tells_another_story_than_its_summaries_does_not_verify(locked, results):
    locked.write_text(locked.read_text().replace('"final_test_accuracy": 50.0', '"final_test_accuracy": 95.0', 1))
    done = east("verify", locked, results)
    assert done.returncode == 1
    assert "summary.json says final_test_accuracy 50.0, the lock 95.0" in done.stdout


def test_an_archive_restores_to_the_same_files(archive, results, tmp_path):
    done = restore(archive, tmp_path / "new")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/new: 5 taken, 0 there already, 0 refused.\n")
    made = files(results).items()
    expected = {path: text for path, text in made if not {"tables", "aggregate"} & set(path.parts)}
    summaries = {path: content for path, content in expected.items() if path.name == "summary.json"}
    copies = {path.with_name("summary.kept.json"): content for path, content in summaries.items()}
    assert files(tmp_path / "new") == expected | copies
    assert restore(archive, tmp_path / "new").stdout == f"{tmp_path}/new: 0 taken, 5 there already, 0 refused.\n"


def test_restoring_writes_over_nothing(archive, tmp_path):
    new = tmp_path / "new"
    restore(archive, new)
    (new / "runs" / STATIC / "metrics.csv").write_text("mine")
    (new / "cost" / "cost.json").write_text("mine")
    before = files(new)
    done = restore(archive, new)
    assert done.returncode == 1
    assert f"refused {STATIC}: {new}/runs/{STATIC} holds another metrics.csv" in done.stdout
    assert "refused cost/cost.json: other costs were measured here" in done.stdout
    assert files(new) == before


def test_restoring_fills_in_what_is_not_there(archive, tmp_path):
    """Whatever folders there are; a run that lacks a file is another one, and so are costs that are no file."""
    new = tmp_path / "some" / "new"
    for folder in (f"runs/{STATIC}", "runs/table2/static/seed2", "cost/cost.json", "made_from/cost"):
        (new / folder).mkdir(parents=True)
    (new / "runs" / "table2/static/seed2" / "metrics.csv").write_text("mine")
    done = restore(archive, new)
    assert f"{new}: 4 taken, 0 there already, 2 refused.\n" in done.stdout
    listed = "metrics.csv, run.json, summary.json, timing.csv, trace.csv, updates.csv"
    assert f"seed2 holds another {listed}; remove it to take this one" in done.stdout
    (new / "cost" / "cost.json").rmdir()
    assert restore(archive, new).returncode == 1
    assert (new / "cost/cost.json").exists()
    assert (new / "made_from/cost/cost.json").exists()


def test_restoring_goes_where_the_lock_says_if_nobody_says_otherwise(archive, tmp_path):
    done = east("restore", archive, folder=tmp_path)
    assert done.stdout == "results/test: 5 taken, 0 there already, 0 refused.\n"
    assert (tmp_path / "results/test/runs" / STATIC / "summary.json").exists()


def test_nothing_is_put_in_place_before_it_is_on_the_disk(archive, tmp_path, monkeypatch):
    seen = []

    def sync():
        seen.extend(path.relative_to(tmp_path / "new") for path in (tmp_path / "new").rglob("*.json"))
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "sync", sync)
    with pytest.raises(OSError, match="the disk is gone"):
        restore_archive(archive, tmp_path / "new")
    assert len(seen) == 2 * 5 + 2
    assert {path.parts[0][:10] for path in seen} == {".incoming-"}
    assert files(tmp_path / "new") == {}


def test_an_archive_without_a_lock_is_none_of_results(tmp_path):
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("runs/x"))
    with pytest.raises(EastError, match=r"other\.tar\.gz is not an archive of results"):
        restore_archive(tmp_path / "other.tar.gz", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_archive_holds_no_time_and_starts_with_its_lock(archive, results):
    assert archive.read_bytes()[4:8] == bytes(4), "of the compression"
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    runs = [f"runs/{run}/{name}" for run in list(PLAN)[:-1] for name in SMALL_FILES]
    assert names == ["results.lock.json", *sorted([*COSTS, *runs])]
    assert {(member.mtime, member.uid, member.mode) for member in members} == {(0, 0, 0o644)}


def test_what_a_run_uses_of_plugins_is_locked_and_archived_with_it(tmp_path):
    plugin, overlay = tmp_path / "mine.py", tmp_path / "mine.yaml"
    plugin.write_text(
        '"""M."""\nfrom east.methods import growth_rule\n\n@growth_rule(paper="none")\ndef mine(layer):\n    """M."""\n'
    )
    overlay.write_text(
        "plugins: [mine.py]\nseeds: [1]\ntables: {table2: {rows: [{static: true, topology: {grow: mine}}]}}\n"
    )
    plan = make_plan(read_config(TEST_CONFIG, overlay))
    first, other = plan.runs[0], plan.runs[-1]
    for run in (first, other):
        write_planned_run(tmp_path / "results/runs", run, 50.0)
        shutil.copy(plugin, tmp_path / "results/runs" / run.id / plugin_copy(sha256(plugin.read_bytes()).hexdigest()))
    (tmp_path / "results/runs" / first.id / f"plugin-{'0' * 16}.py").write_text("of an attempt before")
    lock = make_lock(plan, tmp_path / "results")
    copies = {run: [name for name in locked.files if name.startswith("plugin")] for run, locked in lock.runs.items()}
    assert copies == {first.id: [plugin_copy(sha256(plugin.read_bytes()).hexdigest())], other.id: []}
    write_archive(lock, tmp_path / "results", tmp_path / "out.tar.gz")
    folder, placed = restore_archive(tmp_path / "out.tar.gz", tmp_path / "new")
    assert sorted(placed.taken) == sorted(copies)
    assert (folder / "runs" / first.id / copies[first.id][0]).read_bytes() == plugin.read_bytes()


def test_files_that_have_changed_since_they_were_locked_are_not_archived(locked, results, tmp_path):
    (results / "runs" / STATIC / "metrics.csv").write_text("other")
    with pytest.raises(EastError, match=rf"{STATIC}/metrics\.csv is not the locked file any more"):
        write_archive(read_lock(locked), results, tmp_path / "out.tar.gz")


def member(name, content=b"x", **keys):
    info = tarfile.TarInfo(name)
    info.size = len(content) if keys.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
    for key, value in keys.items():
        setattr(info, key, value)
    return info, content


HOSTILE = {
    "a file outside": member("../outside"),
    "an absolute path": member("/tmp/outside"),
    "a file that is not locked": member("runs/table2/static/seed1/weights.safetensors"),
    "a link": member(f"runs/{STATIC}/metrics.csv", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": member(f"runs/{STATIC}/metrics.csv", type=tarfile.LNKTYPE, linkname="results.lock.json"),
    "a folder": member("runs", type=tarfile.DIRTYPE),
    "a hole of a terabyte": member(
        f"runs/{STATIC}/metrics.csv", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**12)}
    ),
}


@pytest.fixture
def refusal(archive, tmp_path):
    """Why an archive is refused in which every file is what `edit` makes of it, with `more` behind them."""

    def refuse(edit=lambda name, content: content, more=()):
        changed = tmp_path / "changed.tar.gz"
        with tarfile.open(archive) as old, tarfile.open(changed, "w:gz") as new:
            entries = [member(entry.name, edit(entry.name, old.extractfile(entry).read())) for entry in old]
            for info, content in (*entries, *more):
                new.addfile(info, io.BytesIO(content))
        done = restore(changed, tmp_path / "new")
        assert (done.returncode, files(tmp_path / "new")) == (1, {})
        return done.stderr

    return refuse


@pytest.mark.parametrize("what", HOSTILE)
def test_an_archive_with_anything_else_in_it_is_refused_whole(refusal, what):
    name = HOSTILE[what][0].name
    assert f"changed.tar.gz holds '{name}', which its lock does not name" in refusal(more=[HOSTILE[what]])


@pytest.mark.parametrize("name", ["../../outside/seed1", "table2/../seed1"])
def test_a_lock_cannot_name_a_file_outside(refusal, name):
    assert "results.lock.json: runs" in refusal(lambda _, content: content.replace(STATIC.encode(), name.encode()))


def test_an_archive_whose_files_are_not_the_locked_ones_is_refused(refusal):
    said = refusal(lambda name, content: content if name == "results.lock.json" else content.replace(b"50.0", b"90.0"))
    assert f"runs/{STATIC}/metrics.csv is not the locked file" in said


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_damaged_archive_is_named_and_changes_nothing(archive, tmp_path, keep):
    changed = tmp_path / "changed.tar.gz"
    changed.write_bytes(archive.read_bytes()[:keep])
    done = restore(changed, tmp_path / "new")
    assert done.returncode == 1
    assert str(changed) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists() or files(tmp_path / "new") == {}


def test_an_archive_that_unpacks_without_end_is_refused(archive, monkeypatch):
    monkeypatch.setattr("east.operations.archive.UNPACKED_BYTES", 20_000)
    with pytest.raises(EastError, match="it unpacks to more than 20,000 bytes"):
        read_archive(archive)
