"""Parts that decide how to run a plan, by the commands that users have: `east train` and `east estimate`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import yaml
from safetensors.torch import load_file

from benchmarks.gpu_suite.suite import Row, Setting, each, measured
from benchmarks.results import ROOT
from east.config import load_plan
from east.config.run import RunSpec
from east.data.prepare import prepare
from east.errors import EastError

RUN = "tablemethods/east-combined-resnet34-digits/seed1"
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

PAPER = Path("config.yaml")


@dataclass(frozen=True)
class Trainings:
    """Decides whether trainings may be recorded, compiled, and killed: the first losses must be those of eager steps.

    A training that is killed by SIGKILL and resumed must have the same mask updates and numbers of active weights.
    """

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Eager trainings, then each other way, then one that is killed."""
        spec = next(run for run in load_plan(ROOT / "config" / "demo.yaml") if run.id == RUN).spec
        prepare(spec.dataset.name, setting.scratch / "data")
        train = partial(_train, spec, setting)
        whole = train("eager", "dense", "eager")
        repeated = train("again", "dense", "eager")
        noise = _gap(whole, repeated)
        jobs = [(("dense", "captured")), ("sparse", "eager"), ("sparse", "captured"), ("dense", "compiled")]

        def compare(engine: str, stepping: str) -> Iterator[Row]:
            gap = _gap(whole, train(f"{engine}-{stepping}", engine, stepping))
            yield {"gap": gap, "bound": max(LEAST_GAP, REPETITION_FACTOR * noise)}

        def kill() -> Iterator[Row]:
            killed = train("killed", "dense", "captured", kill=True)
            epochs = len(pd.read_csv(killed / "metrics.csv"))
            yield {"promise": "killed within the training", "kept": 0 < epochs < spec.training.epochs}
            yield from _promises(whole, train("killed", "dense", "captured"))

        about = [({"way": f"{engine}, {stepping}"}, partial(compare, engine, stepping)) for engine, stepping in jobs]
        yield from each(setting, [*about[:1], ({"way": "killed and resumed"}, kill), *about[1:]])

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """All gaps within their bounds, all promises kept."""
        right = (rows["gap"] <= rows["bound"]) | rows["kept"].eq(True)
        ways = right.groupby(rows["way"], sort=False).all()
        return f"as eager: {'; '.join(ways.index[ways]) or 'none'}; not: {'; '.join(ways.index[~ways]) or 'none'}"


@dataclass(frozen=True)
class Hours:
    """Decides how the paper's plan is run, and how long it takes: the fewest hours that `east estimate` finds."""

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Each engine in each of the numerics."""
        ways = [("auto", "tf32"), ("auto", "bf16"), ("dense", "tf32"), ("dense", "bf16")]
        jobs = [
            ({"engine": engine, "numerics": numerics}, partial(self._estimate, engine, numerics, setting))
            for engine, numerics in ways[: 1 if setting.small else None]
        ]
        yield from each(setting, jobs)

    def _estimate(self, engine: str, numerics: str, setting: Setting) -> Iterator[Row]:
        readings = {} if setting.small else {"readings": {"numerics": numerics}}
        found = _estimate(setting, readings, "--engine", engine, "--step", "captured")
        yield {"runs": found["total"]["runs"], "hours": found["total"]["hours"], "start, s": found["start_seconds"]}

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The fewest hours."""
        best = measured(rows).sort_values("hours").iloc[0]
        return (
            f"{best.runs:.0f} runs take {best.hours:.3g} hours one after the other with {best.engine}, {best.numerics}"
        )


