"""The results of the GPU suite as Markdown."""

from collections.abc import Callable, Sequence

from benchmarks.gpu_suite.findings import (
    Check,
    EpochTimes,
    Facts,
    Hours,
    Note,
    PartRecord,
    Quiet,
    Rate,
    Results,
    Resumed,
    StepTimes,
    TestRun,
    Throughput,
    WayName,
    Work,
)
from benchmarks.gpu_suite.floors import floor
from benchmarks.results import Spread, spread

ABSENT = "–"
MS = 1e3
TERA = 1e12

REHEARSAL = (
    "**A rehearsal on the CPU: tiny networks, few repetitions, Triton's interpreter. It shows that every part runs. "
    "No number in it measures anything.**"
)


def render(results: Results) -> str:
    """A Markdown document of everything that was found so far.

    Times are medians, with the lower and the upper quartile in brackets; ratios are of the same round.
    """
    sections = [_heading(results), _parts(results), _verdicts(results)]
    sections += [
        section(results)
        for section in (_rates, _epochs, _hours, _steps, _floors, _together, _resumed, _tests, _checks, _quiet, _notes)
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _heading(results: Results) -> str:
    lines = [f"# The GPU suite on {results.device}"]
    if results.dry:
        lines.append(REHEARSAL)
    for facts in results.all(Facts):
        versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items() if version)
        gpu = (
            f"compute capability {facts.capability}, {facts.multiprocessors} multiprocessors, "
            f"{facts.memory_gb:.0f} GB, second-level cache {facts.cache_mb:.0f} MB; "
            if facts.capability and facts.memory_gb and facts.cache_mb
            else ""
        )
        lines.append(
            f"{facts.device}: {gpu}{facts.cores} CPU cores ({facts.processor}), {facts.platform}; {versions}; commit "
            f"{facts.commit}; at the start load {facts.load:.1f}"
            + (f" and {facts.held_gb:.1f} GB of the GPU's memory in use." if facts.held_gb is not None else ".")
        )
    lines.append(
        f"{results.date}, {results.minutes:.1f} of at most {results.budget:.1f} minutes. Times are medians with "
        "quartiles in brackets; what is compared was timed in turn, round by round, in one process."
    )
    return "\n\n".join(lines)


def _parts(results: Results) -> str:
    rows = [
        [part.title, part.state, f"{part.seconds:.0f} s", f"{part.limit:.0f} s", part.error or ""]
        for part in results.parts
        if part.name != "hours"
    ]
    return table(["part", "", "took", "at most", ""], rows)


def _verdicts(results: Results) -> str:
    """How many things were right, of those that can be wrong."""
    rows = []
    checks: tuple[tuple[str, Sequence[Check | Quiet | Resumed], Callable[..., bool]], ...] = (
        ("comparisons with float64 and between ways of stepping", results.all(Check), lambda found: found.passed),
        ("trainings without synchronisation and recompilation", results.all(Quiet), lambda found: found.passed),
        ("promises of a run that is killed and resumed", results.all(Resumed), lambda found: found.kept),
    )
    tests: list[TestRun] = results.all(TestRun)
    if tests:
        failed = sum(test.failed for test in tests)
        rows.append(["tests of kernels", str(sum(test.passed for test in tests)), str(failed)])
    for what, found, is_right in checks:
        if found:
            right = sum(is_right(one) for one in found)
            rows.append([what, str(right), str(len(found) - right)])
    return table(["", "right", "wrong"], rows)


def _rates(results: Results) -> str:
    rates: list[Rate] = results.all(Rate)
    rows = [[_rate_name(rate), rate.size, _rate_value(rate)] for rate in rates]
    return titled("Rates", table(["", "of", "measured"], rows))


def _rate_name(rate: Rate) -> str:
    return "copy, read and written" if rate.what == "copy" else f"matrix product, {rate.what}"


def _rate_value(rate: Rate) -> str:
    found = spread(tuple(value / TERA for value in rate.values))
    return f"{_spread(found)} {'TB/s' if rate.unit == 'B/s' else 'TFLOP/s'}"


