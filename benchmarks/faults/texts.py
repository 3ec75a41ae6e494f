"""Texts of a configuration: hostile ones in every key that takes any text, and in the names of folders."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.workplace import TINY, Workplace

CANARY = "executed"
HOSTILE = (
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f'"; touch {CANARY}; echo "',
    f"'; touch {CANARY}; echo '",
    f"; touch {CANARY} #",
    f"| touch {CANARY}",
    f"&& touch {CANARY}",
    f"a\ntouch {CANARY}\n",
    f"$HOME $(touch {CANARY}) ${{HOME}}",
    f"{{input}} $(touch {CANARY})",
    f"\\$(touch {CANARY})",
    f"\\\\`touch {CANARY}`",
    f"%0a touch {CANARY}",
    f"<(touch {CANARY})",
    f"!touch {CANARY}",
    "{",
    "}",
    "{{x}} {table} {wildcards.table} {0}",
    "{params.request:q}",
    "US$100",
    "50 %",
    "a \\ b \\n",
    "'",
    '"',
    "--help",
    "-n",
    "  padded  ",
    "ΔT ± 中文 ñ",
    "\u202eright to left",
    "\x1b[31mred\x1b[0m",
    "\t tab",
    "a\nb",
    "<script>alert(1)</script>",
    "\\input{/etc/passwd} \\write18{touch " + CANARY + "}",
    "=cmd|' /C calc'!A0",
    "# heading | cell",
    "../../../etc",
    "/",
    "*?[a-z]",
    "x" * 300,
)


def configuration(text: str) -> dict[str, Any]:
    """The small plan with a text in every key that takes any."""
    recipe = TINY["recipes"]["resnet34-digits"] | {"system": text}
    row = {"static": True, "label": text, "footnote": text}
    return {
        "title": text,
        "recipes": {"resnet34-digits": recipe},
        "tables": {"table2": {"title": text, "rows": [row]}, "table3": None},
        "methods": {"rows": {"RigL": None, "EAST w/ DyReLU": None, text: {}}, "systems": []},
    }


def cases(count: int, seed: int) -> Iterator[Outcome]:
    """Run the whole workflow with a text everywhere; nothing may be executed, and it works or is refused in a line."""
    texts = list(HOSTILE)
    random.Random(seed).shuffle(texts)
    with tempfile.TemporaryDirectory(prefix="east-faults-") as folder:
        for number, text in enumerate(texts[:count]):
            home = Path(folder) / _folder_name(text, number)
            place = Workplace.cloned(home)
            place.configure(**configuration(text), execution={"data_dir": _data_folder(text)})
            failure = _failure(place)
            if "refused" in failure:  # by its data folder, perhaps: once more without
                place.configure(**configuration(text))
                failure = _failure(place)
            executed = list(Path(folder).rglob(CANARY))
            yield Outcome(repr(text), "executed" if executed else failure.removeprefix("refused"))
            shutil.rmtree(home)


def _failure(place: Workplace) -> str:
    """Nothing where the workflow ends; `refused` where the plan is, in a sentence; else what went wrong."""
    planned = place.snakemake("-n")
    if planned.returncode:
        said = planned.stderr + planned.stdout
        return "refused" if "Traceback" not in said and "faults.yaml" in said else said[-400:]
    done = place.snakemake()
    page = place.results / "report" / "index.html"
    return "" if done.returncode == 0 and page.is_file() else f"planned, and then: {(done.stderr + done.stdout)[-400:]}"


def _folder_name(text: str, number: int) -> str:
    """A folder that has the text in its name, as far as a file system takes that."""
    return f"{number} " + text.replace("/", "_").replace("\n", "_")[:100]


def _data_folder(text: str) -> str:
    return f"data {text[:100]}".replace("\n", " ").replace("/", "_")
