"""Dependencies point one way (docs/architecture.md)."""

import ast
from pathlib import Path

import east

ROOT = Path(east.__file__).parent
COMMON = {"digest", "errors", "files", "reproducibility", "seeding"}
MAY_IMPORT = {
    "sparse": COMMON,
    "config": COMMON | {"sparse"},
    "data": COMMON | {"config"},
    "models": COMMON | {"sparse", "config"},
    "engine": COMMON | {"sparse", "models"},
    "training": COMMON | {"config", "sparse", "data", "models", "engine"},
    "cost": COMMON | {"config", "sparse", "data", "models", "engine", "training"},
    "analysis": COMMON | {"config"},
    "render": COMMON | {"config", "sparse", "analysis", "data"},
    "launch": COMMON,
    "operations": COMMON | {"config", "sparse", "data", "models", "engine", "training", "cost", "analysis", "launch"},
}
MAY_IMPORT["cli"] = COMMON | MAY_IMPORT.keys()


def imported_parts(file):
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "east" else [f"east.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("east."):
                yield name.split(".")[1]


def test_every_part_has_its_place():
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} == MAY_IMPORT.keys()


def test_dependencies_point_one_way():
    wrong = {
        f"{file.relative_to(ROOT)} imports {part}"
        for name, allowed in MAY_IMPORT.items()
        for file in (ROOT / name).glob("**/*.py")
        for part in imported_parts(file)
        # REVISION, its reason and __version__ belong to the package itself
        if part not in allowed | {name, "REVISION", "REVISION_REASON", "__version__"}
    }
    assert wrong == set()


def test_every_module_says_in_its_first_line_what_it_does():
    for file in ROOT.glob("**/*.py"):
        docstring = ast.get_docstring(ast.parse(file.read_text()))
        assert docstring, file
        assert docstring.splitlines()[0].rstrip()[-1] in ".:", file
