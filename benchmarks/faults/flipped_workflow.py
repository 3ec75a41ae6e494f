"""Damage once more: a bit is turned over, and the whole workflow runs."""

import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.flips import files_that_are_read, flipped
from benchmarks.faults.outcome import Outcome
from benchmarks.faults.workplace import Workplace
from east.training.folder import WEIGHTS


def cases(count: int, seed: int) -> Iterator[Outcome]:
    """Turn a bit over in finished results, run the same command again, and see whether it shows what it should."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="east-faults-") as folder:
        place = Workplace.finished(Path(folder) / "clone")
        expected, kept = place.shown(), Path(folder) / "kept"
        subprocess.run(["cp", "-a", str(place.folder), str(kept)], check=True)
        files = [path for path in files_that_are_read(place) if path.name != WEIGHTS]
        for _ in range(count):
            path = draw.choice(files)
            right = path.read_bytes()
            at, bit = draw.randrange(len(right)), draw.randrange(8)
            path.write_bytes(flipped(right, at, bit))
            done = place.snakemake()
            failure = place.difference(expected)
            if failure and done.returncode:  # it may refuse, in a sentence, in place of showing
                failure = ""
            yield Outcome(f"bit {bit} of byte {at} of {path.relative_to(place.folder)}", failure)
            shutil.rmtree(place.folder)
            subprocess.run(["cp", "-a", str(kept), str(place.folder)], check=True)
