"""The commands that the documentation tells people to type."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "config/README.md", *(f"docs/{file.name}" for file in ROOT.glob("docs/*.md")))
PROGRAMS = (
    r"(\. \.venv/bin/activate|\.venv/bin/\w+|snakemake|east|make|python|pip|podman|docker|apptainer|sbatch|squeue"
    r"|scancel|scontrol|rm|mkdir|export|nvidia-cuda-mps-control|echo)"
)
TYPED = re.compile(rf"\s*({PROGRAMS} \S.*?|make)(\s+#.*)?")
INLINE = re.compile(rf"`({PROGRAMS} [^`]+)`")


def documented(page: str) -> Iterator[str]:
    """The commands of a page: lines of its code, and what it has in backticks between words."""
    fenced = False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("      "):
            if match := TYPED.fullmatch(line):
                yield match[1]
        else:
            yield from (match[0] for match in INLINE.findall(line))


def commands() -> dict[str, str]:
    """Every command -> the page that has it first."""
    found: dict[str, str] = {}
    for page in PAGES:
        for command in documented(page):
            found.setdefault(command, page)
    return found
