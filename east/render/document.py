"""HTML documents: the policy that they load nothing, and a table as a document of its own."""

import base64
import hashlib
import re
from pathlib import Path

from markupsafe import Markup

from east.errors import EastError
from east.render.templating import REPORT_FOLDER, html_environment, render


def content_security_policy(style: str, script: str | None = None) -> str:
    """The policy of a document that has this one style sheet, this script or none, and may load nothing."""
    scripts = f"script-src {_hash(script)}; " if script is not None else ""
    return f"default-src 'none'; img-src data:; style-src {_hash(style)}; {scripts}base-uri 'none'; form-action 'none'"


def table_document(fragment: str, title: str, report_folder: Path = REPORT_FOLDER) -> str:
    """A table as a document that can be opened and looks as it does in the report.

    Args:
        fragment: The table, from our own templates.
        title: What the window is called.
        report_folder: The folder `report` with the templates and the style sheet.
    """
    style = (report_folder / "style.css").read_text(encoding="utf-8")
    return render(
        html_environment(report_folder),
        "document.html.j2",
        title=title,
        policy=content_security_policy(style),
        # Our own style sheet, and a fragment whose template has escaped every value in it.
        style=Markup(style),  # noqa: S704
        fragment=Markup(fragment),  # noqa: S704
    )


def table_in(document: str, path: Path) -> str:
    """The table of what `table_document` made.

    Args:
        document: The text.
        path: Where it was read, for the message.

    Raises:
        EastError: It is something else.
    """
    found = re.search(r"<main>\n(.*)</main>", document, flags=re.DOTALL)
    if found is None:
        raise EastError(f"{path} is not a table that this version writes. Delete it, and render the tables again.")
    return found.group(1)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
