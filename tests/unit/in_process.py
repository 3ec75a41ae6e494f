"""The `east` command within the process of the tests, for those that call it often: an interpreter starts slowly."""

import io
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from east.cli import main
from tests.conftest import ROOT


def east(*arguments: object, folder: Path = ROOT) -> CompletedProcess[str]:
    """Run the command in a folder, by default the project's, as `python -m east` does."""
    command = ["east", *map(str, arguments)]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with chdir(folder), mock.patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return CompletedProcess(command, status, out.getvalue(), err.getvalue())
