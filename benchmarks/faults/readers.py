"""Files and options that are damaged or made up: whoever reads them says so in a sentence, and nothing else happens."""

import io
import json
import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from benchmarks.faults.mutations import mutated
from benchmarks.faults.outcome import Outcome
from benchmarks.faults.scene import CONFIG, Scene
from east.analysis.published import PublishedCost, PublishedRecipe, read_published, read_published_grid
from east.analysis.sources import Request, Sources, record_path
from east.cli.common import parsed
from east.cli.console import VisibleConsole
from east.cli.status_view import overview
from east.config import RunSpec, make_plan, read_config
from east.config.tables import CostPlan
from east.data.images import load_images
from east.data.manifest import FolderManifest, read_manifest
from east.engine.cuda.calibration import kept
from east.engine.cuda.cost import KINDS, CostModel
from east.errors import EastError
from east.operations.archive import restore
from east.operations.changes import compare
from east.operations.log_tail import last_error, tail
from east.operations.merge import merge
from east.operations.prune import leftovers
from east.operations.results_lock import folder_contents, make_lock, read_lock
from east.operations.status import StatusReader, status_json
from east.operations.trained_again import compare as compare_results
from east.training.checkpoint import Checkpoints
from east.training.folder import finished_summary
from east.training.records import EpochRecord, TimingRecord, TraceRecord, UpdateRecord, read_records
from east.training.trace import compare_traces, read_trace

ROOT = Path(__file__).parents[2]
RESULTS_FOLDER = ROOT / "report" / "published"
MACHINE = {"device": "none"}
ANY = Request(step="any", of={"a": [1, None, "b"]}, expected={"tables/a": "0" * 64})


@dataclass(frozen=True)
class Reader:
    """A reader of the product.

    Attributes:
        name: of what is read.
        content: of the file before it is damaged.
        path: where the file lies, in the folder of the scene.
        read: reads it there; may raise EastError.
    """

    name: str
    content: bytes
    path: Path
    read: Callable[[Path], object]