def _steps(results: Results) -> str:
    """A table for each group that was timed in turn."""
    parts = []
    for group, own in _groups(results).items():
        _, network, method, batch, density = group
        reference = _reference(own)
        header = ["way", "step", f"{reference.way} / this"]
        header += ["executed by", "memory"]
        rows = []
        for one in own:
            row = [str(one.way), _milliseconds(one.spread), _quotient(reference.seconds, one.seconds)]
            rows.append([*row, one.executed_by, ABSENT if one.megabytes is None else f"{one.megabytes:,.0f} MB"])
        rounds = max(len(one.seconds) for one in own)
        parts.append(
            f"### {network}, {method}, batch {batch}, density {density:g}\n\n{table(header, rows)}\n\n"
            f"{rounds} round{'s' if rounds > 1 else ''}."
        )
    return titled("Seconds of a step", "\n\n".join(parts))


def _groups(results: Results) -> dict[tuple[str, str, str, int, float], list[StepTimes]]:
    """What was timed in turn: part, network, method, batch and density -> times, one a way."""
    groups: dict[tuple[str, str, str, int, float], list[StepTimes]] = {}
    for part in results.parts:
        for one in part.findings:
            # What is compiled is timed pair by pair.
            if isinstance(one, StepTimes):
                numerics = one.way.numerics if part.name == "compiled-times" else ""
                key = (f"{part.name} {numerics}", one.network, one.method, one.batch, one.density)
                groups.setdefault(key, []).append(one)
    return groups


def _reference(times: Sequence[StepTimes]) -> StepTimes:
    """The authors' way with TF32 convolutions, which PyTorch uses unless it is told otherwise; else the first way."""
    authors = WayName(engine="authors", stepping="eager", numerics="tf32")
    return next((one for one in times if one.way == authors), times[0])


def _floors(results: Results) -> str:
    """Steps over what must be computed and moved, at the rates of this run."""
    rates: dict[str, float] = {rate.what: rate.median for rate in results.all(Rate)}
    if not {"copy", "bf16", "tf32", "fp32"} <= rates.keys():
        return ""
    rows = []
    works = {(work.network, work.batch, work.density): work for work in results.all(Work)}
    for work in works.values():
        for one in results.all(StepTimes):
            if (one.network, one.batch, one.density, one.method) != (work.network, work.batch, work.density, "RigL"):
                continue
            rows.append(_floor_row(work, one, rates))
    header = ["network", "batch", "density", "way", "step", "arithmetic", "step / it", "bytes", "step / it"]
    header += ["bytes of our kernels", "step / it"]
    note = (
        "Arithmetic: operations of all weights over the measured rate of matrix products. Bytes: for `dense` and the "
        "authors those of activations with all pointwise work fused, for `sparse` those that any step on the non-zeros "
        "must move; of our kernels: what they move by their own count. Each over the measured rate of a copy. Caches "
        "are not credited."
    )
    return titled("Floors", f"{table(header, rows)}\n\n{note}") if rows else ""


def _floor_row(work: Work, one: StepTimes, rates: dict[str, float]) -> list[str]:
    engine = one.executed_by if one.executed_by in ("dense", "sparse", "authors") else one.way.engine
    least = floor(work, engine, one.way.numerics, rates)  # type: ignore[arg-type]
    row = [one.network, str(one.batch), f"{one.density:g}", str(one.way), _milliseconds(one.spread)]
    for seconds in (least.arithmetic, least.memory, least.kernels):
        row += [f"{seconds * MS:.3g} ms", f"{one.median / seconds:.3g}"] if seconds else [ABSENT, ABSENT]
    return row


def _epochs(results: Results) -> str:
    parts = []
    for part in results.parts:
        # Each round is found anew with those before it.
        latest = {(one.network, one.way): one for one in part.findings if isinstance(one, EpochTimes)}
        networks = dict.fromkeys(network for network, _ in latest)
        parts += [_epoch_table(name, [one for one in latest.values() if one.network == name]) for name in networks]
    return titled("Seconds of an epoch", "\n\n".join(parts))


def _epoch_table(network: str, times: Sequence[EpochTimes]) -> str:
    authors = [one for one in times if one.way.engine == "authors"]
    header = ["way", "epoch of training", *(f"{one.way} / this" for one in authors)]
    header += ["evaluation", "mask update", "checkpoint"]
    rows = []
    for one in times:
        row = [str(one.way), _seconds(one.training)]
        row += [_quotient(other.training, one.training) for other in authors]
        rows.append([*row, _seconds(one.evaluation), _seconds(one.update), _seconds(one.saving)])
    return f"### {network}: {times[0].images:,} images, {times[0].steps} steps\n\n{table(header, rows)}"


