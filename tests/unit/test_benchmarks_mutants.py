"""Mutants: what is changed and what is not, which are drawn, which tests run first, and what comes of them."""

import ast
import shutil
import subprocess

import pytest

from benchmarks.executed import executing_tests, statement_of
from benchmarks.mutants import AREAS, campaign, draw, mutants_of, mutate, nearest_tests
from east.errors import EastError
from tests.conftest import ROOT

SOURCE = '''
"""1 + 1."""
LIMIT: int = 3

@decorated(4)
def clip(värde: Annotated[int, 5], low=None) -> Literal[6]:
    if värde < LIMIT and low is None:
        raise ValueError("more than", 7)
    self.norm = scale(värde, low, by=2.5, help=8)
    return värde
'''


def test_every_kind_of_change_is_made_and_what_says_nothing_about_behaviour_stays():
    found = [(mutant.kind, mutant.original, mutant.mutated) for mutant in mutants_of(SOURCE.encode(), "sparse/x.py")]
    assert set(found) == {
        ("constant", "3", "6"),
        ("default", "None", "0"),
        ("negated condition", "värde < LIMIT and low is None", "(not (värde < LIMIT and low is None))"),
        ("and, or", "värde < LIMIT and low is None", "(värde < LIMIT or low is None)"),
        ("boundary", "värde < LIMIT", "(värde <= LIMIT)"),
        ("comparison", "värde < LIMIT", "(värde > LIMIT)"),
        ("comparison", "low is None", "(low is not None)"),
        ("dropped statement", "self.norm = scale(värde, low, by=2.5, help=8)", "pass"),
        ("dropped argument", "scale(värde, low, by=2.5, help=8)", "(scale(värde, low, help=8))"),
        ("swapped arguments", "scale(värde, low, by=2.5, help=8)", "(scale(low, värde, by=2.5, help=8))"),
        ("constant", "2.5", "5.0"),
        ("returned value", "return värde", "return None"),
    }
    for mutant in mutants_of(SOURCE.encode(), "sparse/x.py"):
        changed = mutate(SOURCE.encode(), mutant).decode()
        ast.parse(changed)
        assert len(set(SOURCE.splitlines()) - set(changed.splitlines())) == 1


def write(folder, **modules):
    for name, text in modules.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_parts_are_drawn_alike_and_again_by_the_same_seed(tmp_path):
    modules = {f"{part}__a": "x = [1, 2, 3, 4]\ny = 1 + 2\n" for part in AREAS} | {"cli__many": "z = [5]\n" * 50}
    package = write(tmp_path, **modules)
    drawn = draw(package, 7, 2 * len(AREAS))
    assert sorted(mutant.file.split("/")[0] for mutant in drawn) == sorted([*AREAS, *AREAS])
    assert drawn == draw(package, 7, 2 * len(AREAS)) != draw(package, 8, 2 * len(AREAS))


def test_the_nearest_tests_are_those_that_import_the_module():
    nearest, others = nearest_tests(ROOT, "sparse/distribution.py")
    assert nearest[0].endswith("test_sparse_distribution.py")
    assert "tests/unit/test_cli.py" in others
    assert len({*nearest, *others}) == len(list((ROOT / "tests/unit").glob("test_*.py")))


def test_a_statement_is_found_by_any_of_its_lines():
    text = b"def f(\n    x=1,\n):\n    if x and (\n        x > 2\n    ):\n        return (\n            x\n        )\n"
    assert [statement_of(text, line) for line in (2, 5, 8)] == [range(1, 4), range(4, 7), range(7, 10)]


@pytest.mark.slow
def test_a_campaign_finds_what_is_noticed_and_goes_on_where_it_was_cut(tmp_path):
    root = write(
        tmp_path / "project",
        east__sparse__a="def double(x):\n    return 2 * x\n\n\ndef unused(x):\n    return 5 - x\n"
        "\n\ndef other(x):\n    return x\n",
        tests__unit__test_a="from east.sparse.a import double\n\n\ndef test_double():\n    assert double(3) == 6\n",
        # Executes the line in a process of its own.
        tests__unit__test_c="import subprocess, sys\n\n\ndef test_other():\n"
        "    subprocess.run([sys.executable, '-c', 'from east.sparse.a import other; assert other(3)'], check=True)\n"
        "\n\ndef test_nothing():\n    pass\n",
        # Fails without a mutant as well, so it notices none.
        tests__unit__test_b="from east.sparse.a import unused\n\n\ndef test_broken():\n    assert False\n",
    )
    for part in ("__init__.py", "errors.py", "launch/__init__.py", "launch/cores.py"):  # What `benchmarks` imports.
        (root / "east" / part).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "east" / part, root / "east" / part)
    (root / "pytest.ini").write_text("[pytest]\nmarkers = slow\n    workflow\n    timing\n")
    git = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "c"]):
        subprocess.run([*git, *command], check=True)
    mutants = [mutant for mutant in draw(root / "east", 0, 100) if mutant.kind == "returned value"]
    out = tmp_path / "mutants.csv"
    found = campaign(root, mutants, out, jobs=1, timeout=60).set_index("line")
    assert found["found"].to_dict() == {2: "killed", 6: "survived", 10: "killed"}
    assert found.loc[2, "by"] == "tests/unit/test_a.py::test_double"
    (executed,) = (root / ".campaign").iterdir()
    assert executing_tests(executed, "sparse/a.py", range(10, 11)) == {
        "tests/unit/test_c.py": {"tests/unit/test_c.py::test_other"}
    }
    out.write_text(out.read_text().replace("survived", "equivalent"))
    assert sorted(campaign(root, mutants, out, jobs=1, timeout=60)["found"]) == ["equivalent", "killed", "killed"]
    with pytest.raises(EastError, match="other mutants"):
        campaign(root, mutants[::-1], out, jobs=1, timeout=60)
