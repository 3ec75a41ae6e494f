import pytest

from east.errors import EastError
from east.render.templating import (
    REPORT_FOLDER,
    Tex,
    caption,
    escape_latex,
    escape_markdown,
    html_environment,
    latex_environment,
    markdown_environment,
    project_text,
    render,
    visible,
)


def test_what_cannot_be_seen_is_shown_by_its_code_point():
    assert visible("a\u202eb\u200fc\x00d\u2028e") == "a[U+202E]b[U+200F]c[U+0000]d[U+2028]e"
    assert visible("a\tb\nc\rd é×") == "a b c d é×"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("50 % & $1_a^b#~", r"50 \% \& \$1\_a\textasciicircum{}b\#$\sim$"),
        ("[2pt]*", "{[}2pt{]}{*}"),
        ("<script>|", r"\textless{}script\textgreater{}\textbar{}"),
        ("81 ± 1 − 2× Δ – é", r"81 $\pm$ 1 $-$ 2$\times$ $\Delta$ -- é"),
        ("\u202eש", "{[}U+202E{]}{[}U+05E9{]}"),
        ("--all ''x'' ``y`` ?`!`", "-{}-all '{}'x'{}' `{}`y`{}` ?{}`!{}`"),
        ("e\u0301 ő Āū a\u0323", r"é \H{o} {[}U+0100{]}{[}U+016B{]} {[}U+1EA1{]}"),
        ("5 °C ≤ σ ≈ µ → ατ", r"5 $^{\circ}$C $\leq$ $\sigma$ $\approx$ $\mu$ $\rightarrow$ $\alpha$$\tau$"),
        ("line\nend\r\x0b\x85", "line end {[}U+000B{]}{[}U+0085{]}"),
    ],
)
def test_latex_is_escaped(text, escaped):
    assert escape_latex(text) == escaped


def test_markdown_is_escaped():
    assert escape_markdown("a|b<script>*_`[x](y)\\ & ~1") == r"a\|b&lt;script&gt;\*\_\`\[x\](y)\\ &amp; \~1"


@pytest.mark.parametrize(
    ("make", "source", "expected"),
    [
        (html_environment, "{{ x }}", "&lt;b&gt; %"),
        (latex_environment, "<< x >>", r"\textless{}b\textgreater{} \%"),
        (markdown_environment, "{{ x }}", "&lt;b&gt; %"),
    ],
)
def test_every_environment_escapes_without_being_asked(make, source, expected):
    assert make().from_string(source).render(x="<b> %") == expected


def test_latex_of_our_own_templates_is_not_escaped_again():
    assert latex_environment().from_string("<< x >>").render(x=Tex(r"\textbf{a}")) == r"\textbf{a}"


def test_captions_are_one_line_of_plain_text():
    text = caption("table-methods", title="<The>  methods", density="0.1", number_of_seeds=0, incomplete=False)
    assert text.startswith("<The> methods at density 0.1.")
    assert "\n" not in text


def test_a_missing_template_is_an_error_for_people():
    with pytest.raises(EastError, match=r"none\.md\.j2"):
        render(markdown_environment(), "none.md.j2")
    with pytest.raises(EastError, match=r"none\.css cannot be read"):
        project_text("none.css")
    assert REPORT_FOLDER.name == "report"
