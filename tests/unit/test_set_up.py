"""`make setup`, with a Python that only pretends to install (fake_python.py)."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_python.py")
HARD_NAMES = ['a b\'s "$HOME" `id` \\ ü [c]', "-x", "x" * 200]


class Checkout:
    """A folder with what the set-up needs, and Pythons of a PATH of its own."""

    def __init__(self, place: Path, pythons: Path) -> None:
        self.place, self.pythons = place, pythons
        (place / "requirements").mkdir(parents=True)
        shutil.copy(ROOT / "requirements" / "set_up.py", place / "requirements")
        shutil.copy(ROOT / "Makefile", place)
        shutil.copy(ROOT / "pyproject.toml", place)
        self.lock("lock", torch="2.0", snakemake="9.0")
        self.lock("dev", pytest="8.0")
        pythons.mkdir()
        for tool in ("bash", "sh", "make", "dirname", "realpath"):
            (pythons / tool).symlink_to(shutil.which(tool))

    def lock(self, name: str, **versions: str) -> None:
        lines = [f"{package}=={version}\n" for package, version in versions.items()]
        (self.place / "requirements" / f"{name}.txt").write_text("".join(lines))

    def python(self, name: str = "python3", version: str = "3.12", **facts: str) -> Path:
        command = self.pythons / name
        command.write_text(FAKE.read_text().replace("/usr/bin/env -S python3 -SE", f"{sys.executable} -SE"))
        command.chmod(0o755)
        known = {"version": version, **facts}
        command.with_name(f"{name}.facts").write_text("".join(f"{key}={value}\n" for key, value in known.items()))
        return command

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", "-C", str(self.place), *(arguments or ["setup"])]
        variables = {"PATH": str(self.pythons), "HOME": str(self.pythons), "LC_ALL": "C.UTF-8"}
        return subprocess.run(command, capture_output=True, text=True, env=variables | environment, umask=0o077)

    def said(self) -> list[dict]:
        log = self.pythons / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def command(self, name: str) -> str:
        done = subprocess.run(
            [self.place / ".venv" / "bin" / name], capture_output=True, text=True, env={"PATH": str(self.pythons)}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def check_whole(self) -> None:
        """Every package is as pip leaves it, and its command runs."""
        for name in ("torch", "snakemake", "east"):
            assert self.command(name) == str(self.place)
        for description in (self.place / ".venv").glob("lib/*/site-packages/*.dist-info"):
            for line in (description / "RECORD").read_text().splitlines():
                file, _, size = line.split(",")
                found = (description.parent / file).stat().st_size
                assert not size or file.startswith("..") or found == int(size), file


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", tmp_path / "bin")


@pytest.fixture
def set_up(checkout: Checkout) -> ModuleType:
    """The script as a module, in a checkout."""
    spec = importlib.util.spec_from_file_location("set_up", checkout.place / "requirements" / "set_up.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def two_lines(done: subprocess.CompletedProcess[str]) -> str:
    """What a failed set-up says, of which make itself adds the last line."""
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("make setup: ")
    return done.stderr


def test_it_says_what_comes_installs_it_and_is_silent_the_next_time(checkout):
    checkout.python()
    first = checkout.make()
    assert "GB to download" in first.stdout.splitlines()[0]
    assert "activate" in first.stdout
    checkout.check_whole()
    asked = len(checkout.said())
    again = checkout.make()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(checkout.said()) == asked
    assert not (checkout.place / ".venv" / "fetched").exists()


def test_what_tests_need_comes_only_with_them(checkout):
    checkout.python()
    checkout.make()
    assert not (checkout.place / ".venv/bin/pytest").exists()
    checkout.make("setup-dev")
    assert checkout.command("pytest") == str(checkout.place)


def test_a_changed_lock_installs_again(checkout):
    checkout.python()
    checkout.make()
    checkout.lock("lock", torch="2.1", snakemake="9.0")
    checkout.make()
    assert (next(iter(checkout.place.glob(".venv/lib/*/site-packages/torch-2.1.dist-info"))) / "RECORD").exists()


@pytest.mark.slow
def test_interrupted_at_any_moment_it_goes_on(checkout):
    checkout.python()
    for writes in range(100):
        shutil.rmtree(checkout.place / ".venv", ignore_errors=True)
        (checkout.pythons / "writes-left").write_text(str(writes))
        if checkout.make().returncode == 0:
            break
        (checkout.pythons / "writes-left").unlink(missing_ok=True)
        done = checkout.make()
        assert done.returncode == 0, (writes, done.stderr)
        checkout.check_whole()
    assert writes > 10


@pytest.mark.parametrize("harm", ["a file is cut short", "a file is gone", "the Python is gone", "pip is gone"])
def test_a_damaged_environment_is_mended(checkout, harm):
    checkout.python()
    checkout.make()
    (site,) = checkout.place.glob(".venv/lib/*/site-packages")
    {
        "a file is cut short": lambda: (site / "torch.py").write_text(""),
        "a file is gone": lambda: (site / "torch.py").unlink(),
        "the Python is gone": lambda: (checkout.place / ".venv/bin/python").unlink(),
        "pip is gone": lambda: shutil.rmtree(site / "pip-1.0.dist-info"),
    }[harm]()
    (checkout.place / ".venv" / "run.stamp").unlink()
    assert checkout.make().returncode == 0
    checkout.check_whole()


def test_debians_missing_part_of_python_is_named_and_its_installation_mends(checkout):
    checkout.python(**{"no ensurepip": ""})
    assert "sudo apt install python3.12-venv" in two_lines(checkout.make())
    checkout.python()
    assert checkout.make().returncode == 0
    checkout.check_whole()


def test_an_old_python_is_passed_over_for_one_that_fits(checkout):
    checkout.python("python3", "3.9")
    said = two_lines(checkout.make())
    assert "python3 is Python 3.9" in said
    assert "make setup PYTHON=" in said
    checkout.python("python3.11", "3.11")
    assert checkout.make().returncode == 0
    assert (checkout.place / ".venv/lib/python3.11").is_dir()


def test_the_environment_of_an_old_python_is_replaced_and_one_that_fits_is_kept(checkout):
    old, new = checkout.python("python3", "3.10"), checkout.python("python3.11", "3.11")
    subprocess.run([old, "-m", "venv", checkout.place / ".venv"], check=True)
    assert checkout.make().returncode == 0
    checkout.python("python3", "3.13")
    (checkout.place / ".venv" / "run.stamp").unlink()
    assert checkout.make().returncode == 0
    assert os.path.realpath(checkout.place / ".venv/bin/python") == str(new)


def test_a_python_that_is_named_is_the_one_that_is_used(checkout):
    checkout.python("python3", "3.12")
    checkout.python("another python", "3.13")
    checkout.make()
    assert checkout.make(f"PYTHON={checkout.pythons / 'another python'}", "setup").returncode == 0
    assert (checkout.place / ".venv/lib/python3.13").is_dir()
    checkout.check_whole()
    checkout.python("old", "3.8")
    assert "3.8" in two_lines(checkout.make("PYTHON=old", "setup"))
    assert "nowhere does not run" in two_lines(checkout.make("PYTHON=nowhere", "setup"))


def test_without_any_python_make_says_what_to_install(checkout):
    assert "sudo apt install python3" in two_lines(checkout.make())


def test_a_moved_checkout_runs_at_once_and_is_itself_again_after_the_set_up(checkout, tmp_path):
    checkout.python()
    checkout.make()
    old, checkout.place = checkout.place, tmp_path / "else where"
    old.rename(checkout.place)
    assert checkout.command("east") == str(old)
    assert checkout.make().returncode == 0
    assert checkout.command("east") == str(checkout.place)
    assert str(checkout.place) in (checkout.place / ".venv/bin/activate").read_text()


@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_folder_may_have_any_name(tmp_path, name):
    checkout = Checkout(tmp_path / name, tmp_path / "bin")
    checkout.python()
    done = checkout.make()
    assert done.returncode == 0, done.stderr
    checkout.check_whole()
    activated = ["bash", "-c", ". .venv/bin/activate; east"]
    done = subprocess.run(activated, cwd=checkout.place, capture_output=True, text=True)
    assert done.stdout.strip() == str(checkout.place), done.stderr


def test_a_colon_in_the_path_is_refused(tmp_path):
    checkout = Checkout(tmp_path / "a:b", tmp_path / "bin")
    checkout.python()
    assert "colon" in two_lines(checkout.make())


def test_variables_meant_for_other_pythons_do_not_reach_pip(checkout):
    checkout.python()
    astray = {
        "PYTHONPATH": "/nowhere",
        "PYTHONHOME": "/nowhere",
        "PIP_USER": "1",
        "PIP_TARGET": "/tmp",
        "PIP_NO_DEPS": "1",
    }
    kept = {"PIP_INDEX_URL": "file:///mirror", "PIP_CERT": "/cert", "PIP_NO_CACHE_DIR": "1", "HTTPS_PROXY": "proxy"}
    assert checkout.make(**astray, **kept).returncode == 0
    for call in checkout.said():
        assert not astray.keys() & call["environment"].keys()
        assert kept.items() <= call["environment"].items()
        assert call["environment"]["TMPDIR"] == str(checkout.place / ".venv" / "fetched")
    assert "--require-hashes" in checkout.said()[0]["arguments"]


@pytest.mark.parametrize("home", ["/dev/null", "home"])
def test_a_home_without_room_for_a_cache_has_none(checkout, tmp_path, home):
    checkout.python()
    (tmp_path / "home").mkdir()
    assert checkout.make(HOME=str(tmp_path / home)).returncode == 0
    assert all(("PIP_NO_CACHE_DIR" in call["environment"]) == (home == "/dev/null") for call in checkout.said())


@pytest.mark.parametrize(
    ("failure", "named"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "GB in"),
        ("WARNING: NewConnectionError('<...>: [Errno 101]')\nERROR: No matching distribution found for x", "network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "not published for"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "pip cache purge"),
        ("ERROR: something else", "above"),
    ],
)
def test_a_failure_of_pip_gets_two_lines_that_say_why(set_up, failure, named):
    first, second = set_up.reason(failure).splitlines()
    assert named in first + second


def test_the_failure_follows_pips_own_words_and_the_next_try_goes_on(checkout):
    checkout.python(
        failure="ERROR: Temporary failure in name resolution: NameResolutionError|ERROR: No matching distribution"
    )
    done = checkout.make()
    assert "name resolution" in done.stderr.partition("make setup: ")[0]
    assert "network" in done.stderr.partition("make setup: ")[2]
    assert done.returncode != 0
    checkout.python()
    assert checkout.make().returncode == 0
    checkout.check_whole()


def test_packages_that_pip_puts_elsewhere_are_missed(checkout):
    checkout.python()
    checkout.make()
    (checkout.place / "requirements" / "lock.txt").write_text("snakemake==9.0\n")
    shutil.rmtree(checkout.place / ".venv")
    assert "pip config list" in two_lines(checkout.make())
    assert "pip config list" in two_lines(checkout.make()), "it is not taken for done"


def test_a_link_to_another_environment_is_left_alone(checkout, tmp_path):
    checkout.python()
    (checkout.place / ".venv").symlink_to(tmp_path / "other")
    assert "rm .venv" in two_lines(checkout.make())
    (tmp_path / "other").mkdir()
    assert checkout.make().returncode == 0
    assert not any((tmp_path / "other").iterdir())


@pytest.mark.parametrize("in_the_way", [".venv", ".venv/run.stamp/x"])
def test_what_lies_in_the_way_is_named(checkout, in_the_way):
    checkout.python()
    if in_the_way != ".venv":
        checkout.make()
        (checkout.place / ".venv" / "run.stamp").unlink()
    (checkout.place / in_the_way).parent.mkdir(exist_ok=True)
    (checkout.place / in_the_way).write_text("")
    assert in_the_way.removesuffix("/x") in two_lines(checkout.make())


def test_too_small_a_disk_is_told_before_anything_is_fetched(set_up, monkeypatch):
    set_up.VENV.mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, int(6e9)))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(set_up.SetUpError, match=r"6\.0 GB are free in .*\n.*larger disk"):
        set_up.announce("lock.txt")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    set_up.announce("lock.txt")  # there is room for what a Mac needs


def test_it_runs_by_pythons_that_are_too_old_for_the_rest():
    ast.parse((ROOT / "requirements" / "set_up.py").read_text(), feature_version=(3, 6))


def test_the_makefile_is_for_the_make_of_macs_too():
    """Theirs is GNU make 3.81."""
    text = (ROOT / "Makefile").read_text()
    newer = [
        ".ONESHELL",
        "!=",
        "::=",
        "$(file ",
        "$(let ",
        "$(intcmp",
        "&:",
        "undefine ",
        ".RECIPEPREFIX",
        ".NOTPARALLEL:",
    ]
    assert not [feature for feature in newer if feature in text]
    assert not [line for line in text.splitlines() if line.startswith("define ") and line.endswith("=")]


def test_the_makefile_tries_the_pythons_that_the_project_takes():
    text = (ROOT / "Makefile").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("PYTHONS := ")]
    assert line.split()[2:] == ["python3.13", "python3.12", "python3.11"]
    assert 'requires-python = ">=3.11,<3.14"' in (ROOT / "pyproject.toml").read_text()
