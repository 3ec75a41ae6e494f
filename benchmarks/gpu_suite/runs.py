"""Parts that decide how to run a plan, by the commands that users have: `east train` and `east estimate`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import pandas as pd
import yaml
from safetensors.torch import load_file

from benchmarks.gpu_suite.suite import Row, Setting, each, measured
from benchmarks.results import ROOT, demo_run
from east.config.run import RunSpec
from east.data.prepare import prepare
from east.errors import EastError

RUN_ID = "tablemethods/east-combined-resnet34-digits/seed1"
"""Of the demo: DyReLU that fades, shared weights, a density cycle and exchanges, on embedded images."""

EARLY = 2
"""Epochs whose losses are compared: later ones differ by chaos as soon as one bit does."""

LEAST_GAP, REPETITION_FACTOR = 2e-3, 10
"""Losses may differ relatively by so much, or by so many times what two eager trainings differ."""

SCHEDULE = ["step", "epoch", "kind", "density", "nonzeros", "frozen_layers"]
"""Columns of updates.csv that follow from the run's spec alone, whatever the device rounds."""

CONTROL = "nvidia-cuda-mps-control"
GAIN = 1.03
"""More runs on a GPU, or MPS, are worth it if they shorten the plan by more than this factor."""

NO_VARIABLES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Trainings:
    """Decides whether trainings may be recorded, compiled, and killed: the first losses must be those of eager steps.

    A training that is killed by SIGKILL and resumed must have the same mask updates and numbers of active weights.
    """

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Eager trainings, then each other way, then one that is killed."""
        spec = demo_run(RUN_ID)
        prepare(spec.dataset.images, setting.scratch / "data")
        train = partial(_train, spec, setting)
        whole = train("whole", "dense", "eager")
        noise = 0.0 if setting.small else _gap(whole, train("again", "dense", "eager"))
        bound = max(LEAST_GAP, REPETITION_FACTOR * noise)

        def compare(engine: str, stepping: str) -> Iterator[Row]:
            gap = _gap(whole, train(f"{engine}-{stepping}", engine, stepping))
            yield {"what": "early losses", "gap": gap, "bound": bound}

        def kill() -> Iterator[Row]:
            epochs = len(pd.read_csv(train("killed", "dense", "captured", kill=True) / "metrics.csv"))
            yield {"what": "killed within the training", "kept": 0 < epochs < spec.training.epochs}
            yield from _promises(whole, train("killed", "dense", "captured"))

        ways = [("dense", "captured"), ("sparse", "eager"), ("sparse", "captured"), ("dense", "compiled")]
        ways = ways[1:2] if setting.small else ways
        jobs = [({"way": f"{engine}, {stepping}"}, partial(compare, engine, stepping)) for engine, stepping in ways]
        yield from each(setting, [*jobs[:3], ({"way": "killed and resumed"}, kill), *jobs[3:]])

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """All gaps within their bounds, all promises kept."""
        rows = rows.reindex(columns=["way", "gap", "bound", "kept"])
        right = (rows["gap"] <= rows["bound"]) | rows["kept"].eq(True)
        ways = right.groupby(rows["way"], sort=False).all()
        return f"as eager: {'; '.join(ways.index[ways]) or 'none'}; others: {'; '.join(ways.index[~ways]) or 'none'}"


@dataclass(frozen=True)
class Hours:
    """Decides how the paper's plan is run, and how long it takes: the fewest hours that `east estimate` finds."""

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Each engine in each of the numerics."""
        ways = [(engine, numerics) for engine in ("auto", "dense") for numerics in ("tf32", "bf16")]
        jobs = [({"engine": way[0], "numerics": way[1]}, partial(self._hours, *way, setting)) for way in ways]
        yield from each(setting, jobs[: 1 if setting.small else None])

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The fewest hours."""
        best = measured(rows).sort_values("hours").iloc[0]
        way = f"{best['engine']}, {best['numerics']}"
        return f"{best['runs']:.0f} runs take {best['hours']:.3g} hours one after the other: {way}"

    def _hours(self, engine: str, numerics: str, setting: Setting) -> Iterator[Row]:
        total = _estimate(setting, {"readings": {"numerics": numerics}}, "--engine", engine)["total"]
        yield {"runs": total["runs"], "hours": total["hours"]}


