"""Keeps the cost models of this machine beside the compiled kernels."""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from east.engine.costs.model import CostModel, Kind
from east.files import write_atomically
from east.locks import locked


def kept(
    folder: Path | None, machine: Mapping[str, str], kinds: Sequence[Kind], fit: Callable[[], CostModel]
) -> CostModel:
    """The cost model of a machine, from a file in the folder, or fitted and kept there.

    It decides how layers are executed, and with that the rounding of results. The file makes these decisions the same
    in every process: a second one waits for the first to write it. Another machine, or this one with another cache,
    may decide otherwise. Where the folder is None or cannot be written, the model is fitted for this process alone,
    and a line says so.

    Args:
        folder: of the cache.
        machine: everything that decides the model, but for the sources of this package.
        kinds: of work, all of which the model must know.
        fit: gives the model.
    """
    if folder is None:
        return _unkept("there is no home folder", fit)
    # What the numbers mean is decided here.
    machine = {**machine, "costs": sources_digest(Path(__file__).parent)}
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"costs-{digest}.json"
    if (model := _read(path, machine, kinds)) is not None:
        return model
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if (model := _read(path, machine, kinds)) is not None:
                return model
            model = fit()
            write_atomically(path, json.dumps({"machine": machine, "seconds": model.seconds}, indent=2) + "\n")
            return model
    except OSError as error:
        return _unkept(str(error), fit)


def sources_digest(folder: Path) -> str:
    """The first 16 hex digits of a SHA-256 of all Python sources in a folder."""
    digest = hashlib.sha256()
    for source in sorted(folder.rglob("*.py")):
        # Each part is preceded by its length, so that text cannot move from one to the next unseen.
        for part in (str(source.relative_to(folder)).encode(), source.read_bytes()):
            digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()[:16]


def _unkept(reason: str, fit: Callable[[], CostModel]) -> CostModel:
    print(
        f"warning: the costs of engines cannot be kept: {reason}. Each process measures them anew and may decide "
        "otherwise, so a resumed run may differ by rounding. Name a folder in the environment variable EAST_CACHE_DIR.",
        file=sys.stderr,
        flush=True,
    )
    return fit()


def _read(path: Path, machine: Mapping[str, str], kinds: Sequence[Kind]) -> CostModel | None:
    """The model in a file; None if there is none, or not a whole one of this machine."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        seconds = {kind: float(content["seconds"][kind]) for kind in kinds}
        sound = content["machine"] == machine and all(0 <= value < math.inf for value in seconds.values())
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return CostModel(seconds) if sound else None
