import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import east
from east.checkout import Checkout, commit, look_up
from east.training.provenance import code_digest, device_name, numeric_sources

PACKAGE = Path(east.__file__).parent
IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *arguments]
    environment = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def repository(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path):
    """A checkout of a package, and its commit."""
    root = tmp_path / "checkout"
    sources = {"east/__init__.py": "a = 1\n", "east/kernels/k.cpp": "int k;\n", ".gitignore": "ignored*\n*.so\n"}
    head = repository(root, sources)
    return SimpleNamespace(root=root, package=root / "east", head=head)


def test_a_clean_checkout_has_its_commit(checkout):
    (checkout.package / "kernels" / "built.so").write_text("not a source")
    (checkout.root / "notes.py").write_text("not in the package")
    assert commit(checkout.package) == checkout.head


CHANGES = {
    "an edit": lambda root: (root / "east" / "__init__.py").write_text("a = 2\n"),
    "a staged edit": lambda root: (
        (root / "east" / "__init__.py").write_text("a = 2\n"),
        git(root, "add", "-A"),
    ),
    "a file that was never added": lambda root: (root / "east" / "new.py").write_text("b = 1\n"),
    "a file that Git ignores": lambda root: (root / "east" / "ignored.h").write_text("int b;\n"),
    "a file that is gone": lambda root: (root / "east" / "kernels" / "k.cpp").unlink(),
    "an edit that Git was told to overlook": lambda root: (
        git(root, "update-index", "--assume-unchanged", "east/__init__.py"),
        (root / "east" / "__init__.py").write_text("a = 2\n"),
    ),
    "an edit where Git was told to keep its hands off": lambda root: (
        git(root, "update-index", "--skip-worktree", "east/kernels/k.cpp"),
        (root / "east" / "kernels" / "k.cpp").write_text("int l;\n"),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_told(checkout, what):
    CHANGES[what](checkout.root)
    assert commit(checkout.package) == f"{checkout.head}+changes"


def test_a_copy_has_no_commit_of_the_repository_around_it(checkout, tmp_path):
    """Neither where that ignores it, as an environment's packages, nor where it keeps it among its own files."""
    repository(tmp_path / "other", {"main.py": "", ".gitignore": ".venv\n"})
    unpacked = shutil.copytree(checkout.package, tmp_path / "other" / "east")
    installed = shutil.copytree(checkout.package, tmp_path / "other" / ".venv" / "site-packages" / "east")
    vendored = shutil.copytree(checkout.package, tmp_path / "third" / "vendor" / "east")
    repository(tmp_path / "third", {"main.py": ""})
    alone = shutil.copytree(checkout.package, tmp_path / "alone" / "east")
    assert [commit(package) for package in (unpacked, installed, vendored, alone)] == [None] * 4


def test_a_worktree_and_a_submodule_have_their_own_commit(checkout, tmp_path):
    git(checkout.root, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    repository(tmp_path / "outer", {"main.py": ""})
    git(tmp_path / "outer", "submodule", "add", "-q", str(checkout.root), "inner")
    assert commit(tmp_path / "tree" / "east") == checkout.head
    assert commit(tmp_path / "outer" / "inner" / "east") == checkout.head


def test_a_repository_that_the_environment_names_is_not_asked(checkout, tmp_path, monkeypatch):
    other = repository(tmp_path / "other", {"east/__init__.py": ""})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert commit(checkout.package) == checkout.head != other


def staged_only(root):
    """In a repository whose commit has other files."""
    git(root, "rm", "-q", "-r", "--cached", "east")
    git(root, "commit", "-qm", "without")
    git(root, "add", "east")


def described_as_another_project(root):
    (root / "pyproject.toml").write_text("[project]\nname = 'thesis'\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "mine")


def described_in_no_language(root):
    (root / "pyproject.toml").write_text("[project")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "broken")


def without_a_commit(root):
    shutil.rmtree(root / ".git")
    git(root, "init", "-q")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (staged_only, "another project"),
        (described_as_another_project, "another project"),
        (described_in_no_language, "another project"),
        (without_a_commit, "no commit"),
        (lambda root: shutil.rmtree(root / ".git"), "no Git repository"),
        (lambda root: shutil.rmtree(root / ".git/objects"), ""),
        (lambda root: (root / ".git/HEAD").write_text("nothing"), ""),
    ],
)
def test_no_commit_is_recorded_but_this_project_s_and_why_is_said(checkout, make, words):
    make(checkout.root)
    found = look_up(checkout.package)
    assert (found.label, words in found.note, found.changes) == (None, bool(found.note), ())


def test_why_there_is_no_commit_is_said_of_copies(checkout, tmp_path, monkeypatch):
    installed = shutil.copytree(checkout.package, tmp_path / "lib" / "site-packages" / "east")
    assert "installed" in look_up(installed).note
    inner = shutil.copytree(checkout.package, checkout.root / "unpacked" / "east")
    assert "another project" in look_up(inner).note
    monkeypatch.setenv("PATH", "")
    assert "no command git" in look_up(checkout.package).note


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_of_another_user_is_not_read(checkout, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "*")
    for path in (checkout.root, checkout.root / ".git"):
        os.chown(path, 12345, 12345)
    found = look_up(checkout.package)
    assert (found.commit, "another user" in found.note) == (None, True)


def test_a_checkout_in_the_midst_of_something_has_the_commit_that_it_stands_on(checkout, tmp_path):
    source = checkout.package / "__init__.py"
    git(checkout.root, "checkout", "-q", "--detach")
    source.write_text("a = 2\n")
    git(checkout.root, "stash")
    assert look_up(checkout.package) == Checkout(checkout.head)
    source.write_text("a = 3\n")
    git(checkout.root, "commit", "-qam", "other")
    with pytest.raises(subprocess.CalledProcessError):
        git(checkout.root, "stash", "pop")
    found = look_up(checkout.package)
    assert found == Checkout(git(checkout.root, "rev-parse", "HEAD"), ("east/__init__.py",))


def test_a_shallow_clone_has_its_commit_and_what_git_was_told_to_put_in_its_place_counts_for_nothing(
    checkout, tmp_path
):
    (checkout.package / "__init__.py").write_text("a = 2\n")
    git(checkout.root, "commit", "-qam", "second")
    second = git(checkout.root, "rev-parse", "HEAD")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{checkout.root}", "clone")
    assert look_up(tmp_path / "clone" / "east") == Checkout(second)
    git(checkout.root, "replace", second, checkout.head)
    assert look_up(checkout.package) == Checkout(second)


def test_changes_are_named_whatever_their_names(checkout):
    for name in ("a b.py", "\N{GREEK SMALL LETTER ALPHA}.py", os.fsdecode(b"\xff.py"), "a\nb.py"):
        (checkout.package / name).write_text("b = 1\n")
        assert look_up(checkout.package).changes == (f"east/{name}",)
        (checkout.package / name).unlink()


def test_a_package_that_is_reached_by_a_link_has_the_commit_of_its_checkout(checkout, tmp_path):
    (tmp_path / "east").symlink_to(checkout.package)
    assert commit(tmp_path / "east") == checkout.head


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit(checkout.package) is None


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("echo 'fatal:  something odd' >&2; echo more >&2; exit 128", "fatal: something odd"),
        ("exec /bin/sleep 30", "no answer"),
    ],
)
def test_what_git_says_or_that_it_says_nothing_is_noted(checkout, tmp_path, monkeypatch, does, words):
    command = tmp_path / "bin" / "git"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{does}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    monkeypatch.setattr("east.checkout.ANSWER_SECONDS", 0.2 if "sleep" in does else 60)
    found = look_up(checkout.package)
    assert (found.commit, found.note.endswith(words)) == (None, True)


