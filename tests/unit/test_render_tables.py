import csv
import io
import re
from html import unescape

from east.analysis.aggregate import aggregate
from east.render.rendered import csv_text
from east.render.tables import grid_view, render_table
from east.render.view import Column, Footnotes, TableView, letter
from tests.unit.fake_runs import DIVERGED, PUBLISHED, grid, methods, sources

HOSTILE = "<script>alert(1)</script> \\input{x} 5% & $a_b$ [z] *|* \u202etxt ש \u0000"


def rendered(table, tmp_path):
    return render_table(aggregate(table, sources(tmp_path), published_dir=PUBLISHED, partial=True))


def body(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("|")]


def test_markdown_of_a_small_table(tmp_path):
    table = grid(tmp_path, [80.0, 82.0, 81.0], [85.0, DIVERGED, 86.0], cyclic_keys={"footnote": "rescaled"})
    markdown = rendered(table, tmp_path).md
    assert body(markdown) == [
        "| Method | Pattern | Multiplier | Cycles | Length Mult. | This run: Test Accuracy (%) | This run: Change (%) "
        "| Paper: Test Accuracy (%) | Paper: Change (%) | Difference |",
        "|:---|:---|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| Static | – | – | – | – | 81.00 ± 1.00 | – | 81.47 ± 0.47 | – | −0.47 |",
        "| Cyclic<sup>a</sup> | Cosine | 10 | 2 | 2× | 85.50 ± 0.71 (2 of 3 seeds)<sup>b</sup> | +4.5 "
        "| 85.34 ± 0.18 | +3.9 | +0.16 |",
    ]
    assert markdown.endswith("\n\n<sup>a</sup> Rescaled.\n\n<sup>b</sup> Seed 18 diverged in epoch 7.\n")


def test_latex_of_a_small_table(tmp_path):
    latex = rendered(grid(tmp_path, [80.0], published=None, title="50% & more"), tmp_path).tex
    assert latex == (
        "\\begin{table}[tbp]\n\\centering\n"
        "\\caption{50\\% \\& more: ResNet-34 of width 64 on CIFAR-10 at density 0.0005. "
        "Test accuracy after the last epoch, seed 17 only. Change is relative to the static row.}\n"
        "\\label{tab:table2}\n\\medskip\n\\small\n\\makebox[\\linewidth][c]{%\n"
        "\\begin{tabular}{@{}llrrrrr@{}}\n\\toprule\n"
        "Method & Pattern & Multiplier & Cycles & Length Mult. & Test Accuracy (\\%) & Change (\\%) \\\\\n\\midrule\n"
        "Static & -- & -- & -- & -- & 80.00 & -- \\\\\n\\bottomrule\n\\end{tabular}}\n\\end{table}\n"
    )


def test_csv_has_the_unrounded_numbers_and_every_seed(tmp_path):
    table = grid(tmp_path, [80.0, 81.0, 80.5], [85.0, DIVERGED, None])
    static, cyclic = csv.DictReader(io.StringIO(rendered(table, tmp_path).csv))
    assert (static["accuracy_mean"], static["accuracy_std"], static["change"]) == ("80.5", "0.5", "")
    assert static["seed_values"] == "17:80.0000 18:81.0000 19:80.5000"
    assert (cyclic["pattern"], cyclic["multiplier"], cyclic["change"]) == ("cosine", "10", "4.5")
    assert (cyclic["published_accuracy_mean"], cyclic["difference"]) == ("85.34", "-0.34")
    assert cyclic["seed_values"] == "17:85.0000 18:diverged 19:missing"
    counts = [cyclic[f"seeds_{kind}"] for kind in ("planned", "used", "diverged", "missing")]
    assert counts == ["3", "1", "1", "1"]


def test_a_csv_file_has_six_decimals_and_no_needless_digit():
    record = {"a": 2 / 3, "b": 2.5, "c": 1e-7, "d": None, "e": 5, "f": 'x, "y"'}
    assert csv_text([*record, "g"], [record]) == 'a,b,c,d,e,f,g\n0.666667,2.5,0,,5,"x, ""y""",\n'
    assert csv_text(["a"], []) == "a\n"


def test_the_static_row_is_set_apart_and_a_line_parts_the_patterns(tmp_path):
    summarised = aggregate(grid(tmp_path, [80.0], [85.0]), sources(tmp_path), published_dir=PUBLISHED)
    static, cyclic = summarised.rows
    table = summarised.model_copy(update={"rows": (static, cyclic, cyclic)})
    rows = grid_view(table).rows
    assert [(row.reference, row.rule) for row in rows] == [(True, False), (False, True), (False, False)]


