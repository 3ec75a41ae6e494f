import shlex

import pytest

from east.errors import EastError
from east.launch.snakemake_command import check_configfiles, find_cache


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "a folder").mkdir()
    for name, text in {"a.yaml": "seeds: [1]", "b c.yaml": "{}", "text": "a: b: c", "list": "- 1", "bytes": ""}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "--cores 2",
        "tables --configfile a.yaml 'b c.yaml' -n",
        "--configfile a.yaml -- tables",
        "--configfile=a.yaml tables",
        "--configfiles a.yaml --configfile 'b c.yaml' -n --config seeds=1 tables",
    ],
)
def test_commands_that_snakemake_understands_pass(command):
    check_configfiles(shlex.split(command))


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("--cores 2 --configfile a.yaml tables", "tables --cores 2 --configfile a.yaml"),
        ("--configfile a.yaml 'b c.yaml' data cost -n", "data cost --configfile a.yaml 'b c.yaml' -n"),
        ("--configfile a.yaml 'a folder' -n", "'a folder' --configfile a.yaml -n"),
    ],
)
def test_a_target_that_snakemake_would_take_for_a_file_is_told_with_the_command_that_works(command, meant):
    with pytest.raises(EastError) as told:
        check_configfiles(shlex.split(command))
    message = str(told.value)
    assert "\n" not in message
    assert message.endswith(f": snakemake {meant}")
    check_configfiles(shlex.split(meant))


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("nowhere", "not there"),
        ("a folder", "is a folder"),
        ("text", "not YAML"),
        ("bytes", "not YAML"),
        ("list", "no keys"),
    ],
)
def test_a_file_that_is_no_configuration_is_told_in_one_line(file, problem):
    with pytest.raises(EastError, match=f"{file} .*{problem}") as told:
        check_configfiles(["-n", "--configfile", file])
    assert "\n" not in str(told.value)
    assert "target" not in str(told.value), "there would be no file left"


@pytest.mark.parametrize(
    "option", ["--configfile a.yaml --configfile tables", "--configfile tables --configfile a.yaml"]
)
def test_no_command_is_told_that_leaves_an_option_without_a_file(option):
    with pytest.raises(EastError) as told:
        check_configfiles(shlex.split(option))
    assert "target" not in str(told.value)


def test_a_cache_that_cannot_be_made_is_made_here(tmp_path):
    for environment, found in [
        ({"HOME": "/dev/null"}, str(tmp_path / ".snakemake" / "cache")),
        ({"HOME": str(tmp_path), "XDG_CACHE_HOME": "/dev/null"}, str(tmp_path / ".snakemake" / "cache")),
        ({"HOME": str(tmp_path)}, None),
        ({"HOME": "/dev/null", "XDG_CACHE_HOME": str(tmp_path / "mine")}, str(tmp_path / "mine")),
    ]:
        find_cache(environment, tmp_path)
        assert environment.get("XDG_CACHE_HOME") == found
        assert ("MPLCONFIGDIR" in environment) == (found is not None and ".snakemake" in found)
