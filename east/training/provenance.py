"""Where a number comes from: commit, digest of the code, versions, device."""

import ast
import hashlib
import platform
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

import east
from east.engine.processor import processor_name

NUMERIC_PARTS = ("config/run.py", "data", "engine", "models", "seeding.py", "sparse", "training")
"""The parts of the package that decide a run's numbers."""


def provenance(device: torch.device) -> dict[str, object]:
    """Commit, code digest, versions and device, as they go into a run's summary."""
    return {
        "commit": commit(),
        "code_digest": code_digest(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("torch", "numpy")}
        | {"east": east.__version__},
        "device": device_name(device),
        "platform": platform.platform(),
    }


def commit() -> str | None:
    """The commit of the checkout that holds this package, with `+changes` if it was edited; None outside git."""
    root = Path(east.__file__).parents[1]
    try:
        head = _git(root, "rev-parse", "HEAD")
        return f"{head}+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def code_digest() -> str:
    """A digest of the code that decides numbers: comments, docstrings and layout leave it as it is."""
    root = Path(east.__file__).parent
    files = [
        file
        for part in NUMERIC_PARTS
        for file in ([root / part] if part.endswith(".py") else root.glob(f"{part}/**/*"))
        if file.suffix in (".py", ".cpp", ".h")
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(_meaning(file).encode())
    return digest.hexdigest()[:16]


def device_name(device: torch.device) -> str:
    """The name of the processor or GPU that a device stands for."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def _meaning(file: Path) -> str:
    """What a file of Python or C++ says, without comments and layout."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return ast.dump(_without_docstrings(ast.parse(text)))
    return " ".join(re.sub("//.*", "", text).split())


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_docstring(part)] or [ast.Pass()]
    return tree


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
