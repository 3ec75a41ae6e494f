"""Keeps the cost model of this machine beside the compiled kernels."""

import hashlib
import json
import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from east.engine.processor import processor_name
from east.engine.sparse.calibration import calibrate
from east.engine.sparse.cost_model import KINDS, CostModel
from east.engine.sparse.library import cache_folder, load_kernels
from east.files import write_atomically


@cache
def cost_model() -> CostModel:
    """The cost model of this machine, fitted where the cache does not hold it. Remembered in this process.

    It decides how layers are executed, and with that the rounding of results. The file makes these decisions the same
    in every process; another machine, or this one with another cache, may decide otherwise.

    Raises:
        KernelsUnavailable: the kernels cannot be compiled here.
    """
    return kept(cache_folder(), _machine(), calibrate)


def kept(folder: Path | None, machine: dict[str, str], fit: Callable[[], CostModel]) -> CostModel:
    """The cost model of a machine, from a file in the folder, or fitted and kept there.

    A second process waits for the first to write the file, so that both have the same model. Where the folder is None
    or cannot be written, the model is fitted for this process alone, and a line says so.

    Args:
        folder: of the cache.
        machine: everything that decides the model.
        fit: gives the model.
    """
    if folder is None:
        return _unkept("there is no home folder", fit)
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"costs-{digest}.json"
    if (model := _read(path, machine)) is not None:
        return model
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if (model := _read(path, machine)) is not None:
                return model
            model = fit()
            write_atomically(path, json.dumps({"machine": machine, "seconds": model.seconds}, indent=2) + "\n")
            return model
    except OSError as error:
        return _unkept(str(error), fit)


def _unkept(reason: str, fit: Callable[[], CostModel]) -> CostModel:
    print(
        f"warning: the costs of engines cannot be kept: {reason}. Each process measures them anew and may decide "
        "otherwise, so a resumed run may differ by rounding. Name a folder in the environment variable EAST_CACHE_DIR.",
        file=sys.stderr,
        flush=True,
    )
    return fit()


def _machine() -> dict[str, str]:
    return {"kernels": load_kernels().path.name, "torch": torch.__version__, "processor": processor_name()}


def _read(path: Path, machine: dict[str, str]) -> CostModel | None:
    """The model in a file; None if there is none, or not a whole one of this machine."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        seconds = {kind: float(content["seconds"][kind]) for kind in KINDS}
        sound = content["machine"] == machine and all(0 <= value < math.inf for value in seconds.values())
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return CostModel(seconds) if sound else None
