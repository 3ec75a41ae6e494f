"""Checks of the compiler and of the kernels that it makes for the CPU."""

from collections.abc import Iterator

from east.operations.doctor.devices import on_gpu
from east.operations.doctor.finding import Finding
from east.operations.doctor.surroundings import Surroundings


def kernels(here: Surroundings) -> Iterator[Finding]:
    """The kernels compile, load, use all threads, and are kept for the next process."""
    execution = here.plan.config.execution
    if execution.engine == "dense":
        yield Finding("ok", "no kernels are needed: execution.engine is dense")
        return
    if on_gpu(here):
        yield Finding("ok", "no kernels for the CPU are needed on a GPU")
        return
    facts = here.ask.probe("kernels")
    if "problem" in facts:
        missing_torch = "problem" in here.ask.probe("torch")
        cause = "PyTorch cannot be imported" if missing_torch else str(facts["problem"])
        yield Finding(
            "note" if missing_torch else "error",
            f"the kernels cannot be looked at: {cause}",
            why="" if missing_torch else "A training would end in the same way.",
            mend="" if missing_torch else "Set `execution.engine: dense`, and report what ended the process.",
        )
    elif "refused" in facts:
        refused = str(facts["refused"])  # begins with the variable that asks for it
        yield Finding(
            "error", refused, why="Every training would refuse to start.", mend=f"unset {refused.partition(' ')[0]}"
        )
    elif not facts["available"]:
        yield Finding(
            "warning",
            f"no kernels: {facts['reason']}",
            why="Every weight is executed, active or not, which is many times slower.",
            mend="unset CXX" if facts["compiler"] is None and "CXX" in here.ask.environment else "apt install g++",
        )
    else:
        yield Finding("ok", f"kernels made by {facts['compiler']} for {facts['vector']}")
        if facts["reason"]:
            yield Finding(
                "warning", str(facts["reason"]), why="The kernels run on one thread only.", mend="export CXX=g++"
            )
        if not facts["cached"]:
            yield Finding(
                "warning",
                f"compiled kernels cannot be kept in {facts['cache'] or 'a cache: there is no home folder'}",
                why="Every training compiles them anew.",
                mend="export EAST_CACHE_DIR=<a folder that may be written>",
            )
