"""Text is shown as it is, whatever is in it and wherever it is shown."""

import errno
import io
import json
import re
import sys

import pytest
from rich.text import Text

from east.cli.console import VisibleConsole
from east.shown import say, tell, visible
from tests.unit.fake_runs import PLAN, TEST_CONFIG, write_planned_run
from tests.unit.in_process import east

HOSTILE = "\x1b[2J\x1b]0;x\x07\x9b31m\u202e\u2066\u200b\u2028\x00\x7f\ue000\ud800 end"
OBEYED = set(HOSTILE) - set(" end[2J]0;x31m")


def test_nothing_that_a_terminal_obeys_or_hides_is_left():
    shown = visible(f"a\tb\n{HOSTILE}")
    assert shown.startswith("a b [U+001B][2J")
    assert shown.endswith("[U+D800] end")
    assert not OBEYED & set(shown)


@pytest.mark.parametrize("text", ["plain", "Δ ± × · → 日本 🎉", "[U+001B]"])
def test_what_can_be_seen_stays(text):
    assert visible(text) == text


def test_a_line_stays_one_line(capsys):
    say("a\nb", "c")
    tell("d\re")
    assert capsys.readouterr() == ("a b\nc\n", "d e\n")


def test_a_log_that_cannot_be_written_is_no_failure(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, text)

    monkeypatch.setattr(sys, "stderr", Full())
    tell("a line")


def test_what_is_drawn_is_visible_and_keeps_its_colours():
    drawn = io.StringIO()
    VisibleConsole(file=drawn, force_terminal=True, color_system="standard").print(Text(HOSTILE, style="red"))
    assert "\x1b[31m" in drawn.getvalue()
    assert not (OBEYED - {"\x1b"}) & set(drawn.getvalue())
    assert drawn.getvalue().count("\x1b") == 2


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results whose every text is hostile, and a configuration of which the same is true."""
    folder = tmp_path_factory.mktemp("hostile")
    texts = {"device": HOSTILE.replace("\ud800", ""), "engine": "\x1b[31m", "versions": {"\x1b[1m": "\x9b1m"}}
    first, *others, last = PLAN.values()
    changed = last.spec.model_dump(mode="json") | {"recipe": HOSTILE.replace("\ud800", "")}
    write_planned_run(folder / "runs", last, 50.0, run=changed, fingerprint="another")
    for number, run in enumerate(others):
        write_planned_run(folder / "runs", run, 50.0 + number, **texts)
    begun = folder / "runs" / first.id
    begun.mkdir(parents=True)
    state = {"state": "failed", "message": HOSTILE, "attempt": 1, "epoch": 1, "epochs": 2, "step": 1, "host": "\x1b[5m"}
    state |= {
        "started": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:00Z",
        "pid": 1,
        "device": "",
        "threads": 1,
    }
    (begun / "state.json").write_text(json.dumps(state).replace("\\ud800", ""))
    (folder / "runs" / "table9" / "\x1b[2J" / "seed1").mkdir(parents=True)
    overlay = folder / "\x1b[31m\u202eoverlay.yaml"
    text = TEST_CONFIG.read_text().replace("{static: true}", r'{static: true, label: "\e[2J\u202E\x07"}')
    overlay.write_text(text.replace("title:", 'title: "\\e[2J\\u202E"\n#'), encoding="utf-8")
    return folder, overlay


COMMANDS = {
    "plan": (),
    "plan --changed": ("results",),
    "status --all": ("results",),
    "status --json": ("results",),
    "plan --changed --all": ("results",),
    "show table2/static/seed2": ("results",),
    "show table2/static/seed1": ("results",),
    "prune": ("results",),
    "lock --out {folder}/\x1b[1m/x": ("results",),
    "archive {folder}/\x1b[1m/x.tar.gz": ("results",),
    "verify \x1b[2J\u202e": None,
    "restore \x1b[2J\u202e": None,
    "compare \x1b[2J \u202e": None,
    "merge \x1b[2J": ("results",),
    "inspect \x1b[2J": (),
    "\x1b[2J": None,
    "plan --\x1b[2J": None,
    "train --run \x1b[2J --out \u202e": None,
    "prepare \u202e\x1b[2J": None,
}
"""Command line -> which of configuration and results it takes; None takes neither."""


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_a_text_reach_the_terminal(results, tmp_path, command):
    folder, overlay = results
    takes = COMMANDS[command]
    options = [] if takes is None else ["--configfile", overlay, *(["--results", folder] if takes else [])]
    done = east(*command.format(folder=tmp_path).split(" "), *options)
    assert re.search(r"\[U\+|\\x1b", done.stdout + done.stderr)
    assert not OBEYED & set(done.stdout + done.stderr)
    assert "mistake of the program" not in done.stderr
