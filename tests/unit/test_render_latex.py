import re
import shutil
import subprocess
import unicodedata

import pytest

from east.analysis.aggregate import read_table
from east.analysis.sources import Sources
from east.errors import EastError
from east.render.appendix import appendix_document
from east.render.contents import FigureGroup, ReportFigure, ReportSection, ReportSpec
from east.render.figures import TableData, draw
from east.render.templating import escape_latex
from tests.unit.fake_report import make_report, write_derived

HOSTILE = (
    "\\input{/etc/passwd}%&_^~{}$#\\\\[9cm]*<script>|\"''--`?`\u202e\u200f\x00\x1b[31m é ő α 漢 \n\n\\end{document}"
)
ACCENTS = "".join(chr(code) for code in range(0xA0, 0x100) if unicodedata.category(chr(code)) != "Cf")
PDFLATEX = shutil.which("pdflatex")

needs_tex = pytest.mark.skipif(
    PDFLATEX is None, reason="needs pdflatex (Debian: texlive-latex-base and texlive-latex-recommended)"
)


def compiled(folder, name="appendix"):
    """The text of a document that pdflatex has made a PDF of."""
    command = [PDFLATEX, "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    return done.stdout


def standalone(folder, body):
    text = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + body + "\n\\end{document}\n"
    (folder / "appendix.tex").write_text(text, encoding="utf-8")


@pytest.fixture
def spec(tmp_path):
    """Everything that a report has, with hostile text in every field that is text, and a figure that is missing."""
    spec = make_report(tmp_path, HOSTILE)
    sources = Sources(tmp_path)
    drawing = draw("multiplier", TableData(read_table(tmp_path / "aggregate" / "table2.json", sources), sources))
    write_derived(tmp_path, {"figures/table2-multiplier.png": drawing.png})
    missing = ReportFigure(svg=tmp_path / "figures" / "none.svg", caption="x")
    return spec.model_copy(update={"figures": (*spec.figures, FigureGroup(heading=HOSTILE, figures=(missing,)))})


@pytest.fixture
def appendix(tmp_path, spec):
    out = tmp_path / "tables" / "appendix.tex"
    out.write_text(appendix_document(spec, Sources(tmp_path), out.parent), encoding="utf-8")
    return out


def test_no_hostile_text_becomes_a_command(appendix):
    text = appendix.read_text(encoding="utf-8")
    assert text.count(escape_latex(HOSTILE)) > 15
    assert "\\input" not in text
    assert text.count("\\end{document}") == 1
    assert not [
        character for character in text if unicodedata.category(character) in ("Cf", "Cc") and character != "\n"
    ]
    body = text.partition("\\begin{document}")[2]
    begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", body) for word in ("begin", "end"))
    assert sorted([*begun, "document"]) == sorted(ended)


def test_only_packages_of_a_basic_tex_are_used(appendix):
    packages = re.findall(r"\\usepackage(?:\[.*?\])?\{(.*?)\}", appendix.read_text(encoding="utf-8"))
    assert packages == ["geometry", "booktabs", "graphicx"]


def test_figures_that_are_there_are_included_beside_the_document(appendix):
    included = re.findall(r"\\includegraphics\[.*?\]\{(.*?)\}", appendix.read_text(encoding="utf-8"))
    assert included == ["../figures/table2-multiplier.png"]


def test_a_pdf_that_somebody_has_made_of_a_figure_is_taken_first(tmp_path, spec):
    (tmp_path / "figures" / "table2-multiplier.pdf").touch()
    assert "{figures/table2-multiplier.pdf}" in appendix_document(spec, Sources(tmp_path), tmp_path)


def test_a_figure_whose_name_latex_would_read_is_refused(tmp_path):
    path = tmp_path / "a b}.svg"
    path.with_suffix(".pdf").touch()
    figures = (FigureGroup(heading="x", figures=(ReportFigure(svg=path, caption="x"),)),)
    with pytest.raises(EastError, match="letters, digits"):
        appendix_document(ReportSpec(title="x", name="x", figures=figures), Sources(tmp_path), tmp_path)


def test_tables_have_the_papers_numbers(appendix):
    numbers = re.findall(r"\\renewcommand\{\\thetable\}\{([^\\]+)", appendix.read_text(encoding="utf-8"))
    assert numbers == ["I", "II", "III", "2", "IV", "6"]


def test_tables_that_the_paper_lacks_have_roman_numbers_and_then_others(tmp_path):
    names = [f"mine{letter}" for letter in "abcdefghijkl"]
    write_derived(tmp_path, {f"tables/{name}.tex": "x" for name in names})
    of = [ReportSection(id=name, heading="x", downloads=(tmp_path / "tables" / f"{name}.tex",)) for name in names]
    text = appendix_document(ReportSpec(title="x", name="x", tables=tuple(of)), Sources(tmp_path), tmp_path)
    numbers = re.findall(r"\\renewcommand\{\\thetable\}\{([^\\]+)", text)
    assert numbers == [*["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X"], "R11", "R12"]


def test_a_table_that_is_missing_is_named(tmp_path):
    section = ReportSection(id="table2", heading="x", downloads=(tmp_path / "tables" / "table2.tex",))
    with pytest.raises(EastError, match="tables/table2"):
        appendix_document(ReportSpec(title="x", name="x", tables=(section,)), Sources(tmp_path), tmp_path)


@needs_tex
def test_the_whole_appendix_compiles_whatever_its_fields_say(appendix):
    assert "LaTeX Error" not in compiled(appendix.parent)


@needs_tex
def test_a_table_alone_drops_into_a_paper(tmp_path, spec):
    standalone(tmp_path, (tmp_path / "tables" / "table2.tex").read_text(encoding="utf-8"))
    compiled(tmp_path)


@needs_tex
def test_every_character_of_western_europe_and_every_mark_compiles(tmp_path):
    ascii_text = "".join(map(chr, range(0x20, 0x7F)))
    symbols = "±×·≠≤≥≈→−°Δαστµμ–—‘’“”…\u00a0\u202fßő"
    lines = [escape_latex(text) for text in (ascii_text, ACCENTS, symbols, ascii_text[::-1])]
    standalone(tmp_path, "\n\n".join(lines))
    assert "Missing character" not in compiled(tmp_path)


@needs_tex
def test_nothing_that_a_text_says_is_read_or_run(tmp_path):
    (tmp_path / "secret.tex").write_text("LEAKED", encoding="utf-8")
    standalone(tmp_path, escape_latex(r"\input{secret} \immediate\write18{touch ran} \openout15=ran"))
    assert "secret.tex" not in compiled(tmp_path)
    assert not (tmp_path / "ran").exists()