def test_a_gpu_is_called_by_its_own_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", {torch.device("cuda:1"): "A GPU"}.__getitem__)
    assert device_name(torch.device("cuda:1")) == "A GPU"
    assert device_name(torch.device("cpu")) != "A GPU"


DECIDES = [
    "training/loop.py",
    "training/step.py",
    "training/optimizer.py",
    "training/clip.py",
    "training/checkpoint.py",
    "sparse/masks.py",
    "sparse/topology.py",
    "config/run.py",
    "data/batches.py",
    "sparse/density.py",
    "models/build.py",
    "models/described.py",
    "models/networks.py",
    "engine/dense.py",
    "engine/cpu/kernels/loss.cpp",
    "seeding.py",
]
SHOWS = [
    "training/progress.py",
    "training/state.py",
    "training/tracking.py",
    "training/interrupt.py",
    "config/plan.py",
    "cli/runs.py",
    "render/tables.py",
]


@pytest.fixture(scope="module")
def digest():
    return code_digest(PACKAGE)


@pytest.fixture
def package(tmp_path):
    """A copy to be changed."""
    return shutil.copytree(PACKAGE, tmp_path / "east", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.parametrize("name", DECIDES + SHOWS)
def test_the_digest_of_the_code_changes_with_what_decides_numbers_and_with_nothing_else(package, digest, name):
    with (package / name).open("a") as source:
        source.write("\nint added;\n" if name.endswith("cpp") else "\nadded = 1\n")
    assert (code_digest(package) != digest) == (name in DECIDES)


def test_modules_that_are_imported_by_their_whole_name_count(tmp_path):
    package = tmp_path / "east"
    for name, text in {"training/loop": "import east.a, east.b.c as c", "a": "", "b/c": "", "d": ""}.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    names = {file.relative_to(package).as_posix() for file in numeric_sources(package)}
    assert {"a.py", "b/c.py"} <= names
    assert "d.py" not in names


def test_a_source_that_changes_while_the_command_imports_others_is_refused(package, tmp_path, tiny_spec, data_dir):
    with (package / "training" / "progress.py").open("a") as source:
        source.write(
            "with open(__file__.replace('training/progress', 'sparse/masks'), 'a') as f: f.write('late = 1')\n"
        )
    command = [sys.executable, "-m", "east", "train", "--run", tiny_spec.model_dump_json(), "--out", tmp_path / "run"]
    command += ["--data-dir", data_dir, "--device", "cpu", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "sparse/masks.py was changed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "attempts.json").exists()


PLAIN = {
    "training/run.py": "a = 1",
    "training/checkpoint.py": "a = 1",
    "training/loop.py": "import east.used\ndef f():\n    pass\nclass C:\n    a = 1\n    b = 2",
    "used.py": "async def g():\n    return 'x'\ntry:\n    import east.tried\nexcept OSError:\n    import east.caught",
    "tried.py": "def h():\n    match 1:\n        case 1:\n            from east.matched import x",
    "caught.py": "from east import whole",
    "whole/__init__.py": "x = 1",
    "matched.py": "x = 1",
    "unused.py": "x = 1",
    "engine/k.cpp": "int k; int l;",
}
EXPLAINED = PLAIN | {
    "training/loop.py": "'''About.'''\nimport east.used  # why\ndef f():\n    'What it does.'\n"
    "class C:\n    'What it is.'\n    a = 1\n    'What a is.'\n\n\n    b = 2",
    "used.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import east.unused\n" + PLAIN["used.py"],
    "engine/k.cpp": "// About.\nint k;   // what it is\n\n  int l;",
}
EXPLAINED["used.py"] = PLAIN["used.py"].replace("return", "'What it is.'\n    return")


def package_of(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_is_said_about_code_is_not_code(tmp_path):
    assert code_digest(package_of(tmp_path / "a" / "east", PLAIN)) == code_digest(
        package_of(tmp_path / "b" / "east", EXPLAINED)
    )


@pytest.mark.parametrize("name", PLAIN)
def test_every_source_that_is_imported_in_whatever_way_counts(tmp_path, name):
    first = code_digest(package_of(tmp_path / "a" / "east", PLAIN))
    added = PLAIN | {name: PLAIN[name] + ("\nint added;" if name.endswith("cpp") else "\nadded = 1")}
    assert (code_digest(package_of(tmp_path / "b" / "east", added)) == first) == (name == "unused.py")


def test_what_only_a_type_checker_imports_decides_nothing(tmp_path):
    files = PLAIN | {"training/loop.py": "if TYPE_CHECKING:\n    import east.unused\nif other:\n    import east.used"}
    names = {file.name for file in numeric_sources(package_of(tmp_path / "east", files))}
    assert "used.py" in names
    assert "unused.py" not in names


def test_comments_docstrings_and_layout_change_no_digest(package, digest):
    for name in ("training/loop.py", "engine/cpu/kernels/loss.cpp"):
        source = package / name
        mark = "//" if name.endswith("cpp") else "#"
        source.write_text(source.read_text().replace("\n\n", f"\n\n{mark} said\n\n", 1))
    assert code_digest(package) == digest