@dataclass(frozen=True)
class Sharing:
    """Decides how many runs should share a GPU, and whether by MPS: the fewest within 3 % of the least wall time."""

    seconds: float

    def measure(self, setting: Setting) -> Iterator[Row]:
        """Runs of the smaller network, one to four at once."""
        counts = [(False, 1)] if setting.small else [(mps, count) for mps in (False, True) for count in (1, 2, 4)]
        jobs = [({"MPS": mps, "runs": count}, partial(self._wall, count, setting, mps=mps)) for mps, count in counts]
        yield from each(setting, jobs)

    def _wall(self, count: int, setting: Setting, *, mps: bool) -> Iterator[Row]:
        overlay = {} if setting.small else {"tables": {"table3": None, "table4": None, "table5": None}}
        with _mps(setting) if mps else _no_mps(setting) as environment:
            options = ("--runs-per-gpu", str(count), "--gpus", "1", "--step", "captured")
            yield {"wall, s": _estimate(setting, overlay, *options, environment=environment)["total"]["wall_seconds"]}

    def decide(self, rows: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
        """The least sharing that is fast enough."""
        found = measured(rows).sort_values(["MPS", "runs"])
        best = found[found["wall, s"] <= GAIN * found["wall, s"].min()].iloc[0]
        gain = found["wall, s"].iloc[0] / best["wall, s"]
        return (
            f"runs_per_gpu: {best['runs']}, {'with' if best['MPS'] else 'without'} MPS: {gain:.2f} times as fast as one"
        )


def _train(spec: RunSpec, setting: Setting, name: str, engine: str, stepping: str, *, kill: bool = False) -> Path:
    """Run `east train` in a folder of the scratch, to its end or until an epoch is done."""
    out = setting.scratch / name
    command = ["train", "--run", spec.canonical_json(), "--out", out, "--data-dir", setting.scratch / "data"]
    command += ["--device", setting.device, "--engine", engine, "--threads", 1, "--step", stepping]
    process = _east(command, os.environ)
    while kill and process.poll() is None and not _has_an_epoch(out):
        time.sleep(0.02)
    if kill:
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    if process.returncode not in ((0, -signal.SIGKILL) if kill else (0,)):
        raise EastError(f"`east train` ended with {process.returncode}: {errors.strip()[-300:]}")
    return out


def _has_an_epoch(out: Path) -> bool:
    path = out / "metrics.csv"
    return path.exists() and len(path.read_text().splitlines()) > 1


def _gap(whole: Path, other: Path) -> float:
    """The largest relative difference of early losses."""
    first, second = (pd.read_csv(folder / "metrics.csv")["train_loss"].head(EARLY) for folder in (whole, other))
    return float(((second - first) / first).abs().max())


def _promises(whole: Path, resumed: Path) -> Iterator[Row]:
    """What holds of a resumed run on any device."""
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (whole, resumed))
    updates = [pd.read_csv(folder / "updates.csv")[SCHEDULE] for folder in (whole, resumed)]
    active = [
        {
            name: int(tensor.sum())
            for name, tensor in load_file(folder / "weights.safetensors").items()
            if "mask" in name
        }
        for folder in (whole, resumed)
    ]
    yield {
        "promise": "finished in its second attempt",
        "kept": (second["status"], second["attempts"]) == ("finished", 2),
    }
    yield {"promise": "the same run", "kept": first["fingerprint"] == second["fingerprint"]}
    yield {"promise": "every epoch once", "kept": len(pd.read_csv(resumed / "metrics.csv")) == first["epochs"]}
    yield {"promise": "the same mask updates", "kept": updates[0].equals(updates[1])}
    yield {"promise": "as many active weights in every tensor", "kept": active[0] == active[1]}
    yield {"promise": "no checkpoint left", "kept": not list(resumed.glob("checkpoint-*"))}


def _estimate(
    setting: Setting, overlay: Row, *options: str, environment: Mapping[str, str] = os.environ
) -> dict[str, Row]:
    """What `east estimate --json` says of the paper, or in a rehearsal of the workflow's own test."""
    path = setting.scratch / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay) if overlay else "{}\n", encoding="utf-8")
    files = [ROOT / "config" / "test.yaml"] if setting.small else [path]
    command = ["estimate", "--json", "--device", setting.device, "--results", setting.scratch / "results"]
    command += [argument for file in files for argument in ("--configfile", file)]
    process = _east([*command, "--seconds", 0.1 if setting.small else 1, *options], environment)
    output, errors = process.communicate()
    if process.returncode != 0:
        raise EastError(f"`east estimate` ended with {process.returncode}: {errors.strip()[-300:]}")
    return json.loads(output)


def _east(arguments: Sequence[object], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "east", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=pipe, stderr=pipe, text=True)


@contextmanager
def _no_mps(setting: Setting) -> Iterator[Mapping[str, str]]:
    """Variables of processes that find no Multi-Process Service, whatever the machine runs."""
    yield {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(setting.scratch)}


@contextmanager
def _mps(setting: Setting) -> Iterator[Mapping[str, str]]:
    """Variables of processes that share the GPU by NVIDIA's Multi-Process Service, and the service while they last.

    It has folders of its own, so that it serves nobody else. It stays in the part's group of processes and is stopped
    with it.

    Raises:
        EastError: the service is not there.
    """
    if shutil.which(CONTROL) is None:
        raise EastError(f"{CONTROL} is not here.")
    folder = str(setting.scratch / "mps")
    Path(folder).mkdir(exist_ok=True)
    variables = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
    service = subprocess.Popen([CONTROL, "-f"], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield variables
    finally:
        subprocess.run(
            [CONTROL], input="quit\n", env=variables, capture_output=True, text=True, timeout=20, check=False
        )
        service.kill()
        service.wait()
