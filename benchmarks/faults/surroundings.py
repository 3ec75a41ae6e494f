"""Disks, permissions, limits and locales that are not as they should be, made real around the `east` command.

Each ends in a sentence or two and a status that is not 0, or does not matter; afterwards the same command goes on to
the same bytes. Faults of the disk are calls of the C library that fail (`interpose.c`), and small file systems where
this user may mount any.
"""

import errno
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.processes import Done, prepared, run_east
from east.config import RunSpec, load_plan, make_plan, read_config
from east.data.prepare import prepare
from east.operations.steps import Steps
from east.training.folder import REPEATABLE

ROOT = Path(__file__).parents[2]
SECONDS = 300
MOST_LINES = 6
"""Of what a failed command says; sentences of a mistake in the configuration have a line each."""

MADE = [*(f"tables/tableB1.{kind}" for kind in ("csv", "md", "tex", "html")), "made_from/tables/tableB1.json"]
"""What `make` writes here."""

REMOVED = "the run's folder is removed while it is trained"

Change = Callable[["Place"], None]


@dataclass(frozen=True)
class Situation:
    """What is wrong around a command.

    Attributes:
        name: of the situation.
        command: `train`, `prepare`, `make`, or arguments of `east`.
        environment: variables that are set.
        before: changes the place; undone by `after`.
        after: mends the place.
        limits: of the process.
        says: a part of what is said; empty where the command succeeds all the same.
        again: whether the command, once the place is mended, ends as if nothing had been.
        stdout: a file in place of what collects the output; so for `stderr`.
        fresh: in an interpreter of its own, which takes longer.
    """

    name: str
    command: str | Sequence[str] = "train"
    environment: Mapping[str, str] = field(default_factory=dict)
    before: Change = lambda place: None
    after: Change = lambda place: None
    limits: Mapping[int, int] = field(default_factory=dict)
    says: str = ""
    again: bool = True
    stdout: str | None = None
    stderr: str | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Place:
    """Where a command works: prepared data, the folder of a run, a run of seconds, a step that makes a table."""

    folder: Path
    data: Path
    spec: RunSpec
    request: str
    whole: Mapping[str, str]

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return self.folder / "results" / "a" / "runs" / "t" / "r" / "seed1"

    def command(self, wanted: str | Sequence[str]) -> list[str]:
        """A command line."""
        east = ["east"]
        if wanted == "train":
            settings = ["--device", "cpu", "--engine", "dense", "--threads", "1", "--data-dir", str(self.data)]
            return [*east, "train", "--run", self.spec.canonical_json(), "--out", str(self.out), *settings]
        if wanted == "prepare":
            return [*east, "prepare", "digits", "--data-dir", str(self.folder / "data")]
        if wanted == "make":
            return [*east, "make", "--results", str(self.folder / "results"), "--request", self.request]
        return [*east, *(word.format(folder=self.folder, out=self.out, data=self.data) for word in wanted)]

    def result(self, wanted: str | Sequence[str]) -> Mapping[str, str]:
        """Digests of what a command has made, by name of file."""
        if wanted == "prepare":
            names = [self.folder / "data" / "digits" / name for name in ("manifest.json", "images.safetensors")]
        elif wanted == "make":
            names = [self.folder / "results" / name for name in MADE]
        elif wanted == "train":
            names = [self.out / name for name in REPEATABLE]
        else:
            names = []
        return {name.name: _digest(name) for name in names}


