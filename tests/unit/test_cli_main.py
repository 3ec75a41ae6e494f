"""What surrounds every command: help, mistakes on the command line, streams, the locale, and what commands share."""

import io
import json
import logging
import os
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter

from east import cli
from east.cli.common import counted, parsed, print_json, print_table
from east.cli.console import make_console
from east.errors import EastError
from east.launch.cores import CHOSEN_BY_USERS
from east.log import configure_logging
from tests.unit.cli_views import on_a_terminal, on_no_terminal
from tests.unit.fake_runs import TEST_CONFIG
from tests.unit.in_process import east

SCHEDULE = ("schedule", "table2/static/seed1", "--configfile", str(TEST_CONFIG))


def test_without_a_command_the_help_is_shown_and_that_is_no_success():
    done = east()
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout == east("--help").stdout
    assert done.stdout.startswith("Usage: east [OPTIONS] COMMAND")


def test_the_help_has_the_first_sentence_of_every_command_whole():
    said = " ".join(east("--help").stdout.split())
    for commands in list(cli.COMMANDS.values())[:-1]:
        for name, command in commands.items():
            sentence = " ".join(command.__doc__.split("\n\n")[0].split())
            assert f" {name} {sentence}" in said


def test_a_mistake_on_the_command_line_is_said_with_the_usage():
    done = east("plan", "--nope")
    assert (done.returncode, done.stdout) == (2, "")
    usage, tip, nothing, mistake = done.stderr.splitlines()
    assert (usage, nothing) == ("Usage: east plan [OPTIONS]", "")
    assert "'east plan --help'" in tip
    assert "--nope" in mistake
    assert cli.USAGE_ERROR.__name__ == "UsageError"


@pytest.mark.parametrize("command", ["train", "cost", "estimate"])
def test_threads_are_from_one_to_what_the_machine_can_run(command):
    given = {"train": ("--run", "{}", "--out", "x"), "cost": ("--request", "{}"), "estimate": ("--configfile", "none")}
    few, one, many = (east(command, *given[command], "--threads", number) for number in (0, 1, 10_000))
    assert (few.returncode, "--threads" in few.stderr) == (2, True)
    assert f"10000 threads are more than this machine of {os.cpu_count()} cores can run" in many.stderr
    assert "threads" not in one.stderr + east(command, *given[command]).stderr


# Streams and the locale


def main_with(monkeypatch, stdout, *arguments):
    monkeypatch.setattr(sys, "argv", ["east", *arguments])
    monkeypatch.setattr(sys, "stdout", stdout)
    cli.main()


def test_a_reader_that_has_had_enough_is_no_failure(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stdout = open(writer, "w")  # noqa: PTH123, SIM115
    main_with(monkeypatch, stdout, *SCHEDULE)
    stdout.close()  # as Python does at the end: nothing is left to be written to nobody


def test_without_standard_output_a_command_goes_on(monkeypatch):
    main_with(monkeypatch, None, "list")


def test_what_an_encoding_lacks_is_escaped(monkeypatch, tmp_path):
    (tmp_path / "größe").mkdir()
    main_with(
        monkeypatch,
        stdout := io.TextIOWrapper(io.BytesIO(), "ascii"),
        *("prune", "--configfile", str(TEST_CONFIG), "--results", str(tmp_path / "größe")),
    )
    assert r"gr\xf6\xdfe is of no use to the plan." in stdout.buffer.getvalue().decode()


def test_what_is_logged_is_shown_whoever_calls(monkeypatch):
    monkeypatch.setattr(logging.getLogger("east"), "handlers", [])
    assert east("inspect", "none", "--configfile", TEST_CONFIG).stderr.startswith("error: ")
    configure_logging()


def test_idle_threads_sleep_in_every_command(monkeypatch):
    for name in CHOSEN_BY_USERS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    east("--version")
    assert {"GOMP_SPINCOUNT", "KMP_BLOCKTIME"} <= os.environ.keys()


@pytest.mark.parametrize(
    ("encoding", "utf8_mode", "stdout", "chosen"),
    [
        ("utf-8", 0, "latin-1", None),
        ("ascii", 1, "latin-1", None),
        ("ascii", 0, "latin-1", "latin-1:backslashreplace"),
        ("ascii", 0, None, None),
    ],
)
def test_in_a_locale_of_another_encoding_a_command_begins_again_in_utf_8(
    monkeypatch, encoding, utf8_mode, stdout, chosen
):
    begun = []
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    monkeypatch.setattr(sys, "flags", SimpleNamespace(utf8_mode=utf8_mode))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "east", "list"])
    monkeypatch.setattr(sys, "stdout", stdout and SimpleNamespace(encoding=stdout))
    monkeypatch.setattr(os, "execve", lambda *arguments: begun.append(arguments))
    monkeypatch.setattr(os, "environ", {"A": "b"})
    cli._begin_in_utf8()
    environment = {"A": "b", "PYTHONUTF8": "1"} | ({"PYTHONIOENCODING": chosen} if chosen else {})
    command = [sys.executable, "-X", "utf8", "-m", "east", "list"]
    again = encoding == "ascii" and not utf8_mode
    assert begun == ([(sys.executable, command, environment)] if again else [])


