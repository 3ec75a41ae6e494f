"""The templates of the folder `report`: environments that escape every value, captions, and HTML documents."""

import base64
import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from east.errors import EastError
from east.render.drawing import interval_drawing
from east.shown import visible

_PLACES = (Path(__file__).resolve().parents[2] / "report", Path.cwd() / "report")
REPORT_FOLDER = next((place for place in _PLACES if place.is_dir()), _PLACES[0])
"""Of the checkout that holds this package or, where that is installed elsewhere, of the working directory."""
PUBLISHED = REPORT_FOLDER / "published"
"""The paper's numbers."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"$\sim$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    # A bracket or a star after `\\` would be read as its argument.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≠": r"$\neq$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "−": "$-$",
    "°": r"$^{\circ}$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "\u00a0": "~",
    "\u202f": r"\,",
    "ß": r"\ss{}",
    "ő": r"\H{o}",
}


_APART = "\x00"
"""Stands between characters that TeX would join; no text that is `visible` has it."""


class Tex(str):
    """LaTeX of our own templates, which have escaped every value in it."""

    __slots__ = ()


def escape_latex(text: str) -> str:
    """Escape any text for the body, a caption or a comment of a LaTeX document with the default fonts.

    The result is one line in which TeX finds no command, no comment, no mathematics and no argument that is not from
    here. Characters that the fonts lack, and those that cannot be seen, are shown by their code point, so that the
    document always compiles and reads as it is written.
    """
    composed = unicodedata.normalize("NFC", visible(text))
    # The fonts join what stands side by side: -- into a dash, '' and `` into quotes, ?` and !` into Spanish marks.
    apart = re.sub(r"(?<=-)-|(?<=')'|(?<=[`?!])`", lambda joined: f"{_APART}{joined.group()}", composed)
    return "".join(_latex_character(character) for character in apart)


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character == _APART:
        return "{}"
    base = unicodedata.normalize("NFD", character)[0]
    if ord(base) < 0x80 and ord(character) < 0x100:
        return character
    return f"{{[}}U+{ord(character):04X}{{]}}"


def escape_markdown(text: str) -> str:
    """Escape a text for a cell or a line of (GitHub flavoured) Markdown."""
    entities = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", entities)


def project_text(name: str) -> str:
    """The text of a file of the project's own in `report/`.

    Raises:
        EastError: It cannot be read.
    """
    path = REPORT_FOLDER / name
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EastError(f"{path} cannot be read, and the report needs it: {error}.") from error


def html_environment() -> Environment:
    """Templates for HTML; every value is escaped unless it is `Markup`."""
    environment = Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        **_common("templates"),
    )
    environment.filters["drawn"] = interval_drawing
    return environment


def latex_environment() -> Environment:
    """Templates for LaTeX, with `<< value >>` and `<% statement %>`; every value is escaped unless it is `Tex`."""
    return Environment(
        autoescape=False,  # noqa: S701 - the escaping of LaTeX is done by `finalize`
        finalize=lambda value: value if isinstance(value, Tex) else escape_latex(str(value)),
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
        **_common("templates"),
    )


def markdown_environment() -> Environment:
    """Templates for Markdown; every value is escaped."""
    return Environment(
        autoescape=False,  # noqa: S701 - the escaping of Markdown is done by `finalize`
        finalize=lambda value: escape_markdown(str(value)),
        **_common("templates"),
    )


def caption(name: str, **values: Any) -> str:
    """Fill a caption of `report/captions`: plain text on one line, which the table's template escapes."""
    environment = Environment(autoescape=False, **_common("captions"))  # noqa: S701 - plain text
    return " ".join(render(environment, f"{name}.j2", **values).split())


def render(environment: Environment, name: str, /, **values: Any) -> str:
    """Render a template by name.

    Raises:
        EastError: The template does not exist.
    """
    try:
        template = environment.get_template(name)
    except TemplateNotFound as error:
        raise EastError(f"The template {error.name} is not in the folder `report` of the checkout.") from error
    return template.render(**values)


def content_security_policy(style: str, script: str | None = None) -> str:
    """The policy of a document that has this one style sheet, this script or none, and may load nothing."""
    scripts = f"script-src {_hash(script)}; " if script is not None else ""
    return f"default-src 'none'; img-src data:; style-src {_hash(style)}; {scripts}base-uri 'none'; form-action 'none'"


def table_document(fragment: str, title: str) -> str:
    """A table as a document that can be opened and looks as it does in the report."""
    style = project_text("style.css")
    return render(
        html_environment(),
        "document.html.j2",
        title=title,
        policy=content_security_policy(style),
        # Our own style sheet, and a fragment whose template has escaped every value in it.
        style=Markup(style),  # noqa: S704
        fragment=Markup(fragment),  # noqa: S704
    )


def table_in(document: str, path: Path) -> str:
    """The table of what `table_document` made.

    Raises:
        EastError: It is something else.
    """
    found = re.search(r"<main>\n(.*)</main>", document, flags=re.DOTALL)
    if found is None:
        raise EastError(f"{path} is not a table that this version writes. Delete it, and render the tables again.")
    return found.group(1)


def _common(folder: str) -> dict[str, Any]:
    return {
        "loader": FileSystemLoader(REPORT_FOLDER / folder),
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
        "keep_trailing_newline": True,
    }


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
