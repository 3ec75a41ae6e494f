"""Which small faults in `east/` no test notices: `python -m benchmarks.mutants --seed S`.

A mutant is one change of the code, drawn by the seed: the part of the package first, then the kind of change, then the
place. It is made in a clone of the last commit, where the fast tests that execute the changed statement run, those
nearest to the module first. Read what survives: add a test that kills it, or write `equivalent` into its row.
"""

import ast
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from benchmarks.executed import executing_tests, record, statement_of
from benchmarks.results import RESULTS_FOLDER, ROOT, run_command
from east.errors import EastError
from east.files import write_atomically

AREAS = ("sparse", "training", "models", "config", "data", "analysis", "cost", "render", "operations", "engine", "cli")
NOT_EXECUTED = "engine/cuda/kernels/"
"""Triton compiles these: without a GPU only its interpreter runs them."""

IGNORED = {"help", "description", "title", "label", "metavar", "rich_help_panel", "show_default"}
IGNORED |= {"encoding", "flush", "strict", "stacklevel", "newline"}
"""Keywords of texts, and those that change nothing on the machines that run the tests."""

FAST = "not slow and not workflow and not timing and not campaign"
TIMEOUT = "timeout"
REST = 6
"""All other tests may take so many times as long as the nearest ones."""

OTHERS = {"Lt": "LtE Gt", "LtE": "Lt Gt", "Gt": "GtE Lt", "GtE": "Gt Lt", "Eq": "NotEq", "NotEq": "Eq", "Is": "IsNot"}
OTHERS |= {"IsNot": "Is", "In": "NotIn", "NotIn": "In", "And": "Or", "Or": "And", "Add": "Sub", "Sub": "Add"}
OTHERS |= {"Mult": "Div", "Div": "Mult", "FloorDiv": "Mult", "Mod": "FloorDiv", "Pow": "Mult"}
"""Operator -> those that take its place."""


@dataclass(frozen=True)
class Mutant:
    """One change of a file below `east/`: of the code from byte `start` on.

    `found` is `killed`, `timeout` or `survived`, and empty before the tests ran; `by` is the test that failed.
    """

    file: str
    line: int
    kind: str
    original: str
    mutated: str
    start: int
    found: str = ""
    by: str = ""
    seconds: float = 0.0


def mutate(content: bytes, mutant: Mutant) -> bytes:
    """The content of the file with the change."""
    return content[: mutant.start] + mutant.mutated.encode() + content[mutant.start + len(mutant.original.encode()) :]


def mutants_of(content: bytes, file: str) -> Iterator[Mutant]:
    """All mutants of a file."""
    tree, starts = ast.parse(content), [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    left_out = {id(below) for node in ast.walk(tree) for top in _left_out(node) for below in ast.walk(top)}
    for node in ast.walk(tree):
        for kind, old, mutated in () if id(node) in left_out else _changes(node):
            start = starts[old.lineno - 1] + old.col_offset
            end = starts[(old.end_lineno or old.lineno) - 1] + (old.end_col_offset or 0)
            yield Mutant(file, old.lineno, kind, content[start:end].decode(), mutated, start)


def _left_out(node: ast.AST) -> Iterator[ast.AST]:
    """What says nothing about behaviour: types, messages, decorators, texts, what runs in no test."""
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Call(func=ast.Name(id="cast" | "TypeVar")):
            yield node
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Compare(left=ast.Name(id="__name__"))):
            yield node
        case ast.keyword(arg=str(name)) if name in IGNORED:
            yield node
        case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
            yield annotation
        case ast.FunctionDef() | ast.ClassDef():
            yield from [*node.decorator_list, *filter(None, [getattr(node, "returns", None)])]


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """Kind, the code that is replaced, and what takes its place."""
    match node:
        case ast.Compare(ops=[operator]) | ast.BinOp(op=operator) | ast.BoolOp(op=operator):
            for name in OTHERS.get(type(operator).__name__, "").split():
                kind = {ast.Compare: "comparison", ast.BinOp: "arithmetic", ast.BoolOp: "and, or"}[type(node)]
                kind = "boundary" if name in (f"{type(operator).__name__}E", type(operator).__name__[:-1]) else kind
                other = getattr(ast, name)()
                yield kind, node, _with(node, **({"ops": [other]} if isinstance(node, ast.Compare) else {"op": other}))
        case ast.Constant(value=bool(value)):
            yield "constant", node, str(not value)
        case ast.Constant(value=int(number) | float(number)):
            yield "constant", node, str(2 * number if number > 1 else number + 1)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.comprehension(ifs=[test, *_]):
            yield "negated condition", test, f"(not ({ast.unparse(test)}))"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "returned value", node, "return None"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "dropped statement", node, "pass"
        case ast.Call(args=args, keywords=keywords):
            for dropped in keywords:
                if dropped.arg is not None and dropped.arg not in IGNORED:
                    yield (
                        "dropped argument",
                        node,
                        _with(node, keywords=[one for one in keywords if one is not dropped]),
                    )
            if len(args) > 1 and ast.dump(args[0]) != ast.dump(args[1]):
                yield "swapped arguments", node, _with(node, args=[args[1], args[0], *args[2:]])
        case ast.FunctionDef(args=ast.arguments(kw_defaults=kw_defaults, defaults=defaults)):
            for default in [*defaults, *kw_defaults]:
                if isinstance(default, ast.Constant) and default.value is None:
                    yield "default", default, "0"


