"""Where a number comes from: commit, digest of the code, versions, device, data."""

import ast
import hashlib
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from east.checkout import CODE, PACKAGE, look_up, sources
from east.engine.machine import processor_name
from east.errors import EastError
from east.version import __version__

NUMERIC_ROOT = "training/loop.py"
"""What decides a run's numbers is this module and all that it imports: steps, masks, engines, data, networks."""

NUMERIC_BESIDE = ("training/run.py", "training/checkpoint.py")
"""And what takes numbers to files and back. What these import besides only shows them, or keeps them apart."""


MOST_CHANGES = 20
"""Files that are not as committed, of which a record names no more."""


@dataclass(frozen=True)
class Origin:
    """The program that a process runs. It is read when the process begins, as its files may change later.

    Attributes:
        commit: of the checkout, with `+changes` if anything there is not as committed; None where none is known.
        changes: the files that are not, the first of them.
        checkout: why no commit is known, in words; empty where one is.
        code_digest: of the code that decides numbers.
        versions: of Python, this package, and the libraries that compute.
        platform: system and processor architecture.
    """

    commit: str | None
    changes: tuple[str, ...]
    checkout: str
    code_digest: str
    versions: dict[str, str]
    platform: str

    @classmethod
    def of_this_process(cls, began: Mapping[str, str] | None = None) -> "Origin":
        """That of the program whose modules this process has just imported.

        Args:
            began: what the sources were before the first of these was imported (`east.checkout.sources`), so that the
                digest is one of what is in memory; None where nobody looked.

        Raises:
            EastError: a source that decides numbers has changed since.
        """
        versions = {name: metadata.version(name) for name in ("torch", "numpy")}
        found, digest = look_up(), code_digest()
        refuse_changes(began)
        return cls(
            commit=found.label,
            changes=tuple(name.encode(errors="backslashreplace").decode() for name in found.changes[:MOST_CHANGES]),
            checkout=found.note,
            code_digest=digest,
            versions={"python": platform.python_version()} | versions | {"east": __version__},
            platform=platform.platform(),
        )


def refuse_changes(began: Mapping[str, str] | None, package: Path = PACKAGE) -> None:
    """Make sure that the code that decides numbers is what it was when this process began.

    Modules are imported one by one, some of them late, and kernels are compiled later still. A source that changes
    meanwhile would leave a mixture in memory, of which no digest of files says anything. What Python cannot tell apart
    stays unseen here too: a file that was exchanged and put back, or one of the same length and second as the one that
    its compiled form in `__pycache__` was made from.

    Args:
        began: what all sources were then (`east.checkout.sources`); nothing is compared without.
        package: the package's folder.

    Raises:
        EastError: one has changed.
    """
    if began is None:
        return
    now, deciding = sources(package), {file.relative_to(package).as_posix() for file in numeric_sources(package)}
    changed = sorted(name for name in deciding if now.get(name) != began.get(name))
    if changed:
        raise EastError(
            f"{package / changed[0]} was changed while this training began, so nobody could say which code trained it. "
            "Nothing is lost: start it again."
        )


@cache
def code_digest(package: Path = PACKAGE) -> str:
    """A digest of the code that decides numbers: comments, docstrings and layout leave it as it is."""
    digest = hashlib.sha256()
    for file in numeric_sources(package):
        digest.update(file.relative_to(package).as_posix().encode())
        digest.update(_meaning(file).encode())
    return digest.hexdigest()[:16]


@cache
def numeric_sources(package: Path) -> tuple[Path, ...]:
    """The sources that decide a run's numbers, found by following imports; compiled kernels among them."""
    found: set[Path] = set()
    waiting = [package / NUMERIC_ROOT]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported(file, package)
    beside = [package / name for name in NUMERIC_BESIDE]
    kernels = [file for file in package.rglob("*") if file.suffix in CODE and file.suffix != ".py"]
    return tuple(sorted({*found, *beside, *kernels}))


def device_name(device: torch.device) -> str:
    """The name of the processor or GPU that a device stands for."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()


def _imported(file: Path, package: Path) -> list[Path]:
    """The modules of the package that a module imports when it runs, anywhere in it, each by its own name.

    Among them are those that registries import, which have the entries: `home="east.sparse.growth"`.
    """
    keywords = (node for node in ast.walk(_tree(file)) if isinstance(node, ast.keyword) and node.arg == "home")
    names = [str(keyword.value.value) for keyword in keywords if isinstance(keyword.value, ast.Constant)]
    for node in _executed(_tree(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    places = [package.joinpath(*name.split(".")[1:]) for name in names if name.startswith("east.")]
    files = [module for place in places for module in (place.with_suffix(".py"), place / "__init__.py")]
    return [module for module in files if module.is_file()]


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements of a tree but for those that are there for a type checker alone."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        parts = ast.iter_child_nodes(node)
        waiting += (part for part in parts if isinstance(part, ast.stmt | ast.ExceptHandler | ast.match_case))


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _meaning(file: Path) -> str:
    """What a file of Python or C++ says, without comments and layout."""
    if file.suffix == ".py":
        tree = _tree(file)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                # Statements that are nothing but a text: docstrings, and those of attributes.
                texts = [
                    part
                    for part in node.body
                    if isinstance(part, ast.Expr)
                    and isinstance(part.value, ast.Constant)
                    and isinstance(part.value.value, str)
                ]
                node.body = [part for part in node.body if part not in texts] or [ast.Pass()]
        return ast.dump(tree)
    return " ".join(re.sub("//.*", "", file.read_text(encoding="utf-8")).split())