def cases(count: int, seed: int) -> Iterator[Outcome]:
    """Damage one file at a time, and read it in every way in which the product does."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="east-readers-") as folder:
        found = list(readers(Scene.prepared(Path(folder))))
        for number in range(count):
            reader = found[number % len(found)]
            what, content = mutated(reader.content, draw)
            yield Outcome(f"{reader.name}: {what} (case {number} of seed {seed})", failure_of(reader, content))


def failure_of(reader: Reader, content: bytes) -> str:
    """What is not as it should be where a reader gets this content; empty if nothing is."""
    reader.path.parent.mkdir(parents=True, exist_ok=True)
    reader.path.write_bytes(content)
    shown = io.StringIO()
    try:
        with redirect_stdout(shown), redirect_stderr(shown):
            reader.read(reader.path)
    except (EastError, SystemExit) as error:
        return "" if str(error).strip() else "it says nothing"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/east/" in frame.filename]
        last = own[-1] if own else place
        return f"{type(error).__name__}: {str(error)[:200]!r} at {Path(last.filename).name}:{last.lineno}"
    finally:
        reader.path.write_bytes(reader.content)
    return ""


def readers(scene: Scene) -> Iterator[Reader]:
    """Every reader, with a whole file for each."""
    yield from _of_runs(scene)
    yield from _of_collections(scene)
    yield from _of_data(scene)
    yield from _of_texts(scene)


def _of_runs(scene: Scene) -> Iterator[Reader]:
    """Files in the folder of a run, by everything that looks at runs."""
    looks: dict[str, Callable[[], object]] = {
        "status": partial(_look, scene),
        "plan --changed": lambda: compare(scene.plan, scene.results),
        "merge": lambda: merge(scene.plan, scene.results, scene.folder / "merged", dry_run=True),
        "prune": lambda: leftovers(scene.plan, scene.results),
        "lock": lambda: make_lock(scene.plan, scene.results),
        "show": partial(scene.show, scene.finished.id),
        "train": lambda: finished_summary(scene.run_folder, scene.finished.fingerprint),
    }
    for file in sorted(path for path in scene.run_folder.iterdir() if path.is_file() and path.name != ".lock"):
        for name, look in looks.items():
            yield Reader(f"{name}, {file.name}", file.read_bytes(), file, partial(_without_path, look))
    for kind in (EpochRecord, UpdateRecord, TimingRecord):
        file = scene.run_folder / {EpochRecord: "metrics.csv", UpdateRecord: "updates.csv"}.get(kind, "timing.csv")
        yield Reader(f"records, {file.name}", file.read_bytes(), file, partial(_records, kind))
    file = scene.run_folder / "trace.csv"
    whole = read_records(file, TraceRecord).rows
    yield Reader("compare", file.read_bytes(), file, lambda path: compare_traces(whole, read_trace(path)))
    for file in sorted(scene.begun_folder.glob("checkpoint-*.pt")):
        forged = scene.folder / "forged" / file.name
        yield Reader("checkpoint", file.read_bytes(), forged, partial(_resume, scene, signed=False))
        content = file.read_bytes().partition(b"\n")[2]
        yield Reader("checkpoint, signed", content, forged, partial(_resume, scene, signed=True))
    state = scene.begun_folder / "state.json"
    yield Reader("status, state of a begun run", state.read_bytes(), state, lambda _: _look(scene))


def _of_collections(scene: Scene) -> Iterator[Reader]:
    """Locks and archives."""
    contents = folder_contents(read_lock(scene.lock), scene.results)
    yield Reader("verify", scene.lock.read_bytes(), scene.lock, lambda path: compare_results(read_lock(path), contents))
    derived = scene.results / "tables" / "made.csv"
    Sources(scene.results).write(ANY, {derived: "a,b\n1,2\n"})
    for file in (derived, record_path(scene.results, "tables/made")):
        yield Reader("derived", file.read_bytes(), file, lambda _: Sources(scene.results).derived(derived))
    yield Reader("restore", scene.archive.read_bytes(), scene.archive, partial(_restore, scene))


def _of_data(scene: Scene) -> Iterator[Reader]:
    """Prepared data, and what is measured of a machine."""
    for file in sorted(path for path in (scene.data / "digits").iterdir() if path.name != ".lock"):
        yield Reader(f"data, {file.name}", file.read_bytes(), file, lambda _: load_images("digits", scene.data))
    folder = TypeAdapter(dict[str, Any]).dump_json(
        FolderManifest(
            dataset="imagenet",
            num_classes=2,
            classes=("a", "b"),
            train_counts=(1, 2),
            val_counts=(1, 1),
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            digest="0" * 64,
        ).model_dump(mode="json")
    )
    manifest = scene.data / "imagenet" / "manifest.json"
    yield Reader("data of a folder", folder, manifest, lambda _: read_manifest(FolderManifest, "imagenet", scene.data))
    costs = scene.folder / "cache"
    kept(costs, MACHINE, lambda: CostModel(dict.fromkeys(KINDS, 1.0)))
    for file in costs.glob("costs-*.json"):
        yield Reader(
            "costs",
            file.read_bytes(),
            file,
            lambda _: kept(costs, MACHINE, lambda: CostModel(dict.fromkeys(KINDS, 1.0))),
        )


def _of_texts(scene: Scene) -> Iterator[Reader]:
    """Configurations, published numbers, options, logs."""
    overlay = scene.folder / "overlay.yaml"
    yield Reader("configuration", CONFIG.read_bytes(), overlay, lambda path: make_plan(read_config(path)))
    lean = yaml.safe_dump({"name": "lean", "tables": dict.fromkeys(["table2", "table3", "table4", "table5"])})
    yield Reader("configuration, lean", lean.encode(), overlay, lambda path: make_plan(read_config(path)))
    printed = scene.folder / "printed.csv"
    for name in ("table2.csv", "table5.csv"):
        yield Reader(f"published, {name}", (RESULTS_FOLDER / name).read_bytes(), printed, read_published_grid)
    for name, kind in (("table6.csv", PublishedCost), ("tableB1.csv", PublishedRecipe)):
        content = (RESULTS_FOLDER / name).read_bytes()
        yield Reader(f"published, {name}", content, printed, partial(_published, kind))
    options: Mapping[str, tuple[Callable[[str], object], str]] = {
        "--run": (RunSpec.model_validate_json, scene.finished.spec.canonical_json()),
        "--request": (Request.model_validate_json, ANY.text),
        "--plan": (CostPlan.model_validate_json, scene.cost_plan.model_dump_json()),
        "--rows": (json.loads, json.dumps([{"a": 1, "b": [None, "c"]}])),
    }
    for option, (parse, text) in options.items():
        yield Reader(option, text.encode(), scene.folder / "option.json", partial(_option, option, parse))
    log = scene.folder / "log"
    said = b"epoch 1/2  loss 0.1\n\x1b[31mRuntimeError: no\x1b[0m\nerror: x\n"
    yield Reader("log", said, log, lambda path: last_error(tail(path)))


def _without_path(look: Callable[[], object], _: Path) -> None:
    look()


def _records(kind: type[Any], path: Path) -> None:
    read_records(path, kind).checked()


def _published(kind: type[Any], path: Path) -> None:
    read_published(path, kind)


def _look(scene: Scene) -> None:
    """`east status`, for people and as JSON."""
    found = StatusReader(scene.plan, scene.results).read()
    json.dumps(status_json(found), allow_nan=False)
    VisibleConsole(file=io.StringIO(), markup=False, width=100).print(overview(found, everything=True))


def _resume(scene: Scene, path: Path, *, signed: bool) -> None:
    """The checkpoint, with a checksum that is right if it is to be."""
    if signed:
        scene.sign(path)
    try:
        Checkpoints(path.parent, scene.begun.fingerprint).load_latest()
    finally:
        shutil.rmtree(path.parent)
        path.parent.mkdir()


def _restore(scene: Scene, path: Path) -> None:
    place = scene.folder / "restored"
    try:
        restore(path, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _option(option: str, parse: Callable[[str], object], path: Path) -> None:
    """What the command line gives; text that is not UTF-8 arrives there in surrogates."""
    parsed(option, parse, path.read_bytes().decode("utf-8", "surrogateescape"))
