"""What commands show, compared with the files in `views/`.

Where a view is meant to change, `python -m tests.unit.test_cli_views` writes them again; read the difference.
"""

import tempfile
from pathlib import Path

import pytest

from tests.unit.cli_views import VIEWS

FOLDER = Path(__file__).parent / "views"


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_as_it_was(name, tmp_path):
    assert VIEWS[name](tmp_path) == (FOLDER / f"{name}.txt").read_text()


if __name__ == "__main__":
    for name in VIEWS:
        with tempfile.TemporaryDirectory() as scratch:
            (FOLDER / f"{name}.txt").write_text(VIEWS[name](Path(scratch)))