def _with(node: ast.expr, **fields: object) -> str:
    changed = deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return f"({ast.unparse(changed)})"


def draw(package: Path, seed: int, count: int) -> list[Mutant]:
    """Mutants of the package: of all parts alike, and within a part of all kinds of change alike."""
    draws, pools = random.Random(seed), dict[tuple[str, str], list[Mutant]]()
    for part in AREAS:
        for path in sorted((package / part).rglob("*.py")):
            file = path.relative_to(package).as_posix()
            for mutant in () if file.startswith(NOT_EXECUTED) else mutants_of(path.read_bytes(), file):
                pools.setdefault((part, mutant.kind), []).append(mutant)
    found, order = list[Mutant](), list[str]()
    while len(found) < count and pools:
        order = order or draws.sample(AREAS, len(AREAS))
        part = order.pop()
        if kinds := sorted(kind for own, kind in pools if own == part):
            key = (part, draws.choice(kinds))
            found.append(pools[key].pop(draws.randrange(len(pools[key]))))
            if not pools[key]:
                del pools[key]
    return found


def nearest_tests(root: Path, file: str) -> tuple[list[str], list[str]]:
    """The files of tests that are nearest to a module by imports, those that import least first; and all others."""
    target, distances = root / "east" / file, dict[Path, int]()
    for test in sorted((root / "tests" / "unit").glob("test_*.py")):
        seen, border, distances[test] = {test}, {test}, 0
        while border and target not in border:
            border = {found for path in border for found in _imports(root, path)} - seen
            seen |= border
            distances[test] += 1 if border else 1000
    order = sorted(distances, key=lambda test: (distances[test], len(_imports(root, test)), test.name))
    names = [(str(test.relative_to(root)), distances[test] == distances[order[0]]) for test in order]
    return [name for name, is_nearest in names if is_nearest], [name for name, is_nearest in names if not is_nearest]


