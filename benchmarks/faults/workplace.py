"""A small plan in a clone of its own, for the parts of the campaign that run the whole workflow."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import yaml

from benchmarks.results import ROOT
from east.errors import EastError

NAME = "faults"
TINY: dict[str, Any] = {
    "name": NAME,
    "seeds": [1],
    "recipes": {"resnet34-digits": {"epochs": 1, "lr_drop_epochs": [], "update_period": 1, "cyclic": None}},
    "tables": {"table2": {"rows": [{"static": True}]}, "table3": None},
    "methods": {"rows": {"RigL": {}, "EAST w/ DyReLU": None}},
}
"""Over config/test.yaml: one training of a second."""

CONFIG_FILES = ("config/test.yaml", "faults.yaml")
"""Over config.yaml."""

UNLIKE = ("seconds", "peak_memory_mb", "sha256", "versions", "commit", "code_digest", "attempts", "runs_per_device")
"""Columns of runs.csv that differ between trainings to the same bytes."""


@dataclass(frozen=True)
class Workplace:
    """A checkout with this overlay.

    Attributes:
        folder: of the checkout.
    """

    folder: Path

    @classmethod
    def cloned(cls, folder: Path) -> Self:
        """In a clone of the project's last commit, which is made."""
        subprocess.run(
            ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", str(ROOT), str(folder)], check=True
        )
        place = cls(folder)
        place.configure()
        return place

    @classmethod
    def finished(cls, folder: Path, **changes: Any) -> Self:
        """In such a clone, in which the whole workflow has run.

        Raises:
            EastError: it failed.
        """
        place = cls.cloned(folder)
        place.configure(**changes)
        if (done := place.snakemake()).returncode:
            raise EastError(f"the small plan fails by itself: {(done.stderr + done.stdout)[-300:]}")
        return place

    @property
    def results(self) -> Path:
        """results/<name>."""
        return self.folder / "results" / NAME

    def configure(self, **changes: Any) -> None:
        """Write the overlay, with these keys changed."""
        (self.folder / "faults.yaml").write_text(yaml.safe_dump(TINY | changes, allow_unicode=True), encoding="utf-8")

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the workflow, or a part of it."""
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
        command += ["--configfile", *CONFIG_FILES]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, errors="replace"
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """That of this process, with the clone's own package."""
        return os.environ | {"PYTHONPATH": str(self.folder)}

    def copy_to(self, folder: Path) -> Self:
        """Another clone with the same overlay and, copied with their times, results and data."""
        other = self.cloned(folder)
        shutil.copy2(self.folder / "faults.yaml", folder)
        for part in ("results", "data"):
            if (self.folder / part).exists():
                shutil.copytree(self.folder / part, folder / part, symlinks=True)
        return other

    def difference(self, expected: Mapping[str, str]) -> str:
        """Which files do not show what they should; empty if all do."""
        shown = self.shown()
        wrong = sorted(name for name in {**shown, **expected} if shown.get(name) != expected.get(name))
        return f"not as the plan gives it: {', '.join(wrong)}" if wrong else ""

    def shown(self) -> dict[str, str]:
        """What tables, figures and report show, by file; without times and sizes, which differ between trainings."""
        found = {}
        for path in sorted(
            path for kind in ("tables/*", "figures/*.svg", "report/*") for path in self.results.glob(kind)
        ):
            if not path.name.startswith(("table6", "cost", ".")):
                found[path.relative_to(self.results).as_posix()] = self._without_times(path)
        return found

    def _without_times(self, path: Path) -> str:
        if path.name == "runs.csv":
            return str(pd.read_csv(path).drop(columns=list(UNLIKE), errors="ignore").to_csv())
        text = path.read_text(encoding="utf-8")
        # Report and appendix name times, memory and commits, and have Table 6 and the figure of costs in them.
        is_mixed = path.suffix == ".html" or path.name == "appendix.tex"
        text = re.sub(r"data:image[^\"]*", "", text) if is_mixed else text
        return " ".join(re.findall(r"\d+\.\d\d(?: ± \d+\.\d\d| %)", text)) if is_mixed else text