def _hours(results: Results) -> str:
    hours: list[Hours] = results.all(Hours)
    rows = [
        [
            str(one.way),
            str(one.runs),
            f"{one.hours:.1f}",
            f"{one.processes}{' with MPS' if one.mps else ''}",
            f"{one.hours_at_best:.1f}",
            one.note,
        ]
        for one in hours
    ]
    header = ["way", "runs", "hours, one after the other", "processes at best", "hours with them", ""]
    note = (
        "Computed from the seconds above, not measured: steps of each density, mask updates, an evaluation and a "
        "checkpoint an epoch; for the authors' way steps alone."
    )
    return titled("Hours of Tables 2-5 that follow", f"{table(header, rows)}\n\n{note}") if rows else ""


def _together(results: Results) -> str:
    found: list[Throughput] = results.all(Throughput)
    alone = {one.way: one.total for one in found if one.processes == 1 and not one.mps}
    rows = [
        [
            one.network,
            str(one.way),
            str(one.processes),
            "yes" if one.mps else "no",
            f"{one.total:,.1f}",
            f"{one.total / alone[one.way]:.2f}" if one.way in alone else ABSENT,
        ]
        for one in found
    ]
    header = ["network", "way", "processes", "MPS", "steps a second, all together", "against one process"]
    return titled("Several processes on the GPU", table(header, rows))


def _resumed(results: Results) -> str:
    found: list[Resumed] = results.all(Resumed)
    return titled(
        "Killed and resumed", table(["promise", "kept", ""], [[one.promise, _yes(one.kept), one.note] for one in found])
    )


def _tests(results: Results) -> str:
    rows = [
        [one.file, str(one.passed), str(one.failed), str(one.skipped), "; ".join(one.failures)]
        for one in results.all(TestRun)
    ]
    return titled("Tests of kernels", table(["file", "passed", "failed", "skipped", ""], rows))


def _checks(results: Results) -> str:
    rows = [
        [
            one.what,
            one.network,
            str(one.way) if one.way else ABSENT,
            ABSENT if one.error is None else f"{one.error:.1e}",
            f"{one.bound:.1e}",
            _yes(one.passed),
            one.note,
        ]
        for one in results.all(Check)
    ]
    return titled("Comparisons", table(["what", "network", "way", "relative error", "bound", "right", ""], rows))


def _quiet(results: Results) -> str:
    rows = [
        [
            one.network,
            str(one.way),
            str(one.steps),
            one.trouble or "none",
            str(one.recorded),
            str(one.compiled),
            _yes(one.passed),
        ]
        for one in results.all(Quiet)
    ]
    header = ["network", "way", "steps", "trouble", "recorded again", "compiled again", "right"]
    changed = "".join(f"\n\nBetween the steps changed: {text}." for text in {one.changed for one in results.all(Quiet)})
    return (
        titled("No synchronisation, nothing compiled or captured again", table(header, rows) + changed) if rows else ""
    )


def _notes(results: Results) -> str:
    notes: list[Note] = results.all(Note)
    return titled("What was left out", "\n".join(f"- {note.about}: {note.text}" for note in notes))


def titled(title: str, body: str) -> str:
    """A section, or nothing where there is nothing in it."""
    return f"## {title}\n\n{body}" if body else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, or nothing where it has no rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def failed_parts(results: Results) -> list[PartRecord]:
    """Parts that ended with an error."""
    return [part for part in results.parts if part.state == "failed"]


def _quotient(over: Sequence[float], under: Sequence[float]) -> str:
    """Of the rounds that both have."""
    if not over or not under:
        return ABSENT
    return _spread(spread(tuple(a / b for a, b in zip(over, under, strict=False))))


def _milliseconds(value: Spread) -> str:
    return f"{value.median * MS:.3g} ms ({value.lower * MS:.3g}–{value.upper * MS:.3g})"


def _seconds(values: Sequence[float]) -> str:
    return f"{_spread(spread(tuple(values)))} s" if values else ABSENT


def _spread(value: Spread) -> str:
    return f"{value.median:.3g} ({value.lower:.3g}–{value.upper:.3g})"


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"
