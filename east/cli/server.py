"""The process of which a workflow's jobs are forks: `python -m east.cli.server`, which only rules start."""

import gc
import os
import socket
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from east import cli
from east.checkout import sources
from east.launch.cores import let_idle_threads_sleep
from east.launch.passing import serve

MODULES: Mapping[str, tuple[str, ...]] = {
    "train": ("east.training.run", "east.training.progress", "east.training.tracking", "east.data.prepare"),
    "make": (
        *("east.analysis.aggregate", "east.analysis.evidence", "east.analysis.results"),
        *("east.render.tables", "east.render.hyperparameters", "east.render.cost", "east.render.evidence"),
        *("east.render.figures", "east.render.page", "east.render.appendix", "matplotlib.pyplot"),
    ),
}
"""Command -> what it imports, and the server once for all jobs: when the first of them asks, so that trainings carry no
library of the report's."""


def main() -> None:
    """Serve until the workflow has ended; in a fork, run its command."""
    path, descriptor = sys.argv[1:]
    let_idle_threads_sleep(os.environ)
    began = sources()

    def prepare(command: str) -> bool:
        for name in MODULES[command]:
            import_module(name)
        gc.collect()
        gc.freeze()  # what is shared stays shared: the collector would write to it
        return sources() == began

    words = serve(socket.socket(fileno=int(descriptor)), prepare)
    if words is not None:
        sys.argv = ["east", *words]
        cli.main()
        return
    Path(path).unlink(missing_ok=True)
    Path(path).parent.rmdir()


if __name__ == "__main__":
    main()
