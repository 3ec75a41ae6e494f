"""Which tests execute a line of `east/`: what cannot notice a change of it need not run.

Loaded by pytest as a plugin, it names the test to Coverage.py while the test runs.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage, CoverageData

ROOT = Path(__file__).parents[1]  # Not imported: the plugin runs where `east` is another one.

SETTINGS = """[run]
data_file = {data}
parallel = true
patch = subprocess, fork
sigterm = true
include = */east/*
"""


def record(clone: Path, tests: Sequence[str], data: Path, *, marked: str, jobs: int) -> None:
    """Run each file of tests by itself in a clone, and keep which lines each test and its processes executed."""
    data.parent.mkdir(parents=True, exist_ok=True)
    settings = data.with_name("coverage.rc")
    settings.write_text(SETTINGS.format(data=data), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{clone}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(test: str) -> None:
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", f"--context={test}", "-m", "pytest"]
        command += ["-q", "-p", "no:cacheprovider", "-p", "benchmarks.executed", "-m", marked, test]
        subprocess.run(command, cwd=clone, env=environment, stdout=subprocess.DEVNULL, check=False)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, tests))
    Coverage(data_file=str(data), config_file=str(settings)).combine()
    settings.unlink()


@contextmanager
def _named(test: str) -> Iterator[None]:
    """What is executed meanwhile, in this process or one that it starts, is this test's."""
    if (recording := Coverage.current()) is None:
        raise RuntimeError("benchmarks.executed is a plugin for `coverage run -m pytest`.")
    before, context = recording.switch_context(test), recording.config.context
    recording.config.context = f"{str(context).split('|')[0]}|{test}" if test else context
    os.environ["COVERAGE_PROCESS_CONFIG"] = recording.config.serialize()
    try:
        yield
    finally:
        recording.switch_context((before or "").partition("|")[2])
        recording.config.context = context
        os.environ["COVERAGE_PROCESS_CONFIG"] = recording.config.serialize()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Name the test, without its parameters; what another one left in a cache is computed again."""
    for name in [name for name in sys.modules if name.split(".")[0] == "east"]:
        for value in list(vars(sys.modules[name]).values()):
            if callable(clear := getattr(value, "cache_clear", None)):
                clear()
    with _named(item.nodeid.split("[")[0]):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    """What is made once for several tests counts for all of the file."""
    if fixturedef.scope == "function":
        return (yield)
    with _named(""):
        return (yield)


def executing_tests(data: Path, file: str, lines: range) -> Mapping[str, frozenset[str]]:
    """The files of tests that executed one of the lines of a file below `east/`, each with the tests that did.

    Without tests: the file did, when it was imported or in what its tests share.
    """
    recorded, found = CoverageData(str(data)), dict[str, set[str]]()
    recorded.read()
    for path in recorded.measured_files():
        if path.endswith(f"/east/{file}"):
            contexts = recorded.contexts_by_lineno(path)
            for context in {context for line in lines for context in contexts.get(line, ())}:
                name, _, test = context.partition("|")
                found.setdefault(name, set()).add(test)
    return {name: frozenset() if "" in tests else frozenset(tests) for name, tests in found.items()}


def statement_of(content: bytes, line: int) -> range:
    """The lines of the innermost statement that holds a line; of one with a body, those before it."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            body = getattr(node, "body", None)
            end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            found = range(node.lineno, end + 1)  # `walk` goes from the outside to the inside.
    return found
