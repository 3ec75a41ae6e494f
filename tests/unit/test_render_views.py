"""Whole tables and pages of a reproduction that is made up, compared with what they were when somebody looked at them.

`python -m tests.unit.test_render_views` writes `tests/unit/views/render` again. Read what has changed before it is
committed.
"""

import re
import tempfile
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from east.analysis.sources import Sources
from east.config import make_plan, read_config
from east.render.appendix import appendix_document
from east.render.contents import report_contents
from east.render.page import report_page
from east.render.schedules import distinct_schedules
from east.render.templating import project_text
from tests.unit.fake_reproduction import reproduction

VIEWS = Path(__file__).with_name("views") / "render"


def views(folder: Path) -> Mapping[str, str]:
    """Every view by its name, without what has nothing to do with it: style, script, files to save, and the folder."""
    spec, _ = reproduction(folder)
    found = {"page.html": report_page(spec, Sources(folder))}
    found["appendix.tex"] = appendix_document(spec, Sources(folder), folder / "tables")
    for path in sorted((folder / "tables").glob("*.*")):
        # LaTeX is in the appendix and HTML on the page, but for one document.
        if path.suffix in (".md", ".csv") or path.name == "tablemethods.html":
            found[path.name] = path.read_text(encoding="utf-8")
    for name, overlays in {"paper": (), "demo": ("config/demo.yaml",)}.items():
        found[f"contents-{name}.yaml"] = yaml.safe_dump(contents(*overlays), sort_keys=False, allow_unicode=True)
    for name, text in found.items():
        for ours, word in ((project_text("style.css"), "STYLE"), (project_text("script.js"), "SCRIPT")):
            text = text.replace(ours, word)
        text = re.sub(r"sha256-[\w+/=]+", "sha256-DIGEST", re.sub(r";base64,[^\"]+", ";base64,FILE", text))
        found[name] = text.replace(str(folder), "RESULTS")
    return found


def contents(*overlays: str) -> dict[str, Any]:
    """What goes into the report of a plan: which its readings are, and where its schedules are drawn."""
    plan = make_plan(read_config(*overlays))
    spec = report_contents(plan, Path("results/x"), ["config.yaml", *overlays])
    return spec.model_dump(mode="json", exclude={"config", "readings"}) | {
        "readings": {reading.matter: f"{reading.value} ({reading.key})" for reading in spec.readings},
        "schedules": [
            f"{one.panel}: {one.run.cycle.model_dump_json() if one.run.cycle else ''}"
            for one in distinct_schedules(plan)
        ],
    }


def first_difference(text: str, expected: str) -> tuple[int, str, str] | None:
    """Number of the first line that differs, what it is, and what it was."""
    lines = zip_longest(text.splitlines(), expected.splitlines(), fillvalue="")
    return next(((number, *both) for number, both in enumerate(lines, start=1) if both[0] != both[1]), None)


def test_nothing_of_a_view_changes_unseen(tmp_path: Path) -> None:
    found = views(tmp_path)
    committed = {path.name: path.read_text(encoding="utf-8") for path in VIEWS.iterdir()}
    assert found.keys() == committed.keys()
    assert {name: first_difference(text, committed[name]) for name, text in found.items()} == dict.fromkeys(found)


if __name__ == "__main__":
    VIEWS.mkdir(parents=True, exist_ok=True)
    for path in VIEWS.iterdir():
        path.unlink()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in views(Path(folder)).items():
            (VIEWS / name).write_text(text, encoding="utf-8")