# What commands share


def test_a_table_is_aligned_to_the_left_up_to_a_column(capsys):
    rows = [{"a": "x", "b": 12, "c": "left out", "long": "\x1b"}, {"a": "two words", "b": 3, "long": 4.5}]
    print_table(["a", "b", "long"], rows)
    print_table(["a", "b", "long"], rows, left=1)
    assert capsys.readouterr().out.splitlines() == [
        "a          b   long",
        "x          12  [U+001B]",
        "two words  3   4.5",
        "a           b      long",
        "x          12  [U+001B]",
        "two words   3       4.5",
    ]


def test_json_is_indented_and_no_terminal_obeys_it(capsys):
    value = {"a": ["\x7f\x1b\n"]}
    print_json(value)
    out = capsys.readouterr().out
    assert out == '{\n  "a": [\n    "\\u007f\\u001b\\n"\n  ]\n}\n'
    assert json.loads(out) == value


@pytest.mark.parametrize(
    ("number", "what", "said"), [(0, "run", "0 runs"), (1, "run", "1 run"), (2, "process", "2 processes")]
)
def test_things_are_counted_in_the_plural_unless_there_is_one(number, what, said):
    assert counted(number, what) == said


@pytest.mark.parametrize(
    ("text", "said"), [("nonsense", "--x: the text: "), ('{"a": [1, "x", "y"]}', "--x: a.1: "), ("[" * 100_000, "--x")]
)
def test_an_option_that_is_not_the_json_it_should_be_is_named_with_the_key(text, said):
    with pytest.raises(EastError, match=said):
        parsed("--x", TypeAdapter(dict[str, list[int]]).validate_json, text)


@pytest.mark.parametrize(("text", "said"), [("[" * 100_000, "nested too deeply"), ("{", "not JSON")])
def test_an_option_that_is_read_by_json_is_named_as_well(text, said):
    with pytest.raises(EastError, match=f"--x is {said}"):
        parsed("--x", json.loads, text)


def test_an_option_may_come_from_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("größe".encode()), "ascii"))
    assert parsed("--x", str, "-") == "größe"
    assert parsed("--x", str, "--") == "--"


MARKUP = "[red]x[/red] :boom: 12 " + "long " * 90


def test_text_is_drawn_as_it_is_on_one_line_of_a_file():
    with on_no_terminal(), redirect_stdout(out := io.StringIO()):
        make_console().print(MARKUP)
    assert out.getvalue().rstrip() == MARKUP.rstrip()


def test_text_is_drawn_as_it_is_within_a_terminal():
    with on_a_terminal(columns=60), redirect_stdout(out := io.StringIO()):
        make_console().print(MARKUP)
    assert out.getvalue().startswith("[red]x[/red] :boom: 12 long")
    assert max(map(len, out.getvalue().splitlines())) <= 60
