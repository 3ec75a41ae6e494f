"""Dependencies point one way, at every depth (docs/architecture.md)."""

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import east

ROOT = Path(east.__file__).parent
COMMON = {"cells", "errors", "failures", "files", "locks", "log", "shown"}
COMMON |= {"checkout", "parameters", "plugins", "registry", "reproducibility", "seeding", "trust", "version"}
MAY_IMPORT = {
    "sparse": COMMON | {"config"},
    "config": COMMON | {"sparse", "data", "models"},
    "data": COMMON | {"config"},
    "models": COMMON | {"sparse", "config"},
    "engine": COMMON | {"sparse", "models"},
    "training": COMMON | {"config", "sparse", "data", "models", "engine"},
    "trained": COMMON | {"config", "sparse", "data", "models", "engine", "training"},
    "cost": COMMON | {"config", "sparse", "data", "models", "engine", "training"},
    "analysis": COMMON | {"config", "sparse", "training"},
    "render": COMMON | {"config", "sparse", "analysis", "cost", "data", "training"},
    "launch": COMMON,
    "operations": COMMON
    | {"config", "sparse", "data", "models", "engine", "training", "cost", "analysis", "launch", "render"},
}
MAY_IMPORT["cli"] = COMMON | MAY_IMPORT.keys()
"""Part of the package -> the other parts that it may import."""

BASE = {"base", "arithmetic", "formats", "machine"}
ENGINES_MAY_IMPORT = {
    "base": BASE,
    "arithmetic": set(),
    "formats": set(),
    "machine": set(),
    "graph": BASE,
    "dense": BASE,
    "cpu": BASE | {"graph"},
    "cuda": BASE | {"graph", "dense"},
    "choose": BASE | {"graph", "dense", "cpu", "cuda"},
}
"""The same for the parts of the engines: those for a CPU and for a GPU know nothing of each other."""

TIDY = ("east.engine", "east.config", "east.cost", "east.analysis", "east.render")
"""Where small files and names are looked at."""

LEAST_LINES = 40
INTERFACES: dict[str, str] = {}
"""Smaller modules that may have a single importer -> why."""
SHARED_NAMES = {"draw": "each module of a figure has one, by which `east.render.figures` calls it"}
"""Names that several modules may define -> why."""


def module_of(file):
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_of(file): ast.parse(file.read_text()) for file in ROOT.glob("**/*.py")}


def imports_of(module):
    """The modules of the package that one imports, anywhere within it."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in TREES)
        elif isinstance(node, ast.ImportFrom) and node.module in TREES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in TREES else node.module


IMPORTS = {module: set(imports_of(module)) for module in TREES}


def below(*packages):
    return [module for module in TREES if module.startswith(tuple(f"{package}." for package in packages))]


def parts_imported(package):
    """Part of a package -> the other parts of it that its modules import, with who does."""
    depth = package.count(".") + 1
    for module in below(package):
        part = module.split(".")[depth]
        for imported in IMPORTS[module]:
            if imported.startswith(f"{package}.") and imported.split(".")[depth] != part:
                yield part, imported.split(".")[depth], f"{module} imports {imported}"


def test_every_part_has_its_place():
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} == MAY_IMPORT.keys()
    assert {module.split(".")[2] for module in below("east.engine")} == ENGINES_MAY_IMPORT.keys()


@pytest.mark.parametrize(
    ("package", "allowed"), [("east", MAY_IMPORT), ("east.engine", ENGINES_MAY_IMPORT)], ids=["east", "east.engine"]
)
def test_dependencies_point_one_way(package, allowed):
    wrong = [
        said for part, imported, said in parts_imported(package) if part in allowed and imported not in allowed[part]
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    """Those that are imported within functions count as well."""
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_a_small_file_with_a_single_importer_belongs_to_it():
    importers = defaultdict(set)
    for module, imported in IMPORTS.items():
        for name in imported:
            importers[name].add(module)
    packages = {module.rpartition(".")[0] for module in TREES}
    small = {
        module
        for module in below(*TIDY)
        if module not in packages
        and len((ROOT.parent / Path(*module.split("."))).with_suffix(".py").read_text().splitlines()) < LEAST_LINES
        and len(importers[module]) <= 1
    }
    assert small == INTERFACES.keys()


def test_a_public_name_stands_for_one_thing():
    defined = defaultdict(list)
    for module in below(*TIDY):
        for node in TREES[module].body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                defined[node.name].append(module)
    assert {name for name, modules in defined.items() if len(modules) > 1} == SHARED_NAMES.keys()


def test_every_module_says_in_its_first_line_what_it_does():
    for module, tree in TREES.items():
        docstring = ast.get_docstring(tree)
        assert docstring, module
        assert docstring.splitlines()[0].rstrip()[-1] in ".:", module


@pytest.mark.parametrize(
    ("modules", "libraries"),
    [
        ("", {"pandas", "pydantic", "numpy"}),
        (".cli .config .data.catalog .operations.status .cli.status_view", {"torch"}),
        (".analysis.aggregate .analysis.curves .analysis.evidence .analysis.provenance", {"torch", "scipy"}),
        (".render.contents .render.tables .render.hyperparameters .render.page", {"torch", "scipy", "matplotlib"}),
        (".render.cost .render.figures.layers .render.figures.density", {"torch", "matplotlib.pyplot"}),
    ],
)
def test_modules_wait_for_no_library_that_they_do_not_need(modules, libraries):
    imports = ", ".join(f"east{name}" for name in modules.split(" "))
    code = f"import sys, {imports}; print({libraries} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.stdout == "set()\n", done.stderr
