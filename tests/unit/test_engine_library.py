"""Compiling and loading the kernels, with tiny sources in place of the real ones."""

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from east.engine.cpu import library
from east.engine.cpu.commands import Running, run, run_all
from east.errors import EastError
from east.files import write_atomically

SOURCE = """
extern "C" int width() {
#if defined(__AVX512F__)
  return 512;
#elif defined(__AVX2__)
  return 256;
#else
  return 128;
#endif
}
extern "C" int threads() {
  int n = 0;
#pragma omp parallel reduction(+ : n)
  n += 1;
  return n;
}
"""


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "tiny.cpp").write_text(SOURCE)
    (folder / "other.cpp").write_text('#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n')
    (folder / "answer.h").write_text("#define ANSWER 42\n")
    return folder


@pytest.fixture
def toolchain():
    return library.find_toolchain()


@pytest.fixture
def outcome_forgotten():
    library._load_once.cache_clear()
    yield
    library._load_once.cache_clear()


@pytest.fixture
def stoppable_compiler(tmp_path, monkeypatch):
    """A compiler in `CXX` that fails as soon as the file `stop` exists, and logs each call."""
    script = tmp_path / "compiler"
    real = library.find_compiler()[0]
    script.write_text(
        f"#!/bin/sh\necho called >> {tmp_path}/calls\n"
        f'if [ "$1" != --version ] && [ -e {tmp_path}/stop ]; then echo stopped >&2; exit 1; fi\nexec {real} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return tmp_path


def openmp_runtimes():
    """The OpenMP runtimes that are mapped into this process."""
    return set(re.findall(r"/.*/lib[gi]?omp.*", Path("/proc/self/maps").read_text()))


def test_what_is_in_the_cache_is_not_compiled_again(sources, stoppable_compiler, tmp_path):
    toolchain = library.find_toolchain()
    first = library.build(sources, tmp_path / "cache", toolchain)
    (stoppable_compiler / "stop").touch()
    assert library.build(sources, tmp_path / "cache", toolchain).path == first.path


@pytest.mark.parametrize("file", ["other.cpp", "answer.h"])
def test_a_changed_source_is_compiled_anew(sources, tmp_path, toolchain, file):
    first = library.build(sources, tmp_path / "cache", toolchain)
    (sources / file).write_text((sources / file).read_text() + "// changed\n")
    assert library.build(sources, tmp_path / "cache", toolchain).path != first.path


def test_everything_in_the_toolchain_is_in_the_name(sources, toolchain):
    changes = {
        "command": ("/usr/bin/other",),
        "version": "another",
        "vector": "baseline" if toolchain.vector != "baseline" else "avx2",
        "openmp": Path("/lib/libother.so"),
        "extra_flags": ("-g",),
    }
    assert changes.keys() == {field.name for field in dataclasses.fields(toolchain)}
    changed = [dataclasses.replace(toolchain, **{name: value}) for name, value in changes.items()]
    assert len({library._digest(sources, one) for one in [toolchain, *changed]}) == len(changes) + 1


def of_another_system(content):
    """A file that is whole, and which this system cannot load."""
    return b"no library" + sha256(b"no library").digest()


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:5000], lambda content: b"", lambda content: content[::-1], of_another_system],
)
def test_a_damaged_library_is_compiled_anew(sources, tmp_path, toolchain, damage):
    name = library.build(sources, tmp_path / "elsewhere", toolchain).path.name
    path = tmp_path / "cache" / name
    path.parent.mkdir()
    path.write_bytes(damage((tmp_path / "elsewhere" / name).read_bytes()))
    assert library.build(sources, tmp_path / "cache", toolchain).library.answer() == 42


def test_a_cache_that_cannot_be_written_is_done_without(sources, tmp_path, toolchain):
    (tmp_path / "file").touch()
    kernels = library.build(sources, tmp_path / "file" / "cache", toolchain)
    assert kernels.library.answer() == 42
    assert library.build(sources, None, toolchain).library.answer() == 42


def test_a_cache_that_can_be_read_and_not_written_is_done_without(sources, tmp_path, toolchain, monkeypatch):
    def write(path, content):
        if path.is_relative_to(tmp_path / "cache"):
            raise OSError(errno.ENOSPC, "full")
        write_atomically(path, content)

    monkeypatch.setattr(library, "write_atomically", write)
    kernels = library.build(sources, tmp_path / "cache", toolchain)
    assert kernels.library.answer() == 42
    assert not kernels.path.is_relative_to(tmp_path)


