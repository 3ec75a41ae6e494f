#!/usr/bin/env -S python3 -SE
"""A Python for tests of the set-up: it pretends to install packages, and can be interrupted.

Beside it lies NAME.facts: its version, and what is wrong with it. `log` beside it has what pip was asked for.
"""

import os
import sys
from pathlib import Path

REAL = Path(os.path.realpath(sys.argv[0]))
IS = dict(line.split("=", 1) for line in REAL.with_name(f"{REAL.name}.facts").read_text().splitlines())
HOME = (Path.cwd() / sys.argv[0]).parents[1]
SITE = HOME / "lib" / f"python{IS['version']}" / "site-packages"


def write(path: Path, text: str) -> None:
    """Write a file, or end this process and the one that started it where the test wants that."""
    left = REAL.with_name("writes-left")
    if left.exists():
        count = int(left.read_text())
        left.write_text(str(count - 1))
        if count == 0:
            path.write_text(text[: len(text) // 2])
            left.unlink()
            os.kill(os.getppid(), 9)
            os._exit(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def add(name: str, version: str, script: str = "") -> None:
    """Install a package as pip does: the list of its files comes last."""
    description = SITE / f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"where = {str(Path.cwd())!r}\n",
        f"{description.name}/METADATA": f"Name: {name}\nVersion: {version}\n",
    }
    if script:
        files[f"../../../bin/{script}"] = f"#!{HOME}/bin/python\nimport {name}\nprint({name}.where)\n"
    for file, text in files.items():
        write(SITE / file, text)
    if script:
        (HOME / "bin" / script).chmod(0o755)
    record = "".join(f"{file},sha256=x,{len(text.encode())}\n" for file, text in files.items())
    write(description / "RECORD", f"{record}{description.name}/RECORD,,\n")


def make_environment(arguments: list[str]) -> None:
    import shutil

    folder = Path(arguments[-1])
    if "--clear" in arguments:
        for entry in folder.iterdir() if folder.exists() else ():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    write(folder / "pyvenv.cfg", "")
    if not (folder / "bin" / "python").is_symlink():
        (folder / "bin" / "python").symlink_to(REAL)
    write(folder / "bin" / "activate", f'VIRTUAL_ENV="{folder}"\nPATH="$VIRTUAL_ENV/bin:$PATH"\n')
    if "--without-pip" not in arguments:
        global HOME, SITE
        HOME, SITE = folder, folder / SITE.relative_to(HOME)
        add("pip", "1.0")


def install(arguments: list[str]) -> None:
    import json

    log = {"arguments": arguments, "environment": dict(os.environ)}
    with REAL.with_name("log").open("a") as stream:
        stream.write(json.dumps(log) + "\n")
    if failure := IS.get("failure", "").replace("|", "\n"):
        sys.exit(failure)
    if arguments[-1].endswith(".whl"):
        add("east", "0.1.0", "east")
        return
    for line in Path(arguments[arguments.index("-r") + 1]).read_text().splitlines():
        name, version = line.split("==")
        if not (SITE / f"{name}-{version}.dist-info" / "METADATA").exists():
            add(name, version, name)


if sys.argv[1] == "-c" and "build_editable" in sys.argv[2]:
    write(Path(sys.argv[4], "east-0.1.0-0.editable-py3-none-any.whl"), "")
elif sys.argv[1] == "-c":
    if "ensurepip" in sys.argv[2] and "no ensurepip" in IS:
        sys.exit("No module named 'ensurepip'")
    major, minor = IS["version"].split(".")
    sys.version_info = (int(major), int(minor), 0)
    sys.prefix = str(HOME)
    sys.path.insert(0, str(SITE))
    exec(sys.argv[2])
elif sys.argv[1:3] == ["-m", "venv"]:
    make_environment(sys.argv[3:])
elif sys.argv[1:3] == ["-m", "pip"]:
    install(sys.argv[3:])
else:
    sys.path.insert(0, str(SITE))
    import runpy

    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
