"""The tables of what `benchmarks.step` finds.

Results are what their JSON holds: `machine`, `date`, `minutes`, `short`, `image_shape` and `batch_size`; `cells`, one a
network and number of threads, with the seconds of each round in `timings`; and `peaks`, in megabytes of 2^20 bytes
since before the network was built.
"""

import statistics
from typing import Any

from benchmarks.results import ABSENT, markdown, milliseconds, ratio, spread
from benchmarks.variants import VariantName

PYTORCH: tuple[VariantName, ...] = ("pytorch", "pytorch-channels-last")

SPARSE: tuple[VariantName, ...] = ("sparse", "sparse-bf16")
"""The sparse engine, with activations in float32 and in bfloat16."""

BYTES_MOVED: dict[VariantName, str] = {"sparse": "bytes_moved", "sparse-bf16": "bytes_moved_bf16"}
"""Variant -> the key of the bytes that its step moves at least."""

LABELS: dict[VariantName, str] = {
    "sparse": "ours, sparse",
    "sparse-bf16": "ours, sparse, bf16",
    "dense": "ours, masked dense",
    "pytorch": "PyTorch, no masks, contiguous",
    "pytorch-channels-last": "PyTorch, no masks, channels-last",
    "pytorch-bf16": "PyTorch, no masks, bf16 autocast",
    "peer": "weight × mask every step",
}
"""Variant -> how the tables call it."""

GB = 1e9

Results = dict[str, Any]
Seconds = dict[tuple[VariantName | None, bool, float | None], list[float]]
"""(variant, whether it clips, density or None where the time does not depend on it) -> seconds, one a round."""


def render(results: Results) -> str:
    """A Markdown document of everything that was found.

    Times are medians over rounds. Ratios are medians of the quotients of each round, with the lower and the upper
    quartile in brackets.
    """
    machine, (channels, height, width) = results["machine"], results["image_shape"]
    rounds = len(results["cells"][0]["timings"][0]["seconds"])
    warning = "\n\nA short run on narrow networks and small images. Its times mean nothing." if results["short"] else ""
    parts = [
        f"# Training steps of batch {results['batch_size']}, images {channels} x {height} x {width}{warning}",
        f"{machine['processor']}, {_count(machine['cores'], 'core')}, {machine['platform']}; Python "
        f"{machine['python']}, PyTorch {machine['torch']}; kernels by {machine['compiler']} for {machine['vector']}; "
        f"commit {machine['commit']}. {results['date']}: {_count(rounds, 'round')} in {results['minutes']:.1f} "
        f"minutes, load {machine['load']:.1f} at the start. Times are medians over rounds, ratios medians of the "
        "quotients of each round, with quartiles in brackets.",
    ]
    for cell in results["cells"]:
        times: Seconds = {(one["variant"], one["clip"], one["density"]): one["seconds"] for one in cell["timings"]}
        parts.append(f"## {cell['label']}, {_count(cell['threads'], 'thread')}")
        tables = [_sparse_table(cell, times, variant) for variant in SPARSE if variant in {name for name, *_ in times}]
        bandwidth = f"Measured copy bandwidth: {cell['copy_bandwidth'] / GB:.1f} GB/s, read and written."
        parts += [*tables, bandwidth, _dense_table(times)]
    labels = {cell["network"]: cell["label"] for cell in results["cells"]}
    rows = []
    for peak in results["peaks"]:
        density = "" if peak["density"] is None else f", density {peak['density']:g}"
        rows.append([labels[peak["network"]], LABELS[peak["variant"]] + density, f"{peak['megabytes']:,.0f} MB"])
    parts += ["## Peak memory", markdown(["network", "variant", "peak memory"], rows)]
    return "\n\n".join(parts) + "\n"


def _sparse_table(cell: Results, times: Seconds, variant: VariantName) -> str:
    rows, first, name = [], cell["floors"][0]["density"], LABELS[variant].removeprefix("ours, ")
    for floor in sorted(cell["floors"], key=lambda floor: floor["density"]):
        density = floor["density"]
        row = {"density": f"{density:g}", "non-zeros": f"{floor['nonzeros']:,}"}
        for clip, suffix in ((False, ""), (True, ", clip")):
            sparse = times.get((variant, clip, density))
            row[f"{name} step{suffix}"] = _time(sparse)
            if not clip:
                row[f"step / at {first:g}"] = _ratio(sparse, times.get((variant, False, first)))
            others = {
                "PyTorch": times.get((_fastest_pytorch(times, clip), clip, None)),
                "PyTorch bf16": times.get(("pytorch-bf16", clip, None)),
                "masked dense": times.get(("dense", clip, None)),
                "weight × mask": times.get(("peer", clip, None)),
                "sparse fp32": None if variant == "sparse" else times.get(("sparse", clip, density)),
            }
            for label, other in others.items():
                if other is not None or label == "masked dense":
                    row[f"{label}{suffix} / {name}{suffix}"] = _ratio(other, sparse)
        row |= {"floor": ABSENT, f"{name} step / floor": ABSENT}
        moved, plain = floor[BYTES_MOVED[variant]], times.get((variant, False, density))
        if moved is not None and plain is not None:
            least = moved / cell["copy_bandwidth"]
            row["floor"] = f"{moved / GB:.2f} GB, {milliseconds(least)}"
            row[f"{name} step / floor"] = str(spread([seconds / least for seconds in plain]))
        rows.append(row)
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


def _dense_table(times: Seconds) -> str:
    fastest = _fastest_pytorch(times, False)
    header = ["executes every weight", "step", "step, clip"]
    header += [f"step / {LABELS[fastest]}"] if fastest else []
    rows = []
    for (variant, clip, density), seconds in times.items():
        if variant is not None and density is None and not clip:
            row = [LABELS[variant], _time(seconds), _time(times.get((variant, True, None)))]
            rows.append(row + ([_ratio(seconds, times[fastest, False, None])] if fastest else []))
    return markdown(header, rows)


def _fastest_pytorch(times: Seconds, clip: bool) -> VariantName | None:
    """Plain PyTorch in the layout whose median is smaller, if it was timed."""
    found = [name for name in PYTORCH if (name, clip, None) in times]
    return min(found, key=lambda name: statistics.median(times[name, clip, None]), default=None)


def _time(seconds: list[float] | None) -> str:
    return ABSENT if seconds is None else milliseconds(statistics.median(seconds))


def _ratio(over: list[float] | None, under: list[float] | None) -> str:
    return ABSENT if over is None or under is None else str(ratio(over, under))


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
