from east.analysis.aggregate import aggregate
from east.analysis.provenance import collect_provenance, table_coverage
from tests.unit.fake_runs import DIVERGED, PUBLISHED, grid, sources, write_run


def test_a_run_that_two_tables_show_counts_once(tmp_path):
    result = aggregate(
        grid(tmp_path, [80.0, DIVERGED, None], [85.0]), sources(tmp_path), published_dir=PUBLISHED, partial=True
    )
    assert table_coverage([result, result]) == {"finished": 2, "diverged": 1, "missing": 1}


def test_provenance_counts_runs_by_what_trained_them(tmp_path):
    write_run(tmp_path, "t/r/seed17", 80.0, seconds=10.0, peak_memory_mb=5.0, reproducibility="statistical")
    write_run(tmp_path, "t/r/seed18", 80.0, seconds=20.5, code_digest="d2", attempts=3, peak_memory_mb=7.0)
    write_run(tmp_path, "t/s/seed17", DIVERGED, commit=None, versions={"python": "3.12.1", "torch": "2.11"})
    runs = ["t/r/seed17", "t/r/seed18", "t/s/seed17", "t/s/seed18", "t/r/seed17"]
    provenance = collect_provenance(runs, sources(tmp_path))
    assert provenance.seeds == {17: 2, 18: 1}
    assert provenance.code_digests == {"d1": 2, "d2": 1}
    assert provenance.classes == {"any processor": 2, "statistical": 1}
    assert provenance.commits == {"c0ffee": 2, "not recorded": 1}
    assert provenance.versions == {"python": {"3.12.1": 3}, "torch": {"not recorded": 2, "2.11": 1}}
    assert (provenance.seconds, provenance.resumed, provenance.peak_memory_mb) == (90.5, 1, 7.0)


def test_what_trained_only_a_part_of_a_run_counts_as_well(tmp_path):
    parts = [
        {"attempt": 1, "last_step": None, "code_digest": "d0", "device": "lost"},
        {
            "attempt": 2,
            "first_step": 1,
            "last_step": 6,
            "code_digest": "d2",
            "engine": "dense",
            "versions": {"torch": "1"},
        },
        {"attempt": 3, "first_step": 7, "last_step": 9, "code_digest": "d1", "device": "another"},
    ]
    write_run(tmp_path, "t/r/seed17", 80.0, attempts=3, attempt_records=parts, versions={"torch": "2"})
    write_run(tmp_path, "t/r/seed18", 80.0, versions={"torch": "2"})
    provenance = collect_provenance(["t/r/seed17", "t/r/seed18"], sources(tmp_path))
    assert provenance.code_digests == {"d1": 2, "d2": 1}
    assert provenance.versions == {"torch": {"2": 2, "1": 1}}
    assert provenance.engines["dense"] == 1
    assert provenance.devices["another"] == 1
    assert "lost" not in provenance.devices


def test_no_runs_have_an_empty_provenance(tmp_path):
    assert collect_provenance(["t/r/seed17"], sources(tmp_path)).seconds == 0