@cache
def _imports(root: Path, path: Path) -> frozenset[Path]:
    """The project's files that a file imports, wherever in it."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    stems = [root.joinpath(*name.split(".")) for name in names if name.split(".")[0] in ("east", "tests")]
    return frozenset(file for one in stems for file in (one.with_suffix(".py"), one / "__init__.py") if file.exists())


def examine(mutant: Mutant, clone: Path, executed: Path, timeout: float) -> Mutant:
    """What the tests say of a mutant in a clone; a test that fails without it as well is left out.

    `executed` is the record of the lines that each test executes.

    Raises:
        EastError: the tests do not end in time without the mutant either.
    """
    started, path, without = time.monotonic(), clone / "east" / mutant.file, list[str]()
    content, by = path.read_bytes(), None
    executing = executing_tests(executed, mutant.file, statement_of(content, mutant.line))
    for tests, seconds in zip(nearest_tests(clone, mutant.file), (timeout, REST * timeout), strict=True):
        files = [one for test in tests if test in executing for one in sorted(executing[test]) or [test]]
        while files and not by:
            path.write_bytes(mutate(content, mutant))
            failed = _failing(clone, files, without, seconds)
            path.write_bytes(content)
            if failed is None:
                break
            again = _failing(clone, files if failed == TIMEOUT else [failed], without, seconds)
            if again == TIMEOUT:
                raise EastError(f"the tests of {mutant.file} take more than {seconds:.0f} s by themselves: --timeout.")
            if again is None or failed == TIMEOUT:
                by = failed
            else:
                without.append(failed)
    found = "survived" if by is None else "timeout" if by == TIMEOUT else "killed"
    return replace(mutant, found=found, by=by or "", seconds=round(time.monotonic() - started, 1))


def _failing(clone: Path, tests: Sequence[str], without: Sequence[str], timeout: float) -> str | None:
    """The first test that fails, its parameters left out, or `TIMEOUT`; None if all pass."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-rfE",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-m",
        FAST,
        *tests,
    ]
    command += [f"--deselect={test}" for test in without]
    # What is compiled is found by size and second of the source, which a mutant may share with the original.
    own = os.environ | {"PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=clone, env=own, text=True, stdout=pipe, start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return TIMEOUT
    failed = re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", output, re.MULTILINE)
    # 5: none of them is fast.
    return None if process.returncode in (0, 5) else str((*failed, tests[0])[0])


def campaign(root: Path, mutants: Sequence[Mutant], out: Path, *, jobs: int, timeout: float) -> pd.DataFrame:
    """Examine mutants of a project's last commit and write what is found after each; what `out` has already is kept.

    Raises:
        EastError: the file has other mutants than these.
    """
    results: list[dict[Any, Any]] = [asdict(mutant) for mutant in mutants]
    if out.exists():
        results = pd.read_csv(out, keep_default_na=False).to_dict("records")
        if any(
            row["start"] != one.start or row["mutated"] != one.mutated
            for row, one in zip(results, mutants, strict=True)
        ):
            raise EastError(f"{out} has other mutants: the code has changed since. Take another --seed, or remove it.")
    left = [number for number, row in enumerate(results) if not row["found"]]

    commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    executed = root / ".campaign" / f"executed-{commit.stdout.strip()}"

    def work(job: int) -> None:
        with _clone(root) as folder:
            for number in left[job::jobs]:
                row = results[number] = asdict(examine(mutants[number], Path(folder), executed, timeout))
                write_atomically(out, pd.DataFrame(results).to_csv(index=False))
                print(f"{row['file']}:{row['line']} {row['kind']}: {row['found']} {row['by']}", flush=True)

    if left and not executed.exists():
        with _clone(root) as folder:
            tests = [path.relative_to(folder).as_posix() for path in Path(folder).glob("tests/unit/test_*.py")]
            record(Path(folder), sorted(tests), executed, marked=FAST, jobs=jobs)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, range(jobs)))
    return pd.DataFrame(results)


@contextmanager
def _clone(root: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="east-mutants-") as folder:
        subprocess.run(["git", "clone", "--quiet", str(root), folder], check=True)
        yield folder


def main(
    seed: Annotated[int, typer.Option(help="Decides which mutants are drawn.")],
    count: Annotated[int, typer.Option(min=1, help="Mutants.")] = 100,
    jobs: Annotated[int, typer.Option(min=1, help="Mutants at once.")] = 2,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for the nearest tests; six times for the rest.")] = 300,
    out: Annotated[Path, typer.Option(help="The folder of the results.", show_default=False)] = RESULTS_FOLDER,
) -> None:
    """Draw mutants of the last commit, run the tests on each, and say which share they notice.

    The same command goes on with those that are not examined yet.
    """
    mutants = draw(ROOT / "east", seed, count)
    found = campaign(ROOT, mutants, out / f"mutants-{seed}.csv", jobs=jobs, timeout=timeout)["found"]
    noticed, counted = found.isin(["killed", "timeout"]).sum(), (found != "equivalent").sum()
    print(f"{noticed} of {counted} noticed ({noticed / counted:.0%}), {len(found) - counted} equivalent.")


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