def test_a_library_that_another_user_planted_is_never_loaded(sources, tmp_path, toolchain):
    """Others could write to the file, or to its folder."""
    name = library.build(sources, tmp_path / "elsewhere", toolchain).path.name
    (sources / "evil.cpp").write_text(
        f'#include <fstream>\nstatic bool ran = !std::ofstream("{tmp_path}/ran").fail();\n'
    )
    planted = library._compile(sources, None, toolchain)
    (sources / "evil.cpp").unlink()
    for place, mode in (("cache1", 0o777), (f"cache2/{name}", 0o666)):
        path = tmp_path / place.split("/")[0] / name
        path.parent.mkdir(mode=0o700)
        path.write_bytes(planted)
        (tmp_path / place).chmod(mode)
        assert library.build(sources, path.parent, toolchain).library.answer() == 42
        assert not (tmp_path / "ran").exists()


def test_what_a_group_may_write_to_by_the_user_s_wish_stays_the_user_s_alone_here(sources, tmp_path, toolchain):
    before = os.umask(0o002)
    try:
        path = library.build(sources, tmp_path / "cache", toolchain).path
    finally:
        os.umask(before)
    assert not (path.stat().st_mode | path.parent.stat().st_mode) & 0o022


def test_two_processes_may_build_at_once(sources, tmp_path):
    code = (
        "import sys; from pathlib import Path; from east.engine.cpu import library\n"
        "kernels = library.build(Path(sys.argv[1]), Path(sys.argv[2]), library.find_toolchain())\n"
        "print(kernels.library.answer())"
    )
    command = [sys.executable, "-c", code, str(sources), str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == ["42\n", "42\n"]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_compile_error_is_told_in_one_line_with_the_log(sources, tmp_path, toolchain):
    (sources / "wrong.cpp").write_text("int f() { return missing; }\n")
    with pytest.raises(library.KernelsUnavailable, match=r"wrong\.cpp:1:\d+: error: .*missing") as caught:
        library.build(sources, tmp_path / "cache", toolchain)
    message = str(caught.value)
    assert "\n" not in message
    assert "error" in Path(re.search(r"full log: (.*)\)", message)[1]).read_text()


def test_a_library_that_does_not_load_is_told(sources, tmp_path, toolchain):
    (sources / "open.cpp").write_text('int nowhere();\nextern "C" int f() { return nowhere(); }\n')
    with pytest.raises(library.KernelsUnavailable, match="undefined symbol"):
        library.build(sources, tmp_path / "cache", toolchain)


def test_missing_sources_are_told(tmp_path, toolchain):
    with pytest.raises(library.KernelsUnavailable, match="incomplete"):
        library.build(tmp_path, tmp_path / "cache", toolchain)


def test_without_a_compiler_the_message_names_what_was_tried(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tried = r"c\+\+, g\+\+, clang\+\+ are not on PATH.*without root: pip install ziglang"
    with pytest.raises(library.KernelsUnavailable, match=tried):
        library.find_toolchain()


def test_zig_compiles_where_there_is_no_other_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "ziglang")
    assert library.find_compiler() != (sys.executable, "-m", "ziglang", "c++")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert library.find_compiler() == (sys.executable, "-m", "ziglang", "c++")


@pytest.mark.parametrize("command", [("/usr/bin/python", "-m", "ziglang", "c++"), ("/opt/zig", "c++")])
def test_zig_is_told_not_to_compile_for_the_processor_at_hand(toolchain, command):
    assert "-mcpu=baseline" in dataclasses.replace(toolchain, command=command).flags
    assert "-mcpu=baseline" not in toolchain.flags


@pytest.mark.parametrize("variable", ["EAST_KERNEL_FLAGS", "CXX"])
@pytest.mark.parametrize(
    "flag",
    [
        "-ffast-math",
        "-Ofast",
        "-funsafe-math-optimizations",
        "-fassociative-math",
        "-freciprocal-math",
        "-ffinite-math-only",
        "-fno-signed-zeros",
        "-ffp-contract=fast",
        "-ffp-contract=on",
        "-ffp-model=fast",
        "-fsingle-precision-constant",
        "@flags.txt",
    ],
)
def test_flags_that_would_change_numbers_are_refused(monkeypatch, variable, flag):
    monkeypatch.setenv(variable, f"-pipe {flag}" if variable != "CXX" else f"{library.find_compiler()[0]} {flag}")
    with pytest.raises(EastError, match=f"{variable} holds {re.escape(flag)}, .*Leave it out"):
        library.find_toolchain()


@pytest.mark.parametrize("flag", ["-ffast-math", "-fassociative-math -fno-signed-zeros -fno-trapping-math"])
def test_a_compiler_that_adds_such_flags_by_itself_does_not_compile_the_kernels(tmp_path, toolchain, flag):
    script = tmp_path / "compiler"
    script.write_text(f'#!/bin/sh\nexec {toolchain.command[0]} "$@" {flag}\n')
    script.chmod(0o755)
    (tmp_path / "some.cpp").write_text(f'#include "{library.SOURCES / "arithmetic.h"}"\n')
    with pytest.raises(library.KernelsUnavailable, match="told to change arithmetic"):
        library.build(tmp_path, None, dataclasses.replace(toolchain, command=(str(script),)))


def test_a_compiler_in_cxx_is_the_only_one_tried(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -pipe")
    with pytest.raises(library.KernelsUnavailable, match="CXX names 'no-such-compiler'"):
        library.find_toolchain()


def test_a_compiler_that_does_not_run_is_named_with_what_it_says(tmp_path, monkeypatch):
    script = tmp_path / "compiler"
    script.write_text("#!/bin/sh\necho some words; echo 'error: no licence'; exit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(library.KernelsUnavailable, match=f"{script} does not run: error: no licence"):
        library.find_toolchain()


@pytest.mark.parametrize("variable", ["CXX", "EAST_KERNEL_FLAGS"])
def test_a_quote_that_stands_alone_in_a_variable_is_named(monkeypatch, variable):
    monkeypatch.setenv(variable, "c++ 'a")
    with pytest.raises(EastError, match=f"{variable} is .*stands alone"):
        library.find_toolchain()


def test_arguments_in_cxx_are_passed_on(monkeypatch):
    compiler = library.find_compiler()
    monkeypatch.setenv("CXX", f"{compiler[0]} -pipe")
    assert library.find_toolchain().command == (compiler[0], "-pipe")


def test_a_failure_is_remembered(stoppable_compiler, outcome_forgotten, monkeypatch):
    monkeypatch.setenv("EAST_CACHE_DIR", str(stoppable_compiler / "cache"))
    (stoppable_compiler / "stop").touch()
    with pytest.raises(library.KernelsUnavailable):
        library.load_kernels()
    calls = (stoppable_compiler / "calls").read_text()
    with pytest.raises(library.KernelsUnavailable):
        library.load_kernels()
    assert (stoppable_compiler / "calls").read_text() == calls


def test_availability_tells_what_there_is(sources, outcome_forgotten, monkeypatch, tmp_path, toolchain):
    monkeypatch.setattr(library, "SOURCES", sources)
    monkeypatch.setenv("EAST_CACHE_DIR", str(tmp_path / "cache"))
    found = library.availability()
    assert found.available
    assert found.cached
    assert (found.compiler, found.vector) == (" ".join(toolchain.command), toolchain.vector)


def test_what_is_compiled_for_one_process_alone_is_not_in_the_cache(sources, outcome_forgotten, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(library, "SOURCES", sources)
    for cache in (tmp_path / "file" / "cache", None):
        library._load_once.cache_clear()
        monkeypatch.setattr(library, "cache_folder", lambda cache=cache: cache)
        found = library.availability()
        assert (found.available, found.cached) == (True, False)


@pytest.mark.parametrize(
    ("variable", "value"), [("CXX", "no-such-compiler"), ("EAST_VECTOR", "mmx"), ("EAST_KERNEL_FLAGS", "-Ofast")]
)
def test_availability_does_not_raise(outcome_forgotten, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    found = library.availability()
    assert not found.available
    assert value in found.reason


def test_availability_does_not_raise_where_nothing_can_be_written(sources, outcome_forgotten, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "SOURCES", sources)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nothing"))
    monkeypatch.setenv("EAST_CACHE_DIR", str(tmp_path / "cache"))
    assert "cannot be written" in library.availability().reason


@pytest.mark.parametrize(("level", "width"), [("avx512", 512), ("avx2", 256), ("baseline", 128)])
def test_each_vector_level_can_be_forced(sources, tmp_path, monkeypatch, level, width):
    monkeypatch.setenv("EAST_VECTOR", level)
    try:
        toolchain = library.find_toolchain()
    except EastError as error:
        pytest.skip(str(error))
    assert library.build(sources, tmp_path / "cache", toolchain).library.width() == width


def test_the_widest_vectors_of_the_processor_are_chosen(tmp_path, monkeypatch):
    monkeypatch.delenv("EAST_VECTOR", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    for flags, level in [
        ("avx2 fma avx512f avx512dq avx512bw avx512vl", "avx512"),
        ("avx2 fma avx512f", "avx2"),
        ("avx2", "baseline"),
    ]:
        cpuinfo.write_text(f"model name\t: any\nflags\t\t: fpu {flags} erms\nbugs\t: none\n")
        assert library.vector_level(cpuinfo) == level
        assert library.lacks_fused_operations(cpuinfo) == ("fma" not in flags)
        assert library.vector_level(cpuinfo, "aarch64") == "baseline", "an emulator shows the host's processor"
        assert not library.lacks_fused_operations(cpuinfo, "aarch64")
    assert library.vector_level(tmp_path / "nothing") == "baseline"


def test_a_processor_without_fused_operations_is_told_once(sources, outcome_forgotten, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(library, "SOURCES", sources)
    monkeypatch.setattr(library, "lacks_fused_operations", lambda: True)
    monkeypatch.setenv("EAST_CACHE_DIR", str(tmp_path / "cache"))
    library.load_kernels()
    library.load_kernels()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("note: this processor has no fused multiply-add: training gives the same numbers")


@pytest.mark.parametrize(("level", "problem"), [("mmx", "not a vector level"), ("avx512", "this processor lacks")])
def test_a_vector_level_that_cannot_be_used_is_refused(tmp_path, monkeypatch, level, problem):
    monkeypatch.setenv("EAST_VECTOR", level)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text("flags : avx2 fma\n")
    with pytest.raises(EastError, match=f"{problem}. Choose one of avx2, baseline"):
        library.vector_level(tmp_path / "cpuinfo")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_second_openmp_runtime_is_loaded_and_pytorchs_number_of_threads_holds(sources, tmp_path, toolchain):
    assert toolchain.openmp in {Path(file).resolve() for file in openmp_runtimes()}
    before, threads = openmp_runtimes(), torch.get_num_threads()
    kernels = library.build(sources, tmp_path / "cache", toolchain)
    assert openmp_runtimes() == before
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            assert kernels.library.threads() == number
    finally:
        torch.set_num_threads(threads)


def test_elsewhere_than_on_linux_pytorchs_runtime_is_not_used(monkeypatch, toolchain):
    assert toolchain.openmp is not None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert library.find_toolchain().openmp is None


def test_pytorchs_runtime_is_not_used_if_the_compilers_code_cannot_call_it():
    assert library.openmp_runtime("no_such_entry") is None


def test_extra_flags_come_last(monkeypatch):
    monkeypatch.setenv("EAST_KERNEL_FLAGS", "-g -O1")
    assert library.find_toolchain().flags[-2:] == ("-g", "-O1")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"EAST_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/east"),
        ({"HOME": "/c"}, "/c/.cache/east"),
    ],
)
def test_the_cache_folder_is_the_most_specific_one(monkeypatch, variables, folder):
    for name in ("EAST_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert library.cache_folder() == Path(folder)


# Commands


def test_a_command_that_is_not_there_has_failed_with_the_reason():
    good, bad = run_all([["sh", "-c", "echo said; exit 3"], ["/nowhere/c++"]])
    assert (good.returncode, good.stdout) == (3, "said\n")
    assert bad.returncode == 1
    assert "No such file" in bad.stdout


def test_what_is_ended_starts_nothing_any_more():
    running = Running()
    with running.started(["sleep", "9"]) as process:
        running.end()
        assert process.wait() == -signal.SIGTERM
    assert run(["echo", "said"], running).stdout == f"[Errno {errno.ECANCELED}] Operation canceled: 'echo'"


def test_a_command_ends_with_the_block_that_waits_for_it():
    with pytest.raises(KeyboardInterrupt), Running().started(["sleep", "9"]) as process:
        raise KeyboardInterrupt
    assert process.wait() == -signal.SIGTERM


def test_without_a_home_there_is_no_cache_folder(monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    for name in ("EAST_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert library.cache_folder() is None
