"""Files as parts of the page: figures as images, other formats as downloads."""

import base64
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from east.errors import EastError
from east.render.palette import DARK
from east.render.report.spec import ReportFigure

_MEDIA = {
    ".csv": "text/csv;charset=utf-8",
    ".md": "text/markdown;charset=utf-8",
    ".tex": "application/x-tex;charset=utf-8",
    ".json": "application/json",
}


@dataclass(frozen=True)
class Image:
    """A figure inside the page; width and height are its own, in any unit, and keep its place while it is decoded."""

    uri: Markup
    caption: str
    alt: str
    width: str
    height: str


@dataclass(frozen=True)
class Download:
    """A file inside the page, to be saved under its name."""

    uri: Markup
    name: str
    kind: str


def read(path: Path) -> str:
    """The text of a file that the report needs.

    Raises:
        EastError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EastError(f"The report needs {path}, which cannot be read: {error}.") from error


def image(figure: ReportFigure) -> Image:
    """A figure as an image: so its file can neither run scripts nor load anything, and its ids cannot clash."""
    svg = read(figure.svg)
    size = re.search(r'\bviewBox="\s*[-\d.]+[\s,]+[-\d.]+[\s,]+([\d.]+)[\s,]+([\d.]+)\s*"', svg)
    width, height = size.groups() if size else ("", "")
    return Image(
        uri=_svg_uri(_with_dark_mode(_short(svg))),
        caption=figure.caption,
        alt=figure.alt or _described(svg) or figure.caption,
        width=width.partition(".")[0],
        height=height.partition(".")[0],
    )


def _described(svg: str) -> str:
    """What a figure's own description says that it shows; empty if it has none."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", svg, flags=re.DOTALL)
    return unescape(found.group(1)) if found else ""


def download(path: Path) -> Download:
    """A file to be saved from the page."""
    media = _MEDIA.get(path.suffix, "application/octet-stream")
    return Download(uri=_data_uri(media, read(path)), name=path.name, kind=path.suffix.lstrip("."))


def _with_dark_mode(svg: str) -> str:
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media screen and (prefers-color-scheme:dark){{{rules}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda match: match.group(1) + style, svg, count=1)


def _short(svg: str) -> str:
    """A drawing with coordinates to a hundredth of a point; more is not seen, and is half of a curve's size."""
    return re.sub(r'(?<= d=")[^"]+', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), svg)


def _svg_uri(svg: str) -> Markup:
    # Most of a drawing is digits, which percent-encoding leaves alone; Base64 would add a third.
    text = quote(" ".join(svg.split()), safe=" !$()*+,-./:;=?@")
    return Markup(f"data:image/svg+xml;charset=utf-8,{text}")  # noqa: S704 - nothing is left to escape


def _data_uri(media: str, text: str) -> Markup:
    data = base64.b64encode(text.encode()).decode()
    return Markup(f"data:{media};base64,{data}")  # noqa: S704 - nothing is left to escape
