"""Jinja2 environments for HTML, LaTeX and Markdown, each of which escapes every value by itself."""

import re
import unicodedata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from east.errors import EastError

REPORT_FOLDER = Path(__file__).resolve().parents[2] / "report"

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
}


_APART = "\x00"
"""Stands between characters that TeX would join; no text that is `visible` has it."""


class Tex(str):
    """LaTeX of our own templates, which have escaped every value in it."""

    __slots__ = ()


def visible(text: str) -> str:
    """Turn line ends and tabs into spaces, and show what else is invisible by its code point.

    Control and format characters (among them those that reverse the direction of writing) can make a line read
    as something that it is not.
    """
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return f"[U+{ord(character):04X}]"
    return character


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


def html_environment(report_folder: Path = REPORT_FOLDER) -> Environment:
    """Templates for HTML; every value is escaped unless it is `Markup`."""
    return Environment(autoescape=True, finalize=_finalize_html, **_common(report_folder / "templates"))


def latex_environment(report_folder: Path = REPORT_FOLDER) -> Environment:
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
        **_common(report_folder / "templates"),
    )


def markdown_environment(report_folder: Path = REPORT_FOLDER) -> Environment:
    """Templates for Markdown; every value is escaped."""
    return Environment(
        autoescape=False,  # noqa: S701 - the escaping of Markdown is done by `finalize`
        finalize=lambda value: escape_markdown(str(value)),
        **_common(report_folder / "templates"),
    )


def caption(name: str, report_folder: Path = REPORT_FOLDER, **values: Any) -> str:
    """Fill a caption of `report/captions`: plain text on one line, which the table's template escapes.

    Args:
        name: The file without `.j2`.
        report_folder: The folder `report`.
        **values: What the caption speaks about.
    """
    environment = Environment(autoescape=False, **_common(report_folder / "captions"))  # noqa: S701 - plain text
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


def _finalize_html(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _common(folder: Path) -> dict[str, Any]:
    return {
        "loader": FileSystemLoader(folder),
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
        "keep_trailing_newline": True,
    }