def cases(count: int, seed: int) -> Iterator[Outcome]:
    """Try the situations in order, each once; nothing of them is drawn."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="east-surroundings-")))
        stack.enter_context(prepared(home))
        data, spec, request = home / "data", _spec(), _request()
        prepare("digits", data)
        whole: dict[str, str] = {}
        first = Place(home / "whole", data, spec, request, whole)
        first.folder.mkdir()
        for command in ("train", "prepare", "make"):
            done = _run(first, Situation("whole", command), {})
            if done.status != 0:
                raise RuntimeError(f"nothing is wrong, and yet: {done.errors}")
            whole |= first.result(command)
        for number, situation in enumerate(islice(situations(), count)):
            place = Place(home / f"{number}", data, spec, request, whole)
            place.folder.mkdir()
            yield Outcome(situation.name, _failure(place, situation))
            shutil.rmtree(place.folder, ignore_errors=True)


def situations() -> Iterator[Situation]:
    """Everything that is tried; the most different ones first."""
    yield from _of_places()
    yield from _of_calls()
    yield from _of_limits()
    yield from _of_locales()
    yield from _of_arguments()
    if os.getuid() == 0:
        yield from _of_file_systems()


def _of_calls() -> Iterator[Situation]:
    def failing(calls: str, error: int, path: str, after: int = 0) -> dict[str, str]:
        return {
            "FAULT_CALLS": f",{calls},",
            "FAULT_ERRNO": str(error),
            "FAULT_PATH": path,
            "FAULT_AFTER": str(after),
        }

    disk = {
        errno.ENOSPC: "full",
        errno.EDQUOT: "quota",
        errno.EROFS: "read-only",
        errno.EACCES: "may not",
        errno.EIO: "does not answer",
        errno.ESTALE: "does not answer",
        errno.ENOTCONN: "does not answer",
        errno.EMFILE: "open no more files",
    }
    for error, said in disk.items():
        name = errno.errorcode[error]
        for path, after in (("checkpoint-", 0), ("checkpoint-", 1), ("run.json", 0), ("summary", 0), (".lock", 0)):
            fault = failing("open", error, path, after)
            yield Situation(f"{name} on opening {path} ({after})", environment=fault, says=said)
        for command, path in (("prepare", "images"), ("make", ".tableB1.csv"), ("make", "made_from/tables/.")):
            fault = failing("open", error, path)
            yield Situation(f"{name} on opening {path}, {command}", command, environment=fault, says=said)
    for error in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        for path, after in (("checkpoint-", 0), ("metrics", 1), ("weights", 0)):
            fault = failing("write", error, f"seed1/.{path}", after)
            yield Situation(f"{errno.errorcode[error]} on writing {path}", environment=fault, says=disk[error])
        for command, path in (("prepare", "digits/.images"), ("make", "tables/.tableB1.md"), ("make", "made_from")):
            fault = failing("write", error, path)
            yield Situation(f"{errno.errorcode[error]} on writing {path}, {command}", command, fault, says=disk[error])
        for call, path in (("fsync", "tables/."), ("rename", "tables/tableB1.tex"), ("mkdir", "made_from")):
            fault = failing(call, error, path)
            yield Situation(f"{errno.errorcode[error]} on {call}, make", "make", fault, says=disk[error])
        fault = failing("fsync", error, "seed1/.checkpoint-", 1)
        yield Situation(f"{errno.errorcode[error]} on syncing", environment=fault, says=disk[error])
        fault = failing("rename", error, "seed1/checkpoint-", 1)
        yield Situation(f"{errno.errorcode[error]} on renaming", environment=fault, says=disk[error])
        fault = failing("mkdir", error, "seed1")
        yield Situation(f"{errno.errorcode[error]} on making a folder", environment=fault, says=disk[error])
    for error in (errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
        name = errno.errorcode[error]
        for call in ("fsync", "chmod"):
            yield Situation(f"{name} on {call}", environment=failing(call, error, "seed1/"))
            yield Situation(f"{name} on {call}, prepare", "prepare", environment=failing(call, error, "digits/"))
            yield Situation(f"{name} on {call}, make", "make", environment=failing(call, error, "results/"))
    for error in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        for command in ("train", "prepare"):
            fault = failing("flock", error, ".lock")
            yield Situation(f"no locks, {errno.errorcode[error]}, {command}", command, fault, says="no locks")
    for path, name in (("images.safetensors", "images"), ("manifest.json", "manifest")):
        fault = failing("read", errno.EIO, path)
        yield Situation(f"EIO on reading the {name}", environment=fault, says=path)
    yield Situation(
        "EIO on reading a checkpoint",
        environment=failing("read", errno.EIO, "seed1/checkpoint-"),
        before=_begin,
        says="does not answer",
    )


def _of_places() -> Iterator[Situation]:
    def a_file(path: str) -> Change:
        def make(place: Place) -> None:
            (place.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (place.folder / path).write_text("x")

        return make

    def a_folder(path: str) -> Change:
        return lambda place: (place.folder / path / "x").mkdir(parents=True)

    def gone(path: str) -> Change:
        def remove(place: Place) -> None:
            there = place.folder / path
            shutil.rmtree(there) if there.is_dir() and not there.is_symlink() else there.unlink(missing_ok=True)

        return remove

    def a_link(path: str) -> Change:
        def make(place: Place) -> None:
            (place.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (place.folder / "precious").write_text("precious")
            (place.folder / path).symlink_to(place.folder / "precious")

        return make

    def a_pipe(path: str) -> Change:
        def make(place: Place) -> None:
            (place.folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.mkfifo(place.folder / path)

        return make

    run = "results/a/runs/t/r/seed1"
    yield Situation("a file for the run's folder", before=a_file(run), after=gone(run), says="not a folder")
    yield Situation("a file above it", before=a_file("results/a"), after=gone("results/a"), says="not a folder")
    for name in ("run.json", "metrics.csv", "state.json", "weights.safetensors", "summary.json"):
        path = f"{run}/{name}"
        yield Situation(f"a folder for {name}", before=a_folder(path), after=gone(path), says=name)
    for what, make, said in (("link", a_link, "link"), ("pipe", a_pipe, "not a file"), ("folder", a_folder, "folder")):
        path = f"{run}/.lock"
        yield Situation(f"a {what} for the lock", before=make(path), after=gone(path), says=said)
    path = "data/digits/.lock"
    yield Situation("a link for the lock, prepare", "prepare", before=a_link(path), after=gone(path), says="link")
    yield Situation("a file for data", "prepare", before=a_file("data"), after=gone("data"), says="not a folder")
    for path in ("results", "results/tables", "results/made_from"):
        yield Situation(f"a file for {path}, make", "make", before=a_file(path), after=gone(path), says="not a folder")
    for name in ("tables/tableB1.csv", "tables/tableB1.html", "made_from/tables/tableB1.json"):
        path = f"results/{name}"
        yield Situation(f"a folder for {name}, make", "make", before=a_folder(path), after=gone(path), says=name)
        yield Situation(f"a link for {name}, make", "make", before=a_link(path))
    yield Situation("times in the future", before=_from_the_future)
    yield Situation("leftovers of killed processes", before=_leftovers)
    yield Situation("a cache that is a file", environment={"EAST_CACHE_DIR": "/dev/null"})
    yield Situation("no home", environment={"HOME": "/nonexistent"}, fresh=True)
    yield Situation("no folder for temporary files", environment={"TMPDIR": "/nonexistent"}, fresh=True)
    yield Situation(REMOVED, says="was removed")


def _of_limits() -> Iterator[Situation]:
    yield Situation("files of 20 kB at most", limits={resource.RLIMIT_FSIZE: 20_000}, says="ulimit -f")
    yield Situation("files of 20 kB, prepare", "prepare", limits={resource.RLIMIT_FSIZE: 20_000}, says="ulimit -f")
    yield Situation("files of 1 kB, make", "make", limits={resource.RLIMIT_FSIZE: 1000}, says="ulimit -f")
    for megabytes in (400, 1000, 3000):
        limits = {resource.RLIMIT_AS: megabytes * 2**20}
        yield Situation(f"{megabytes} MB of memory", limits=limits, says="emory")


def _of_locales() -> Iterator[Situation]:
    for name, variables in {
        "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "POSIX": {"LANG": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "ISO-8859-1": {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"},
        "ASCII output": {"PYTHONIOENCODING": "ascii"},
        "strict Latin-1 output": {"PYTHONIOENCODING": "latin-1:strict"},
    }.items():
        yield Situation(f"locale {name}", environment=variables, fresh=True)
        yield Situation(f"locale {name}, list", ("list",), environment=variables, again=False, fresh=True)
        there = ("prepare", "digits", "--data-dir", "{folder}/größe→")
        yield Situation(f"locale {name}, a folder", there, environment=variables, again=False, fresh=True)
        absent = ("plan", "--configfile", "{folder}/größe→.yaml")
        yield Situation(
            f"locale {name}, a file", absent, environment=variables, says="no configuration file", again=False
        )


def _of_arguments() -> Iterator[Situation]:
    def said(name: str, words: Sequence[str], says: str, **keys: str) -> Situation:
        return Situation(name, words, environment=keys, says=says, again=False)

    yield said("an unknown device", ("train", "--run", "{{}}", "--out", "x", "--device", "gpu"), "gpu")
    yield said("an unknown device by variable", ("cost",), "EAST_DEVICE", EAST_DEVICE="gpu")
    yield said("40,000 threads", ("cost", "--threads", "40000"), "40000")
    yield said("40,000 threads, estimate", ("estimate", "--threads", "40000"), "40000")
    yield said("a folder for a configuration", ("plan", "--configfile", "{folder}"), "no configuration")
    yield said("a device for a configuration", ("plan", "--configfile", "/dev/null"), "/dev/null")
    yield said("a binary for a configuration", ("plan", "--configfile", sys.executable), "UTF-8")
    yield said("a folder for a run", ("train", "--run", "{folder}", "--out", "x"), "cannot be read")
    yield said("no run", ("train", "--run", "", "--out", "x"), "--run")
    yield said("a folder for an archive", ("restore", "{folder}"), "cannot")
    yield said("a folder for a lock", ("verify", "{folder}"), "cannot be read")
    yield said("an output that is a folder", ("cost", "--no-measure", "--out", "{folder}"), "folder")
    yield said("bytes that are not UTF-8", ("train", "--run", "{{}}", "--out", os.fsdecode(b"\xff")), "--run")
    full = Situation(
        "a full disk for what is printed", ("list",), says="full", again=False, stdout="/dev/full", fresh=True
    )
    yield full
    yield Situation("a full disk for the log", stderr="/dev/full")


def _of_file_systems() -> Iterator[Situation]:
    def mount(options: str) -> Change:
        def change(place: Place) -> None:
            target = place.folder / "results"
            target.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", target], check=True)

        return change

    def remount(options: str) -> Change:
        return lambda place: _mount_again(place, options)

    yield Situation("a disk of 60 kB", before=mount("size=60k"), after=remount("size=50m"), says="full")
    yield Situation("a disk of 200 kB", before=mount("size=200k"), after=remount("size=50m"), says="full")
    yield Situation("a disk of 8 files", before=mount("nr_inodes=8"), after=remount("nr_inodes=5000"), says="inode")
    yield Situation("a disk of 4 kB, make", "make", before=mount("size=4k"), after=remount("size=50m"), says="full")
    yield Situation(
        "a disk of 4 files, make", "make", before=mount("nr_inodes=4"), after=remount("nr_inodes=99"), says="inode"
    )
    yield Situation("a read-only disk, make", "make", before=mount("ro"), after=remount("rw"), says="read-only")
    yield Situation("a read-only disk", before=mount("ro"), after=remount("rw"), says="read-only")


def _mount_again(place: Place, options: str) -> None:
    command = ["mount", "-o", f"remount,{options}", str(place.folder / "results")]
    subprocess.run(command, check=True)


def _failure(place: Place, situation: Situation) -> str:
    """What is not as it should be; empty if nothing is."""
    situation.before(place)
    try:
        return _found(place, situation)
    finally:
        if os.path.ismount(place.folder / "results"):
            subprocess.run(["umount", "-l", place.folder / "results"], check=True)


def _found(place: Place, situation: Situation) -> str:
    done = _run(place, situation, situation.environment)
    wrong = _said_wrong(situation, done)
    if wrong:
        return wrong
    precious = place.folder / "precious"
    if precious.exists() and precious.read_text() != "precious":
        return "a file behind a link was changed"
    situation.after(place)
    if situation.again:
        again = _run(place, Situation("again", situation.command), {})
        if again.status != 0:
            return f"the same command does not go on: {again.errors[-300:]}"
        for name, digest in place.result(situation.command).items():
            if digest != place.whole[name]:
                return f"{name} has other bytes afterwards"
        leftovers = [path.name for path in place.out.glob(".*") if path.name != ".lock"]
        if leftovers:
            return f"{', '.join(leftovers)} stay behind"
    return ""


def _said_wrong(situation: Situation, done: Done) -> str:
    said = done.errors.strip()
    if "Traceback" in said or "mistake of the program" in said:
        return f"a traceback: {said[-300:]}"
    if not situation.says:
        return f"status {done.status}: {said[-300:]}" if done.status else ""
    if done.status <= 0:
        return f"status {done.status}: {said[-300:]}"
    lines = [line for line in said.splitlines() if not line.startswith(("epoch ", "Usage", "Try "))]
    if len(lines) > MOST_LINES or situation.says not in said:
        return f"it says: {said[-300:]}"
    return ""


def _run(place: Place, situation: Situation, environment: Mapping[str, str]) -> Done:
    """Run the command of a situation to its end."""
    meanwhile = partial(shutil.rmtree, place.out) if situation.name == REMOVED else None
    return run_east(
        place.command(situation.command),
        folder=place.folder if place.folder.is_dir() else ROOT,
        environment=environment,
        limits=situation.limits,
        fresh=bool(situation.limits) or situation.fresh,
        stdout=situation.stdout,
        stderr=situation.stderr,
        after_first_line=meanwhile,
    )


def _begin(place: Place) -> None:
    """Train to the first checkpoint."""
    run_east(place.command("train"), folder=place.folder, end_after_first_line=True)


def _from_the_future(place: Place) -> None:
    _begin(place)
    for path in [place.out, *place.out.iterdir()]:
        os.utime(path, (4e9, 4e9))


def _leftovers(place: Place) -> None:
    place.out.mkdir(parents=True)
    for name in ("checkpoint-000001.pt", "metrics.csv", "summary.json", "state.json"):
        (place.out / f".{name}.abcd1234").write_bytes(b"half")


def _spec() -> RunSpec:
    run = load_plan(ROOT / "config" / "test.yaml")[0].spec
    return run.model_copy(update={"training": run.training.model_copy(update={"epochs": 2})})


def _request() -> str:
    steps = Steps(make_plan(read_config(ROOT / "config" / "test.yaml")), Path("results"), [])
    return steps["tables/tableB1"].request.model_dump_json()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
