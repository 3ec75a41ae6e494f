"""Fixtures that several tests share."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from east.config import RunSpec, load_plan
from east.data.prepare import prepare
from east.log import configure_logging
from east.training.run import Resources, train
from tests.unit.same_bits import DIGITS

ROOT = Path(__file__).parents[1]

if not torch.cuda.is_available():
    # Read when a kernel is defined: without a GPU, Triton's kernels run in its interpreter.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell lets what it starts in the background ignore Ctrl-C, `nohup` the end of a terminal; and so would every process
# that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

configure_logging()  # so that what is logged is on standard error, as it is under the command


@pytest.fixture
def overlay(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a configuration file to be merged over others; the next one takes its place."""

    def write(text: str) -> Path:
        (tmp_path / "overlay.yaml").write_text(text)
        return tmp_path / "overlay.yaml"

    return write


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits prepared."""
    folder = tmp_path_factory.mktemp("data")
    prepare("digits", folder)
    return folder


@pytest.fixture(scope="session")
def tiny_spec() -> RunSpec:
    """A run of a few seconds: ResNet-34 of width 4 on the digits, with one density cycle."""
    paper = next(run for run in load_plan() if run.id == "table2/cosine-m3-n1/seed17").spec.model_dump()
    paper["dataset"] = dict(DIGITS)
    paper["model"]["width"] = 4
    paper["sparsity"] |= {"density": 0.03, "update_period": 2}
    paper["cycle"] |= {"cycle_length": 2.0, "update_period": 2}
    paper["training"] |= {"epochs": 4, "batch_size": 256, "lr_drop_epochs": [3]}
    return RunSpec.model_validate(paper)


@pytest.fixture(scope="session")
def short_spec(tiny_spec: RunSpec) -> RunSpec:
    """The tiny run in three epochs."""
    training = tiny_spec.training.model_dump() | {"epochs": 3, "lr_drop_epochs": [2]}
    return RunSpec.model_validate(tiny_spec.model_dump() | {"training": training})


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, short_spec: RunSpec, data_dir: Path) -> Path:
    """The folder of the short run with one thread, never stopped, in a folder for each engine. Only to be read."""
    folder = tmp_path_factory.mktemp("whole")
    for engine in ("dense", "sparse"):
        train(short_spec, folder / engine, Resources(device="cpu", engine=engine, threads=1, data_dir=data_dir))
    return folder


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One CPU thread in PyTorch for a test, which may choose otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks on GPUs of this test alone, and no variable that would decide which there are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    names = ("CUDA_VISIBLE_DEVICES", "EAST_GPUS", "SLURM_JOB_ID", "SLURM_SHARDS_ON_NODE")
    # Set first, so that what a lease sets here is undone after the test.
    for name in (*names, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
