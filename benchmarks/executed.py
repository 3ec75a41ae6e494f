"""Which files of tests execute a line of `east/`: what cannot notice a change of it need not run."""

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coverage import Coverage, CoverageData

SETTINGS = """[run]
data_file = {data}
parallel = true
patch = subprocess
sigterm = true
include = */east/*
"""


def record(clone: Path, tests: Sequence[str], data: Path, *, marked: str, jobs: int) -> None:
    """Run each file of tests by itself in a clone, and keep which lines it and its processes executed."""
    data.parent.mkdir(parents=True, exist_ok=True)
    settings = data.with_name("coverage.rc")
    settings.write_text(SETTINGS.format(data=data), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(test: str) -> None:
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", f"--context={test}", "-m", "pytest"]
        command += ["-q", "-p", "no:cacheprovider", "-m", marked, test]
        subprocess.run(command, cwd=clone, env=environment, stdout=subprocess.DEVNULL, check=False)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, tests))
    Coverage(data_file=str(data), config_file=str(settings)).combine()
    settings.unlink()


def tests_of(data: Path, file: str, lines: range) -> frozenset[str]:
    """The files of tests that executed one of the lines of a file below `east/`."""
    recorded, found = CoverageData(str(data)), set[str]()
    recorded.read()
    for path in recorded.measured_files():
        if path.endswith(f"/east/{file}"):
            contexts = recorded.contexts_by_lineno(path)
            found.update(test for line in lines for test in contexts.get(line, ()))
    return frozenset(found)


def statement_of(content: bytes, line: int) -> range:
    """The lines of the innermost statement that holds a line; of one with a body, those before it."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            body = getattr(node, "body", None)
            end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            found = range(node.lineno, end + 1)  # `walk` goes from the outside to the inside.
    return found
