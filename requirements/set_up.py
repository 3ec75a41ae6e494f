"""Makes .venv from the locked packages, or says what to install. `make setup` runs it, by any Python from 3.6 on.

A set-up that was interrupted, whenever, goes on where it stopped; one whose folder has moved is put right.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
VENV = ROOT / ".venv"
OWN = str(VENV / "bin" / "python")
FETCHED = VENV / "fetched"
"""Downloads lie beside where they go: a small /tmp cannot hold them, and what an interruption leaves is found."""

SIZES = {("Linux", "x86_64"): (5.5, 2.9), ("Linux", "aarch64"): (5.4, 2.9), ("Darwin", "arm64"): (1.0, 0.3)}
"""GB that the environment takes on disk, and that are downloaded for it."""

DEV_SIZE = 0.5
"""GB that tests and linters take besides."""

FROM_WHERE = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|NO_INDEX|FIND_LINKS|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|KEYRING_PROVIDER"
    r"|(NO_)?CACHE_DIR|RETRIES|(DEFAULT_)?TIMEOUT|CONFIG_FILE)"
)
"""The settings of pip that are the user's: where packages come from. Where they go, and which, is ours."""

ASTRAY = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables by which Python would work with other packages."""

MOVABLE = (
    b"#!/bin/sh\n"
    b"""'''exec' "$(dirname -- "$(realpath -- "$0" 2>/dev/null || printf %s "$0")")/python" "$0" "$@"\n"""
    b"' '''\n"
)
"""The first lines of a command: to sh they start the Python beside it, to Python they are a text. pip writes the path
of that Python instead, which is wrong after a move, and to sh if there are quotes or dollar signs in it."""

WRITTEN_BY_PIP = re.compile(rb"#!/[^\n]*/python[\d.]*\n|#!/bin/sh\n'''exec' [^\n]*\n' '''\n")

SECONDS_BETWEEN_SIGNS = 15


class SetUpError(Exception):
    """What stops the set-up, and the mend."""


