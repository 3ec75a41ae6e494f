"""A small place of work, made for real: prepared data, a finished run, a begun one, a lock, an archive."""

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from east.analysis.sources import Sources, read_run_record
from east.cli.console import VisibleConsole
from east.cli.show_view import run_view
from east.config import Plan, Run, make_plan, read_config
from east.config.plan import cost_plan
from east.config.tables import CostPlan
from east.data.prepare import prepare
from east.operations.archive import write_archive
from east.operations.results_lock import make_lock
from east.operations.run_files import RunFiles
from east.training.assembly import Training
from east.training.hooks import Hook
from east.training.run import Resources, train

CONFIG = Path(__file__).parents[2] / "config" / "test.yaml"


class Stop(Hook):
    """Ends a training before its fourth step, as a signal does."""

    def before_batch(self, training: Training) -> None:
        """Stop where it is time."""
        if training.steps_done == 3:
            raise SystemExit(143)


@dataclass(frozen=True)
class Scene:
    """Where everything lies.

    Attributes:
        folder: that may be used.
        plan: that of config/test.yaml.
    """

    folder: Path
    plan: Plan

    @classmethod
    def prepared(cls, folder: Path) -> "Scene":
        """Make everything in an empty folder: some seconds."""
        scene = cls(folder, make_plan(read_config(CONFIG)))
        prepare("digits", scene.data)
        settings = Resources(device="cpu", engine="dense", threads=1, data_dir=scene.data)
        train(scene.finished.spec, scene.run_folder, settings)
        with suppress(SystemExit):
            train(scene.begun.spec, scene.begun_folder, settings, [Stop()])
        lock = make_lock(scene.plan, scene.results)
        scene.lock.write_text(lock.json_text(), encoding="utf-8")
        write_archive(lock, scene.results, scene.archive)
        return scene

    @property
    def data(self) -> Path:
        """Prepared data sets."""
        return self.folder / "data"

    @property
    def results(self) -> Path:
        """Results of the plan."""
        return self.folder / "results" / self.plan.config.name

    @property
    def finished(self) -> Run:
        """The run that has ended."""
        return self.plan.runs[0]

    @property
    def begun(self) -> Run:
        """The run that was stopped."""
        return self.plan.runs[1]

    @property
    def run_folder(self) -> Path:
        """That of the finished run."""
        return self.results / "runs" / self.finished.id

    @property
    def begun_folder(self) -> Path:
        """That of the begun run."""
        return self.results / "runs" / self.begun.id

    @property
    def lock(self) -> Path:
        """A lock of the results."""
        return self.folder / "results.lock.json"

    @property
    def archive(self) -> Path:
        """An archive of the results."""
        return self.folder / "results.tar.gz"

    @property
    def cost_plan(self) -> CostPlan:
        """What Table 6 measures."""
        return cost_plan(self.plan.config)

    def show(self, run_id: str) -> None:
        """`east show` of a run."""
        run = self.plan.run(run_id)
        found = RunFiles(self.results).status(run.id, run.fingerprint, run.spec.training.epochs, datetime.now(UTC))
        record = read_run_record(Sources(self.results), run.id)
        VisibleConsole(file=io.StringIO(), markup=False, width=80).print(run_view(run, found, record, everything=True))

    def sign(self, checkpoint: Path) -> None:
        """Put its checksum before the content of a checkpoint."""
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