def test_a_row_without_a_number_says_why(tmp_path):
    static, cyclic = body(rendered(grid(tmp_path, [DIVERGED], [None, None]), tmp_path).md)[2:]
    assert "| n.a. (diverged)<sup>a</sup> | – | 81.47 ± 0.47 | – | n.a. |" in static
    assert "| n.a. (not run)<sup>b</sup> | n.a. | 85.34 ± 0.18 | +3.9 | n.a. |" in cyclic


def test_the_caption_says_when_the_difference_is_no_test(tmp_path):
    sentence = "does not test the paper's numbers"
    assert sentence in rendered(grid(tmp_path, [80.0], comparable=False), tmp_path).md
    assert sentence not in rendered(grid(tmp_path, [80.0]), tmp_path).md


def test_a_change_that_contradicts_the_printed_accuracies_has_a_footnote(tmp_path):
    table = grid(tmp_path, [40.0], [44.0], cyclic_keys={"multiplier": 30.0}, published="table3.csv")
    markdown = rendered(table, tmp_path).md
    assert "| +4.4<sup>a</sup> |" in markdown
    assert "<sup>a</sup> As printed; the printed accuracies give +5.4." in markdown


def test_the_methods_table_prints_no_published_number(tmp_path):
    output = rendered(methods(tmp_path, [80.0, 82.0], note="A note."), tmp_path)
    assert body(output.md)[2] == "| RigL<sup>a</sup> | ResNet-34 | 32 | CIFAR-10 | resnet34 | 81.00 ± 1.41 | n/a |"
    assert next(csv.DictReader(io.StringIO(output.csv)))["published_accuracy_mean"] == "n/a"
    assert "| n.a. | n/a |" in rendered(methods(tmp_path, []), tmp_path).md


def hostile_table(tmp_path):
    return grid(
        tmp_path, [80.0, None], [85.0, DIVERGED],
        title=HOSTILE,
        static_keys={"method": HOSTILE, "footnote": HOSTILE},
    )  # fmt: skip


def test_hostile_text_stays_text_in_html(tmp_path):
    html = rendered(hostile_table(tmp_path), tmp_path).html
    tags = "figure figcaption b div table thead tbody tr th td span sup p"
    assert set(re.findall(r"<(\w+)", html)) == set(tags.split())
    for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL):
        assert sum(int(span or 1) for span in re.findall(r'<t[hd](?: [^>]*?colspan="(\d+)"| [^>]*)?>', row)) == 10
    text = unescape(re.sub(r"<[^>]*>", "", html))
    assert "<script>alert(1)</script> \\input{x} 5% & $a_b$ [z] *|* [U+202E]txt ש [U+0000]" in text
    assert "\u202e" not in text


def test_hostile_text_stays_in_its_cell_in_markdown(tmp_path):
    lines = body(rendered(hostile_table(tmp_path), tmp_path).md)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {11}
    assert "<script" not in "".join(lines)


def test_all_formats_are_written_beside_each_other(tmp_path):
    paths = rendered(grid(tmp_path, [80.0]), tmp_path).contents(tmp_path / "v1.table2")
    assert [path.name for path in paths] == ["v1.table2.csv", "v1.table2.md", "v1.table2.tex", "v1.table2.html"]
    assert all(paths.values())


def test_equal_footnotes_share_a_mark():
    footnotes = Footnotes()
    assert footnotes.marks(["x", None, "y"]) == ("a", "b")
    assert footnotes.marks(["y"]) == ("b",)
    assert [note.text for note in footnotes.collected()] == ["x", "y"]
    assert [letter(index) for index in (0, 25, 26, 51, 52)] == ["a", "z", "aa", "az", "ba"]


def test_groups_span_neighbouring_columns():
    labels = ["", "G", "G", "", "H"]
    view = TableView(id="a b/c", caption="", columns=tuple(Column(label="x", group=group) for group in labels), rows=())
    assert [(group.label, group.first, group.last, group.span) for group in view.groups] == [
        ("", 1, 1, 1), ("G", 2, 3, 2), ("", 4, 4, 1), ("H", 5, 5, 1),
    ]  # fmt: skip
    assert view.anchor == "a-b-c"