def main() -> int:
    """Make the environment; the exit status."""
    parser = argparse.ArgumentParser(description="Makes .venv from the locked packages, or says what to install.")
    parser.add_argument("--dev", action="store_true", help="with what tests and linters need")
    parser.add_argument("--python", default="", help="the Python to use; by default the first that fits")
    arguments = parser.parse_args()
    try:
        alone(lambda: set_up(arguments.python, arguments.dev))
    except SetUpError as problem:
        print(f"make setup: {problem}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"make setup: {error.filename or VENV}: {error.strerror}.", file=sys.stderr)
        print("Mend that, and type `make setup` again: it goes on from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake setup: stopped. Typed again, it goes on from here.", file=sys.stderr)
        return 130
    return 0


def alone(work: Callable[[], None]) -> None:
    """Call `work` while no other set-up works on this folder."""
    folder = os.open(str(ROOT), os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up is at work in this folder; waiting for it.", flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        work()
    finally:
        os.close(folder)


def set_up(named: str, dev: bool) -> None:
    """Make .venv, or what is missing in it.

    Args:
        named: the Python to use; empty for the first that fits.
        dev: with what tests and linters need.
    """
    if VENV.is_symlink():
        if not VENV.exists():
            raise SetUpError(
                f".venv is a link to {os.path.realpath(str(VENV))}, which is not there.\nRemove it: rm .venv"
            )
        return  # whoever made the link looks after what it leads to
    files = {"run": "lock.txt", "dev": "dev.txt"} if dev else {"run": "lock.txt"}
    wanted = fitting_python(named) if named else ""
    missing = {stamp: file for stamp, file in files.items() if not is_done(stamp, file, wanted)}
    if not missing:
        return
    if ":" in str(ROOT):
        raise SetUpError(f"the path of this folder has a colon, which PATH cannot hold: {ROOT}\nMove it elsewhere.")
    if is_usable(wanted):
        renew_scripts()
        forget_halves()
    else:
        create(wanted or fitting_python(""))
    shutil.rmtree(str(FETCHED), ignore_errors=True)
    FETCHED.mkdir()
    try:
        for stamp, file in missing.items():
            announce(file)
            install(file)
            if stamp == "run":
                install_project()
            make_movable()
            (VENV / f"{stamp}.stamp").write_text(mark(file), encoding="utf-8")
    finally:
        shutil.rmtree(str(FETCHED), ignore_errors=True)
    check()


def is_done(stamp: str, file: str, wanted: str) -> bool:
    """Whether the packages of a file were installed for the project as it is, where it is, and for this Python."""
    written = VENV / f"{stamp}.stamp"
    if not (written.is_file() and written.read_text(encoding="utf-8") == mark(file) and os.access(OWN, os.X_OK)):
        return False
    return not wanted or minor(wanted) == minor(OWN)


def mark(file: str) -> str:
    """What an environment is made of, and its place."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (REQUIREMENTS / file, ROOT / "pyproject.toml")]
    return json.dumps({"place": str(ROOT), "made of": digests}) + "\n"


def environment() -> Dict[str, str]:
    """The variables of this process, without those by which Python or pip would work elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ASTRAY and (not name.startswith("PIP_") or FROM_WHERE.fullmatch(name))
    }
    return kept if has_cache(kept) else dict(kept, PIP_NO_CACHE_DIR="1")


def has_cache(variables: Dict[str, str]) -> bool:
    """Whether pip can keep a cache, in which it also builds: a home may be read-only."""
    caches = Path(variables.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    cache = Path(variables.get("PIP_CACHE_DIR") or caches / "pip")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(str(cache), os.W_OK)


def ask(python: str, code: str) -> str:
    """What a Python prints; empty if it does not run."""
    command = [python, "-c", code]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
    except OSError:
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def minor(python: str) -> Optional[int]:
    """The minor version of a Python 3; None if it does not run."""
    major, _, rest = ask(python, "import sys; print('%d.%d' % sys.version_info[:2])").partition(".")
    return int(rest) if major == "3" else None


def supported() -> List[int]:
    """The minor versions of Python 3 that the project takes."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"', text, re.MULTILINE)
    return list(range(int(found.group(1)), int(found.group(2)))) if found else []


def fitting_python(named: str) -> str:
    """The command of a Python that the project takes: the one that is named, or the first on PATH."""
    versions = supported()
    needed = f"Python 3.{versions[0]} to 3.{versions[-1]} is needed"
    others = []
    for name in [named] if named else ["python3", *(f"python3.{number}" for number in reversed(versions)), "python"]:
        version = minor(name)
        if version in versions:
            return name
        if version is not None:
            others.append(f"{name} is Python 3.{version}")
    if named:
        found = others[0] if others else f"{named} does not run"
        raise SetUpError(f"{needed}; {found}.\nLeave out PYTHON={named}, or name another.")
    newest = f"python3.{versions[-1]}"
    install = f"brew install python@3.{versions[-1]}" if sys.platform == "darwin" else f"sudo apt install {newest}-venv"
    raise SetUpError(
        f"{'; '.join([needed, *others])}.\n"
        f"Install one ({install}, or without root conda create -n east python=3.{versions[-1]}), then: "
        f"make setup PYTHON=/path/to/{newest}"
    )


def is_usable(wanted: str) -> bool:
    """Whether .venv is an environment with pip, of a Python that the project takes and that is wanted."""
    found = minor(OWN)
    if found not in supported() or (wanted and found != minor(wanted)) or not (VENV / "pyvenv.cfg").is_file():
        return False
    pip = list(VENV.glob(f"lib/python3.{found}/site-packages/pip-*.dist-info"))
    return len(pip) == 1 and is_whole(pip[0])


def create(python: str) -> None:
    """Make an empty environment in place of whatever is there."""
    if VENV.exists() and not VENV.is_dir():
        raise SetUpError(
            ".venv is a file, but packages go into a folder of that name.\nMove it away: mv .venv elsewhere"
        )
    if ask(python, "import ensurepip, venv; print(1)") != "1":
        # Debian and Ubuntu leave it out of what they call Python.
        raise SetUpError(
            f"{python} comes without the module ensurepip, which puts pip into an environment.\n"
            f"Install it: sudo apt install python3.{minor(python)}-venv, and type `make setup` again."
        )
    command = [python, "-m", "venv", "--clear", str(VENV)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment())
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip().splitlines()
        raise SetUpError(f"{python} cannot make an environment in {VENV}:\n{said[-1] if said else 'it says nothing.'}")
    quote_place()


def renew_scripts() -> None:
    """Write the scripts that activate the environment for the place where it is now."""
    base = os.path.realpath(OWN)
    subprocess.run([base, "-m", "venv", "--without-pip", str(VENV)], stdout=subprocess.DEVNULL, env=environment())
    quote_place()


def quote_place() -> None:
    """Let the shell take the path in `activate` as it is, where an older Python has left it dollar signs to expand."""
    script = VENV / "bin" / "activate"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace(f'"{VENV}"', shlex.quote(str(VENV))), encoding="utf-8")


def packages() -> Path:
    """The folder of installed packages."""
    return next(VENV.glob("lib/python3.*/site-packages"))


def is_whole(description: Path) -> bool:
    """Whether all files of an installed package are there, as long as they should be.

    pip writes the list of files last, so a package without it was interrupted.
    """
    record = description / "RECORD"
    listed = record.read_text(encoding="utf-8", errors="replace") if record.is_file() else ""
    if f"{description.name}/RECORD," not in listed:
        return False
    for line in listed.splitlines():
        name, _, size = line.rpartition(",")
        name, _, digest = name.rpartition(",")
        file = description.parent / name.strip('"')
        if digest and not file.is_file():  # those without a digest are made when they are needed
            return False
        # The lines with which commands begin are ours.
        if size.isdigit() and not name.startswith("../") and file.stat().st_size != int(size):
            return False
    return True


def forget_halves() -> None:
    """Take out what makes pip believe that a package is installed whose installation was interrupted."""
    for leftover in packages().glob("~*"):
        shutil.rmtree(str(leftover), ignore_errors=True)
    for description in packages().glob("*.dist-info"):
        if not is_whole(description):
            shutil.rmtree(str(description))


def announce(file: str) -> None:
    """Say what comes, and refuse where there is no room for it."""
    on_disk, downloaded = SIZES.get((platform.system(), platform.machine()), max(SIZES.values()))
    missing = on_disk - size_of(VENV / "lib") / 1e9
    if file != "lock.txt":
        print(f"Installing what tests and linters need into .venv: about {DEV_SIZE} GB.", flush=True)
    elif missing > on_disk / 10:
        free, needed = shutil.disk_usage(str(VENV)).free / 1e9, missing * (1 + downloaded / on_disk)
        if free < needed:
            raise SetUpError(
                f"{free:.1f} GB are free in {ROOT}, but the set-up needs {needed:.1f} GB there.\n"
                f"Free some, or move this folder to a larger disk. {missing:.1f} GB will stay."
            )
        print(
            f"Installing the locked packages into .venv: about {downloaded * missing / on_disk:.1f} GB to download, "
            f"{on_disk} GB on disk.\nThis takes minutes. Stopped, it goes on when you type it again.",
            flush=True,
        )


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for path, _, names in os.walk(str(folder)):
        for name in names:
            with contextlib.suppress(OSError):  # it was there a moment ago
                total += Path(path, name).lstat().st_size
    return total


def install(file: str) -> None:
    """Install exactly the packages of a file, by their hashes."""
    done = threading.Event()
    threading.Thread(target=show_growth, args=(done,), daemon=True).start()
    try:
        run_pip("--require-hashes", "-r", str(REQUIREMENTS / file))
    finally:
        done.set()


def show_growth(done: threading.Event) -> None:
    """Say from time to time how far packages are unpacked: pip is silent meanwhile."""
    before = size_of(VENV / "lib")
    while not done.wait(SECONDS_BETWEEN_SIGNS):
        now = size_of(VENV / "lib")
        if now > before + 10e6:
            print(f"  {time.strftime('%H:%M:%S')}  {now / 1e9:.1f} GB are unpacked", flush=True)
            before = now


def install_project() -> None:
    """Make this folder the package `east` of the environment, wherever it was before."""
    # By the Python beneath: setuptools takes dollar signs in the path of its own Python for variables.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from setuptools import build_meta; "
        "build_meta.build_editable(sys.argv[2])"
    )
    command = [os.path.realpath(OWN), "-c", code, str(packages()), str(FETCHED)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(), cwd=str(ROOT))
    wheels = list(FETCHED.glob("east-*.whl"))
    if done.returncode != 0 or not wheels:
        said = done.stdout.decode("utf-8", "replace").strip()
        raise SetUpError(f"the project itself cannot be installed:\n{said.splitlines()[-1] if said else 'no wheel'}")
    run_pip("--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheels[0]))


def run_pip(*arguments: str) -> None:
    """Install with pip, showing what it says."""
    command = [OWN, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--no-user", *arguments]
    variables = dict(environment(), TMPDIR=str(FETCHED))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=variables, cwd=str(ROOT))
    said = []
    for line in process.stderr or ():
        text = line.decode("utf-8", "replace").rstrip()
        said.append(text)
        print(text, file=sys.stderr, flush=True)
    if process.wait() != 0:
        raise SetUpError(reason("\n".join(said)))


def reason(said: str) -> str:
    """Why pip failed, and the mend, from what it said."""
    again = "type `make setup` again: it goes on from here."
    if re.search("No space left|Errno 28|quota", said):
        home = os.environ.get("HOME", "/")
        free = ", ".join(f"{shutil.disk_usage(str(place)).free / 1e9:.1f} GB in {place}" for place in (ROOT, home))
        return f"a disk is full; free are {free}.\nFree some, or keep no cache (export PIP_NO_CACHE_DIR=1), and {again}"
    if "DO NOT MATCH THE HASHES" in said:
        return f"a download is not the package that is locked.\nType `.venv/bin/python -m pip cache purge`, and {again}"
    if re.search("ConnectionError|NameResolution|Timeout|timed out|ProxyError|SSLError|CERTIFICATE", said):
        return (
            f"pip says above what is wrong with the network.\nMend it, or export PIP_INDEX_URL=<a mirror>, and {again}"
        )
    if re.search("No matching distribution|not a supported wheel", said):
        return (
            f"a package is not published for {platform.system()} on {platform.machine()} and Python 3.{minor(OWN)}.\n"
            "All are for Linux with glibc on x86-64 and ARM64, and for macOS 14 and later on Apple's processors."
        )
    return f"pip says above what is wrong.\nMend that, and {again}"


def make_movable() -> None:
    """Let the commands of the environment start the Python beside them, whatever the path."""
    for command in sorted((VENV / "bin").iterdir()):
        if command.is_symlink() or not command.is_file():
            continue
        content = command.read_bytes()
        head = WRITTEN_BY_PIP.match(content)
        if head is None or head.group() == MOVABLE:
            continue
        beside = FETCHED / command.name
        beside.write_bytes(MOVABLE + content[head.end() :])
        shutil.copymode(str(command), str(beside))
        beside.replace(command)


def check() -> None:
    """Refuse an environment without what was installed: pip can be configured to put it elsewhere."""
    if not all(any(packages().glob(f"{name}-*.dist-info")) for name in ("torch", "snakemake", "east")):
        (VENV / "run.stamp").unlink()
        raise SetUpError(
            "pip puts packages elsewhere than into .venv: `pip config list` shows a target, prefix or root.\n"
            "Leave that configuration out: PIP_CONFIG_FILE=/dev/null make setup"
        )
    print("Ready. For this shell: . .venv/bin/activate", flush=True)


if __name__ == "__main__":
    sys.exit(main())
