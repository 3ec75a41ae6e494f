import pytest

from east.cli.plot import bars, curve
from east.config import load_plan
from east.training.records import UpdateRecord
from tests.unit.fake_runs import seal, write_curve, write_planned_run, write_rows
from tests.unit.in_process import east

RUN = "table2/cosine-m10-n2-g2/seed17"
NAMES = ("step", "epoch", "kind", "density", "nonzeros", "dropped", "grown", "blind_growth", "active_zeros")
UPDATES = [
    dict(zip((*NAMES, "live_channels"), row, strict=True)) | {"channels": 8512}
    for row in (
        (0, 0, "initial", 0.0005, 10633, 0, 0, 0, 0, 4000),
        (350, 1, "cycle", 0.001, 21265, 0, 10632, 33, 7, 4100),
        (700, 2, "cycle", 0.0008, 17000, 4265, 0, 0, 12, 4256),
    )
]


@pytest.fixture
def folder(tmp_path):
    planned = next(run for run in load_plan() if run.id == RUN)
    path = write_planned_run(tmp_path / "runs", planned, 85.43, nonzeros=10_633, masked_weights=21_265_088)
    write_rows(path, UpdateRecord, *UPDATES)
    return path


def show(tmp_path, *options, run=RUN):
    return east("show", run, "--results", tmp_path, *options)


def test_a_finished_run_is_shown_with_curve_masks_and_summary(tmp_path, folder):
    done = show(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"done  {RUN}  test 85.43 %, 1 min, reproducibility: any processor\n")
    assert (
        "Cyclic: ResNet-34 of width 64 on CIFAR-10, density 0.0005, cosine, 10×, 2 cycles, 2×, seed 17" in done.stdout
    )
    assert "Test accuracy (%) by epoch: 85.43 after 250, at most 85.43 after 250" in done.stdout
    assert "1 cycle 0.001 21,265 0 10,632 33 7 48 %" in " ".join(done.stdout.split())
    assert "live channels  ▁▄█  4,000 to 4,256" in done.stdout
    assert "10,633 of 21,265,088 (0.05 %)" in done.stdout


def test_eighty_columns_suffice_and_no_colour_is_sent_to_a_file(tmp_path, folder):
    done = show(tmp_path)
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()[2:]) <= 80
    assert "\x1b" not in done.stdout


def test_many_updates_are_sampled_unless_all_are_asked_for(tmp_path, folder):
    row = UPDATES[0] | {"kind": "exchange"}
    write_rows(folder, UpdateRecord, *(row | {"step": 350 * i, "epoch": i} for i in range(1, 100)))
    few, every = show(tmp_path).stdout, show(tmp_path, "--all").stdout
    assert (few.count("exchange"), every.count("exchange")) == (12, 99)
    assert "12 of 99 mask updates; --all lists them." in few
    sampled = [line.split()[0] for line in few.splitlines() if " exchange " in line]
    assert (sampled[0], sampled[-1]) == ("1", "99")


def test_text_from_files_is_neither_markup_nor_control(tmp_path, folder):
    seal(folder / "summary.json", device="[bold red]GPU[/] \x1b[31m\u202e", versions={"[blink]x": "1\n2"})
    write_rows(folder, UpdateRecord, UPDATES[0] | {"kind": "[b]\x1b[2J"})
    out = show(tmp_path).stdout
    assert "[bold red]GPU[/] [U+001B][31m[U+202E]" in out
    assert "[blink]x 1 2" in out
    assert "[b][U+001B][2J" in out
    assert "\x1b" not in out


def test_a_run_that_has_not_begun_is_shown_as_waiting(tmp_path):
    done = show(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"waiting  {RUN}\n")
    assert "No epoch is recorded." in done.stdout


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv", "updates.csv", "state.json", "run.json"])
@pytest.mark.parametrize("cut", [0, 0.5])
def test_a_file_that_is_half_written_or_empty_is_no_traceback(tmp_path, folder, name, cut):
    path = folder / name
    text = path.read_text() if path.exists() else '{"state": "running"}'
    path.write_text(text[: int(cut * len(text))])
    done = show(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    if name in ("metrics.csv", "updates.csv"):
        assert name in " ".join(done.stdout.split())


def test_a_run_that_diverged_says_in_which_epoch(tmp_path, folder):
    seal(folder / "summary.json", status="diverged", final_test_accuracy=None, diverged_at_epoch=7)
    out = show(tmp_path).stdout
    assert out.startswith(f"diverged  {RUN}  in epoch 7")
    assert "diverged in epoch" in out


def test_an_accuracy_that_is_no_number_is_not_drawn(tmp_path, folder):
    write_curve(folder, [10.0, 40.0, float("nan")])
    done = show(tmp_path)
    assert "40.00 after 2, at most 40.00 after 2" in " ".join(done.stdout.split())
    assert done.stderr == ""


def test_a_curve_reaches_from_its_lowest_to_its_highest_value():
    lines = curve([1, 2, 3, 4], [10, 40, 20, 40], end=4, width=30, height=4, ascii_only=False)
    assert [line[:9] for line in lines[:4]] == ["     40 │", "        │", "        │", "     10 │"]
    assert lines[-1].rstrip().endswith("4")
    assert all(len(line) <= 30 for line in lines)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0, 0.0, 0.0]])
def test_a_constant_curve_is_a_line_in_the_middle(values):
    lines = curve(range(len(values)), values, end=3, width=30, height=3, ascii_only=True)
    assert "*" in lines[1]
    assert "*" not in lines[0] + lines[2]


def test_plain_terminals_get_plain_characters():
    lines = curve([0, 1], [0, 1], end=1, width=30, height=4, ascii_only=True)
    drawn = [*lines, bars([1, 2, 3], 3, ascii_only=True)]
    assert all(line.isascii() for line in drawn)


def test_bars_are_means_of_equal_parts():
    assert bars([0, 0, 3, 5, 8, 8], 3, ascii_only=False) == "▁▅█"
    assert bars([1, 2], 10, ascii_only=False) == "▁█"
    assert bars([3, 3], 10, ascii_only=False) == "▁▁"