@dataclass(frozen=True)
class Sharing:
    """Decides how many runs should share a GPU, and whether by MPS: the fewest within 3 % of the least wall time."""

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Runs of the smaller network, one to four at once."""
        counts = [(mps, count) for mps in (False, True) for count in (1, 2, 4)]
        jobs = [({"MPS": mps, "runs": count}, partial(self._wall, count, setting, mps=mps)) for mps, count in counts]
        yield from each(setting, jobs[: 1 if setting.small else None])

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The least sharing that is fast enough."""
        found = measured(rows).sort_values(["MPS", "runs"])
        best = found[found["wall, s"] <= GAIN * found["wall, s"].min()].iloc[0]
        gain = found["wall, s"].iloc[0] / best["wall, s"]
        return f"runs_per_gpu {best['runs']}, MPS {best['MPS']}: {gain:.2f} times as fast as one at a time"

    def _wall(self, count: int, setting: Setting, *, mps: bool) -> Iterator[Row]:
        small_network = {"tables": {"table3": None, "table4": None, "table5": None}}
        with _mps(setting) if mps else nullcontext({"CUDA_MPS_PIPE_DIRECTORY": str(setting.scratch)}) as variables:
            options = ("--runs-per-gpu", count, "--gpus", 1)
            yield {"wall, s": _estimate(setting, small_network, *options, variables=variables)["total"]["wall_seconds"]}


def _train(spec: RunSpec, setting: Setting, name: str, engine: str, stepping: str, *, kill: bool = False) -> Path:
    """Run `east train` in a folder of the scratch, to its end or until an epoch is done."""
    out = setting.scratch / name
    command = ["train", "--run", spec.canonical_json(), "--out", out, "--data-dir", setting.scratch / "data"]
    command += ["--device", setting.device, "--engine", engine, "--threads", 1, "--step", stepping]
    process = _east(command)
    metrics = out / "metrics.csv"
    while kill and process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 1):
        time.sleep(0.02)
    if kill:
        process.kill()
    _output(process, *([-signal.SIGKILL] if kill else []))
    return out


def _gap(whole: Path, other: Path) -> float:
    """The largest relative difference of early losses."""
    first, second = (pd.read_csv(folder / "metrics.csv")["train_loss"].head(EARLY) for folder in (whole, other))
    return float(((second - first) / first).abs().max())


def _promises(whole: Path, resumed: Path) -> Iterator[Row]:
    """What holds of a resumed run on any device."""
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (whole, resumed))
    updates = [pd.read_csv(folder / "updates.csv")[SCHEDULE] for folder in (whole, resumed)]
    tensors = [load_file(folder / "weights.safetensors") for folder in (whole, resumed)]
    active = [{name: int(mask.sum()) for name, mask in found.items() if name.endswith("mask")} for found in tensors]
    promises = {
        "finished in its second attempt": (second["status"], second["attempts"]) == ("finished", 2),
        "the same run": first["fingerprint"] == second["fingerprint"],
        "every epoch once": len(pd.read_csv(resumed / "metrics.csv")) == first["epochs"],
        "the same mask updates": updates[0].equals(updates[1]),
        "as many active weights in every tensor": active[0] == active[1],
        "no checkpoint left": not list(resumed.glob("checkpoint-*")),
    }
    yield from ({"what": what, "kept": kept} for what, kept in promises.items())


def _estimate(
    setting: Setting, overlay: Row, *options: object, variables: Mapping[str, str] = NO_VARIABLES
) -> dict[str, Row]:
    """What `east estimate` says of the paper, or in a rehearsal of the workflow's own test."""
    path = setting.scratch / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay), encoding="utf-8")
    command = ["estimate", "--json", "--configfile", ROOT / "config" / "test.yaml" if setting.small else path]
    command += ["--device", setting.device, "--step", "captured", "--results", setting.scratch / "results"]
    process = _east([*command, "--seconds", 0.1 if setting.small else 1, *options], variables)
    return cast(dict[str, Row], json.loads(_output(process)))


def _east(arguments: Sequence[object], variables: Mapping[str, str] = NO_VARIABLES) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "east", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stdout=pipe, stderr=pipe, text=True)


def _output(process: "subprocess.Popen[str]", *fine: int) -> str:
    """What a command printed.

    Raises:
        EastError: it failed.
    """
    output, errors = process.communicate()
    if process.returncode not in (0, *fine):
        raise EastError(f"`east` ended with {process.returncode}: {errors.strip()[-300:]}")
    return output


@contextmanager
def _mps(setting: Setting) -> Iterator[Mapping[str, str]]:
    """Variables of processes that share the GPU by NVIDIA's Multi-Process Service, and the service while they last.

    It has a folder of its own, so that it serves nobody else, and is stopped with the part's group of processes.
    """
    if shutil.which(CONTROL) is None:
        raise EastError(f"{CONTROL} is not here.")
    folder = setting.scratch / "mps"
    folder.mkdir(exist_ok=True)
    variables = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    own = os.environ | variables
    with subprocess.Popen([CONTROL, "-f"], env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            time.sleep(1)
            yield variables
        finally:
            subprocess.run([CONTROL], input="quit\n", env=own, capture_output=True, text=True, timeout=20, check=False)
            service.kill()
